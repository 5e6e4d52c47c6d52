"""The shadow has the same rows as its table after any change."""

from __future__ import annotations

import contextlib
import datetime
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sql.mirror.scene import FILL, mirror, missed, shaped

if TYPE_CHECKING:
    from tests.sandbox import Sandbox

STATEMENTS = {
    "insert many": "INSERT INTO metrics (id, ts, v) SELECT n, '2024-02-01', 'x' FROM"
    " generate_series(100, 120) AS n",
    "insert one": "INSERT INTO metrics (id, ts, v) VALUES (100, '2024-02-01', 'x')",
    "insert nothing": "INSERT INTO metrics (id, ts, v) SELECT 1, '2024-02-01', 'x' WHERE false",
    "insert what waits in the default": "INSERT INTO metrics (id, ts, v) VALUES (100, '1999-01-01', 'x')",
    "update in place": "UPDATE metrics SET v = v || '!' WHERE id < 20",
    "update to the same": "UPDATE metrics SET v = v",
    "update nothing": "UPDATE metrics SET v = 'y' WHERE id < 0",
    "update to null": "UPDATE metrics SET v = NULL WHERE id % 2 = 0",
    "change the key": "UPDATE metrics SET id = id + 1000 WHERE id > 10",
    "change some keys and more": "UPDATE metrics SET id = CASE WHEN id % 2 = 0 THEN id + 1000 ELSE"
    " id END, v = 'z'",
    "move to another chunk": "UPDATE metrics SET ts = ts + interval '1 day'",
    "move to the default": "UPDATE metrics SET ts = '1999-01-01' WHERE id = 3",
    "update from a join": "UPDATE metrics AS m SET v = o.v FROM metrics AS o WHERE o.id = m.id + 1",
    "delete some": "DELETE FROM metrics WHERE id % 3 = 0",
    "delete all": "DELETE FROM metrics",
    "truncate": "TRUNCATE metrics",
    "merge": "MERGE INTO metrics AS m USING generate_series(25, 35) AS n ON m.id = n"
    " WHEN MATCHED AND n % 2 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET v = 'merged'"
    " WHEN NOT MATCHED THEN INSERT (id, ts, v) VALUES (n, '2024-01-02', 'new')",
    "all in one": "WITH a AS (INSERT INTO metrics (id, ts, v) VALUES (99, '2024-01-01', 'a')),"
    " b AS (DELETE FROM metrics WHERE id < 5) UPDATE metrics SET v = 'c' WHERE id > 20",
    "delete and insert again": "WITH gone AS (DELETE FROM metrics WHERE id < 9 RETURNING id, ts, v)"
    " INSERT INTO metrics (id, ts, v) SELECT id + 500, ts, v FROM gone",
}


@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_shadow_follows_a_statement(mirrored: Sandbox, statement: str) -> None:
    mirrored.run(STATEMENTS[statement])

    assert mirrored.mirror_difference() == []
    assert missed(mirrored) == 0


def test_the_shadow_follows_a_copy(mirrored: Sandbox) -> None:
    with mirrored.conn.cursor().copy("COPY metrics (id, ts, v) FROM STDIN") as copy:
        for n in range(50, 90):
            copy.write_row((n, f"2024-01-0{n % 5 + 1}", None))

    assert mirrored.mirror_difference() == []


@pytest.mark.parametrize("shape", ["key", "wide key", "date"])
def test_the_shadow_follows_an_upsert(db: Sandbox, shape: str) -> None:
    mirror(db, shape)

    db.run(
        "INSERT INTO metrics (id, ts, v) SELECT n, '2024-01-01'::date + n % 3, 'upserted' FROM"
        " generate_series(20, 40) AS n"
        f" ON CONFLICT ({'ts, site, id' if shape == 'wide key' else 'id, ts'})"
        " DO UPDATE SET v = excluded.v, id = metrics.id + 100"
    )
    db.run(FILL + " ON CONFLICT DO NOTHING")

    assert db.mirror_difference() == []
    assert missed(db) == 0


