"""The install: on an empty database, repeated, concurrent; completely or not at all."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets import __version__
from airflow_provider_lakets.engine import install_script, migrations
from tests.sql.install.scene import catalog, install, program, registries, rows, value

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres


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
    assert len(before) == 5


@pytest.mark.parametrize(
    "change",
    [
        "DROP TRIGGER lakets_track_update ON metrics",
        "DROP TRIGGER lakets_truncated ON metrics",
        "DROP TRIGGER lakets_moved ON metrics",
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
        # A function that wrote to no shadow may have missed changes.
        gaps = 1 if "RETURN NULL" in change else 0
        assert value(empty_database, "SELECT count(*) FROM lakets._mirror_gap") == gaps
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

    # The key has another oid now, which is detected; syncing again repairs it.
    rows(empty_database, "UPDATE metrics SET ts = ts + interval '1 day' WHERE id < 9")
    assert value(empty_database, "SELECT count(*) FROM lakets._mirror_gap") == 1
    rows(empty_database, "SELECT lakets.enable_sync('metrics')")
    rows(empty_database, "DELETE FROM metrics WHERE id > 40")
    assert rows(empty_database, "TABLE metrics EXCEPT ALL TABLE lakets_cdf._shadow_metrics") == []
    assert value(empty_database, "SELECT count(*) FROM lakets_cdf._shadow_metrics") == 40
    assert rows(empty_database, "SELECT * FROM lakets._mirror_gap") == []
