"""The shadow holds what its table holds, whatever is done to it, and says so when it may not."""

from __future__ import annotations

import contextlib
import datetime
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

SHAPES = {
    "key": "id int, ts timestamptz, v text, PRIMARY KEY (id, ts)",
    "wide key": "id int, v text, ts timestamptz, site text DEFAULT 'x', PRIMARY KEY (ts, site, id)",
    "no key": "ts timestamptz, id int, v text, j json DEFAULT '{}'",
    "late key": "id int, ts timestamptz, v text, PRIMARY KEY (id, ts) DEFERRABLE",
    "date": "id int, ts date, v text, PRIMARY KEY (id, ts)",
    "wall clock": "id int, ts timestamp, v text",
}

# The rows: ids 1 to 30 over three days, some of them twice where there is no key.
FILL = (
    "INSERT INTO metrics (id, ts, v) SELECT n, '2024-01-01'::date + n % 3, 'v' || n % 4 FROM"
    " generate_series(1, 30) AS n"
)

STATEMENTS = {
    "insert many": "INSERT INTO metrics (id, ts, v) SELECT n, '2024-02-01', 'x' FROM"
    " generate_series(100, 120) AS n",
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


@pytest.fixture(scope="module")
def shapes(postgres: EmbeddedPostgres, template: str) -> Iterator[psycopg.Connection]:
    """Yield a session with a synced ChronoTable of each shape, in a schema named after it."""
    name = "lakets_shapes"
    with psycopg.connect(postgres.ensure_database(name, template=template), autocommit=True) as session:
        session.execute("SET client_min_messages = error")
        for shape in SHAPES:
            session.execute("SELECT set_config('search_path', quote_ident(%s), false)", [shape])
            mirror(Sandbox(session, shape), shape)
        yield session
    postgres.drop_database(name)


def shaped(shapes: psycopg.Connection, shape: str) -> Sandbox:
    shapes.execute("SELECT set_config('search_path', quote_ident(%s), true)", [shape])
    return Sandbox(shapes, shape)


@pytest.fixture(params=SHAPES)
def mirrored(shapes: psycopg.Connection, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Yield a database with a synced ChronoTable of some shape that holds rows."""
    with shapes.transaction(force_rollback=True):
        yield shaped(shapes, request.param)


@pytest.fixture(params=["key", "no key"])
def either(shapes: psycopg.Connection, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Yield the same, but only with a plain key or none."""
    with shapes.transaction(force_rollback=True):
        yield shaped(shapes, request.param)


def mirror(db: Sandbox, shape: str, fill: str | None = FILL) -> Sandbox:
    """Make a synced ChronoTable of a shape."""
    table_id = db.chronotable(SHAPES[shape], synced=True)
    db.value(
        "SELECT lakets._ensure_partitions(%s, p_range_start => '2024-01-01+00', p_range_end =>"
        " '2024-01-03+00')",
        table_id,
    )
    if fill:
        db.run(fill)
        if shape in ("no key", "wall clock"):
            db.run(fill + " WHERE n < 10")
    return db


def missed(db: Sandbox) -> int:
    return int(db.value("SELECT count(*) FROM lakets._mirror_gap"))


def problem(db: Sandbox) -> str | None:
    """Return explain_durability's text about the mirror, if the feed has flushed everything."""
    db.run(
        "CREATE SCHEMA IF NOT EXISTS wal2delta; CREATE TABLE IF NOT EXISTS wal2delta.tables"
        " (table_oid oid, status text, committed_lsn pg_lsn, last_write_time timestamptz);"
        " TRUNCATE wal2delta.tables"
    )
    db.run(
        f"INSERT INTO wal2delta.tables VALUES ('{db.shadow()}'::regclass, 'STREAMING', 'FFFFFFFF/0', now())"
    )
    said = db.value(
        "SELECT lakets.explain_durability(chunk.chunk_name) FROM lakets._chunk_metadata AS chunk"
        " JOIN lakets._chronotable_registry AS tab ON tab.id = chronotable_id"
        " WHERE tab.schema_name = %s AND chunk.status = 'active' LIMIT 1",
        db.schema,
    )
    return str(said) if said and "enable_sync" in said else None


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


TYPES = """
CREATE TYPE mood AS ENUM ('calm', 'wild');
CREATE DOMAIN percent AS numeric(5, 2) CHECK (VALUE BETWEEN 0 AND 100);
CREATE TYPE pair AS (a float8, b json);
"""

SAMPLES = {
    "json": ['{"a": 1}', '{"a":1}', "null"],
    "jsonb": ['{"a": 1}', "null", "[]"],
    "point": ["(1,2)", "(-0,NaN)"],
    "polygon": ["((0,0),(1,1),(1,0))"],
    "numeric": ["1.0", "1.00", "NaN", "-Infinity"],
    "money": ["1.50"],
    "float8": ["-0", "0", "NaN", "0.1", "1e-320", "Infinity"],
    "float4": ["0.1", "-0"],
    "text[]": ["{a,NULL}", "[0:1]={a,b}", "{}", "{{a},{b}}"],
    "mood": ["calm", "wild"],
    "percent": ["0.10", "100"],
    "pair": ['(0.1,"{}")', "(,)"],
    "pair[]": ['{"(-0,)","(0,null)"}'],
    "tstzrange": ["[2024-01-01,)", "empty"],
    "int4multirange": ["{[1,3),[5,7)}"],
    "interval": ["1 mon", "30 days", "720:00:00"],
    "bytea": ["\\x", "\\x00ff"],
    "char(5)": ["a", "a   "],
    "varchar(9)": [
        "",
        "it's (\\\"",
    ],
    "bit varying": ["101", "0101"],
    "tsvector": ["a:1 b:2"],
    "inet": ["10.0.0.1/8", "10.0.0.1"],
    "uuid": ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"],
    "boolean": ["t", "f"],
    "timetz": ["12:00+05:45", "12:00+00"],
    '"char"': ["a", ""],
    "name": ["x"],
    "xid8": ["7"],
    "pg_lsn": ["0/16"],
    "regclass": ["pg_class"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
}


@pytest.mark.parametrize("key", ["", ", PRIMARY KEY (ts, id)"], ids=["no key", "key"])
def test_values_of_any_type_are_found_again(db: Sandbox, key: str) -> None:
    db.run(TYPES)
    columns = ", ".join(f"v{n} {type_}" for n, type_ in enumerate(SAMPLES))
    db.chronotable(f"id serial, ts timestamptz, {columns}{key}", synced=True)
    for n, samples in enumerate(SAMPLES.values()):
        for sample in [*samples, None]:
            db.run(
                f"INSERT INTO metrics (ts, v{n}) VALUES ('2024-01-01', %s), ('2024-01-01', %s)",
                sample,
                sample,
            )
    assert db.mirror_difference() == []

    db.run("UPDATE metrics SET id = id + 1000 WHERE id % 4 = 1")
    assert db.mirror_difference() == []
    db.run(f"UPDATE metrics SET {', '.join(f'v{n} = NULL' for n in range(len(SAMPLES)))} WHERE id % 4 = 2")
    assert db.mirror_difference() == []
    db.run("DELETE FROM metrics WHERE id % 4 <> 3")

    assert db.mirror_difference() == []
    assert missed(db) == 0


@pytest.mark.parametrize("shape", ["key", "no key"])
def test_large_values_are_found_again(db: Sandbox, shape: str) -> None:
    mirror(db, shape, None)
    db.run(
        "INSERT INTO metrics (id, ts, v) SELECT n, '2024-01-01', (SELECT string_agg(md5(n || '.' || m), '')"
        " FROM generate_series(1, 500) AS m) FROM generate_series(1, 5) AS n"
    )

    db.run("UPDATE metrics SET v = v || 'x' WHERE id = 1; UPDATE metrics SET id = 9 WHERE id = 2")
    db.run("DELETE FROM metrics WHERE id = 3")

    assert db.mirror_difference() == []
    assert missed(db) == 0


def test_wide_rows_are_found_again(db: Sandbox) -> None:
    db.chronotable("ts timestamptz, " + ", ".join(f"c{n} text" for n in range(300)), synced=True)
    db.run("INSERT INTO metrics (ts, c0, c299) VALUES ('2024-01-01', 'a', 'b'), ('2024-01-01', 'a', 'c')")

    db.run("DELETE FROM metrics WHERE c299 = 'b'")

    assert db.mirror_difference() == []


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


def test_what_is_rolled_back_is_rolled_back_there_too(mirrored: Sandbox) -> None:
    with mirrored.undone():
        mirrored.run("DELETE FROM metrics WHERE id < 10; UPDATE metrics SET v = 'gone'")

    mirrored.run("UPDATE metrics SET v = 'kept' WHERE id < 5")

    assert mirrored.mirror_difference() == []


# Evicted rows


@pytest.fixture(params=["key", "no key"])
def evicted(db: Sandbox, request: pytest.FixtureRequest) -> Sandbox:
    """Yield a database with chunks of two days dropped, whose rows the shadow still has."""
    mirror(db, request.param)
    db.run("SELECT lakets.drop_chunks('metrics', now() - '2024-01-03+00'::timestamptz)")
    assert db.value("SELECT count(DISTINCT ts) FROM lakets_cdf._shadow_metrics") == 3
    return db


def evicted_rows(db: Sandbox) -> list[str]:
    return db.column("SELECT s::text FROM lakets_cdf._shadow_metrics AS s WHERE ts < '2024-01-03' ORDER BY 1")


def test_evicted_rows_stay_when_others_of_their_kind_come_and_go(evicted: Sandbox) -> None:
    before = evicted_rows(evicted)
    evicted_then = "FROM lakets_cdf._shadow_metrics WHERE ts = '2024-01-02' AND id"
    evicted.run(f"INSERT INTO metrics (id, ts, v) SELECT id, ts, v {evicted_then} < 9")
    evicted.run(f"INSERT INTO metrics (id, ts, v) SELECT id, ts, 'like' {evicted_then} > 9")
    assert len(evicted_rows(evicted)) > len(before) + 3

    evicted.run("UPDATE metrics SET v = v || '!' WHERE ts = '2024-01-02'")
    evicted.run("DELETE FROM metrics WHERE ts = '2024-01-02'")

    assert evicted_rows(evicted) == before
    assert missed(evicted) == 0


def test_evicted_rows_stay_when_the_table_is_emptied(evicted: Sandbox) -> None:
    before = evicted_rows(evicted)
    evicted.run("INSERT INTO metrics (id, ts, v) VALUES (1, '2024-01-01', 'late'), (2, 'infinity', 'never')")

    evicted.run("TRUNCATE metrics")

    assert evicted_rows(evicted) == before
    assert evicted.value("SELECT count(*) FROM lakets_cdf._shadow_metrics") == len(before)
    assert missed(evicted) == 0


def test_evicted_rows_stay_when_a_row_moves_among_them(evicted: Sandbox) -> None:
    before = evicted_rows(evicted)
    evicted.run("UPDATE metrics SET ts = '2024-01-01' WHERE id = 5")
    moved = evicted.value("SELECT count(*) FROM metrics WHERE id = 5")
    assert len(evicted_rows(evicted)) == len(before) + moved

    evicted.run("UPDATE metrics SET ts = '2024-01-03' WHERE id = 5")

    assert evicted_rows(evicted) == before


def test_evicted_rows_stay_when_the_shadow_is_repaired(evicted: Sandbox) -> None:
    before = evicted_rows(evicted)
    evicted.run("INSERT INTO metrics (id, ts, v) VALUES (1, '2024-01-01', 'late')")
    evicted.run("DELETE FROM lakets_cdf._shadow_metrics WHERE v = 'late' OR ts = '2024-01-03'")
    evicted.run("INSERT INTO lakets._mirror_gap VALUES ('lakets_cdf._shadow_metrics')")

    evicted.sync()

    assert len(evicted_rows(evicted)) == len(before) + 1
    assert set(before) < set(evicted_rows(evicted))
    newer = "SELECT count(*) FROM {} WHERE ts >= '2024-01-03'"
    assert evicted.value(newer.format("lakets_cdf._shadow_metrics")) == evicted.value(newer.format("metrics"))


def test_rows_beyond_those_that_fit_into_a_list_are_deleted_too(either: Sandbox) -> None:
    (function,) = either.column(
        "SELECT tgfoid::regproc::text FROM pg_trigger"
        " WHERE tgrelid = 'metrics'::regclass AND tgname LIKE '%delete%'"
    )
    written = either.value("SELECT pg_get_functiondef(%s::regproc)", function)
    assert "1000000" in written
    either.run(written.replace("1000000", "7").replace("%", "%%"))

    either.run("DELETE FROM metrics WHERE id > 5")

    assert either.mirror_difference() == []
    assert missed(either) == 0


# Cost


@pytest.mark.parametrize("shape", ["key", "no key"])
@pytest.mark.parametrize("first", ["small", "large"])
def test_old_rows_are_found_by_index_however_the_plan_was_made(db: Sandbox, shape: str, first: str) -> None:
    mirror(db, shape, None)
    rows = (
        "INSERT INTO metrics (id, ts, v) SELECT n, '2024-01-01', md5(n::text) FROM"
        " generate_series(%s::int, %s::int) AS n"
    )
    if first == "small":
        db.run(rows, -3, 0)
        for statement in ("UPDATE metrics SET v = 'x' WHERE id = -3", "DELETE FROM metrics WHERE id = -2"):
            db.run(statement)
    db.run(rows, 1, 3000)
    read = (
        "SELECT seq_scan, idx_scan, seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables"
        " WHERE relid = 'lakets_cdf._shadow_metrics'::regclass"
    )
    ((seq_scans, idx_scans, tuples),) = db.run(read)

    db.run("UPDATE metrics SET v = v || '!' WHERE id % 3 = 0")
    db.run("DELETE FROM metrics WHERE id % 3 = 1")

    assert db.mirror_difference() == []
    ((seq_scans_after, idx_scans_after, tuples_after),) = db.run(read)
    # mirror_difference itself reads the shadow once from end to end.
    assert seq_scans_after - seq_scans == 1
    assert 2000 <= idx_scans_after - idx_scans < 2010
    # All rows have one time: still each is found by itself, not among the others.
    assert tuples_after - tuples < 4 * 3000


# What may have been missed


def test_a_row_that_is_not_found_is_noted(either: Sandbox) -> None:
    either.run(f"DELETE FROM {either.shadow()} WHERE id = 3")
    assert problem(either) is None

    either.run("UPDATE metrics SET v = 'x' WHERE id = 3")

    assert "may lack changes" in (problem(either) or "")


def test_a_deleted_row_that_is_not_found_is_noted_once(either: Sandbox) -> None:
    either.run(f"DELETE FROM {either.shadow()}")

    either.run("DELETE FROM metrics WHERE id = 3; DELETE FROM metrics WHERE id = 4")

    assert missed(either) == 1


def test_one_copy_too_few_is_noted(db: Sandbox) -> None:
    mirror(db, "no key", None)
    db.run("INSERT INTO metrics (id, ts, v) SELECT 1, '2024-01-01', 'same' FROM generate_series(1, 5)")
    db.run(
        "DELETE FROM lakets_cdf._shadow_metrics WHERE ctid = (SELECT max(ctid) FROM"
        " lakets_cdf._shadow_metrics)"
    )

    db.run("DELETE FROM metrics WHERE ctid IN (SELECT ctid FROM metrics LIMIT 3)")
    assert missed(db) == 0
    db.run("DELETE FROM metrics")

    assert missed(db) == 1


def test_a_trigger_that_changes_rows_of_its_own_statement_is_noted(either: Sandbox) -> None:
    either.run(
        "CREATE FUNCTION latest() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN UPDATE metrics SET v = 'old' WHERE id = NEW.id - 1; RETURN NULL; END $$;"
        " CREATE TRIGGER latest AFTER INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION latest()"
    )
    either.run("INSERT INTO metrics (id, ts, v) VALUES (31, '2024-01-01', 'new')")
    assert either.mirror_difference() == []
    assert missed(either) == 0

    either.run(
        "INSERT INTO metrics (id, ts, v) VALUES (41, '2024-01-01', 'new'), (42, '2024-01-01', 'newer')"
    )

    assert missed(either) == 1
    either.sync()
    assert either.mirror_difference() == []
    assert problem(either) is None


ALTERATIONS = {
    "add a column": "ALTER TABLE metrics ADD COLUMN w int",
    "add a column with values": "ALTER TABLE metrics ADD COLUMN w numeric(9, 3) DEFAULT 7",
    "drop a column": "ALTER TABLE metrics DROP COLUMN v",
    "drop and add": "ALTER TABLE metrics DROP COLUMN v, ADD COLUMN v int",
    "rename a column": "ALTER TABLE metrics RENAME COLUMN v TO w",
    "widen a column": "ALTER TABLE metrics ALTER COLUMN id TYPE bigint",
    "change a type": "ALTER TABLE metrics ALTER COLUMN v TYPE varchar(50)",
    "change to what it cannot be cast to": "ALTER TABLE metrics ALTER COLUMN v TYPE point USING point(1, 2)",
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_writers_go_on_when_columns_change_and_nothing_counts_as_durable(
    either: Sandbox, alteration: str
) -> None:
    either.run(ALTERATIONS[alteration])

    either.run("INSERT INTO metrics (id, ts) VALUES (200, '2024-01-02'), (201, '2024-01-02')")
    either.run("UPDATE metrics SET id = 300 WHERE id = 200")
    either.run("DELETE FROM metrics WHERE id < 5 OR id = 201")

    assert problem(either) is not None
    assert missed(either) == 1
    assert either.value("SELECT count(*) FROM metrics WHERE id = 300") == 1


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_syncing_again_gives_the_shadow_the_columns_and_rows_of_its_table(
    either: Sandbox, alteration: str
) -> None:
    either.run(ALTERATIONS[alteration])
    either.run("INSERT INTO metrics (id, ts) VALUES (200, '2024-01-02'); DELETE FROM metrics WHERE id = 7")

    either.sync()

    assert either.mirror_difference() == []
    assert problem(either) is None
    either.run("UPDATE metrics SET id = id + 1000; DELETE FROM metrics WHERE id % 2 = 0")
    either.run("INSERT INTO metrics (id, ts) VALUES (1, '2024-01-02')")
    assert either.mirror_difference() == []
    assert missed(either) == 0


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO metrics (id, ts) VALUES (1, '2024-01-09')", "DELETE FROM metrics", "TRUNCATE metrics"],
)
def test_what_a_warm_session_writes_after_a_column_went_is_noted(either: Sandbox, statement: str) -> None:
    for _ in range(8):  # plans are made and kept
        either.run(
            "INSERT INTO metrics (id, ts) VALUES (1000, '2024-01-09'); DELETE FROM metrics WHERE id = 1000"
        )
    either.run("ALTER TABLE metrics DROP COLUMN v")

    either.run(statement)

    assert missed(either) == 1


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE metrics DROP CONSTRAINT metrics_pkey",
        "ALTER TABLE metrics DROP CONSTRAINT metrics_pkey, ADD PRIMARY KEY (id, ts, v)",
    ],
    ids=["dropped", "wider"],
)
def test_another_key_is_noted_and_followed_after_syncing_again(db: Sandbox, change: str) -> None:
    mirror(db, "key")
    db.run("UPDATE metrics SET v = 'x' WHERE id = 1")
    db.run(change)

    db.run(
        "INSERT INTO metrics VALUES (1, '2024-01-02', 'twice'); UPDATE metrics SET v = v || '?' WHERE id = 1"
    )
    assert problem(db) is not None
    db.sync()

    db.run("UPDATE metrics SET v = v || '!' WHERE id = 1; DELETE FROM metrics WHERE v = 'twice?!'")
    assert db.mirror_difference() == []
    assert problem(db) is None


def test_a_key_that_came_later_is_used_after_syncing_again(db: Sandbox) -> None:
    mirror(db, "no key", None)
    db.run(FILL)
    db.run("ALTER TABLE metrics ADD PRIMARY KEY (id, ts)")
    db.run("UPDATE metrics SET v = 'x' WHERE id = 1")
    assert missed(db) == 0

    db.sync()

    db.run("UPDATE metrics SET v = 'y' WHERE id < 9; DELETE FROM metrics WHERE id = 2")
    assert db.mirror_difference() == []
    # Only with a key does an update stay an update.
    source = db.value("SELECT prosrc FROM pg_proc WHERE proname LIKE '\\_track\\_%\\_update'")
    assert "UPDATE lakets_cdf" in source


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE metrics DISABLE TRIGGER lakets_track_delete",
        "DROP TRIGGER lakets_track_delete ON metrics",
    ],
)
def test_a_trigger_that_is_off_is_told_and_put_back(either: Sandbox, damage: str) -> None:
    either.run(damage)
    either.run("DELETE FROM metrics WHERE id = 3")
    assert "trigger" in (problem(either) or "")

    either.sync()

    either.run("DELETE FROM metrics WHERE id = 4")
    assert either.mirror_difference() == []
    assert problem(either) is None


