"""The install: on nothing, again, all at once, over 0.1.x; whole or not at all."""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from airflow_provider_lakets import __version__
from airflow_provider_lakets.engine import install_script, migrations
from airflow_provider_lakets.local.pg.binaries import bin_dir
from tests.stage import FEED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

HERE = Path(__file__).parent

# What other programs made in the schema's time: kept under another name, or generated for each
# relation.
NOT_OURS = "proname ~ '^_0_1_|^_track_.*_|^_lvc_[0-9]|^_fill_|^_?my_'"

CATALOG = {
    "functions": f"SELECT pg_get_functiondef(oid), proacl::text FROM pg_proc"
    f" WHERE pronamespace = 'lakets'::regnamespace AND prokind = 'f' AND NOT ({NOT_OURS}) ORDER BY 1",
    "aggregates": "SELECT oid::regprocedure::text, aggtransfn::text, aggfinalfn::text, aggcombinefn::text,"
    " aggtranstype::regtype::text FROM pg_aggregate JOIN pg_proc ON oid = aggfnoid"
    f" WHERE pronamespace = 'lakets'::regnamespace AND NOT ({NOT_OURS}) ORDER BY 1",
    "comments": "SELECT oid::regprocedure::text, obj_description(oid, 'pg_proc') FROM pg_proc"
    " WHERE pronamespace = 'lakets'::regnamespace AND obj_description(oid, 'pg_proc') IS NOT NULL ORDER BY 1",
    "columns": "SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull,"
    " pg_get_expr(adbin, adrelid) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid AND"
    " relkind = 'r'"
    " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
    " WHERE relnamespace = 'lakets'::regnamespace AND attnum > 0 AND NOT attisdropped"
    " AND relname !~ '^my_' ORDER BY 1, 2",
    "constraints": "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'lakets'::regnamespace AND contype <> 'n' ORDER BY 1, 2",
    "indexes": "SELECT indrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index JOIN"
    " pg_class ON oid = indexrelid"
    " WHERE relnamespace = 'lakets'::regnamespace ORDER BY 1, 2",
    "rights": "SELECT oid::regclass::text, relacl::text FROM pg_class"
    " WHERE relnamespace = 'lakets'::regnamespace AND relkind = 'r' AND relname !~ '^my_' ORDER BY 1",
    "schemas": "SELECT nspname, nspacl::text FROM pg_namespace WHERE nspname LIKE 'lakets%' ORDER BY 1",
}

OF_01 = (
    *("_version", "_chronotable_registry", "_chunk_metadata", "_lvc_registry"),
    *("_policy_registry", "_rollup_registry", "_rollup_invalidation_log"),
)


