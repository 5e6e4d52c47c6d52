"""An install over LakeTS 0.1.3 with more chunks than the server has locks guards them later."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import psycopg
import pytest
from typer.testing import CliRunner

from airflow_provider_lakets.cli import app
from airflow_provider_lakets.engine import install_script
from tests.conftest import new_postgres
from tests.lab import Lab
from tests.older import LAKETS_01
from tests.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

CHUNKS = 400
# An install takes some 400 locks by itself.
FEW_LOCKS = {
    "max_locks_per_transaction": "10",
    "max_connections": "70",
    "max_prepared_transactions": "0",
    "max_wal_senders": "0",
    "max_replication_slots": "0",
    "wal_level": "replica",
    "max_worker_processes": "2",
    "autovacuum": "off",
}
MAKE = (
    "SELECT lakets._ensure_partitions(1, p_range_start => now() - %s * interval '1 day',"
    " p_range_end => now() - %s * interval '1 day')"
)
BUILT = f"""
INSERT INTO metrics SELECT now() - n * interval '1 day', 'd' || n, n
  FROM generate_series(0, {CHUNKS - 1}) AS n;
SELECT lakets.add_retention_policy('metrics', '300 days');
SELECT lakets.enable_lvc('metrics', '{{device}}', '{{value}}');
INSERT INTO metrics SELECT now() - n * interval '1 hour', 'd0', n FROM generate_series(0, 2) AS n;
INSERT INTO metrics VALUES (now() - interval '390 days', 'd390', 390);
CREATE TABLE _rollup_daily (bucket timestamptz, total float8);
INSERT INTO lakets._rollup_registry
    (name, source_chronotable_id, rollup_table, bucket_interval, query_text, bucket_column, refresh_lag)
VALUES ('daily', 1, '_rollup_daily', '1 day', 'SELECT lakets.time_bucket(''1 day'', at) AS bucket,'
        ' sum(value) AS total FROM metrics GROUP BY 1', 'bucket', '0');
SELECT lakets.enable_rollup_invalidation('daily');
"""
LEFT = "SELECT cardinality(lakets._unguarded_partitions('metrics'))"
OLD = (
    "SELECT count(*), count(*) FILTER (WHERE tgenabled <> 'D') FROM pg_trigger"
    " WHERE starts_with(tgfoid::regproc::text, 'lakets._0_1_')"
)
GUARD = "SELECT lakets.guard_chunks('metrics')"


@pytest.fixture(scope="module")
def few_locks() -> Iterator[EmbeddedPostgres]:
    """A server with few locks, and LakeTS 0.1.3 with many chunks, a cache and a RollUp."""
    with new_postgres(**FEW_LOCKS) as server:
        with psycopg.connect(server.ensure_database("many_01"), autocommit=True) as conn:
            conn.execute(LAKETS_01)
            conn.execute("SET timezone = 'UTC'")
            # The last column has a name that a statement of the install uses.
            conn.execute(
                "CREATE TABLE metrics (at timestamptz NOT NULL, device text NOT NULL, value float8,"
                " lakets_place integer)"
            )
            conn.execute("SELECT lakets.create_chronotable('metrics', 'at', '1 day')")
            for day in range(0, CHUNKS, 20):
                conn.execute(MAKE, [day + 19, day])
            conn.execute(BUILT)
        yield server


@pytest.fixture
def older(few_locks: EmbeddedPostgres) -> Iterator[Stage]:
    stage = Stage(few_locks.ensure_database("older", template="many_01"))
    yield stage
    stage.close()
    few_locks.drop_database("older")


@pytest.fixture
def installed(older: Stage) -> Stage:
    """The same after the install itself, as psql runs it: no chunk is guarded yet."""
    older.run(install_script())
    return older


def through_airflow(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Install as the hook does and return its notes."""
    lab = Lab(stage.conninfo, "0.1")
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection())
    notes = lab.hook().install().notes
    lab.conn.close()
    return list(notes)


def test_the_command_says_how_far_it_is(older: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(older.conninfo, "0.1")
    lab.conn.close()
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection())

    done = CliRunner().invoke(app, ["install"])

    lines = re.findall(r"^Guarding the chunks of public.metrics: (\d+) of (\d+)$", done.stderr, re.MULTILINE)
    counts = [int(count) for count, _ in lines]
    assert len(counts) > 3
    assert counts == sorted(set(counts))
    assert {total for _, total in lines} == {
        str(older.value("SELECT count(*) FROM pg_inherits WHERE inhparent = 'metrics'::regclass"))
    }
    assert "is installed (before: 0.1.3)" in done.stdout


