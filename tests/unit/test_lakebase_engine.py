"""SQLAlchemy's engine on a Lakebase connection, and what goes through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import text

from airflow_provider_lakets.hooks.lakebase import POOLED_SECONDS, LakebaseHook
from tests.needs import SQLALCHEMY_2

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.control_plane import ControlPlane

pytestmark = SQLALCHEMY_2

WHO = "SELECT current_user"


@pytest.fixture
def hook(principal: ControlPlane, define: Callable[..., None]) -> LakebaseHook:
    """Return a hook that logs in with OAuth."""
    define(extra={"project": "weather"})
    return LakebaseHook()


def test_engine_mints_for_each_physical_connection(hook: LakebaseHook, principal: ControlPlane) -> None:
    engine = hook.get_sqlalchemy_engine()

    with engine.connect() as first, engine.connect() as second:
        users = [conn.execute(text(WHO)).scalar() for conn in (first, second)]
    with engine.connect() as again:
        again.execute(text(WHO))
    engine.dispose()

    assert users == [principal.client_id] * 2
    assert len(set(principal.minted)) == 2


def test_engine_recycles_well_before_an_hour_and_takes_arguments(hook: LakebaseHook) -> None:
    engine = hook.get_sqlalchemy_engine({"pool_size": 3})

    assert engine.pool._recycle == POOLED_SECONDS
    assert engine.pool.size() == 3  # type: ignore[attr-defined]


def test_uri_of_an_oauth_connection_holds_no_credential(hook: LakebaseHook, principal: ControlPlane) -> None:
    uri = hook.get_uri()

    assert uri.startswith(f"postgresql+psycopg://{principal.client_id}@:5432/postgres?")
    assert principal.minted == []


def test_uri_of_a_native_connection_logs_in(define: Callable[..., None], postgres: EmbeddedPostgres) -> None:
    define(host=postgres.socket_dir, login="postgres", password="unused", extra={"sslmode": "disable"})

    uri = LakebaseHook().get_uri()

    assert "postgres:unused@:5432/postgres" in uri
    with psycopg.connect(uri.replace("+psycopg", "")) as conn:
        assert conn.execute(WHO).fetchone() == ("postgres",)


def test_data_frame_comes_through_the_engine(
    hook: LakebaseHook, principal: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = hook.get_sqlalchemy_engine()
    monkeypatch.setattr(hook, "get_sqlalchemy_engine", lambda: engine)  # to dispose of it: get_df does not

    frame = hook.get_df("SELECT current_user AS who")
    engine.dispose()

    assert list(frame["who"]) == [principal.client_id]