def test_syncing_again_when_all_is_well_changes_nothing(either: Sandbox) -> None:
    rows = f"SELECT ctid::text FROM {either.shadow()} ORDER BY 1"
    before = either.column(rows)
    logged = either.value("SELECT count(*) FROM lakets._change_log")

    either.sync()

    assert either.column(rows) == before
    assert either.value("SELECT count(*) FROM lakets._change_log") == logged


def test_a_repair_counts_as_a_change_of_everything(either: Sandbox) -> None:
    either.run("INSERT INTO lakets._mirror_gap VALUES (%s::regclass)", either.shadow())
    either.run("DELETE FROM lakets._change_log")

    either.sync()

    assert either.run("SELECT isfinite(min_time), isfinite(max_time) FROM lakets._change_log") == [
        (False, False)
    ]


def test_a_shadow_may_have_its_columns_in_another_order(either: Sandbox) -> None:
    either.run(
        f"ALTER TABLE {either.shadow()} RENAME COLUMN v TO was; ALTER TABLE {either.shadow()} ADD"
        f" COLUMN v text;"
        f" UPDATE {either.shadow()} SET v = was; ALTER TABLE {either.shadow()} DROP COLUMN was"
    )
    either.sync()

    either.run("UPDATE metrics SET v = 'x' WHERE id = 1; DELETE FROM metrics WHERE id = 2")
    either.run("INSERT INTO metrics (id, ts, v) VALUES (77, '2024-01-01', 'y')")

    assert either.mirror_difference() == []
    assert missed(either) == 0


