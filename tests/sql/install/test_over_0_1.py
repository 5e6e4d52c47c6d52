"""The install over 0.1.x keeps all existing objects, and everything that depends on them."""

from __future__ import annotations

import re

import psycopg
import pytest

from airflow_provider_lakets import __version__
from tests.sql.install.scene import OF_01, catalog, install, one, registries, rows, value

# Over 0.1.x


def test_every_registry_row_is_kept(older: str) -> None:
    before = registries(older)

    install(older)

    after = registries(older)
    for table, old_rows in before.items():
        assert len(after[table]) == len(old_rows)
        for old, new in zip(old_rows, after[table], strict=True):
            changed = {name for name, was in old.items() if was is not None and new[name] != was}
            assert changed <= {"query_text"}, (table, changed)
    assert rows(older, "SELECT version FROM lakets._version ORDER BY installed_at") == [
        ("0.1.3",),
        (__version__,),
    ]


def test_the_times_of_the_last_runs_are_kept(older: str) -> None:
    shown = """SELECT reg.table_name, pol.last_run_at FROM lakets._chronotable_registry AS reg
                CROSS JOIN LATERAL {}(reg.table_name, reg.schema_name) AS pol"""
    functions = ("lakets.show_tiering_policy", "lakets.show_retention_policy")
    rows(older, "UPDATE lakets._policy_registry SET last_run_at = '2024-01-01' RETURNING 1")

    install(older)

    for function in functions:
        times = {str(at)[:10] for _, at in rows(older, shown.format(function))}
        assert times == {"2024-01-01"}


def test_it_becomes_what_a_fresh_install_is(older: str, empty_database: str) -> None:
    install(older)
    install(empty_database)
    migrated, fresh = catalog(older), catalog(empty_database)

    assert [
        name
        for name in ("functions", "aggregates", "comments", "rights", "schemas")
        if migrated[name] != fresh[name]
    ] == []
    # The tables of 0.1.x keep their own types and constraints; ours are the same, and no column is
    # missing.
    for aspect in ("columns", "constraints", "indexes"):
        ours = [row for row in fresh[aspect] if row[0].removeprefix("lakets.") not in OF_01]
        assert [row for row in migrated[aspect] if row[0].removeprefix("lakets.") not in OF_01] == ours
    assert {row[:2] for row in fresh["columns"]} <= {row[:2] for row in migrated["columns"]}
    ours = [row for row in fresh["indexes"] if re.search(r"INDEX _\w+_by_", row[1])]
    assert len(ours) >= 3
    assert [row for row in ours if row not in migrated["indexes"]] == []


def test_writes_are_mirrored_and_logged(upgraded: psycopg.Connection) -> None:
    upgraded.execute("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")
    upgraded.execute(
        "INSERT INTO metrics VALUES (now() - interval '5 days', 'new', 1), (now() + interval '1"
        " hour', 'new', 2)"
    )
    upgraded.execute("INSERT INTO plant.readings VALUES ('2001-01-01', 1)")
    upgraded.execute("UPDATE metrics SET value = 3 WHERE device = 'new' AND value = 1")

    assert upgraded.execute(
        "SELECT value FROM lakets_cdf._shadow_metrics WHERE device = 'new' ORDER BY 1"
    ).fetchall() == [(2,), (3,)]
    assert upgraded.execute(
        "SELECT chronotable_id, count(*) FROM lakets._change_log GROUP BY 1 ORDER BY 1"
    ).fetchall() == [(1, 3), (2, 1)]


def test_the_old_triggers_are_gone(upgraded: psycopg.Connection) -> None:
    triggers = [
        name
        for (name,) in upgraded.execute(
            "SELECT DISTINCT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgname <> 'mine' ORDER BY 1"
        )
    ]

    assert triggers == [
        "lakets_alone",
        "lakets_moved",
        "lakets_no_direct_truncate",
        "lakets_no_direct_write",
        *(f"lakets_track_{event}" for event in ("delete", "insert", "truncate", "update")),
        "lakets_truncated",
        "trg_lakets_lvc",  # by this name and one more, ours too
        "trg_lakets_lvc_update",
    ]


