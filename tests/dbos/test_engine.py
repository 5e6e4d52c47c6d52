"""The engine for DBOS programs: its host, role, credentials and the lifetime of its sessions."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool, StaticPool

from airflow_provider_lakets.dbos import create_lakebase_async_engine, create_lakebase_engine
from airflow_provider_lakets.exceptions import (
    LakebaseCredentialError,
    LakebaseResolutionError,
    LakebaseSettingError,
)
from airflow_provider_lakets.local.api.faults import FaultName
from airflow_provider_lakets.login.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_lakets.local.client import LocalServer

WHO = "SELECT current_user, current_database()"


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the sessions of each engine that a test makes."""
    made: list[sa.Engine] = []
    create = sa.create_engine

    def note(*args: Any, **options: Any) -> sa.Engine:
        made.append(create(*args, **options))
        return made[-1]

    monkeypatch.setattr(sa, "create_engine", note)
    yield
    for engine in made:
        engine.dispose()


@pytest.fixture
def minted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the minted credentials, in order."""
    tokens: list[str] = []
    post = Workspace.post

    def note(self: Workspace, path: str, body: dict[str, Any]) -> Any:
        answer = post(self, path, body)
        if path.endswith("/credentials"):
            tokens.append(str(answer.secret("token")))
        return answer

    monkeypatch.setattr(Workspace, "post", note)
    return tokens


def one(engine: sa.Engine, query: str) -> Any:
    with engine.connect() as conn:
        return tuple(conn.execute(sa.text(query)).one())


@pytest.fixture
def places(lake: LocalServer, url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return each way to specify the database."""
    monkeypatch.setenv("PGPORT", str(lake.state.port))  # the local endpoint does not listen on 5432
    return {
        "string": lambda: create_lakebase_engine(url),
        "string and endpoint": lambda: create_lakebase_engine(url, lake.state.endpoint),
        "endpoint": lambda: create_lakebase_engine(endpoint=lake.state.endpoint),
        "string with a driver": lambda: create_lakebase_engine(
            url.replace("postgresql:", "postgresql+psycopg2:")
        ),
        "string with white space": lambda: create_lakebase_engine(f"  {url}\n"),
        "short scheme": lambda: create_lakebase_engine(url.replace("postgresql:", "postgres:")),
    }


@pytest.mark.parametrize(
    "place",
    [
        "string",
        "string and endpoint",
        "endpoint",
        "string with a driver",
        "string with white space",
        "short scheme",
    ],
)
def test_logs_in_where_it_is_told(lake: LocalServer, places: dict[str, Any], place: str) -> None:
    engine = places[place]()

    assert one(engine, WHO) == (lake.state.owner.client_id, "databricks_postgres")
    engine.dispose()


@pytest.mark.parametrize("variables", [("url",), ("url", "endpoint"), ("endpoint",), ("ours",)], ids="+".join)
def test_logs_in_where_the_environment_says(
    lake: LocalServer, url: str, monkeypatch: pytest.MonkeyPatch, variables: tuple[str, ...]
) -> None:
    values = {
        "url": ("DBOS_SYSTEM_DATABASE_URL", url),
        "endpoint": ("DATABRICKS_LAKEBASE_ENDPOINT", lake.state.endpoint),
        "ours": ("LAKETS_LAKEBASE_ENDPOINT", lake.state.endpoint),
    }
    monkeypatch.setenv("PGPORT", str(lake.state.port))
    for name in variables:
        monkeypatch.setenv(*values[name])

    assert one(create_lakebase_engine(), WHO) == (lake.state.owner.client_id, "databricks_postgres")