@pytest.mark.parametrize("shape", ["late key", "no key"])
def test_the_shadow_follows_keys_that_change_places(db: Sandbox, shape: str) -> None:
    mirror(db, shape)

    db.run("UPDATE metrics SET id = 31 - id, ts = '2024-01-01'")
    if shape == "late key":
        db.run(
            "SET CONSTRAINTS ALL DEFERRED; UPDATE metrics SET id = 1 WHERE id < 3; UPDATE metrics"
            " SET v = v || id"
        )
        assert db.mirror_difference() == []
        db.run("DELETE FROM metrics WHERE id = 1; SET CONSTRAINTS ALL IMMEDIATE")

    assert db.mirror_difference() == []
    assert missed(db) == 0


# The variables of PL/pgSQL in a trigger function.
VARIABLES = (
    "found new old tg_argv tg_level tg_name tg_nargs tg_op tg_relid tg_relname tg_table_name"
    " tg_table_schema tg_when"
)
# Each word of the trigger functions of a table, and each alias in the functions of LakeTS.
WORDS = r"""
SELECT DISTINCT lower(hit[1])
  FROM (SELECT regexp_matches(fn.prosrc, '([a-z_]\w*)', 'gi') FROM pg_trigger AS trg
          JOIN pg_proc AS fn ON fn.oid = trg.tgfoid WHERE trg.tgrelid = 'sample'::regclass
        UNION
        SELECT regexp_matches(fn.prosrc, '(?:\mAS\s+|\m(?=lakets_))([a-z_]\w*)', 'gi') FROM pg_proc AS fn
         WHERE fn.pronamespace = 'lakets'::regnamespace) AS word (hit)
 WHERE lower(hit[1]) NOT IN (SELECT attname FROM pg_attribute WHERE attnum < 0)
   AND lower(hit[1]) <> 'last_updated'
"""


@pytest.mark.parametrize("key", [["old"], ["old", "found"], []], ids=" ".join)
def test_columns_may_have_any_name_that_the_functions_of_lakets_use(db: Sandbox, key: list[str]) -> None:
    keyed = f", PRIMARY KEY ({', '.join(key)})" if key else ""
    db.run(f"CREATE TABLE sample (old timestamptz, found text{keyed})")
    db.run("SELECT lakets.create_chronotable('sample', 'old'), lakets.enable_sync('sample')")
    db.run("SELECT lakets.enable_lvc('sample', ARRAY['found'], '{}')")
    names = sorted({*VARIABLES.split(), *db.column(WORDS)} - {"old"})
    assert {"lakets_old", "lakets_new", "lakets_image", "copies", "new_rows"} <= {*names}
    columns = ", ".join(f'"{name}" text' for name in names)
    db.run(f"CREATE TABLE named (old timestamptz, {columns}{keyed})")
    db.run("SELECT lakets.create_chronotable('named', 'old'), lakets.enable_sync('named')")
    db.run(
        "SELECT lakets.enable_lvc('named', ARRAY['found'], %s)", [name for name in names if name != "found"]
    )

    def insert(count: int) -> None:
        db.run(
            f"INSERT INTO named SELECT now() + n * interval '1 s'{', n::text' * len(names)}"
            f" FROM generate_series(1, {count}) AS n"
        )

    insert(1)
    db.run("UPDATE named SET found = 'x', tg_op = 'y'")
    db.run("DELETE FROM named")
    insert(20)
    db.run("UPDATE named SET r = 'z' WHERE hit < '15'; DELETE FROM named WHERE found > '5'")

    assert db.mirror_difference("named") == []
    assert missed(db) == 0
    assert db.value("SELECT count(*) FROM _lvc_named") > 0
    for repair in ("enable_sync", "compare_chunks"):
        db.run("DELETE FROM lakets_cdf._shadow_named WHERE found < '2'")
        db.run("INSERT INTO lakets._mirror_gap (shadow) VALUES ('lakets_cdf._shadow_named')")
        db.run(f"SELECT lakets.{repair}('named', p_schema_name => 'public')")
        assert db.mirror_difference("named") == []


