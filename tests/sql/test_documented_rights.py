"""The rights in docs/permissions.md are enough for every job, and none of them is needless."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCS = Path(__file__).parents[2] / "docs" / "permissions.md"
GRANTS, FEED_GRANTS, VIEW_GRANTS, READER_GRANTS, _ = re.findall(
    r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL
)


@pytest.fixture
def roles(database: str) -> Iterator[dict[str, str]]:
    """Make the roles of the docs under names of this test: roles belong to the whole server."""
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    names = {role: f"{role}_{name}" for role in ("tables_owner", "lakets_jobs", "a_writer", "a_reader")}
    with psycopg.connect(database, autocommit=True) as admin:
        for role in names.values():
            admin.execute(f"CREATE ROLE {role} LOGIN")
        yield names
        for role in names.values():
            admin.execute(f"DROP OWNED BY {role} CASCADE")
            admin.execute(f"DROP ROLE {role}")


def run_as_told(admin: psycopg.Connection, script: str, roles: dict[str, str]) -> None:
    for told, name in roles.items():
        script = script.replace(told, name)
    admin.execute(script)


def session(database: str, role: str) -> psycopg.Connection:
    return psycopg.connect(database, user=role, autocommit=True)


@pytest.fixture
def lifecycle(database: str, conn: psycopg.Connection, roles: dict[str, str]) -> psycopg.Connection:
    """Grant the rights, create a synced ChronoTable as its owner, and log in as the jobs' role."""
    run_as_told(conn, GRANTS, roles)
    conn.execute(
        "CREATE SCHEMA wal2delta CREATE TABLE tables"
        " (table_oid oid, status text, committed_lsn pg_lsn, last_write_time timestamptz)"
    )
    run_as_told(conn, FEED_GRANTS, roles)
    with session(database, roles["tables_owner"]) as owner:
        owner.execute("CREATE TABLE metrics (ts timestamptz NOT NULL, device int, value float8)")
        owner.execute(
            "INSERT INTO metrics SELECT now() - n * interval '1 day', 1, n FROM generate_series(0, 40) n"
        )
        owner.execute(f"GRANT INSERT, UPDATE, DELETE, SELECT ON metrics TO {roles['a_writer']}")
        owner.execute("SELECT lakets.create_chronotable('metrics', 'ts', '7 days')")
    jobs = session(database, roles["lakets_jobs"])
    jobs.execute(
        "SELECT lakets.create_rollup('daily', $$SELECT lakets.time_bucket('1 day', ts) AS bucket,"
        " sum(value) AS value FROM metrics GROUP BY 1$$, '1 day')"
    )
    jobs.execute("SELECT lakets.enable_sync('metrics')")
    jobs.execute("SELECT lakets.add_tiered_retention_policy('metrics', '8 days', '20 days')")
    conn.execute(
        "INSERT INTO wal2delta.tables"
        " VALUES ('lakets_cdf._shadow_metrics'::regclass, 'STREAMING', pg_current_wal_insert_lsn(), now())"
    )
    return jobs


def value(session: psycopg.Connection, query: str) -> object:
    row = session.execute(query).fetchone()
    assert row is not None
    return row[0]


def evict(jobs: psycopg.Connection, admin: psycopg.Connection) -> None:
    """Let chunks be dropped whose rows are to be trimmed."""
    jobs.execute("SELECT lakets.remove_retention_policy('metrics')")
    jobs.execute(
        "SELECT lakets.add_tiered_retention_policy('metrics', '8 days', '20 days', p_trim_shadow => true)"
    )
    admin.execute(
        "INSERT INTO wal2delta.tables VALUES ('lakets_cdf._trim_log'::regclass, 'STREAMING', '0/0', now())"
    )
    jobs.execute("SELECT lakets.tier_chunk(chunk_name) FROM lakets._get_chunks_to_tier('metrics')").fetchall()
    jobs.execute("SELECT lakets.refresh_rollup_cascade()")
    assert value(jobs, "SELECT lakets.execute_retention('metrics')")


def test_the_jobs_role_runs_all_four_jobs_with_the_documented_rights(lifecycle: psycopg.Connection) -> None:
    with lifecycle as jobs:
        created = value(jobs, "SELECT lakets._ensure_partitions(id, 1, 5) FROM lakets._chronotable_registry")
        tiered = jobs.execute(
            "SELECT lakets.tier_chunk(chunk_name) FROM lakets._get_chunks_to_tier('metrics')"
        ).fetchall()
        refreshed = value(jobs, "SELECT refreshed FROM lakets.refresh_rollup_cascade()")
        dropped = value(jobs, "SELECT lakets.execute_retention('metrics')")

    assert created
    assert tiered
    assert set(tiered) == {(True,)}
    assert refreshed is True
    assert dropped


def test_the_jobs_role_trims_with_the_documented_rights(
    lifecycle: psycopg.Connection, conn: psycopg.Connection
) -> None:
    with lifecycle as jobs:
        evict(jobs, conn)

        assert value(jobs, "SELECT lakets.trim_shadow('metrics')")


@pytest.mark.parametrize("right", ["SELECT", "INSERT"])
def test_without_a_right_on_the_log_of_trims_the_shadow_keeps_its_rows(
    lifecycle: psycopg.Connection, conn: psycopg.Connection, roles: dict[str, str], right: str
) -> None:
    with lifecycle as jobs:
        evict(jobs, conn)
        held = value(conn, "SELECT count(*) FROM lakets_cdf._shadow_metrics")
        conn.execute(f"REVOKE {right} ON lakets_cdf._trim_log FROM {roles['tables_owner']}")

        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="_trim_log"):
            jobs.execute("SELECT lakets.trim_shadow('metrics')")

    assert value(conn, "SELECT count(*) FROM lakets_cdf._shadow_metrics") == held


