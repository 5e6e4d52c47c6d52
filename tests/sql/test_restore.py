"""A dump that is restored into another cluster, where jobs run at once."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets.local.pg.binaries import bin_dir
from tests.conftest import POSTGRES_VERSION, new_postgres
from tests.stage import FEED, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

# So many transactions lie between the clusters: numbers that one has passed and the other has not.
FAR = 25_000
SPEND = """
CREATE OR REPLACE PROCEDURE public.spend(n integer) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1 .. n LOOP
        PERFORM pg_current_xact_id();
        COMMIT;
    END LOOP;
END $$"""
# The feed has flushed all that is committed now.
FLUSH = """
INSERT INTO wal2delta.tables (table_oid, status, committed_lsn)
VALUES ('lakets_cdf._shadow_metrics'::regclass, 'STREAMING', pg_current_wal_insert_lsn())
ON CONFLICT (table_oid) DO UPDATE SET committed_lsn = excluded.committed_lsn"""


def age(conn: psycopg.Connection) -> int:
    """Return how many transactions a cluster has seen."""
    row = conn.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()
    assert row is not None
    return int(row[0])


def spend(conn: psycopg.Connection, transactions: int) -> None:
    conn.execute(SPEND)
    conn.execute("CALL public.spend(%s)", [transactions])
    conn.execute("DROP PROCEDURE public.spend")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[EmbeddedPostgres]:
    """Another cluster."""
    with new_postgres() as server:
        yield server


@pytest.fixture(params=[True, False], ids=["into a younger cluster", "into an older cluster"])
def restore(
    elsewhere: EmbeddedPostgres, postgres: EmbeddedPostgres, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[Stage], Stage]]:
    """Dump the database of a stage and restore it into a cluster that is younger, or older."""
    with psycopg.connect(elsewhere.conninfo(), autocommit=True) as conn:
        there = age(conn)
        with psycopg.connect(postgres.conninfo(), autocommit=True) as home:
            here = age(home)
            if request.param:
                spend(home, max(0, there - here) + FAR)
            else:
                spend(conn, max(0, here - there) + FAR)
    opened: list[Stage] = []

    def programs(name: str) -> Path:
        folder = bin_dir(POSTGRES_VERSION)
        # The package of 17 has the server only; the programs of 18 serve it as well.
        return (folder if (folder / name).exists() else bin_dir(18)) / name

    def dump_and_restore(stage: Stage) -> Stage:
        dump = tmp_path / "dump"
        restored = elsewhere.ensure_database("restored")
        subprocess.run([programs("pg_dump"), "-Fc", "-f", dump, "-d", stage.conninfo], check=True)
        subprocess.run([programs("pg_restore"), "--exit-on-error", "-d", restored, dump], check=True)
        opened.append(Stage(restored))
        return opened[-1]

    yield dump_and_restore
    for stage in opened:
        stage.close()
    elsewhere.drop_database("restored")


def write(there: Stage) -> None:
    """Write to two old chunks, and let more transactions pass than lay between the clusters."""
    there.run("INSERT INTO metrics VALUES (50, %s, 7), (51, %s, 8)", there.at(1, 3), there.at(2, 3))
    spend(there.conn, 2 * FAR)


def test_what_was_absorbed_counts_for_nothing_where_a_dump_is_restored(
    stage: Stage, restore: Callable[[Stage], Stage]
) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.run("UPDATE metrics SET value = value + 1")
    stage.refresh("hourly")

    there = restore(stage)
    write(there)

    assert there.refresh("hourly")
    assert there.difference("hourly") == []


@pytest.mark.parametrize("is_advised", [True, False], ids=["synced again", "as it came"])
def test_what_was_proved_counts_for_nothing_where_a_dump_is_restored(
    stage: Stage, restore: Callable[[Stage], Stage], is_advised: bool
) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.run(FEED + "; SELECT lakets.enable_sync('metrics')")
    stage.run("SELECT lakets.add_tiered_retention_policy('metrics', '1 day', '2 days')")
    stage.run("UPDATE metrics SET value = value + 1")
    stage.run(FLUSH)
    stage.refresh("hourly")
    assert [stage.tier(day) for day in (1, 2)] == [True, True]

    there = restore(stage)
    if is_advised:
        there.run("SELECT lakets.enable_sync('metrics')")
    there.run(f"DELETE FROM wal2delta.tables; {FLUSH}")
    write(there)
    refreshed = there.refresh("hourly")
    tiered = [there.tier(day) for day in (1, 2)]
    there.run("SELECT lakets.execute_retention('metrics')")

    assert (refreshed, tiered, there.difference("hourly")) == (True, [False, False], [])
    assert there.value("SELECT count(*) FROM metrics WHERE id IN (50, 51)") == 2
    for _ in range(3):  # a proof may write to the shadow and ask for that to be flushed too
        there.run(FLUSH)
        tiered = [there.tier(day) for day in (1, 2)]
    assert tiered == [True, True]