def test_exact_duplicates_are_counted(db: Sandbox) -> None:
    mirror(db, "no key", None)
    db.run("INSERT INTO metrics (id, ts, v) SELECT 1, '2024-01-01', 'same' FROM generate_series(1, 5)")

    db.run("DELETE FROM metrics WHERE ctid IN (SELECT ctid FROM metrics LIMIT 2)")
    assert db.mirror_difference() == []
    db.run("UPDATE metrics SET v = 'other' WHERE ctid IN (SELECT ctid FROM metrics LIMIT 1)")
    assert db.mirror_difference() == []

    assert db.value("SELECT count(*) FROM lakets_cdf._shadow_metrics") == 3
    assert missed(db) == 0


@pytest.mark.parametrize("shape", ["no key", "wall clock"])
@pytest.mark.parametrize(
    "moment", ["NULL", "'infinity'", "'-infinity'", "'294276-12-31 23:59:59'", "'4713-01-01 BC'"]
)
def test_rows_of_no_time_are_mirrored_too(db: Sandbox, moment: str, shape: str) -> None:
    mirror(db, shape)
    db.run(f"INSERT INTO metrics (id, ts, v) SELECT 7, {moment}, 'a' FROM generate_series(1, 3)")

    db.run("UPDATE metrics SET v = 'b' WHERE ctid IN (SELECT max(ctid) FROM metrics_default)")
    assert db.mirror_difference() == []
    db.run("DELETE FROM metrics WHERE v = 'a'")

    assert db.mirror_difference() == []
    assert missed(db) == 0


def test_generated_columns_are_mirrored_as_they_come(db: Sandbox) -> None:
    kinds = ["STORED"] + (["VIRTUAL"] if int(db.value("SHOW server_version_num")) >= 180000 else [])
    generated = ", ".join(f"g{n} int GENERATED ALWAYS AS (id * 2) {kind}" for n, kind in enumerate(kinds))
    db.chronotable(f"id int, ts timestamptz, {generated}", synced=True)

    db.run(
        "INSERT INTO metrics VALUES (1, '2024-01-01'), (2, '2024-01-01'); UPDATE metrics SET id = 3"
        " WHERE id = 1"
    )

    assert db.mirror_difference() == []
    assert db.column("SELECT g0 FROM lakets_cdf._shadow_metrics ORDER BY 1") == [4, 6]
    assert missed(db) == 0


@pytest.mark.parametrize("key", ["", ", PRIMARY KEY (id, ts)"], ids=["no key", "key"])
def test_columns_after_a_dropped_one_are_mirrored(db: Sandbox, key: str) -> None:
    db.chronotable(f"id int, x int, ts timestamptz, y int, v int, w text{key}", synced=True)
    db.run("ALTER TABLE metrics DROP COLUMN x, DROP COLUMN y")
    db.sync()
    db.run("INSERT INTO metrics SELECT n, now(), n, 'w' || n FROM generate_series(1, 4) AS n")

    db.run("UPDATE metrics SET v = 10 WHERE id = 1")
    db.run("UPDATE metrics SET id = 20 WHERE id = 2")
    db.run("UPDATE metrics SET ts = ts - interval '1 day' WHERE id = 3")
    db.run("DELETE FROM metrics WHERE id = 4")

    assert db.mirror_difference() == []
    assert missed(db) == 0


MAKE_CHUNKS = (
    "SELECT lakets._ensure_partitions({}, p_range_start => '2024-01-01', p_range_end => '2024-01-03')"
)
ATTACH = (
    "CREATE TABLE came"
    " (v int, ts timestamptz NOT NULL, g int GENERATED ALWAYS AS (v * 2) STORED, id int NOT NULL);"
    " ALTER TABLE metrics ATTACH PARTITION came FOR VALUES FROM ('2024-01-01+00') TO ('2024-01-03+00');"
    " SELECT lakets.adopt_partitions('metrics', '{}')"
)


