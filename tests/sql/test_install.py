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

# What other programs made in the schema's time: kept under another name, or generated for each table.
NOT_OURS = "proname LIKE '\\_0\\_1\\_%' OR proname LIKE '\\_track\\_%\\_%'"

CATALOG = {
    "functions": f"SELECT pg_get_functiondef(oid), proacl::text FROM pg_proc"
    f" WHERE pronamespace = 'lakets'::regnamespace AND prokind = 'f' AND NOT ({NOT_OURS}) ORDER BY 1",
    "aggregates": "SELECT oid::regprocedure::text, aggtransfn::text, aggfinalfn::text, aggcombinefn::text,"
    " aggtranstype::regtype::text FROM pg_aggregate JOIN pg_proc ON oid = aggfnoid"
    " WHERE pronamespace = 'lakets'::regnamespace ORDER BY 1",
    "comments": "SELECT oid::regprocedure::text, obj_description(oid, 'pg_proc') FROM pg_proc"
    " WHERE pronamespace = 'lakets'::regnamespace AND obj_description(oid, 'pg_proc') IS NOT NULL ORDER BY 1",
    "columns": "SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull,"
    " pg_get_expr(adbin, adrelid) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid AND"
    " relkind = 'r'"
    " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
    " WHERE relnamespace = 'lakets'::regnamespace AND attnum > 0 ORDER BY 1, 2",
    "constraints": "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'lakets'::regnamespace AND contype <> 'n' ORDER BY 1, 2",
    "indexes": "SELECT indrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index JOIN"
    " pg_class ON oid = indexrelid"
    " WHERE relnamespace = 'lakets'::regnamespace ORDER BY 1, 2",
    "rights": "SELECT oid::regclass::text, relacl::text FROM pg_class"
    " WHERE relnamespace = 'lakets'::regnamespace AND relkind = 'r' ORDER BY 1",
    "schemas": "SELECT nspname, nspacl::text FROM pg_namespace WHERE nspname LIKE 'lakets%' ORDER BY 1",
}

OF_01 = (
    *("_version", "_chronotable_registry", "_chunk_metadata"),
    *("_policy_registry", "_rollup_registry", "_rollup_invalidation_log"),
)


def rows(conninfo: str, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with psycopg.connect(conninfo, autocommit=True) as conn:
        cursor = conn.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []


def value(conninfo: str, query: str, *parameters: Any) -> Any:
    return rows(conninfo, query, *parameters)[0][0]


def program(postgres: EmbeddedPostgres, name: str) -> Path:
    """Return the path of one of Postgres' own client programs; Postgres 17 comes with none, 18's do."""
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
        ("0.1.4",),
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
    # The tables of 0.1.x keep their own types and constraints; ours are the same, and no column is missing.
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
    upgraded.execute("INSERT INTO plant.metrics VALUES ('2001-01-01', 1)")
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
            "SELECT DISTINCT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"
        )
    ]

    assert triggers == [
        "lakets_alone",
        "lakets_no_direct_write",
        *(f"lakets_track_{event}" for event in ("delete", "insert", "truncate", "update")),
    ]