def test_old_chunks_cannot_be_written_directly_either(upgraded: psycopg.Connection) -> None:
    chunks = [
        name
        for (name,) in upgraded.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent IN"
            " ('metrics'::regclass, 'plant.readings'::regclass)"
        )
    ]

    assert len(chunks) > 20
    for chunk in chunks:
        with pytest.raises(psycopg.errors.RaiseException):
            upgraded.execute(f"DELETE FROM {chunk}".encode())


def test_chunks_are_made_around_the_old_ones(upgraded: psycopg.Connection) -> None:
    upgraded.execute("SELECT lakets._ensure_partitions(1)")
    upgraded.execute("INSERT INTO metrics VALUES (now() - interval '40 days', 'early', 1)")
    made = one(upgraded, "SELECT lakets._ensure_partitions(1, 25, 10)")
    upgraded.execute("SELECT lakets.set_chunk_interval('metrics', '1 month')")
    more = one(upgraded, "SELECT lakets._ensure_partitions(1, 3, 2)")

    assert made > 10
    assert more >= 4
    assert one(upgraded, "SELECT count(*) FROM metrics_default") == 0
    assert one(upgraded, "SELECT lakets._ensure_partitions(2) + lakets._ensure_partitions(2)") <= 4
    gaps = (
        "SELECT count(*) FROM (SELECT range_end, lead(range_start) OVER (ORDER BY range_start) AS next"
        " FROM lakets._chunk_metadata WHERE chronotable_id = 1) AS pair WHERE range_end <> next"
    )
    assert one(upgraded, gaps) == 0


@pytest.mark.parametrize(
    "query",
    [
        "SELECT sum(count) = (SELECT count(*) FROM metrics) FROM by_hour",
        "SELECT max(delta) IS NOT NULL AND max(histogram) > 0 FROM growth",
        "SELECT count(*) = (SELECT count(*) FROM lakets.show_chunks('metrics')) FROM chunks",
        "SELECT array_agg(name ORDER BY name) = '{daily,hourly}' FROM rollups",
        "SELECT count(*) > 0 FROM tiering",
        "SELECT bool_or(metric_name = 'lakets_policies_total') FROM gauges",
        "SELECT count(*) = 25 FROM hours",
        "SELECT count(*) > 0 FROM _rollup_rt_hourly",
        "SELECT refresh_all() = 2 AND refresh_hourly() IS NOT NULL",
        "SELECT chunks_of('metrics') > 0 AND chunks_of('nothing') = 0",
        "SELECT lakets.my_function(1) = 2",
    ],
)
def test_what_others_built_on_0_1_3_goes_on(upgraded: psycopg.Connection, query: str) -> None:
    assert one(upgraded, query) is True


def test_columns_indexes_and_checks_on_time_bucket_go_on(upgraded: psycopg.Connection) -> None:
    upgraded.execute("INSERT INTO hourly_facts DEFAULT VALUES")

    assert one(upgraded, "SELECT day = date_trunc('day', ts, 'UTC') FROM hourly_facts")
    assert one(upgraded, "SELECT count(*) FROM hourly_facts WHERE lakets.time_bucket('1 day', ts) = day") == 1


def test_views_read_the_functions_of_today(upgraded: psycopg.Connection) -> None:
    live = one(
        upgraded,
        "SELECT array_agg(DISTINCT fn.oid::regprocedure::text) FROM pg_depend AS dep"
        " JOIN pg_rewrite AS rule ON rule.oid = dep.objid JOIN pg_proc AS fn ON fn.oid = dep.refobjid"
        " WHERE rule.ev_class IN ('by_hour'::regclass, 'growth'::regclass, 'chunks'::regclass,"
        " 'gauges'::regclass) AND fn.prosrc <> 'now'",
    )

    changed = [name for name in live if "_0_1_" in name]
    assert changed == [], (
        "If the result or the arguments of these are to change: leave the view out here, and expect the"
        " warning in test_what_cannot_be_replaced_calls_the_new_one_and_is_reported."
    )
    assert len(live) >= 6