# Postgres captures such a row for the triggers before it computes these columns.
@pytest.mark.parametrize("placed", ["new", "later", "attached"])
def test_generated_columns_are_mirrored_where_a_chunk_has_its_columns_at_other_places(
    db: Sandbox, placed: str
) -> None:
    generated = "g int GENERATED ALWAYS AS (v * 2) STORED"
    last = "y int" if placed == "later" else generated
    table_id = db.chronotable(
        f"id int, ts timestamptz, v int, x int, {last}, PRIMARY KEY (id, ts)", synced=True
    )
    db.run("ALTER TABLE metrics DROP COLUMN x")
    db.run(ATTACH.format(db.schema) if placed == "attached" else MAKE_CHUNKS.format(table_id))
    if placed == "later":
        db.run(f"ALTER TABLE metrics ADD COLUMN {generated}")
    db.sync()
    db.run(f"SELECT lakets.enable_lvc('metrics', '{{id}}', '{{v,g}}', '{db.schema}')")

    db.run("INSERT INTO metrics (id, ts, v) VALUES (1, '2024-01-01', 1), (2, now(), 2), (3, '2024-01-02', 3)")
    db.run("UPDATE metrics SET ts = '2024-01-02' WHERE id = 2")

    assert db.mirror_difference() == []
    assert db.run("SELECT id, g FROM _lvc_metrics ORDER BY 1") == [(1, 2), (2, 4), (3, 6)]
    assert missed(db) == 0


def test_what_is_rolled_back_is_rolled_back_there_too(mirrored: Sandbox) -> None:
    with mirrored.undone():
        mirrored.run("DELETE FROM metrics WHERE id < 10; UPDATE metrics SET v = 'gone'")

    mirrored.run("UPDATE metrics SET v = 'kept' WHERE id < 5")

    assert mirrored.mirror_difference() == []


# The change log


@pytest.mark.parametrize("shape", ["key", "date", "wall clock"])
def test_each_statement_logs_the_extent_of_what_it_touched_by_hour(db: Sandbox, shape: str) -> None:
    db.run("SET LOCAL timezone = 'America/New_York'")
    mirror(db, shape, None)
    db.run("DELETE FROM lakets._change_log")
    db.run("INSERT INTO metrics (id, ts) VALUES (1, '2024-01-01'), (2, '2024-01-02')")
    db.run("UPDATE metrics SET ts = '2024-01-03' WHERE id = 1; DELETE FROM metrics WHERE id = 2")
    db.run("UPDATE metrics SET v = 'x' WHERE id = 4711")

    logged = db.column("SELECT min_time AT TIME ZONE 'UTC' FROM lakets._change_log ORDER BY min_time")

    hour = 5 if shape == "key" else 0
    assert logged == [datetime.datetime(2024, 1, day, hour) for day in (1, 1, 2, 2, 3)]


def test_rows_of_one_hour_make_one_log_entry(db: Sandbox) -> None:
    mirror(db, "key", None)
    db.run("DELETE FROM lakets._change_log")

    db.run(
        "INSERT INTO metrics SELECT n, '2024-01-01 10:00+00'::timestamptz + n * interval '1 second'"
        " FROM generate_series(1, 9) n"
    )

    assert db.run(
        "SELECT extract(second FROM min_time)::int, extract(second FROM max_time)::int FROM"
        " lakets._change_log"
    ) == [(1, 9)]


# Anything


ids = st.integers(1, 6)
days = st.integers(1, 5)
letters = st.sampled_from("abc")
writes = st.tuples(
    st.sampled_from(
        [
            "INSERT INTO metrics (id, ts, v) VALUES ({0}, '2024-01-0{1}', '{2}'), ({3}, '2024-01-0{1}', 'z')",
            "UPDATE metrics SET v = '{2}' WHERE id <= {0}",
            "UPDATE metrics SET ts = ts + interval '{3} days' WHERE id = {0}",
            "UPDATE metrics SET id = id + 10 WHERE v = '{2}' AND id < 10",
            "DELETE FROM metrics WHERE id = {0} AND v = '{2}'",
            "DELETE FROM metrics WHERE ctid IN (SELECT min(ctid) FROM metrics)",
            "TRUNCATE metrics",
            "SELECT lakets.enable_sync('metrics', current_schema())",
            "SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry",
        ]
    ),
    ids,
    days,
    letters,
    ids,
)


