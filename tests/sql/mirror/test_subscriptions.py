"""Rows that arrive by logical replication fire no statement trigger, so they are not mirrored."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stage import HandFeed, Raises, Stage

CANDIDATES = "SELECT chunk_name FROM lakets._get_chunks_to_tier('metrics')"
PARTITIONS = "SELECT lakets._ensure_partitions(1)"
RETAIN = "SELECT lakets.execute_retention('metrics')"
TABLES = {"table": "metrics", "chunk": "metrics_20240101_000000"}


@contextmanager
def subscribed(stage: Stage, source: str, relation: str) -> Iterator[None]:
    """Let a table receive rows of a table with its name in another database; one arrives."""
    name = f"sub_{stage.conn.info.dbname}"
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute(
            f"CREATE TABLE {relation} (id int, at timestamptz, value int, PRIMARY KEY (id, at))".encode()
        )
        conn.execute(f"CREATE PUBLICATION pub FOR TABLE {relation}".encode())
        # A subscription to its own server waits for itself if it makes the slot.
        conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [name])
        stage.run(
            f"CREATE SUBSCRIPTION {name} CONNECTION '{source}' PUBLICATION pub"
            " WITH (create_slot = false, copy_data = false)"
        )
        try:
            conn.execute(f"INSERT INTO {relation} VALUES (77, %s, 77)".encode(), [stage.at(1, 13)])
            deadline = time.monotonic() + 60
            while not stage.value("SELECT count(*) FROM metrics WHERE id = 77"):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield
        finally:
            stage.run(f"DROP SUBSCRIPTION {name}")


@pytest.mark.parametrize("relation", TABLES.values(), ids=TABLES)
def test_nothing_counts_as_durable_until_the_subscription_is_gone_and_all_is_compared(
    stage: Stage, empty_database: str, relation: str
) -> None:
    feed = stage.synced()
    assert stage.tier(1)
    with subscribed(stage, empty_database, relation):
        reason = stage.value("SELECT lakets.explain_durability(%s)", stage.chunk(2))
        assert "receives rows from the subscription sub_" in reason
        assert stage.value("SELECT problem FROM lakets.pending_repairs()") == f"its mirror: {reason}"
        for _ in range(3):
            stage.column(CANDIDATES)
            assert [stage.tier(day) for day in range(1, 5)] == [False] * 4
            stage.value("SELECT lakets.compare_chunks('metrics')")
            stage.value(PARTITIONS)
            feed.flush()
            assert stage.value(RETAIN) == 0
        (blocked,) = set(stage.column("SELECT blocked_by FROM lakets.retention_report('metrics')"))
        assert blocked == f"not durable: {reason}"

    for _ in range(9):
        stage.value(RETAIN)
        feed.flush()

    assert set(stage.statuses().values()) == {"dropped"}
    assert stage.value("SELECT count(*) FROM lakets_cdf._shadow_metrics WHERE id = 77") == 1


@pytest.fixture
def feed(stage: Stage) -> HandFeed:
    """Make a synced ChronoTable with a RollUp."""
    stage.table()
    feed = stage.sync()
    stage.rollup("hourly")
    return feed


@pytest.mark.parametrize("name", ["metrics", "hourly"])
def test_syncing_is_refused_and_names_the_subscription(
    stage: Stage, feed: HandFeed, raises: Raises, name: str
) -> None:
    table = "metrics" if name == "metrics" else "_rollup_hourly"
    subscription = f"sub_{stage.conn.info.dbname}"
    stage.run(
        f"CREATE SUBSCRIPTION {subscription} CONNECTION '' PUBLICATION pub"
        " WITH (connect = false, slot_name = NONE)"
    )
    try:
        stage.run(
            "INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)"
            " SELECT oid, %s::regclass, 'r' FROM pg_subscription WHERE subname = %s",
            table,
            subscription,
        )

        with raises("P0001", match=f"{table} cannot be mirrored: .* subscription {subscription}"):
            stage.run("SELECT lakets.enable_sync(%s)", name)
    finally:
        stage.run(f"DROP SUBSCRIPTION {subscription}")
    stage.run("SELECT lakets.enable_sync(%s)", name)


def test_rollups_follow_with_the_partition_job_and_retention_waits(stage: Stage, empty_database: str) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.refresh("hourly")
    stage.run("SELECT lakets.add_retention_policy('metrics', '1 day')")
    with subscribed(stage, empty_database, "metrics"):
        stage.value(PARTITIONS)
        stage.refresh("hourly")

        assert stage.difference("hourly") == []
        assert stage.value(RETAIN) == 0
        reasons = stage.column("SELECT blocked_by FROM lakets.retention_report('metrics')")
        assert all("receives rows from the subscription" in reason for reason in reasons)

    stage.refresh("hourly")
    assert stage.value(RETAIN) == 4


def test_a_table_without_rollups_and_mirror_is_left_alone(stage: Stage, empty_database: str) -> None:
    stage.table()
    stage.run("SELECT lakets.add_retention_policy('metrics', '1 day')")
    with subscribed(stage, empty_database, "metrics"):
        assert stage.value(RETAIN) == 4
