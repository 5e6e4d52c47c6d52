"""Promise 17: locks of a role that may only connect do not stop any job."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.isolation.conftest import Session
    from tests.stage import HandFeed, Stage

OTHERS = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
# What a stranger runs in a transaction that stays open.
HOLDS = {
    "a transaction id": "SELECT pg_current_xact_id()",
    "a snapshot": "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT FROM pg_class",
    "a serializable snapshot": "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SELECT FROM pg_class",
    "an exported snapshot": "SELECT pg_export_snapshot()",
    "a cursor over the catalog": "DECLARE c CURSOR FOR SELECT * FROM pg_class, pg_attribute; FETCH c",
    "the catalog": "LOCK TABLE pg_class, pg_inherits IN ACCESS SHARE MODE",
    "the catalog alone": "LOCK TABLE pg_class IN ACCESS EXCLUSIVE MODE",
    "a temporary table": "CREATE TEMP TABLE metrics (v int); LOCK TABLE metrics",
    "a temporary registry": "CREATE TEMP TABLE _chunk_metadata (status text); LOCK TABLE _chunk_metadata",
    "the ChronoTable": "LOCK TABLE metrics IN ACCESS SHARE MODE",
    "a chunk": "LOCK TABLE metrics_20240101_000000 IN ACCESS SHARE MODE",
    "the shadow": "LOCK TABLE lakets_cdf._shadow_metrics IN ACCESS SHARE MODE",
    "a registry": "LOCK TABLE lakets._chunk_metadata IN ACCESS SHARE MODE",
    "a registry row": "SELECT FROM lakets._chunk_metadata FOR SHARE",
    "the RollUp": "LOCK TABLE _rollup_hourly IN ACCESS SHARE MODE",
    "a row of the feed": "SELECT FROM wal2delta.tables FOR UPDATE",
    "the lock of the change log": "SELECT pg_advisory_lock(hashtext('lakets change log'), n)"
    " FROM generate_series(1, 9) AS n",
    "the lock of the log, shared": "SELECT pg_advisory_lock_shared(hashtext('lakets change log'), n)"
    " FROM generate_series(1, 9) AS n",
    "locks of another class": "SELECT pg_advisory_lock(hashtext('lakets')::bigint)",
    "an ear": "LISTEN lakets; NOTIFY lakets",
    "a message in the WAL": "SELECT pg_logical_emit_message(true, 'lakets', 'x')",
    "a large object": "SELECT lo_create(0)",
    "settings": "SELECT set_config('lakets.truncating', 'x', false), set_config('lakets.others', 'x', false)",
    "sessions it ends": f"SELECT pg_terminate_backend(pid) {OTHERS}",
    "statements it cancels": f"SELECT pg_cancel_backend(pid) {OTHERS}",
    "a slot": "SELECT pg_create_logical_replication_slot('mine', 'pgoutput')",
    "a publication": "CREATE PUBLICATION mine FOR ALL TABLES",
    "a schema": "CREATE SCHEMA mine",
}


@pytest.fixture
def feed(stage: Stage) -> HandFeed:
    stage.once(make_work)
    return stage.follow()


def make_work(stage: Stage) -> None:
    stage.make_synced()
    stage.rollup("hourly")


@pytest.fixture
def stranger(stage: Stage, sessions: Callable[[str], Session], feed: HandFeed) -> Iterator[Session]:
    """Yield a session of a role without rights."""
    role = f"stranger_{stage.conn.info.dbname}"
    stage.run(f"CREATE ROLE {role}")
    session = sessions("stranger")
    session.run(f"SET SESSION AUTHORIZATION {role}")
    yield session
    session.rollback()
    session.run("RESET SESSION AUTHORIZATION")
    stage.run(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("hold", HOLDS)
def test_jobs_go_on_whatever_a_stranger_holds(
    stage: Stage, feed: HandFeed, stranger: Session, hold: str
) -> None:
    stranger.begin()
    with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
        stranger.run(HOLDS[hold])

    stage.run("SET lock_timeout = '2s'; INSERT INTO metrics VALUES (100, '2024-01-01 01:00+00', 100)")
    feed.flush()
    made = stage.value(
        "SELECT lakets._ensure_partitions(id, 0, 0, '2024-02-01', '2024-02-03')"
        " FROM lakets._chronotable_registry"
    )
    refreshed = stage.refresh("hourly")
    tiered = stage.tier(1)
    difference = stage.difference("hourly")
    dropped = stage.value("SELECT lakets.execute_retention('metrics')")

    assert (made, refreshed, tiered, difference) == (2, True, True, [])
    assert dropped == 6