@pytest.mark.parametrize("shape", ["key", "no key", "date"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(writes, min_size=2, max_size=12))
def test_any_history_of_writes_leaves_the_shadow_equal(
    shapes: psycopg.Connection, shape: str, history: list[tuple[str, int, int, str, int]]
) -> None:
    with shapes.transaction(force_rollback=True):
        db = shaped(shapes, shape)
        db.run("DELETE FROM metrics WHERE id > 6")
        for statement, *values in history:
            with contextlib.suppress(psycopg.errors.UniqueViolation), shapes.transaction():
                db.run(statement.format(*values))
            assert db.mirror_difference() == []
        assert missed(db) == 0


@pytest.mark.parametrize("synced", [True, False], ids=["synced", "not synced"])
def test_a_chunk_refuses_its_own_truncate_after_one_of_the_whole_table(db: Sandbox, synced: bool) -> None:
    db.chronotable("id int, ts timestamptz", synced=synced)
    db.run("INSERT INTO metrics VALUES (1, now())")
    db.run("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")
    db.run("TRUNCATE metrics; INSERT INTO metrics VALUES (2, now())")
    chunk = db.value("SELECT tableoid::regclass::text FROM metrics")

    with db.refused("P0001", "cannot be written directly"):
        db.run(f"TRUNCATE {chunk}")

    assert db.column("SELECT id FROM metrics") == [2]
    if synced:
        assert db.mirror_difference() == []


def test_tables_are_truncated_together_and_by_each_others_triggers(db: Sandbox) -> None:
    for name in ("metrics", "other", "third"):
        db.chronotable("id int, ts timestamptz", name=name, synced=True)
    db.run(
        "CREATE FUNCTION empty_third() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN TRUNCATE third;"
        " RETURN NULL; END $$;"
        " CREATE TRIGGER a BEFORE TRUNCATE ON metrics FOR EACH STATEMENT EXECUTE FUNCTION empty_third();"
        " CREATE TRIGGER z BEFORE TRUNCATE ON metrics FOR EACH STATEMENT EXECUTE FUNCTION empty_third()"
    )
    for name in ("metrics", "other", "third"):
        db.run(f"INSERT INTO {name} VALUES (1, now())")

    db.run("TRUNCATE metrics, other")

    for name in ("metrics", "other", "third"):
        assert db.value(f"SELECT count(*) FROM {name}") == 0
        assert db.mirror_difference(name) == []
        chunk = db.value(
            f"SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = '{name}'::regclass"
        )
        with db.refused("P0001", "cannot be written directly"):
            db.run(f"TRUNCATE {chunk}")


def test_a_role_that_may_not_see_the_feed_is_warned_and_its_table_is_synced(db: Sandbox) -> None:
    db.run(
        "CREATE ROLE keeper; GRANT USAGE, CREATE ON SCHEMA public, lakets, lakets_cdf TO keeper;"
        " GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO keeper;"
        " CREATE SCHEMA wal2delta CREATE TABLE tables"
        " (table_oid oid, status text, committed_lsn pg_lsn, last_write_time timestamptz)"
    )
    warned: list[str] = []
    db.conn.add_notice_handler(lambda notice: warned.append(str(notice.message_primary)))
    db.run("SET LOCAL client_min_messages = warning; SET LOCAL ROLE keeper")
    db.run("CREATE TABLE metrics (id int, ts timestamptz); SELECT lakets.create_chronotable('metrics', 'ts')")

    db.run("SELECT lakets.enable_sync('metrics'); RESET ROLE")

    assert warned == [
        "Role keeper may not read wal2delta.tables: it cannot see how far the change feed has come."
    ]
    db.run("INSERT INTO metrics VALUES (1, now())")
    assert db.mirror_difference() == []