def test_after_disabling_nothing_is_mirrored_and_all_is_logged(either: Sandbox) -> None:
    shadow = either.shadow()
    either.run("SELECT lakets.disable_sync('metrics', %s)", either.schema)
    assert either.value("SELECT to_regclass(%s)", shadow) is None
    logged = either.value("SELECT count(*) FROM lakets._change_log")

    either.run("UPDATE metrics SET v = 'x' WHERE ts = '2024-01-01'; TRUNCATE metrics")

    assert either.value("SELECT count(*) FROM lakets._change_log") == logged + 2


def test_a_rollup_is_mirrored_and_repaired_alike(db: Sandbox) -> None:
    mirror(db, "key")
    db.run(
        "SELECT lakets.create_rollup('daily', $$SELECT lakets.time_bucket('1 day', ts) AS bucket,"
        " count(*) AS n,"
        " max(v) AS top FROM public.metrics GROUP BY 1$$, '1 day'); SELECT lakets.enable_sync('daily')"
    )
    same = (
        "SELECT count(*) FROM (TABLE public._rollup_daily EXCEPT ALL TABLE"
        " lakets_cdf._shadow_rollup_daily) AS d"
    )
    db.run("DELETE FROM metrics WHERE id < 7; INSERT INTO metrics VALUES (99, '2024-01-03', 'z')")
    db.value("SELECT lakets.refresh_rollup('daily', true)")
    assert db.value(same) == 0
    db.run("DELETE FROM lakets_cdf._shadow_rollup_daily; UPDATE public._rollup_daily SET top = 'a'")
    assert missed(db) == 1

    db.run("SELECT lakets.enable_sync('daily')")

    assert (db.value(same), missed(db)) == (0, 0)