def test_grants_and_revokes_on_functions_and_tables_survive(older: str) -> None:
    rows(
        older,
        """
        CREATE ROLE dashboard; CREATE ROLE jobs;
        GRANT USAGE ON SCHEMA lakets TO dashboard, jobs;
        GRANT SELECT ON lakets._chunk_metadata, metrics, _lvc_metrics TO dashboard;
        REVOKE EXECUTE ON FUNCTION lakets.execute_retention, lakets.last, lakets.time_bucket,
            lakets.tier_chunk FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION lakets.execute_retention, lakets.tier_chunk TO jobs;
        GRANT EXECUTE ON FUNCTION lakets.time_bucket TO dashboard WITH GRANT OPTION;
        """,
    )
    may = (
        "SELECT proname, has_function_privilege('dashboard', oid, 'EXECUTE'),"
        " has_function_privilege('jobs', oid, 'EXECUTE') FROM pg_proc WHERE"
        " pronamespace = 'lakets'::regnamespace AND (proname IN ('execute_retention', 'tier_chunk')"
        " OR oid IN (to_regprocedure('lakets.last(float8,timestamptz)'),"
        " to_regprocedure('lakets.time_bucket(interval,timestamptz,timestamptz)'))) ORDER BY 1"
    )
    before = rows(older, may)
    try:
        install(older)

        assert rows(older, may) == before
        assert before == [
            ("execute_retention", False, True),
            ("last", False, False),
            ("tier_chunk", False, True),
            ("time_bucket", True, False),
        ]
        for table in ("lakets._chunk_metadata", "metrics", "_lvc_metrics"):
            assert value(older, "SELECT has_table_privilege('dashboard', %s, 'SELECT')", table)
    finally:
        rows(older, "DROP OWNED BY dashboard, jobs CASCADE; DROP ROLE dashboard, jobs")


def test_what_cannot_be_replaced_calls_the_new_one_and_is_reported(older: str) -> None:
    # The arguments or the result of these changed: whoever named the older ones by their arguments
    # keeps calling those.
    warned = sorted(text for text in install(older) if "is used by" in text)

    assert [text.split(",")[0] for text in warned] == [
        "lakets.refresh_rollup is used by function public.refresh_hourly()",
        "lakets.time_bucket_gapfill is used by view public.hours",
    ], "list a function here if its arguments or its result are to change"
    assert [text for text in warned if not text.endswith("that calls the new one.")] == []
    rows(older, "INSERT INTO metrics VALUES (now() - interval '1 day', 'new', 1)")
    assert value(older, "SELECT refresh_hourly()") is True
    assert value(older, "SELECT count(*) FROM _rollup_hourly WHERE device = 'new'") == 1


def test_a_function_of_somebody_else_in_the_place_of_ours_is_not_overwritten(older: str) -> None:
    rows(older, "CREATE FUNCTION lakets.explain_durability(p_chunk_name text) RETURNS text RETURN 'mine'")

    with pytest.raises(
        psycopg.errors.RaiseException, match=r"lakets\.explain_durability\(text\) is not part"
    ) as told:
        install(older)

    assert "another name" in str(told.value.diag.message_hint)
    assert value(older, "SELECT lakets.explain_durability('x')") == "mine"
    assert value(older, "SELECT to_regclass('lakets.migration')") is None


def test_tables_that_share_a_shadow_get_one_each_and_lose_no_row(older: str) -> None:
    # 0.1.x names shadows after tables, whatever their schema. What is proved of one is true of
    # neither.
    rows(
        older,
        """
        CREATE SCHEMA other;
        CREATE TABLE other.metrics (LIKE metrics);
        SELECT lakets._ensure_partitions(
            lakets.create_chronotable('metrics', 'ts', '1 day', 'other'),
            p_range_start => now() - interval '12 days', p_range_end => now());
        UPDATE lakets._chronotable_registry
           SET sync_enabled = true, tiering_enabled = true, shadow_table_name = 'lakets_cdf._shadow_metrics'
         WHERE schema_name = 'other';
        INSERT INTO other.metrics VALUES (now() - interval '10 days', 'other', 5);
        """,
    )

    warned = install(older)

    assert [text for text in warned if "other.metrics shares the shadow" in text]
    rows(older, "SELECT lakets.enable_sync('metrics'), lakets.enable_sync('metrics', 'other')")
    shadows = rows(
        older,
        "SELECT shadow_table_name FROM lakets._chronotable_registry WHERE table_name = 'metrics' ORDER BY id",
    )
    assert len(set(shadows)) == len(shadows) == 2
    assert value(older, f'SELECT device FROM lakets_cdf."{shadows[-1][0]}"') == "other"
    assert value(older, "SELECT count(*) FROM lakets_cdf._shadow_metrics WHERE device = 'other'") == 0