def test_old_chunks_cannot_be_written_directly_either(upgraded: psycopg.Connection) -> None:
    chunks = [
        name
        for (name,) in upgraded.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent IN"
            " ('metrics'::regclass, 'plant.metrics'::regclass)"
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


def test_two_tables_of_one_name_are_mirrored_each_to_its_own_shadow(upgraded: psycopg.Connection) -> None:
    upgraded.execute("INSERT INTO metrics VALUES (now() - interval '1 day', 'new', 100)")
    upgraded.execute("UPDATE plant.metrics SET value = -1 WHERE value = 100")
    for schema in ("public", "plant"):
        upgraded.execute("SELECT lakets.enable_sync('metrics', %s)", [schema])
    upgraded.execute("DELETE FROM metrics WHERE device = 'd1'")
    upgraded.execute("UPDATE plant.metrics SET value = -2 WHERE value < 3")

    for table, shadow in (("metrics", "_shadow_metrics"), ("plant.metrics", "_shadow_plant_metrics")):
        table, shadow = f"TABLE {table}", f"TABLE lakets_cdf.{shadow}"
        difference = f"({table} EXCEPT ALL {shadow}) UNION ALL ({shadow} EXCEPT ALL {table})"
        assert upgraded.execute(difference.encode()).fetchall() == []


def tier_all(upgraded: psycopg.Connection, schema: str) -> None:
    """Let a feed stream all shadows, once checked, and tier what is due of one table called metrics."""
    upgraded.execute(FEED.encode())
    upgraded.execute(
        "SELECT lakets.enable_sync(table_name, schema_name) FROM lakets._chronotable_registry"
        " WHERE sync_enabled"
    )
    upgraded.execute(
        "INSERT INTO wal2delta.tables SELECT lakets._shadow_relation(shadow_table_name), 'STREAMING'"
        " FROM lakets._chronotable_registry WHERE sync_enabled"
    )
    for _ in range(3):
        upgraded.execute("UPDATE wal2delta.tables SET committed_lsn = pg_current_wal_insert_lsn()")
        upgraded.execute(
            "SELECT lakets.tier_chunk(chunk_name) FROM lakets._get_chunks_to_tier('metrics', %s)", [schema]
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

    tier_all(upgraded, "public")
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
    held = one(upgraded, "SELECT count(*) FROM plant.metrics")

    tier_all(upgraded, "plant")

    assert by_status(upgraded, 2, "10 days") == {"tiered"}
    assert one(upgraded, "SELECT lakets.execute_retention('metrics', 'plant')") == 0
    assert by_status(upgraded, 2, "10 days") == {"tiered"}
    assert one(upgraded, "SELECT count(*) FROM plant.metrics") == held


def test_nothing_is_durable_until_the_old_shadow_is_checked(upgraded: psycopg.Connection) -> None:
    upgraded.execute(
        "CREATE SCHEMA wal2delta; CREATE TABLE wal2delta.tables AS SELECT"
        " 'lakets_cdf._shadow_metrics'::regclass::oid"
        " AS table_oid, 'STREAMING' AS status, pg_current_wal_lsn() AS committed_lsn, now() AS"
        " last_write_time"
    )
    oldest = one(
        upgraded,
        "SELECT chunk_name FROM lakets._chunk_metadata WHERE chronotable_id = 1 AND status = 'active'"
        " ORDER BY range_start LIMIT 1",
    )
    said = one(upgraded, f"SELECT lakets.explain_durability('{oldest}')")
    assert "enable_sync" in said
    assert one(upgraded, "SELECT lakets.execute_retention('metrics')") == 0

    upgraded.execute("SELECT lakets.enable_sync('metrics')")
    for _ in range(3):
        upgraded.execute("UPDATE wal2delta.tables SET committed_lsn = pg_current_wal_insert_lsn()")
        upgraded.execute("SELECT lakets.tier_chunk(chunk_name) FROM lakets._get_chunks_to_tier('metrics')")

    assert (
        one(upgraded, "SELECT count(*) FROM (TABLE metrics EXCEPT ALL TABLE lakets_cdf._shadow_metrics) AS d")
        == 0
    )
    assert one(upgraded, "SELECT count(*) FROM lakets._chunk_metadata WHERE status = 'tiered'") > 10


def test_retention_goes_on(upgraded: psycopg.Connection) -> None:
    dropped = one(upgraded, "SELECT lakets.execute_retention('scratch', 'plant')")

    assert dropped >= 3
    assert one(upgraded, "SELECT count(*) FROM plant.scratch") < 40


def test_a_view_on_an_old_function_goes_on_too(upgraded: psycopg.Connection) -> None:
    assert one(upgraded, "SELECT sum(count) FROM by_hour") == one(upgraded, "SELECT count(*) FROM metrics")


def test_what_is_broken_is_told_and_does_not_stop_the_install(older: str) -> None:
    rows(
        older,
        "INSERT INTO lakets._chronotable_registry (schema_name, table_name, time_column, chunk_interval)"
        " VALUES ('public', 'gone', 'ts', '1 day')",
    )
    rows(older, "CREATE TABLE public._rollup_bad (bucket timestamptz); CREATE TABLE public._rollup_worse ()")
    rows(
        older,
        "INSERT INTO lakets._rollup_registry (name, query_text, bucket_interval) VALUES"
        " ('lost', 'SELECT now() AS bucket', '1 hour'), ('bad', 'SELECT nonsense', '1 hour'),"
        " ('worse', 'SELECT 1', '1 hour')",
    )

    warned = install(older)

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
    # 0.1.x names shadows after tables, whatever their schema. What is proved of one is true of neither.
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
    assert len(set(shadows)) == len(shadows) == 3
    assert value(older, f'SELECT device FROM lakets_cdf."{shadows[-1][0]}"') == "other"
    assert value(older, "SELECT count(*) FROM lakets_cdf._shadow_metrics WHERE device = 'other'") == 0