def test_a_refresh_brings_the_mirror_of_its_rollup_in_line(db: Sandbox) -> None:
    mirror(db, "key")
    db.run(
        "SELECT lakets.create_rollup('daily', $$SELECT lakets.time_bucket('1 day', ts) AS bucket,"
        " count(*) AS n FROM public.metrics GROUP BY 1$$, '1 day'); SELECT lakets.enable_sync('daily')"
    )
    table, shadow = "TABLE public._rollup_daily", "TABLE lakets_cdf._shadow_rollup_daily"
    held = db.value(f"SELECT count(*) FROM ({table}) AS t")
    # A row is missing, one is there twice, one is of nobody. The next change to the first makes
    # this known.
    db.run(
        "WITH gone AS (DELETE FROM lakets_cdf._shadow_rollup_daily"
        " WHERE bucket = (SELECT min(bucket) FROM public._rollup_daily))"
        " INSERT INTO lakets_cdf._shadow_rollup_daily SELECT bucket, n FROM public._rollup_daily"
        " WHERE bucket = (SELECT max(bucket) FROM public._rollup_daily) UNION ALL SELECT '2001-01-01', 1"
    )
    db.run("UPDATE public._rollup_daily SET n = n")
    assert missed(db) == 1

    assert db.value("SELECT lakets.refresh_rollup('daily', true)")

    assert missed(db) == 0
    assert db.value(f"SELECT count(*) FROM ({shadow}) AS s") == held > 2
    assert db.run(f"{table} EXCEPT ALL {shadow}") == []
    db.run("UPDATE public._rollup_daily SET n = n + 1")
    assert db.run(f"{table} EXCEPT ALL {shadow}") == []


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