def test_takes_a_native_password_and_then_asks_no_workspace(
    native_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", "https://nowhere.invalid")
    monkeypatch.setenv("DATABRICKS_LAKEBASE_ENDPOINT", "projects/other/branches/a/endpoints/b")

    engine = create_lakebase_engine(native_url)

    assert one(engine, "SELECT current_database()") == ("databricks_postgres",)
    assert "word" not in repr(engine.url)


def test_each_physical_login_has_a_credential_of_its_own(url: str, minted: list[str]) -> None:
    engine = create_lakebase_engine(url, pool_size=2)

    with engine.connect(), engine.connect():
        assert len(set(minted)) == len(minted) == 2
    with engine.connect(), engine.connect():  # out of the pool: nothing is minted
        assert len(minted) == 2
    engine.dispose()
    with engine.connect():
        assert len(set(minted)) == len(minted) == 3


def test_sessions_outlive_what_they_logged_in_with(lake: LocalServer, url: str, minted: list[str]) -> None:
    engine = create_lakebase_engine(url)
    with engine.connect() as open_before:
        lake.fault(FaultName.TOKEN_EXPIRED)
        with pytest.raises(LakebaseCredentialError), engine.connect():
            pass
        assert open_before.execute(sa.text("SELECT 'alive'")).scalar_one() == "alive"
        lake.clear_faults()
        with engine.connect() as fresh:
            assert fresh.execute(sa.text("SELECT 'alive'")).scalar_one() == "alive"


def test_has_the_settings_of_the_engine_that_dbos_makes_itself(url: str) -> None:
    engine = create_lakebase_engine(url)
    settings = one(
        engine,
        "SELECT current_setting('idle_in_transaction_session_timeout'), current_setting('application_name')",
    )

    assert settings == ("1min", "dbos_transact")
    assert isinstance(engine.pool, sa.QueuePool)
    assert (engine.pool.size(), engine.pool._max_overflow, engine.pool._pre_ping) == (20, 0, True)
    assert engine.pool._recycle < 3600


def test_what_the_author_says_wins(url: str) -> None:
    more = "&application_name=mine&options=-c%20idle_in_transaction_session_timeout%3D5s"
    engine = create_lakebase_engine(f"{url}{more}", pool_size=3, pool_recycle=60)

    assert one(
        engine,
        "SELECT current_setting('idle_in_transaction_session_timeout'), current_setting('application_name')",
    ) == ("5s", "mine")
    assert isinstance(engine.pool, sa.QueuePool)
    assert (engine.pool.size(), engine.pool._recycle) == (3, 60)


@pytest.mark.parametrize("pool", [NullPool, StaticPool])
def test_takes_another_kind_of_pool(url: str, pool: type[sa.Pool]) -> None:
    engine = create_lakebase_engine(url, poolclass=pool)

    assert isinstance(engine.pool, pool)
    assert one(engine, "SELECT 1") == (1,)
    engine.dispose()


def test_async_twin_logs_in_the_same_way(lake: LocalServer, url: str, minted: list[str]) -> None:
    async def ask() -> tuple[Any, ...]:
        engine = create_lakebase_async_engine(url, pool_size=2)
        async with engine.connect() as one, engine.connect() as two:
            await two.execute(sa.text("SELECT 1"))
            row = (await one.execute(sa.text(WHO))).one()
        await engine.dispose()
        return tuple(row)

    assert asyncio.run(ask()) == (lake.state.owner.client_id, "databricks_postgres")
    assert len(set(minted)) == 2


def test_a_login_that_fails_says_why_and_shows_no_secret(native_url: str) -> None:
    engine = create_lakebase_engine(native_url.replace("p%40ss", "wrong-secret"))

    with pytest.raises(LakebaseCredentialError, match="database_url") as failure, engine.connect():
        pass
    assert "wrong-secret" not in str(failure.value)
    assert failure.value.__context__ is None


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "nothing": ({}, LakebaseSettingError, "DBOS_SYSTEM_DATABASE_URL.*DATABRICKS_LAKEBASE_ENDPOINT"),
    "empty string": ({"database_url": " "}, LakebaseSettingError, "database_url is empty"),
    "empty endpoint": ({"endpoint": ""}, LakebaseSettingError, "endpoint is empty"),
    "other database": ({"database_url": "mysql://me@h/db"}, LakebaseSettingError, "not a connection string"),
    "SQLite": ({"database_url": "sqlite:///x"}, LakebaseSettingError, "not a connection string"),
    "libpq's own form": (
        {"database_url": "host=h dbname=d"},
        LakebaseSettingError,
        "not a connection string",
    ),
    "misspelt setting": (
        {"database_url": "postgresql://me@h/db?sslmod=require"},
        LakebaseSettingError,
        "sslmode",
    ),
    "place in connect_args": (
        {"database_url": "postgresql://me@h/db", "connect_args": {"host": "other"}},
        LakebaseSettingError,
        "host",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_refuses_at_once_what_cannot_be(case: str) -> None:
    arguments, kind, message = WRONG[case]

    with pytest.raises(kind, match=message):
        create_lakebase_engine(**arguments)
    with pytest.raises(kind, match=message):
        create_lakebase_async_engine(**arguments)


def test_an_endpoint_that_is_none_is_told_with_the_first_login(url: str) -> None:
    engine = create_lakebase_engine(url, "projects/nope/branches/b/endpoints/e")

    with pytest.raises((LakebaseResolutionError, LakebaseCredentialError), match="nope"), engine.connect():
        pass


@pytest.fixture
def empty_home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "airflow"
    yield home
    assert not home.exists(), "Airflow made its home"


def test_a_program_needs_neither_airflow_nor_dbos(url: str, empty_home: Path) -> None:
    code = (
        "import os, sys; from airflow_provider_lakets.dbos import create_lakebase_engine\n"
        "engine = create_lakebase_engine(os.environ['URL'])\n"
        "with engine.connect() as conn: print(conn.exec_driver_sql('SELECT current_user').scalar_one())\n"
        "print({name.split('.')[0] for name in sys.modules} & {'airflow', 'dbos'} or 'none')"
    )
    environ = {**os.environ, "URL": url, "AIRFLOW_HOME": str(empty_home)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[1] == "none"