def test_the_hook_installs_and_guards_every_chunk(older: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = through_airflow(older, monkeypatch)

    assert older.value(LEFT) == 0
    assert [note for note in notes if "directly" in note] == []
    chunks = older.column(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'metrics'::regclass"
    )
    assert len(chunks) > CHUNKS
    for chunk in (chunks[0], chunks[CHUNKS // 2], chunks[-1]):
        with pytest.raises(psycopg.errors.RaiseException, match="cannot be written directly"):
            older.run(f"DELETE FROM {chunk}")


def test_the_hook_renews_guards_of_an_older_version(older: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    through_airflow(older, monkeypatch)
    chunks = older.column(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'metrics'::regclass"
    )
    for chunk in (chunks[0], chunks[CHUNKS // 2], chunks[-1]):
        older.run(
            f"DROP TRIGGER lakets_no_direct_truncate ON {chunk};"
            " CREATE OR REPLACE TRIGGER lakets_no_direct_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE"
            f" ON {chunk} FOR EACH STATEMENT EXECUTE FUNCTION lakets._refuse_direct_write();"
            f" ALTER TABLE {chunk} ENABLE ALWAYS TRIGGER lakets_no_direct_write"
        )
    assert older.value("SELECT cardinality(lakets._older_guards('metrics'))") == 3

    through_airflow(older, monkeypatch)

    assert older.value("SELECT cardinality(lakets._older_guards('metrics'))") == 0


def test_what_was_interrupted_is_ended_by_another_install(
    installed: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_of_them = installed.value(LEFT)
    assert 0 < installed.value(GUARD) < 100
    assert 0 < installed.value(LEFT) < all_of_them
    (repair,) = installed.run(
        "SELECT problem, remedy FROM lakets.pending_repairs() WHERE problem LIKE '%directly%'"
    )
    assert f"{installed.value(LEFT)} of {all_of_them} chunks" in repair[0]
    assert "guard_chunks('metrics', 'public')" in repair[1]

    through_airflow(installed, monkeypatch)

    assert installed.value(LEFT) == 0
    assert installed.run("SELECT * FROM lakets.pending_repairs()") == []


def test_triggers_of_0_1_3_that_cannot_be_dropped_do_nothing_and_are_disabled(installed: Stage) -> None:
    installed.run(
        "INSERT INTO metrics VALUES (now() - interval '1 day', 'new', 1);"
        " DELETE FROM metrics WHERE device = 'd5'"
    )
    assert installed.value("SELECT count(*) FROM lakets._rollup_invalidation_log") == 0
    assert installed.run("SELECT value FROM _lvc_metrics WHERE device = 'new'") == [(1.0,)]

    while installed.value(GUARD):
        pass
    installed.run(
        "SELECT lakets._ensure_partitions(1, p_range_start => '2040-01-01+00',"
        " p_range_end => '2040-01-03+00')"
    )

    there, firing = installed.run(OLD)[0]
    assert there > CHUNKS
    assert firing == 0


def test_what_was_written_directly_before_the_guard_is_refreshed_and_only_then_dropped(
    installed: Stage,
) -> None:
    installed.refresh("daily")
    oldest = installed.value("SELECT chunk_name FROM lakets.show_chunks('metrics') LIMIT 1")
    kept = installed.value(f"SELECT sum(value) + 1000 FROM {oldest}")
    at = installed.value(f"SELECT max(at) FROM {oldest}")
    # As with 0.1.3, whose triggers do nothing any more.
    installed.run(f"INSERT INTO {oldest} VALUES (%s, 'd', 1000)", at)

    retain = "SELECT lakets.execute_retention('metrics', p_max_chunks => 20)"
    assert {installed.value(retain) for _ in range(10)} == {0}
    blocked_by = installed.column("SELECT blocked_by FROM lakets.retention_report('metrics')")
    assert set(blocked_by) == {"not absorbed by RollUp daily"}
    installed.refresh("daily")
    while installed.value(retain):
        pass

    assert installed.value(f"SELECT to_regclass('{oldest}')") is None
    assert installed.run(
        "SELECT total FROM _rollup_daily WHERE bucket = date_trunc('day', %s, 'UTC')", at
    ) == [(kept,)]


def test_a_cache_too_large_for_the_install_takes_every_row_of_today(installed: Stage) -> None:
    cached = "SELECT value FROM _lvc_metrics WHERE device = %s"
    assert installed.column(cached, "d0") == [0]  # 0.1.3 has the row written last, of two hours ago
    assert installed.column(cached, "d390") == [390]
    # 0.1.3 recorded the time of the write. Only this is known: its row is not in the newest chunks.
    assert installed.value(
        "SELECT last_updated < now() - '5 days'::interval FROM _lvc_metrics WHERE device = 'd390'"
    )

    installed.run("INSERT INTO metrics VALUES (now(), 'd0', 7), (now(), 'd390', 7)")
    installed.run("INSERT INTO metrics VALUES (now() - interval '1 day', 'd0', 8)")

    assert installed.column(cached, "d0") + installed.column(cached, "d390") == [7, 7]


def test_where_there_is_room_the_install_itself_drops_the_old_triggers(
    postgres: EmbeddedPostgres, template_01: str
) -> None:
    stage = Stage(postgres.ensure_database("roomy", template=template_01))
    stage.run("CREATE TABLE metrics (at timestamptz NOT NULL, device text NOT NULL, value float8)")
    stage.run("SELECT lakets.create_chronotable('metrics', 'at', '1 day')")
    stage.run(BUILT.replace(str(CHUNKS - 1), "1").replace("390 days", "1 day"))

    stage.run(install_script())

    assert stage.run(OLD) == [(0, 0)]
    assert stage.value("SELECT count(*) FROM pg_proc WHERE starts_with(proname, '_0_1_')") == 0
    assert stage.value(LEFT) == 0
    stage.close()
    postgres.drop_database("roomy")