def rows(conninfo: str, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        cursor = conn.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []


def value(conninfo: str, query: str, *parameters: Any) -> Any:
    return rows(conninfo, query, *parameters)[0][0]


def program(postgres: EmbeddedPostgres, name: str) -> Path:
    """Return the path of a Postgres client program; Postgres 17 has none here, so 18's is used."""
    return bin_dir(18 if postgres.version == 17 else postgres.version) / name


def install(conninfo: str, script: str | None = None) -> list[str]:
    """Run the install and return what it warned of."""
    warned: list[str] = []
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.add_notice_handler(lambda notice: warned.append(str(notice.message_primary)))
        conn.execute((script or install_script()).encode())
    return warned


def catalog(conninfo: str) -> dict[str, list[tuple[Any, ...]]]:
    return {name: rows(conninfo, query) for name, query in CATALOG.items()}


def registries(conninfo: str) -> dict[str, list[dict[str, Any]]]:
    with psycopg.connect(conninfo) as conn:
        return {
            table: [
                row
                for (row,) in conn.execute(f"SELECT to_jsonb(t) FROM lakets.{table} AS t ORDER BY 1".encode())
            ]
            for table in OF_01[1:]
        }


@pytest.fixture(scope="module")
def old_world(postgres: EmbeddedPostgres, template_01: str) -> str:
    """Return the name of a database that has lived with 0.1.x, for cloning."""
    name = "lakets_01_world"
    with psycopg.connect(postgres.ensure_database(name, template=template_01), autocommit=True) as conn:
        conn.execute((HERE / "world_01.sql").read_text().encode())
    return name


@pytest.fixture
def older(postgres: EmbeddedPostgres, old_world: str) -> Iterator[str]:
    """Yield the conninfo of a database that has lived with 0.1.x."""
    yield postgres.ensure_database("older", template=old_world)
    postgres.drop_database("older")


@pytest.fixture(scope="module")
def upgraded_world(postgres: EmbeddedPostgres, old_world: str) -> str:
    install(postgres.ensure_database("lakets_upgraded", template=old_world))
    return "lakets_upgraded"


@pytest.fixture
def upgraded(postgres: EmbeddedPostgres, upgraded_world: str) -> Iterator[psycopg.Connection]:
    """Yield a session on such a database after our install."""
    with psycopg.connect(
        postgres.ensure_database("upgraded", template=upgraded_world), autocommit=True
    ) as conn:
        conn.execute("SET client_min_messages = error")
        yield conn
    postgres.drop_database("upgraded")


def one(conn: psycopg.Connection, query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


# On nothing


def test_an_empty_database_gets_everything_and_a_version(empty_database: str) -> None:
    install(empty_database)

    assert rows(empty_database, "SELECT version FROM lakets._version") == [(__version__,)]
    assert rows(empty_database, "SELECT name FROM lakets.migration ORDER BY 1") == [
        (path.stem,) for path in migrations()
    ]


def test_psql_runs_the_same_script(empty_database: str, postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    script = tmp_path / "install.sql"
    script.write_text(install_script())

    done = subprocess.run(
        [
            program(postgres, "psql"),
            "--no-psqlrc",
            "--set=ON_ERROR_STOP=1",
            "--quiet",
            "--file",
            script,
            empty_database,
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert value(empty_database, "SELECT version FROM lakets._version") == __version__


def test_a_role_without_superuser_rights_can_install(empty_database: str, conn: psycopg.Connection) -> None:
    database = psycopg.conninfo.conninfo_to_dict(empty_database)["dbname"]
    conn.execute("CREATE ROLE installer LOGIN")
    conn.execute(f'GRANT CREATE ON DATABASE "{database}" TO installer'.encode())
    try:
        install(psycopg.conninfo.make_conninfo(empty_database, user="installer"))

        assert (
            value(empty_database, "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'lakets'")
            == "installer"
        )
    finally:
        rows(empty_database, "DROP OWNED BY installer CASCADE")
        conn.execute("DROP ROLE installer")


# Again, and at once


def test_again_changes_nothing(empty_database: str) -> None:
    install(empty_database)
    rows(empty_database, "CREATE TABLE metrics (ts timestamptz, value int)")
    rows(empty_database, "SELECT lakets.create_chronotable('metrics', 'ts'), lakets.enable_sync('metrics')")
    before = (catalog(empty_database), registries(empty_database))

    install(empty_database)

    assert (catalog(empty_database), registries(empty_database)) == before
    assert value(empty_database, "SELECT count(*) FROM lakets._version") == 1


def test_again_goes_on_mirroring(empty_database: str) -> None:
    install(empty_database)
    rows(empty_database, "CREATE TABLE metrics (ts timestamptz, value int)")
    rows(empty_database, "SELECT lakets.create_chronotable('metrics', 'ts'), lakets.enable_sync('metrics')")
    with psycopg.connect(empty_database, autocommit=True) as writer:
        writer.execute("INSERT INTO metrics VALUES (now(), 1), (now(), 2)")
        install(empty_database)

        writer.execute("UPDATE metrics SET value = value + 1; DELETE FROM metrics WHERE value = 2")

    assert rows(empty_database, "SELECT value FROM lakets_cdf._shadow_metrics") == [(3,)]
    assert rows(empty_database, "SELECT * FROM lakets._mirror_gap") == []


TRACKED = (
    "CREATE TABLE metrics (ts timestamptz, value int);"
    " SELECT lakets.create_chronotable('metrics', 'ts'), lakets.enable_sync('metrics')"
)
WRITTEN = "SELECT proname, xmin::text FROM pg_proc WHERE proname ~ '^_track_[0-9]' ORDER BY 1"


def test_again_does_not_write_the_tracking_of_a_table_anew(empty_database: str) -> None:
    install(empty_database)
    rows(empty_database, TRACKED)
    install(empty_database)
    before = rows(empty_database, WRITTEN)

    install(empty_database)

    assert rows(empty_database, WRITTEN) == before
    assert len(before) == 4


@pytest.mark.parametrize(
    "change",
    [
        "DROP TRIGGER lakets_track_update ON metrics",
        "DROP TRIGGER lakets_truncated ON metrics",
        "ALTER TABLE metrics ENABLE TRIGGER lakets_track_delete",
        "CREATE OR REPLACE FUNCTION lakets._track_1_insert() RETURNS trigger LANGUAGE plpgsql"
        " SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NULL; END'",
        "ALTER TABLE metrics ADD COLUMN note text;"
        " ALTER TABLE lakets_cdf._shadow_metrics ADD COLUMN note text",
        "ALTER TABLE lakets_cdf._shadow_metrics RENAME TO _shadow_m;"
        " UPDATE lakets._chronotable_registry SET shadow_table_name = '_shadow_m'",
        "ALTER TABLE metrics RENAME TO numbers",
        "ALTER TABLE metrics ADD PRIMARY KEY (ts)",
        "CREATE ROLE tracked_owner; GRANT USAGE, CREATE ON SCHEMA public TO tracked_owner;"
        " ALTER TABLE metrics OWNER TO tracked_owner",
    ],
)
def test_again_writes_the_tracking_anew_where_it_is_not_as_it_should_be(
    empty_database: str, change: str
) -> None:
    install(empty_database)
    rows(empty_database, TRACKED)
    try:
        rows(empty_database, change)
        table = value(empty_database, "SELECT relation::regclass FROM lakets._chronotable_registry")

        install(empty_database)

        rows(empty_database, f"INSERT INTO {table} (ts, value) VALUES (now(), 1), (now() + '1 minute', 2)")
        rows(
            empty_database,
            f"UPDATE {table} SET value = 3 WHERE value = 1; DELETE FROM {table} WHERE value = 2",
        )
        shadow = value(empty_database, "SELECT shadow_table_name FROM lakets._chronotable_registry")
        assert rows(empty_database, f"SELECT value FROM lakets_cdf.{shadow}") == [(3,)]
        rows(empty_database, f"TRUNCATE {table}")
        assert rows(empty_database, f"SELECT value FROM lakets_cdf.{shadow}") == []
        assert rows(empty_database, "SELECT * FROM lakets._mirror_gap") == []
        assert value(
            empty_database,
            "SELECT array_agg(DISTINCT proowner) = array_agg(DISTINCT relowner) FROM pg_proc, pg_class"
            " WHERE proname ~ '^_track_[0-9]' AND pg_class.oid = %s::regclass",
            table,
        )
    finally:
        rows(empty_database, "DROP TABLE IF EXISTS metrics, numbers CASCADE")
        if "ROLE" in change:
            rows(empty_database, "DROP OWNED BY tracked_owner CASCADE; DROP ROLE tracked_owner")


@pytest.mark.parametrize("over", ["nothing", "0.1"])
def test_eight_installers_at_once_end_in_one(over: str, request: pytest.FixtureRequest) -> None:
    conninfo = request.getfixturevalue("empty_database" if over == "nothing" else "older")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(install, [conninfo] * 8))

    assert rows(conninfo, "SELECT count(*) FROM lakets._version WHERE version = %s", __version__) == [(1,)]
    assert value(conninfo, "SELECT count(*) FROM lakets.migration") == len(migrations())


# Whole, or not at all


@pytest.mark.parametrize("where", ["the migrations", "the end"])
@pytest.mark.parametrize("over", ["nothing", "0.1"])
def test_an_install_that_fails_leaves_nothing_behind(
    over: str, where: str, request: pytest.FixtureRequest
) -> None:
    conninfo = request.getfixturevalue("empty_database" if over == "nothing" else "older")
    everything = (
        "SELECT oid::regclass::text FROM pg_class WHERE oid >= 16384 AND"
        " relnamespace::regnamespace::text <> 'pg_toast'"
        " UNION ALL SELECT oid::regprocedure || prosrc FROM pg_proc WHERE oid >= 16384"
        " UNION ALL SELECT tgrelid || tgname FROM pg_trigger UNION ALL SELECT nspname FROM"
        " pg_namespace ORDER BY 1"
    )
    before = rows(conninfo, everything)
    failure = "SELECT 1 / 0;\n"
    head, end, tail = (
        install_script().rpartition("COMMIT;") if where == "the end" else install_script().partition("-- 10_")
    )

    with pytest.raises(psycopg.errors.DivisionByZero):
        install(conninfo, head + failure + end + tail)

    assert rows(conninfo, everything) == before


def test_a_busy_table_makes_the_install_step_back(older: str) -> None:
    with psycopg.connect(older) as reader:
        reader.execute("SELECT count(*) FROM metrics")

        with pytest.raises(psycopg.errors.LockNotAvailable):
            install(older)

    assert value(older, "SELECT to_regclass('lakets.migration')") is None


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


def test_rollups_become_equal_to_their_queries(upgraded: psycopg.Connection) -> None:
    upgraded.execute("DELETE FROM metrics WHERE device = 'd1' AND ts < now() - interval '3 days'")
    upgraded.execute("INSERT INTO metrics VALUES (now() - interval '1 day', 'new', 100)")

    refreshed = upgraded.execute(
        "SELECT rollup_name, refreshed FROM lakets.refresh_rollup_cascade()"
    ).fetchall()

    assert refreshed == [("hourly", True), ("daily", True)]
    for name in ("hourly", "daily"):
        query = one(upgraded, f"SELECT query_text FROM lakets._rollup_registry WHERE name = '{name}'")
        # A bucket whose source is dropped keeps its value.
        kept = "(SELECT max(range_end) FROM lakets._chunk_metadata WHERE status = 'dropped')"
        same = (
            f"SELECT count(*) FROM ((SELECT * FROM ({query}) AS q WHERE bucket >= {kept}"
            f" EXCEPT ALL SELECT * FROM public._rollup_{name} WHERE bucket >= {kept})"
            f" UNION ALL (SELECT * FROM public._rollup_{name} WHERE bucket >= {kept}"
            f" EXCEPT ALL SELECT * FROM ({query}) AS q WHERE bucket >= {kept})) AS d"
        )
        assert one(upgraded, same) == 0


def test_pending_invalidations_are_refreshed(upgraded: psycopg.Connection) -> None:
    kept = "(SELECT max(range_end) FROM lakets._chunk_metadata WHERE status = 'dropped')"
    stale = f"SELECT count(*) FROM public._rollup_{{}} WHERE total = -1 AND bucket >= {kept}"
    frozen = f"SELECT count(*) FROM public._rollup_hourly WHERE total = -1 AND bucket < {kept}"
    before = one(upgraded, frozen)
    assert min(before, *(one(upgraded, stale.format(name)) for name in ("hourly", "daily"))) > 0

    upgraded.execute("SELECT lakets.refresh_rollup_cascade()")

    assert [one(upgraded, stale.format(name)) for name in ("hourly", "daily")] == [0, 0]
    assert one(upgraded, frozen) == before
    assert one(upgraded, "SELECT count(*) FROM lakets._rollup_invalidation_log") == 0


def test_a_synced_rollup_goes_on_being_mirrored(upgraded: psycopg.Connection) -> None:
    table, shadow = "TABLE public._rollup_hourly", "TABLE lakets_cdf._shadow_rollup_hourly"
    difference = f"({table} EXCEPT ALL {shadow}) UNION ALL ({shadow} EXCEPT ALL {table})"
    before = upgraded.execute(shadow.encode()).fetchall()

    upgraded.execute("INSERT INTO metrics VALUES (now() - interval '1 day', 'new', 100)")
    upgraded.execute("DELETE FROM metrics WHERE device = 'd1' AND ts > now() - interval '3 days'")
    upgraded.execute("SELECT lakets.refresh_rollup_cascade()")

    assert upgraded.execute(difference.encode()).fetchall() == []
    assert one(upgraded, f"SELECT count(*) FROM ({shadow}) AS s WHERE device = 'new'") == 1
    assert upgraded.execute(shadow.encode()).fetchall() != before


def feed(upgraded: psycopg.Connection) -> None:
    """Let a feed stream all shadows."""
    upgraded.execute(FEED.encode())
    upgraded.execute(
        "INSERT INTO wal2delta.tables SELECT lakets._shadow_relation(shadow_table_name), 'STREAMING',"
        " pg_current_wal_insert_lsn() FROM lakets._chronotable_registry WHERE sync_enabled"
    )


def tier_all(upgraded: psycopg.Connection, name: str, schema: str) -> None:
    """Tier what is due of a table, as the job does: until all is compared, flushed and proved."""
    for _ in range(3):
        upgraded.execute(
            "SELECT lakets.tier_chunk(chunk_name) FROM lakets._get_chunks_to_tier(%s, %s)", [name, schema]
        )
        upgraded.execute("UPDATE wal2delta.tables SET committed_lsn = pg_current_wal_insert_lsn()")
    upgraded.execute(
        "SELECT lakets.tier_chunk(chunk_name) FROM lakets._get_chunks_to_tier(%s, %s)", [name, schema]
    )


def by_status(upgraded: psycopg.Connection, table_id: int, age: str) -> set[str]:
    """Return in which states the chunks of a table are that ended so long ago."""
    return {
        status
        for (status,) in upgraded.execute(
            "SELECT status FROM lakets._chunk_metadata WHERE chronotable_id = %s"
            " AND range_end <= now() - %s::interval",
            [table_id, age],
        )
    }


def test_tiered_retention_tiers_and_then_drops(upgraded: psycopg.Connection) -> None:
    assert one(upgraded, "SELECT lakets.execute_retention('metrics')") == 0

    feed(upgraded)
    tier_all(upgraded, "metrics", "public")
    upgraded.execute("SELECT lakets.refresh_rollup_cascade()")
    assert by_status(upgraded, 1, "2 days") == {"tiered", "dropped"}
    due = one(
        upgraded,
        "SELECT count(*) FROM lakets._chunk_metadata WHERE chronotable_id = 1 AND status = 'tiered'"
        " AND range_end <= now() - interval '15 days'",
    )

    assert one(upgraded, "SELECT lakets.execute_retention('metrics')") == due > 2
    assert by_status(upgraded, 1, "15 days") == {"dropped"}
    assert one(upgraded, "SELECT count(*) FROM metrics WHERE ts < now() - interval '16 days'") == 0
    assert one(upgraded, "SELECT min(ts) < now() - interval '14 days' FROM metrics")


def test_what_has_a_tiering_policy_only_is_tiered_and_never_dropped(upgraded: psycopg.Connection) -> None:
    held = one(upgraded, "SELECT count(*) FROM plant.readings")

    feed(upgraded)
    tier_all(upgraded, "readings", "plant")

    assert by_status(upgraded, 2, "10 days") == {"tiered"}
    assert one(upgraded, "SELECT lakets.execute_retention('readings', 'plant')") == 0
    assert by_status(upgraded, 2, "10 days") == {"tiered"}
    assert one(upgraded, "SELECT count(*) FROM plant.readings") == held


def test_the_mirror_of_0_1_3_is_completed_by_the_tiering_job(upgraded: psycopg.Connection) -> None:
    missing = "SELECT count(*) FROM (TABLE metrics EXCEPT ALL TABLE lakets_cdf._shadow_metrics) AS d"
    assert one(upgraded, missing) > 70
    feed(upgraded)
    oldest = one(upgraded, "SELECT chunk_name FROM lakets._get_chunks_to_tier('metrics')")

    # All that is in the shadow is flushed: what matters is that more is missing.
    assert one(upgraded, f"SELECT lakets.explain_durability('{oldest}')") is not None
    assert one(upgraded, "SELECT lakets.execute_retention('metrics')") == 0
    assert not one(upgraded, f"SELECT lakets.tier_chunk('{oldest}')")
    tier_all(upgraded, "metrics", "public")

    assert by_status(upgraded, 1, "2 days") == {"tiered", "dropped"}
    due = "(SELECT max(range_end) FROM lakets._chunk_metadata WHERE status = 'tiered')"
    assert one(upgraded, f"{missing} WHERE ts < {due}") == 0


def test_a_mirror_of_0_1_3_with_rows_too_many_is_put_right(upgraded: psycopg.Connection) -> None:
    old = (
        "(SELECT min(range_start) FROM lakets._chunk_metadata WHERE chronotable_id = 2 AND status = 'active')"
    )
    upgraded.execute(
        f"INSERT INTO lakets_cdf._shadow_readings VALUES ({old}, -1), ({old}, 40), ({old}, 40)".encode()
    )
    feed(upgraded)

    tier_all(upgraded, "readings", "plant")

    due = "(SELECT max(range_end) FROM lakets._chunk_metadata WHERE status = 'tiered' AND chronotable_id = 2)"
    table, shadow = (
        f"SELECT * FROM {name} WHERE at < {due}" for name in ("plant.readings", "lakets_cdf._shadow_readings")
    )
    assert (
        upgraded.execute(
            f"({table} EXCEPT ALL {shadow}) UNION ALL ({shadow} EXCEPT ALL {table})".encode()
        ).fetchall()
        == []
    )


def test_a_table_that_is_only_dropped_from_is_compared_by_retention(upgraded: psycopg.Connection) -> None:
    upgraded.execute(
        "SELECT lakets.remove_tiering_policy('readings', 'plant'),"
        " lakets.add_retention_policy('readings', '20 days', 'plant')"
    )
    feed(upgraded)
    dropped = 0

    for _ in range(4):
        dropped += one(upgraded, "SELECT lakets.execute_retention('readings', 'plant')")
        upgraded.execute("UPDATE wal2delta.tables SET committed_lsn = pg_current_wal_insert_lsn()")

    assert dropped > 1
    gone = (
        "(SELECT max(range_end) FROM lakets._chunk_metadata WHERE chronotable_id = 2 AND status = 'dropped')"
    )
    assert one(upgraded, f"SELECT count(*) FROM lakets_cdf._shadow_readings WHERE at < {gone}") > 10


def test_retention_goes_on(upgraded: psycopg.Connection) -> None:
    dropped = one(upgraded, "SELECT lakets.execute_retention('scratch', 'plant')")

    assert dropped >= 3
    assert one(upgraded, "SELECT count(*) FROM plant.scratch") < 45


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

    assert [name for name in live if "_0_1_" in name] == []
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
    # These take one argument more: whoever named the older ones by their arguments keeps calling
    # those.
    warned = sorted(text for text in install(older) if "is used by" in text)

    assert [text.split(",")[0] for text in warned] == [
        "lakets.refresh_rollup is used by function public.refresh_hourly()",
        "lakets.time_bucket_gapfill is used by view public.hours",
    ]
    assert [text.endswith("that calls the new one.") for text in warned] == [True, True]
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


# What is refused

REFUSED = {
    "a newer LakeTS": (
        "INSERT INTO lakets._version (version, installed_at) VALUES ('0.1.4', now() + interval '1 s')",
        r"LakeTS 0\.1\.4 is installed, which is newer",
    ),
    "a far newer LakeTS": (
        "INSERT INTO lakets._version (version, installed_at) VALUES ('0.10.0', now() + interval '1 s')",
        r"LakeTS 0\.10\.0 is installed, which is newer",
    ),
    "an ancient LakeTS": ("UPDATE lakets._version SET version = '0.0.9'", r"older than 0\.1\.0"),
    "no version": ("DELETE FROM lakets._version", r"contains nothing, which is not a version"),
    "an unbuilt LakeTS": (
        "UPDATE lakets._version SET version = '__LAKETS_VERSION__'",
        r"contains '__LAKETS_VERSION__', which is not a version",
    ),
    "half a LakeTS": (
        "ALTER TABLE lakets._rollup_registry DROP COLUMN depends_on",
        r"incomplete: lakets\._rollup_registry\.depends_on is missing",
    ),
    "a tenth of a LakeTS": (
        "DROP TABLE lakets._policy_registry",
        r"lakets\._policy_registry\.config is missing",
    ),
    "another schema of the name": (
        "DROP SCHEMA lakets CASCADE; CREATE SCHEMA lakets; CREATE TABLE lakets.fish (weight int)",
        "Schema lakets exists and was not created by LakeTS",
    ),
    "another schema with versions": (
        "DROP SCHEMA lakets CASCADE; CREATE SCHEMA lakets; CREATE TABLE lakets._version (version text,"
        " installed_at timestamptz, modules text[])",
        "Schema lakets exists and was not created by LakeTS",
    ),
}


@pytest.mark.parametrize("found", REFUSED)
def test_what_is_not_known_is_refused_and_left_alone(older: str, found: str) -> None:
    statement, message = REFUSED[found]
    rows(older, statement)
    everything = "SELECT oid::regclass::text FROM pg_class WHERE oid >= 16384 ORDER BY 1"
    before = rows(older, everything)

    with pytest.raises(psycopg.Error, match=message) as told:
        install(older)

    assert told.value.diag.message_hint
    assert rows(older, everything) == before


def test_a_newer_engine_of_ours_is_not_replaced_by_this_one(empty_database: str) -> None:
    install(empty_database)
    rows(
        empty_database,
        "INSERT INTO lakets._version (version, installed_at) VALUES ('99.0.0', now() + interval '1 s')",
    )

    with pytest.raises(psycopg.errors.RaiseException, match=r"LakeTS 99\.0\.0 is installed"):
        install(empty_database)


def test_a_schema_made_beforehand_is_used(empty_database: str) -> None:
    rows(empty_database, "CREATE SCHEMA lakets; CREATE SCHEMA lakets_cdf")

    install(empty_database)

    assert value(empty_database, "SELECT version FROM lakets._version") == __version__


def test_what_is_broken_is_told_and_does_not_stop_the_install(older: str) -> None:
    rows(
        older,
        "INSERT INTO lakets._chronotable_registry (schema_name, table_name, time_column, chunk_interval)"
        " VALUES ('public', 'gone', 'ts', '1 day')",
    )
    rows(older, "CREATE TABLE public._rollup_bad (bucket timestamptz); CREATE TABLE public._rollup_worse ()")
    rows(
        older,
        "INSERT INTO lakets._rollup_registry"
        " (name, source_chronotable_id, rollup_table, query_text, bucket_interval, bucket_column)"
        " SELECT name, 1, '_rollup_' || name, query, '1 hour', NULL FROM (VALUES"
        " ('lost', 'SELECT now() AS bucket'), ('bad', 'SELECT nonsense'), ('worse', 'SELECT 1'))"
        " AS new (name, query)",
    )

    warned = [text for text in install(older) if "does not exist" in text or "can no longer" in text]

    assert len(warned) == 4
    for told, name in zip(warned, ("gone", "lost", "bad", "worse"), strict=True):
        assert name in told
    assert value(older, "SELECT lakets._ensure_partitions(1)") >= 0


def test_a_database_moves_by_dump_and_restore(
    postgres: EmbeddedPostgres, database: str, empty_database: str, tmp_path: Path
) -> None:
    rows(database, "CREATE TABLE metrics (id int, gone int, ts timestamptz, PRIMARY KEY (id, ts))")
    rows(database, "ALTER TABLE metrics DROP COLUMN gone")
    rows(
        database,
        "INSERT INTO metrics SELECT n, now() + n * interval '1 hour' FROM generate_series(1, 50) AS n",
    )
    rows(
        database, "SELECT lakets.create_chronotable('metrics', 'ts', '1 day'), lakets.enable_sync('metrics')"
    )
    dump = tmp_path / "dump.sql"
    subprocess.run([program(postgres, "pg_dump"), "--file", dump, database], check=True)

    subprocess.run(
        [
            program(postgres, "psql"),
            "--no-psqlrc",
            "--set=ON_ERROR_STOP=1",
            "--quiet",
            "--file",
            dump,
            empty_database,
        ],
        check=True,
        capture_output=True,
    )

    # The key has another oid now: that is noticed, and syncing again settles it.
    rows(empty_database, "UPDATE metrics SET ts = ts + interval '1 day' WHERE id < 9")
    assert value(empty_database, "SELECT count(*) FROM lakets._mirror_gap") == 1
    rows(empty_database, "SELECT lakets.enable_sync('metrics')")
    rows(empty_database, "DELETE FROM metrics WHERE id > 40")
    assert rows(empty_database, "TABLE metrics EXCEPT ALL TABLE lakets_cdf._shadow_metrics") == []
    assert value(empty_database, "SELECT count(*) FROM lakets_cdf._shadow_metrics") == 40
    assert rows(empty_database, "SELECT * FROM lakets._mirror_gap") == []


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
