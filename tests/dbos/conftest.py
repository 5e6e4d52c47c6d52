"""DBOS programs on the local Lakebase, with TLS, OAuth and minted credentials."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from airflow_provider_lakets.dbos import poller
from airflow_provider_lakets.dbos.hook import DBOSHook
from tests.dags import conftest as dags
from tests.lakes import new_lake
from tests.superuser import superuser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_lakets.local.client import LocalServer

_numbers = itertools.count()


@pytest.fixture(scope="session")
def lake(postgres_version: int) -> Iterator[LocalServer]:
    """Start one local Lakebase for the whole session."""
    with new_lake(postgres_version) as server:
        yield server


@pytest.fixture(autouse=True)
def environment(lake: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment of a program: the identity of the owner, but no project or endpoint."""
    for name, value in lake.env().items():
        monkeypatch.setenv(name, value)
    for name in ("LAKETS_LAKEBASE_ENDPOINT", "PGPORT", "DBOS_SYSTEM_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("DATABRICKS_LAKEBASE_ENDPOINT", raising=False)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make triggers poll sooner, because each is alone here."""
    monkeypatch.setattr(poller, "GATHER_SECONDS", 0.01)


@pytest.fixture
def url(lake: LocalServer) -> str:
    """Return the connection string that the console of a Lakebase shows."""
    state = lake.state
    return f"postgresql://{state.owner.client_id}@127.0.0.1:{state.port}/databricks_postgres?sslmode=require"


@pytest.fixture
def admin(lake: LocalServer) -> Iterator[psycopg.Connection]:
    """Yield a session of the superuser, without the proxy."""
    with psycopg.connect(superuser(lake), autocommit=True) as conn:
        yield conn


@pytest.fixture
def native_url(lake: LocalServer, admin: psycopg.Connection) -> Iterator[str]:
    """Yield the connection string of a role whose native password must be encoded in a URL."""
    role = f"native_{next(_numbers)}"
    admin.execute(
        sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), sql.Literal("p@ss/word"))
    )
    yield f"postgresql://{role}:p%40ss%2Fword@127.0.0.1:{lake.state.port}/databricks_postgres?sslmode=require"
    admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


class App:
    """
    The program of a test, in a separate schema; it is killed at the end.

    :param lake: Where its database is.
    :param schema: Of its system tables.
    :param engine: One of ``tests/dbos/shop/engines.py``.
    :param executor: Its id, where several programs are of one application.
    """

    def __init__(
        self, lake: LocalServer, url: str, schema: str, *, engine: str = "ours", executor: str = "local"
    ) -> None:
        self.schema, self.engine = schema, engine
        self.log = lake.folder / f"{schema}-{executor}.log"
        self._environ = {
            **os.environ,
            **lake.env(),
            "APP_URL": url,
            "APP_ENDPOINT": lake.state.endpoint,
            "APP_SCHEMA": schema,
            "APP_ENGINE": engine,
            "APP_EXECUTOR": executor,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self._process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str, version: str = "v1") -> None:
        """Start it, and return when it is ready."""
        command = [sys.executable, "-m", "tests.dbos.shop", *arguments]
        environ = {**self._environ, "APP_VERSION": version}
        with self.log.open("ab") as log:
            self._process = process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=environ
            )
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "ready":
                return
        raise AssertionError(f"the program ended with {process.wait()}:\n{self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """End it as kill -9 does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


class Effects:
    """The steps that a program has begun, and those that are blocked or broken."""

    def __init__(self, admin: psycopg.Connection) -> None:
        self._conn = admin

    def of(self, name: str) -> list[int]:
        """Return the steps that have begun, in their order."""
        rows = self._conn.execute("SELECT step FROM app.effects WHERE name = %s ORDER BY at", [name])
        return [row[0] for row in rows]

    def shut(self, name: str, step: int) -> None:
        self._conn.execute("INSERT INTO app.shut VALUES (%s, %s)", [name, step])

    def open(self, name: str, step: int) -> None:
        self._conn.execute("DELETE FROM app.shut WHERE (name, step) = (%s, %s)", [name, step])

    def break_(self, name: str, step: int) -> None:
        self._conn.execute("INSERT INTO app.broken VALUES (%s, %s)", [name, step])

    def mend(self, name: str, step: int) -> None:
        self._conn.execute("DELETE FROM app.broken WHERE (name, step) = (%s, %s)", [name, step])

    def wait_for(self, name: str, step: int) -> None:
        """Wait until a step has begun."""
        wait_until(lambda: step in self.of(name), f"{name} is in step {step}")


def wait_until(is_so: Callable[[], object], what: str) -> None:
    """Wait until a condition is met."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline, f"not so: {what}"
        time.sleep(0.02)


def make_tables(conn: psycopg.Connection, lake: LocalServer) -> None:
    """Create the tables in which a program counts its steps."""
    owner = sql.Identifier(lake.state.owner.client_id)
    conn.execute("CREATE SCHEMA app")
    conn.execute(
        "CREATE TABLE app.effects (name text, step int, at timestamptz DEFAULT clock_timestamp());"
        "CREATE TABLE app.shut (name text, step int); CREATE TABLE app.broken (name text, step int)"
    )
    conn.execute(sql.SQL("GRANT ALL ON SCHEMA app TO {}").format(owner))
    conn.execute(sql.SQL("GRANT ALL ON ALL TABLES IN SCHEMA app TO {}").format(owner))


@pytest.fixture(scope="session")
def effects(lake: LocalServer) -> Iterator[Effects]:
    with psycopg.connect(superuser(lake), autocommit=True) as conn:
        make_tables(conn, lake)
        yield Effects(conn)


def session_url(lake: LocalServer) -> str:
    state = lake.state
    return f"postgresql://{state.owner.client_id}@127.0.0.1:{state.port}/databricks_postgres?sslmode=require"


@pytest.fixture(scope="module")
def app(lake: LocalServer, effects: Effects) -> Iterator[App]:
    """
    Yield a program that runs for the tests of a module; its system tables are in schema dbos.

    No longer: it looks for work all the time, which takes a third of a core from the tests that
    follow.
    """
    app = App(lake, session_url(lake), "dbos")
    app.start("pickled")
    yield app
    app.kill()


@pytest.fixture
def own_app(lake: LocalServer, effects: Effects) -> Iterator[App]:
    """Yield a program for the test, which does not run yet."""
    app = App(lake, session_url(lake), f"dbos_{next(_numbers)}")
    yield app
    app.kill()


@pytest.fixture
def connection(lake: LocalServer, url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Define lakebase_default for the system database, with OAuth."""
    state = lake.state
    extra = {"sslmode": "require"}
    monkeypatch.setenv(
        "AIRFLOW_CONN_LAKEBASE_DEFAULT",
        json.dumps(
            {
                "conn_type": "lakebase",
                "host": "127.0.0.1",
                "port": state.port,
                "login": state.owner.client_id,
                "schema": "databricks_postgres",
                "extra": extra,
            }
        ),
    )
    return "lakebase_default"


# Whole runs of DAGs, as in the tests of those.
airflow, run = dags.airflow, dags.run


@pytest.fixture
def hook(connection: str) -> Iterator[DBOSHook]:
    """Yield a hook on the system database."""
    hook = DBOSHook(connection)
    yield hook
    hook.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Return the name of the work of a test."""
    return str(request.node.name)
