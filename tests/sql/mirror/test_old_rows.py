"""Old rows are found again in the shadow, of any type and quickly, and evicted ones stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sql.mirror.scene import mirror, missed

if TYPE_CHECKING:
    from tests.sandbox import Sandbox

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


@pytest.mark.parametrize("key", ["", ", PRIMARY KEY (c0, ts)"], ids=["no key", "key"])
@pytest.mark.parametrize("width", [300, 600])
def test_wide_rows_are_found_again(db: Sandbox, width: int, key: str) -> None:
    columns = ", ".join(f"c{n} text" for n in range(width))
    db.chronotable(f"ts timestamptz, {columns}{key}", synced=True)
    last = f"c{width - 1}"
    db.run(f"INSERT INTO metrics (ts, c0, {last}) VALUES ('2024-01-01', 'a', 'b'), ('2024-01-01', 'b', 'c')")

    db.run(f"UPDATE metrics SET c1 = 'd' WHERE {last} = 'c'")
    db.run(f"DELETE FROM metrics WHERE {last} = 'b'")

    assert db.mirror_difference() == []
    assert missed(db) == 0


def test_rows_of_a_key_without_overlaps_are_found_again(db: Sandbox, postgres_version: int) -> None:
    if postgres_version < 18:
        pytest.skip("Postgres 18 introduced these keys.")
    db.run(
        "CREATE TABLE plain (ts timestamptz, id int4range, period tstzrange, v int,"
        " PRIMARY KEY (id, period WITHOUT OVERLAPS))"
    )
    with db.refused("P0001", "do not contain that column: .* WITHOUT OVERLAPS"):
        db.run("SELECT lakets.create_chronotable('plain', 'ts')")
    # With the time in its key, the table would need the extension btree_gist, which the embedded
    # Postgres lacks. So the table is mirrored without being partitioned.
    shadow = db.value("SELECT lakets._create_shadow('plain', '_shadow_plain', 'ts')")
    db.run("SELECT lakets._write_trackers('plain', '_track_rollup_9', 'ts', %s, NULL)", shadow)
    db.run(
        "INSERT INTO plain SELECT now(), int4range(n, n + 5), tstzrange(t, t + interval '1 day'), 1"
        " FROM generate_series(1, 3) AS n,"
        " generate_series('2024-01-01'::timestamptz, '2024-01-09', interval '3 days') AS t"
    )

    db.run("UPDATE plain SET v = 2 WHERE lower(period) = '2024-01-04'")
    db.run("UPDATE plain SET period = tstzrange(lower(period), upper(period) + interval '1 day')")
    db.run("DELETE FROM plain WHERE lower(period) = '2024-01-01'")

    assert db.run(f"TABLE plain EXCEPT TABLE {shadow}") == []
    assert db.value(f"SELECT count(*) FROM {shadow}") == db.value("SELECT count(*) FROM plain") == 6
    assert missed(db) == 0


# Evicted rows


@pytest.fixture(params=["key", "no key", "key, dropped by hand"])
def evicted(db: Sandbox, request: pytest.FixtureRequest) -> Sandbox:
    """Yield a database with chunks of two days dropped, whose rows the shadow still has."""
    key, _, by_hand = request.param.partition(", ")
    mirror(db, key)
    if by_hand:
        db.run("DROP TABLE metrics_20240101_000000, metrics_20240102_000000")
    else:
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


@pytest.mark.parametrize("where", ["public.other", "elsewhere.metrics"])
@pytest.mark.parametrize("namesake", [False, True])
def test_evicted_rows_stay_when_a_renamed_table_is_emptied(
    evicted: Sandbox, where: str, *, namesake: bool
) -> None:
    before = evicted_rows(evicted)
    evicted.run("INSERT INTO metrics (id, ts, v) VALUES (1, '2024-01-01', 'late'), (2, 'infinity', 'never')")
    evicted.run("CREATE SCHEMA elsewhere")
    evicted.run(
        "ALTER TABLE metrics RENAME TO other"
        if where == "public.other"
        else "ALTER TABLE metrics SET SCHEMA elsewhere"
    )
    if namesake:
        evicted.run(f"CREATE TABLE metrics (LIKE {where} INCLUDING ALL)")
        evicted.run(
            "INSERT INTO metrics (id, ts, v) SELECT id, ts, v FROM lakets_cdf._shadow_metrics"
            " WHERE ts < '2024-01-03' AND v <> 'late'"
        )

    evicted.run(f"TRUNCATE {where}")

    assert evicted_rows(evicted) == before
    assert evicted.value("SELECT count(*) FROM lakets_cdf._shadow_metrics") == len(before)
    assert missed(evicted) == 0


def test_a_truncate_is_refused_while_a_policy_hides_late_rows_from_the_owner(evicted: Sandbox) -> None:
    before = evicted_rows(evicted)
    evicted.run("CREATE ROLE keeper; ALTER TABLE metrics OWNER TO keeper")
    evicted.run("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")
    evicted.run("INSERT INTO metrics (id, ts, v) VALUES (1, '2024-01-01', 'late')")
    evicted.run("ALTER TABLE metrics ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    with evicted.refused("42501", "query would be affected by row-level security policy"):
        evicted.run("TRUNCATE metrics")
    evicted.run("ALTER TABLE metrics NO FORCE ROW LEVEL SECURITY")

    evicted.run("TRUNCATE metrics")

    assert evicted_rows(evicted) == before
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


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text[]", "ARRAY[md5(n::text)]"),
        ("tagged", "md5(n::text)"),
        ("tagged[]", "ARRAY[md5(n::text)]::tagged[]"),
        ("numrange", "numrange(n, n + 0.5)"),
        ("json", "json_build_object('n', n)"),
    ],
)
def test_old_rows_are_found_by_values_of_any_hashable_type(db: Sandbox, kind: str, value: str) -> None:
    db.run("CREATE DOMAIN tagged AS varchar(40) CHECK (VALUE <> '')")
    db.chronotable(f"ts timestamptz, v {kind}", synced=True)
    db.run(f"INSERT INTO metrics SELECT '2024-01-01', {value} FROM generate_series(1, 500) AS n")
    read = (
        "SELECT idx_tup_fetch FROM pg_stat_xact_user_tables"
        " WHERE relid = 'lakets_cdf._shadow_metrics'::regclass"
    )
    before = db.value(read)

    db.run("UPDATE metrics SET ts = ts + interval '1 hour'; DELETE FROM metrics")

    assert db.value(read) - before < 5 * 500
    assert db.mirror_difference() == []
    assert missed(db) == 0
