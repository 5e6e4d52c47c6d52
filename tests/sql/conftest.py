"""Shared sessions for tests without a database of their own: pure functions, and rollbacks."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.stage import Stage


@pytest.fixture(scope="session")
def calculator(postgres: EmbeddedPostgres, template: str) -> Iterator[psycopg.Connection]:
    """Yield one autocommit session for all of them, which hypothesis may use for many examples."""
    name = "lakets_calculator"
    with psycopg.connect(postgres.ensure_database(name, template=template), autocommit=True) as session:
        yield session
    postgres.drop_database(name)


@pytest.fixture(scope="module", params=["UTC", "America/New_York", "Asia/Kathmandu"])
def zoned(calculator: psycopg.Connection, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection]:
    """Yield that session in one time zone after the other: no result may depend on it."""
    with _in_zone(calculator, request.param):
        yield calculator


@pytest.fixture
def utc(calculator: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """Yield that session in UTC."""
    with _in_zone(calculator, "UTC"):
        yield calculator


@contextlib.contextmanager
def _in_zone(conn: psycopg.Connection, zone: str) -> Iterator[None]:
    before = conn.execute("SELECT current_setting('timezone')").fetchone()
    assert before is not None
    conn.execute("SELECT set_config('timezone', %s, false)", [zone])
    yield
    conn.execute("SELECT set_config('timezone', %s, false)", before)


@pytest.fixture(scope="module")
def sandbox(postgres: EmbeddedPostgres, template: str) -> Iterator[psycopg.Connection]:
    """Yield one session per module: rollbacks leave dead catalog rows, which slow it down."""
    name = "lakets_sandbox"
    with psycopg.connect(postgres.ensure_database(name, template=template), autocommit=True) as session:
        session.execute("SET client_min_messages = error")
        yield session
    postgres.drop_database(name)


@pytest.fixture
def db(sandbox: psycopg.Connection) -> Iterator[Sandbox]:
    """Yield a database with LakeTS that undoes the test, for a tenth of the cost of a new one."""
    with sandbox.transaction(force_rollback=True):
        yield Sandbox(sandbox)


@pytest.fixture
def kept(stage: Stage) -> Stage:
    """Make a ChronoTable with four chunks that are due, and gather what is warned of."""
    stage.table()
    stage.run("SELECT lakets.add_retention_policy('metrics', '2 days')")
    stage.run("SET client_min_messages = warning")
    return stage


@pytest.fixture
def warned(kept: Stage) -> list[str]:
    texts: list[str] = []
    kept.conn.add_notice_handler(lambda notice: texts.append(str(notice.message_primary)))
    return texts
