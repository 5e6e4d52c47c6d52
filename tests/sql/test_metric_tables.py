"""Metric tables, the number of their series, and rows from JSON."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.sandbox import Sandbox


def make(db: Sandbox, name: str = "cpu", *, tags: str = "{host,region}", fields: str = "{usage,idle}") -> int:
    return int(db.value("SELECT lakets.create_metric_table(%s, %s, %s)", name, tags, fields))


def ingest(db: Sandbox, rows: Any, table: str = "cpu") -> int:
    return int(db.value("SELECT lakets.ingest_batch(%s, %s::jsonb)", table, json.dumps(rows)))


def test_a_metric_table_has_tags_fields_and_indexes_and_is_a_chronotable(db: Sandbox) -> None:
    table_id = make(db)

    assert db.run(
        "SELECT attname::text, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute"
        " WHERE attrelid = 'cpu'::regclass AND attnum > 0 ORDER BY attnum"
    ) == [
        ("time", "timestamp with time zone", True),
        ("host", "text", True),
        ("region", "text", True),
        ("usage", "double precision", False),
        ("idle", "double precision", False),
    ]
    assert db.column("SELECT indexdef FROM pg_indexes WHERE tablename = 'cpu' ORDER BY indexname") == [
        'CREATE INDEX idx_cpu_brin ON ONLY public.cpu USING brin ("time")',
        'CREATE INDEX idx_cpu_series ON ONLY public.cpu USING btree (host, region, "time" DESC)',
    ]
    assert db.run("SELECT time_column, chunk_interval::text FROM lakets._chronotable_registry WHERE id = %s",
                  table_id) == [("time", "1 day")]  # fmt: skip


@pytest.mark.parametrize("name", ['Odd "one" it\'s', "ü" * 31, "x" * 63])
def test_a_metric_table_of_any_name_and_without_tags(db: Sandbox, name: str) -> None:
    make(db, name, tags="{}", fields="{}")

    assert ingest(db, [{"time": "2026-01-01T00:00:00Z"}], name) == 1


def test_a_metric_table_may_have_more_tags_than_an_index_has_columns(db: Sandbox) -> None:
    tags = [f"t{number}" for number in range(40)]

    make(db, tags=f"{{{','.join(tags)}}}")

    assert ingest(db, [{"time": "2026-01-01T00:00:00Z"} | dict.fromkeys(tags, "x")]) == 1
    assert db.value("SELECT combined_cardinality FROM lakets.cardinality_check('cpu')") == 1


@pytest.mark.parametrize(
    ("tags", "fields"), [("{a,a}", "{}"), ("{a}", "{a}"), ("{time}", "{}"), ("{NULL}", "{}"), ('{""}', "{}")]
)
def test_columns_that_cannot_be_are_refused(db: Sandbox, tags: str, fields: str) -> None:
    with db.refused("P0001", "cannot be a tag or a field"):
        make(db, tags=tags, fields=fields)


def test_a_metric_table_replaces_nothing(db: Sandbox) -> None:
    db.run("CREATE TABLE cpu (v int)")

    with db.refused("P0001", "Relation .* already exists"):
        make(db)


def test_cardinality_of_each_column_and_of_all(db: Sandbox) -> None:
    make(db)
    ingest(db, [{"time": "2026-01-01", "host": f"h{n % 3}", "region": "eu"} for n in range(9)])

    assert db.run("SELECT * FROM lakets.cardinality_stats('cpu')") == [
        ("host", 3, 9, Decimal("33.333")),
        ("region", 1, 9, Decimal("11.111")),
    ]
    for allowed, status in ((2, "CRITICAL"), (3, "WARNING"), (4, "OK")):
        assert db.run("SELECT * FROM lakets.cardinality_check('cpu', %s)", allowed) == [
            (status, 3, allowed, "host, region")
        ]


def test_cardinality_of_an_empty_table_and_of_one_without_text(db: Sandbox) -> None:
    make(db)
    db.run("CREATE TABLE plain (v int)")

    assert db.run("SELECT * FROM lakets.cardinality_stats('cpu')") == [
        ("host", 0, 0, 0),
        ("region", 0, 0, 0),
    ]
    assert db.run("SELECT * FROM lakets.cardinality_check('plain')") == [("OK", 0, 100000, "")]


def test_a_batch_takes_defaults_where_an_object_names_no_column(db: Sandbox) -> None:
    db.run("CREATE TABLE m (ts timestamptz NOT NULL DEFAULT '2026-01-01', v int DEFAULT 7, w text)")

    count = ingest(db, [{"v": 1, "w": "a"}, {"w": None}, {"w": "c", "v": None}], "m")

    assert count == 3
    assert db.run("SELECT v, w FROM m ORDER BY w NULLS FIRST") == [(7, None), (1, "a"), (None, "c")]


@pytest.mark.parametrize(
    ("rows", "stored"),
    [
        pytest.param([{"v": 1}, {"v": 2, "w": "b"}], [(1, "w"), (2, "b")], id="more-than-the-first"),
        pytest.param([{"v": 1, "w": "a"}, {"v": 2}], [(1, "a"), (2, "w")], id="fewer"),
        pytest.param([{"v": 1}, {"w": "b"}], [(0, "b"), (1, "w")], id="others"),
    ],
)
def test_each_object_of_a_batch_is_stored_with_all_that_it_names(
    db: Sandbox, rows: Any, stored: list[tuple[int, str]]
) -> None:
    db.run("CREATE TABLE m (v int DEFAULT 0, w text DEFAULT 'w')")

    assert ingest(db, rows, "m") == 2
    assert db.run("SELECT v, w FROM m ORDER BY v") == stored


@pytest.mark.parametrize("rows", [None, {}, 1, "text", [1], [[{"v": 1}]], [{"v": 1}, None]])
def test_what_is_no_array_of_objects_is_refused_whole(db: Sandbox, rows: Any) -> None:
    db.run("CREATE TABLE m (v int)")

    with db.refused("P0001", "not an array of JSON objects"):
        ingest(db, rows, "m")


@pytest.mark.parametrize("key", ["nope", "V", 'v") SELECT 1; --', "ctid"])
def test_an_unknown_column_is_named_and_nothing_is_inserted(db: Sandbox, key: str) -> None:
    db.run("CREATE TABLE m (v int)")

    with db.refused("P0001", "has no column"):
        ingest(db, [{"v": 1}, {key: 1}], "m")
    assert db.value("SELECT count(*) FROM m") == 0


def test_an_empty_batch_inserts_nothing(db: Sandbox) -> None:
    db.run("CREATE TABLE m (v int)")

    assert ingest(db, [], "m") == 0


def test_ten_thousand_objects_are_one_statement(db: Sandbox) -> None:
    make(db)
    db.run("CREATE TABLE statements (n serial)")
    db.run(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO public.statements DEFAULT VALUES; RETURN NULL; END'"
    )
    db.run("CREATE TRIGGER note AFTER INSERT ON cpu FOR EACH STATEMENT EXECUTE FUNCTION note()")
    rows = [{"time": "2026-01-01", "host": f"h{n}", "region": "eu", "usage": n} for n in range(10_000)]

    began = time.monotonic()
    count = ingest(db, rows)

    assert count == 10_000
    assert db.value("SELECT count(*) FROM statements") == 1
    assert time.monotonic() - began < 30  # row by row it would be minutes


def test_a_sample_of_prometheus_is_a_row(db: Sandbox) -> None:
    db.run("CREATE TABLE prom (time timestamptz, metric_name text, labels jsonb, value float8)")

    db.run("SELECT lakets.ingest_prometheus('prom', 'up', '{\"job\": \"a\"}', 1, '2026-01-01Z')")
    db.run("SELECT lakets.ingest_prometheus('prom', 'up', NULL, 'NaN')")

    assert db.run("SELECT metric_name, labels FROM prom ORDER BY labels NULLS LAST") == [
        ("up", {"job": "a"}),
        ("up", None),
    ]
    assert db.value("SELECT time FROM prom WHERE labels IS NULL") == db.value("SELECT now()")