def test_a_writer_that_had_its_rights_before_the_sync_goes_on_writing(
    lifecycle: psycopg.Connection, database: str, roles: dict[str, str]
) -> None:
    with lifecycle, session(database, roles["a_writer"]) as writer:
        writer.execute("INSERT INTO metrics VALUES (now(), 2, 0)")
        writer.execute("UPDATE metrics SET value = 1 WHERE device = 2")
        writer.execute("DELETE FROM metrics WHERE device = 1")

        mirrored = value(lifecycle, "SELECT count(*) FROM lakets_cdf._shadow_metrics")

    assert mirrored == 1


def test_a_writer_granted_later_needs_nothing_more(
    lifecycle: psycopg.Connection, database: str, conn: psycopg.Connection, roles: dict[str, str]
) -> None:
    conn.execute(f"CREATE ROLE late_{roles['a_writer']} LOGIN")
    conn.execute(f"GRANT INSERT ON metrics TO late_{roles['a_writer']}")
    try:
        with lifecycle, session(database, f"late_{roles['a_writer']}") as late:
            assert late.execute("INSERT INTO metrics VALUES (now(), 2, 0)").rowcount == 1
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="schema lakets_cdf"):
                late.execute("TABLE lakets_cdf._shadow_metrics")
    finally:
        conn.execute(f"REVOKE ALL ON metrics FROM late_{roles['a_writer']}")
        conn.execute(f"DROP ROLE late_{roles['a_writer']}")


def test_without_a_right_the_job_says_which(
    lifecycle: psycopg.Connection, conn: psycopg.Connection, roles: dict[str, str]
) -> None:
    conn.execute(f"REVOKE ALL ON lakets._policy_registry FROM {roles['tables_owner']}")

    with lifecycle, pytest.raises(psycopg.errors.InsufficientPrivilege, match="_policy_registry"):
        lifecycle.execute("SELECT lakets.execute_retention('metrics')")


def test_without_the_right_to_write_the_log_tiering_does_not_wait_in_silence(
    lifecycle: psycopg.Connection, conn: psycopg.Connection, roles: dict[str, str]
) -> None:
    # Not flushed, and the feed stands still: so that it moves, a change is made and logged.
    conn.execute("UPDATE metrics SET value = 0 WHERE ts < now() - interval '9 days'")
    conn.execute(f"REVOKE INSERT ON lakets._change_log FROM PUBLIC, {roles['tables_owner']}")

    with lifecycle as jobs, pytest.raises(psycopg.errors.InsufficientPrivilege, match="_change_log"):
        jobs.execute(
            "SELECT lakets.tier_chunk(chunk_name) FROM lakets._get_chunks_to_tier('metrics')"
        ).fetchall()


def test_without_the_right_to_prune_the_log_it_does_not_grow_in_silence(
    lifecycle: psycopg.Connection, conn: psycopg.Connection, roles: dict[str, str]
) -> None:
    conn.execute("UPDATE metrics SET value = 0")
    conn.execute(f"REVOKE DELETE ON lakets._change_log FROM {roles['tables_owner']}")

    with lifecycle as jobs:
        jobs.execute("SELECT lakets.refresh_rollup_cascade()")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="_change_log"):
            jobs.execute("SELECT lakets._get_chunks_to_tier('metrics')")


def test_a_feed_that_may_not_be_read_defers_everything(
    lifecycle: psycopg.Connection, conn: psycopg.Connection, roles: dict[str, str]
) -> None:
    conn.execute(f"REVOKE ALL ON wal2delta.tables FROM {roles['tables_owner']}")

    with lifecycle as jobs:
        candidates = jobs.execute("SELECT * FROM lakets._get_chunks_to_tier('metrics')").fetchall()
        dropped = value(jobs, "SELECT lakets.execute_retention('metrics')")

    assert candidates == []
    assert dropped == 0


def test_a_reader_with_the_documented_rights_reads_the_last_values(
    lifecycle: psycopg.Connection, database: str, conn: psycopg.Connection, roles: dict[str, str]
) -> None:
    with lifecycle, session(database, roles["tables_owner"]) as owner:
        owner.execute("SELECT lakets.enable_lvc('metrics', '{device}', '{value}')")
    run_as_told(conn, READER_GRANTS, roles)

    with session(database, roles["a_reader"]) as reader:
        found = reader.execute(
            "SELECT device, value FROM lakets.latest_values('metrics')"
            " AS t (device int, value float8, last_updated timestamptz)"
        ).fetchall()
        counted = reader.execute("SELECT cached_series FROM lakets.lvc_stats()").fetchall()

    assert (found, counted) == ([(1, 0)], [(1,)])


@pytest.mark.parametrize(
    ("value", "grants"),
    [("count(*)", VIEW_GRANTS.partition("GRANT SELECT ON metrics")[0]), ("min(ts::text)", VIEW_GRANTS)],
    ids=["of every session", "of settings"],
)
def test_a_reader_with_the_documented_rights_reads_a_real_time_view(
    lifecycle: psycopg.Connection,
    database: str,
    conn: psycopg.Connection,
    roles: dict[str, str],
    value: str,
    grants: str,
) -> None:
    query = f"SELECT lakets.time_bucket('1 hour', ts) AS bucket, {value} AS v FROM metrics GROUP BY 1"
    with lifecycle, session(database, roles["tables_owner"]) as owner:
        owner.execute("SELECT lakets.create_rollup('hourly', %s)", [query])
        owner.execute("SELECT lakets.create_rollup_view('hourly', %s)", [query])
    run_as_told(conn, grants, roles)

    with session(database, roles["a_reader"]) as reader:
        found = reader.execute("SELECT count(*) FROM _rollup_rt_hourly").fetchall()

    assert found == [(41,)]
