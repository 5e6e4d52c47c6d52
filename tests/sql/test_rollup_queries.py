"""RollUps of every query shape: limited to what changed, and equal to the full query."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stage import Stage

# HOUR(m) stands for the bucket of m.at.
QUERIES = {
    "alias": "SELECT HOUR(m) AS bucket, sum(m.value) AS total FROM public.metrics m GROUP BY 1",
    "alias with AS": "SELECT HOUR(m) AS bucket, sum(m.value) AS t FROM metrics AS m GROUP BY 1",
    "quoted alias": 'SELECT HOUR("M m") AS bucket, sum(value) AS t FROM metrics "M m" GROUP BY 1',
    "column aliases": "SELECT lakets.time_bucket('1 hour', t) AS bucket, sum(v) AS t"
    " FROM metrics AS m (i, t, v) GROUP BY 1",
    "no alias": "SELECT HOUR(metrics) AS bucket, sum(metrics.value) AS t FROM metrics GROUP BY 1",
    "time by date_trunc": "SELECT date_trunc('hour', at) AS bucket, max(value) FROM metrics GROUP BY 1",
    "named arguments": "SELECT lakets.time_bucket(p_timestamp => at, p_interval => '1 hour') AS bucket,"
    " sum(value) AS t FROM metrics GROUP BY 1",
    "named origin": "SELECT lakets.time_bucket('1 hour', at, p_origin => '2024-01-01 00:20+00') AS bucket,"
    " sum(value) AS t FROM metrics GROUP BY 1",
    "filter": "SELECT HOUR(m) AS bucket, count(*) FILTER (WHERE value > 5) AS n"
    " FROM metrics m WHERE id % 2 = 0 GROUP BY 1 HAVING count(*) > 1",
    "by device": "SELECT HOUR(m) AS bucket, id, sum(value) AS t FROM metrics m GROUP BY 1, 2",
    "bucket in the middle": "SELECT id, HOUR(m) AS bucket, sum(value) AS t FROM metrics m GROUP BY 1, 2",
    "bucket by another name": "SELECT id, HOUR(m) AS hour, sum(value) AS t FROM metrics m GROUP BY 1, 2",
    "inner join": "SELECT HOUR(m) AS bucket, d.name, sum(value) AS t"
    " FROM metrics m JOIN device d ON d.id = m.id GROUP BY 1, 2",
    "joined the other way": "SELECT HOUR(m) AS bucket, d.name, sum(value) AS t"
    " FROM device d JOIN metrics m USING (id) GROUP BY 1, 2",
    "left join": "SELECT HOUR(metrics) AS bucket, d.name, count(*) AS n"
    " FROM metrics LEFT JOIN device d ON d.id = metrics.id GROUP BY 1, 2",
    "comma join": "SELECT HOUR(metrics) AS bucket, count(d.name) AS n"
    " FROM metrics, device d WHERE d.id = metrics.id GROUP BY 1",
    "lateral": "SELECT HOUR(m) AS bucket, sum(twice.v) AS t"
    " FROM metrics m, LATERAL (SELECT m.value * 2 AS v) AS twice GROUP BY 1",
    "subquery": "SELECT bucket, avg(t) AS a FROM (SELECT HOUR(m) AS bucket, id, sum(value) AS t"
    " FROM metrics m GROUP BY 1, 2) AS s GROUP BY bucket",
    "in a subquery": "SELECT HOUR(s) AS bucket, sum(s.value) AS t"
    " FROM (SELECT * FROM metrics WHERE value >= 0) AS s GROUP BY 1",
    "CTE": "WITH h AS (SELECT HOUR(m) AS bucket, value FROM metrics m)"
    " SELECT bucket, sum(value) AS t FROM h GROUP BY 1",
    "CTE of the same name": "WITH m AS MATERIALIZED (SELECT * FROM public.metrics)"
    " SELECT HOUR(m) AS bucket, sum(value) AS t FROM m GROUP BY 1",
    "named twice": "SELECT HOUR(a) AS bucket, count(*) AS n"
    " FROM metrics a JOIN metrics b ON b.at = a.at GROUP BY 1",
    "union": "SELECT HOUR(u) AS bucket, sum(u.v) AS t FROM (SELECT at, value AS v"
    " FROM metrics WHERE id < 3 UNION ALL SELECT at, -value FROM metrics WHERE id >= 3) AS u GROUP BY 1",
    "scalar subquery": "SELECT HOUR(m) AS bucket, sum(value) * (SELECT count(*) FROM device) AS t"
    " FROM metrics m GROUP BY 1",
    "whole row": "SELECT HOUR(m) AS bucket, count(m) AS n, count(DISTINCT m.*) AS d"
    " FROM metrics m GROUP BY 1",
    "distinct": "SELECT DISTINCT HOUR(m) AS bucket, id FROM metrics m",
    "ordered set": "SELECT HOUR(m) AS bucket, percentile_cont(0.5) WITHIN GROUP (ORDER BY value) AS p"
    " FROM metrics m GROUP BY 1",
    "array that is converted": "SELECT HOUR(m) AS bucket, percentile_cont(ARRAY[0.5, 0.9])"
    " WITHIN GROUP (ORDER BY value) AS p FROM metrics m GROUP BY 1",
    "window of one bucket": "SELECT DISTINCT HOUR(m) AS bucket, first_value(value) OVER"
    " (PARTITION BY HOUR(m) ORDER BY at, id, value) AS f FROM metrics m",
    "top two of a bucket": "SELECT bucket, id, value FROM (SELECT HOUR(m) AS bucket, id, value,"
    " row_number() OVER (PARTITION BY HOUR(m) ORDER BY value DESC, id) AS place FROM metrics m) AS s"
    " WHERE place <= 2",
    "top two by lateral": "SELECT b.bucket, t.value FROM (SELECT DISTINCT HOUR(m) AS bucket FROM metrics m)"
    " AS b CROSS JOIN LATERAL (SELECT n.value FROM metrics n WHERE HOUR(n) = b.bucket"
    " ORDER BY n.value DESC, n.id LIMIT 2) AS t",
    "share of the bucket": "SELECT HOUR(m) AS bucket, id, count(*) * 100 / sum(count(*))"
    " OVER (PARTITION BY HOUR(m)) AS share FROM metrics m GROUP BY 1, 2",
    "newest of a device and bucket": "SELECT DISTINCT ON (id, HOUR(m)) id, HOUR(m) AS bucket, value"
    " FROM metrics m ORDER BY id, HOUR(m), at DESC, value",
    "joined on the bucket": "SELECT a.bucket, a.t, b.n FROM (SELECT HOUR(m) AS bucket, sum(value) AS t"
    " FROM metrics m GROUP BY 1) AS a JOIN (SELECT HOUR(m) AS bucket, count(*) AS n FROM metrics m"
    " WHERE value > 50 GROUP BY 1) AS b USING (bucket)",
    "left joined on the bucket": "SELECT a.bucket, a.t, b.n FROM (SELECT HOUR(m) AS bucket, sum(value) AS t"
    " FROM metrics m GROUP BY 1) AS a LEFT JOIN (SELECT HOUR(m) AS bucket, count(*) AS n FROM metrics m"
    " WHERE value > 50 GROUP BY 1) AS b USING (bucket)",
    "fully joined on the bucket": "SELECT bucket, a.t, b.n FROM (SELECT HOUR(m) AS bucket, sum(value) AS t"
    " FROM metrics m WHERE id < 3 GROUP BY 1) AS a FULL JOIN (SELECT HOUR(m) AS bucket, count(*) AS n"
    " FROM metrics m WHERE id > 2 GROUP BY 1) AS b USING (bucket)",
    "subquery on the bucket": "SELECT HOUR(m) AS bucket, id, value - (SELECT min(n.value) FROM metrics n"
    " WHERE HOUR(n) = HOUR(m)) AS above FROM metrics m",
    "exists in the bucket": "SELECT HOUR(m) AS bucket, count(*) AS n FROM metrics m WHERE EXISTS"
    " (SELECT FROM metrics o WHERE HOUR(o) = HOUR(m) AND o.id = 1) GROUP BY 1",
    "bucket in some": "SELECT HOUR(m) AS bucket, count(*) AS n FROM metrics m WHERE HOUR(m) IN"
    " (SELECT HOUR(o) FROM metrics o WHERE o.value % 3 = 0) GROUP BY 1",
    "days and hours": "SELECT date_trunc('day', m.at) AS day, HOUR(m) AS hour, max(m.at) AS last, count(*)"
    " FROM metrics m GROUP BY 1, 2",
    "grouping sets of devices": "SELECT HOUR(m) AS bucket, id, sum(value) AS t FROM metrics m"
    " GROUP BY HOUR(m), ROLLUP (id)",
    "grouping sets with the bucket": "SELECT HOUR(m) AS bucket, id, sum(value) AS t FROM metrics m"
    " GROUP BY GROUPING SETS ((1, 2), (1))",
    "series beside each row": "SELECT HOUR(m) AS bucket, s.n, count(*) AS c"
    " FROM metrics m CROSS JOIN generate_series(1, 2) AS s (n) GROUP BY 1, 2",
    "except": "SELECT HOUR(m) AS bucket, id FROM metrics m EXCEPT SELECT HOUR(m), id FROM metrics m"
    " WHERE value % 2 = 0",
    "row as json": "SELECT HOUR(m) AS bucket, count(DISTINCT to_jsonb(m)) AS n FROM metrics m GROUP BY 1",
    "nested CTEs": "WITH h AS (SELECT HOUR(m) AS hour, id, sum(value) AS t FROM metrics m GROUP BY 1, 2),"
    " d AS (SELECT hour, max(t) AS top FROM h GROUP BY hour) SELECT h.hour AS bucket, h.id FROM h"
    " JOIN d ON d.hour = h.hour AND d.top = h.t",
    "semicolon": "SELECT HOUR(m) AS bucket, sum(value) AS t FROM metrics m GROUP BY 1 ; \n",
    "comment": "SELECT HOUR(m) AS bucket /* of public.metrics */, sum(value) AS t"
    " FROM metrics m -- from metrics\n GROUP BY 1",
}
# Their text names the table where it is not read, or in a way that cannot be limited.
DEFIANT = {
    "literal": "SELECT HOUR(m) AS bucket, max('in public.metrics ' || value) AS t FROM metrics m GROUP BY 1",
    "row type": "SELECT HOUR(m) AS bucket, sum((ROW(m.id, m.at, m.value)::public.metrics).value) AS t"
    " FROM metrics m GROUP BY 1",
    "array of rows": "SELECT HOUR(m) AS bucket, array_agg(m ORDER BY id, value) AS a"
    " FROM metrics m GROUP BY 1",
    "last row": "SELECT HOUR(m) AS bucket, (lakets.last(m, at)).value AS v FROM metrics m GROUP BY 1",
    "system column": "SELECT HOUR(m) AS bucket, count(DISTINCT m.tableoid) AS n FROM metrics m GROUP BY 1",
}


def in_full(query: str) -> str:
    return re.sub(r"HOUR\((.*?)\)", r"lakets.time_bucket('1 hour', \1.at)", query)


@pytest.fixture
def hours(stage: Stage) -> Stage:
    stage.once(make_hours)
    return stage


def make_hours(stage: Stage) -> None:
    stage.make_table(keyed=False, rows=False)
    stage.run("CREATE TABLE device (id integer, name text)")
    stage.run("INSERT INTO device VALUES (1, 'one'), (2, 'two'), (3, 'three')")
    stage.run(
        "INSERT INTO metrics SELECT n % 5, '2024-01-01'::timestamptz + n * interval '17 minutes', n"
        " FROM generate_series(1, 200) AS n"
    )


def change(stage: Stage) -> None:
    stage.run("INSERT INTO metrics VALUES (1, '2024-01-02 03:04+00', 7), (9, '2024-01-03 23:59+00', 8)")
    stage.run("UPDATE metrics SET value = value + 1 WHERE at < '2024-01-01 04:00+00'")
    stage.run("UPDATE metrics SET at = at + interval '25 hours' WHERE value = 42")
    stage.run("DELETE FROM metrics WHERE value BETWEEN 60 AND 70")


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
def test_query_is_limited_to_what_changed_and_right(hours: Stage, query: str) -> None:
    hours.rollup("q", query=in_full(query))
    loaded = hours.difference("q")
    change(hours)
    hours.refresh("q")

    assert "lakets_source" in hours.value("SELECT window_query FROM lakets._rollup_registry")
    assert (loaded, hours.difference("q")) == ([], [])


@pytest.mark.parametrize("query", DEFIANT.values(), ids=DEFIANT.keys())
def test_query_that_cannot_be_limited_is_right_all_the_same_and_told(hours: Stage, query: str) -> None:
    warnings: list[str] = []
    hours.conn.add_notice_handler(lambda notice: warnings.append(str(notice.message_primary)))
    hours.run("SET client_min_messages = warning")
    hours.rollup("q", query=in_full(query))
    loaded = hours.difference("q")
    change(hours)
    hours.refresh("q")

    assert (loaded, hours.difference("q")) == ([], [])
    assert warnings == [
        "The query of RollUp q cannot be limited to a range of times:"
        " each refresh will read all of its source."
    ]


@pytest.mark.parametrize("query", DEFIANT.values(), ids=DEFIANT.keys())
def test_view_that_cannot_be_limited_is_right_all_the_same_and_told(hours: Stage, query: str) -> None:
    hours.rollup("q", query=in_full(query))
    warnings: list[str] = []
    hours.conn.add_notice_handler(lambda notice: warnings.append(str(notice.message_primary)))
    hours.run("SET client_min_messages = warning")
    hours.run("SELECT lakets.create_rollup_view('q', %s)", in_full(query))
    assert warnings == [
        "The view of RollUp q cannot be limited to live rows: each query will read all of its source."
    ]

    hours.run("INSERT INTO metrics VALUES (1, '2024-01-05 03:04+00', 7), (9, '2024-01-05 23:59+00', 8)")
    shown = hours.run("SELECT * FROM _rollup_rt_q ORDER BY 1")
    hours.refresh("q")

    assert shown == hours.run("SELECT * FROM _rollup_q ORDER BY 1")
    assert hours.difference("q") == []


@pytest.mark.parametrize(
    ("schema", "table", "column"),
    [("other", "metrics", "at"), ("Über Uns", "Größe; x", "Zeit'punkt"), ("public", "public", "select")],
    ids=["other schema", "odd names", "keywords"],
)
def test_names_are_taken_as_they_are(stage: Stage, schema: str, table: str, column: str) -> None:
    stage.run(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    stage.run(f'CREATE TABLE "{schema}"."{table}" ("{column}" timestamptz, "vä lue" integer)')
    stage.run("SELECT lakets.create_chronotable(%s, %s, p_schema_name => %s)", table, column, schema)
    stage.run(f"""INSERT INTO "{schema}"."{table}" VALUES ('2024-01-01 12:00+00', 1)""")
    name = 'Odd "name" é'
    query = (
        f'SELECT lakets.time_bucket(\'1 hour\', "{column}") AS "Bück et", sum("vä lue") AS "a""b"'
        f' FROM "{schema}"."{table}" GROUP BY 1'
    )
    stage.value(
        "SELECT lakets.create_rollup(%s, %s, p_source_table => %s, p_source_schema => %s)",
        name,
        query,
        table,
        schema,
    )
    stage.run(
        f"""INSERT INTO "{schema}"."{table}" VALUES ('2024-01-01 12:30+00', 2), ('2024-01-01 13:30+00', 4)"""
    )

    assert stage.refresh(name)
    assert stage.column("""SELECT "a""b" FROM public."_rollup_Odd ""name"" é" ORDER BY 1""") == [3, 4]


def test_query_of_the_rows_chunk_follows_rows_that_are_moved_to_another(hours: Stage) -> None:
    query = (
        "SELECT HOUR(m) AS bucket, count(*) AS n, max(m.tableoid::bigint) AS chunk FROM metrics m GROUP BY 1"
    )
    hours.run("INSERT INTO metrics VALUES (1, %s, 1), (2, %s, 2)", hours.at(20, 1), hours.at(20, 2))
    hours.rollup("q", query=in_full(query))
    hours.refresh("q")
    where = "SELECT tableoid FROM metrics WHERE at = %s"
    default = hours.value(where, hours.at(20, 1))

    hours.value(
        "SELECT lakets._ensure_partitions(id, p_range_start => %s, p_range_end => %s)"
        " FROM lakets._chronotable_registry",
        hours.at(20),
        hours.at(21),
    )
    assert hours.value(where, hours.at(20, 1)) != default

    hours.refresh("q")
    assert hours.difference("q") == []


def test_query_keeps_its_meaning_under_another_search_path(hours: Stage) -> None:
    hours.run("CREATE SCHEMA elsewhere CREATE TABLE metrics (id integer, at timestamptz, value integer)")
    hours.run("SET search_path = public, lakets")
    hours.rollup(
        "q", query="SELECT time_bucket('1 hour', at) AS bucket, sum(value) AS t FROM metrics GROUP BY 1"
    )
    hours.run("SET search_path = elsewhere")
    hours.run("INSERT INTO public.metrics VALUES (1, '2024-01-02 03:04+00', 7)")

    hours.refresh("q")

    assert hours.difference("q") == []
    assert hours.value("SELECT sum(t) FROM public._rollup_q") == hours.value(
        "SELECT sum(value) FROM public.metrics"
    )


@pytest.mark.parametrize("type_name", ["timestamp", "date"])
def test_source_time_without_zone_is_read_as_utc(stage: Stage, type_name: str) -> None:
    stage.run("SET timezone = 'America/New_York'")
    stage.run(f"CREATE TABLE metrics (id integer, at {type_name}, value integer)")
    stage.run("SELECT lakets.create_chronotable('metrics', 'at', '1 day')")
    stage.run(
        "INSERT INTO metrics SELECT n, '2024-03-10'::timestamp + n * interval '1 hour', n"
        " FROM generate_series(0, 99) AS n"
    )
    stage.rollup(
        "daily",
        every="1 day",
        query="SELECT lakets.time_bucket('1 day', at) AS bucket, sum(value) AS t FROM metrics GROUP BY 1",
    )
    stage.run("UPDATE metrics SET value = 0 WHERE id IN (0, 23, 24)")
    stage.run("DELETE FROM metrics WHERE at = '2024-03-12'")

    stage.refresh("daily")

    assert stage.difference("daily") == []
    assert len(stage.column("SELECT bucket FROM _rollup_daily")) == (5 if type_name == "timestamp" else 4)


def test_change_of_a_dimension_is_taken_in_by_invalidating(hours: Stage) -> None:
    hours.rollup("q", query=in_full(QUERIES["inner join"]))
    hours.run("UPDATE device SET name = upper(name)")
    hours.run("SELECT lakets.invalidate_rollup_range('q', '2024-01-01', '2024-01-05')")

    hours.refresh("q")

    assert hours.difference("q") == []


def test_invalid_bucket_and_infinite_times_are_in_no_bucket(hours: Stage) -> None:
    hours.rollup("q", query=in_full(QUERIES["alias"]))
    hours.run("INSERT INTO metrics VALUES (1, 'infinity', 1), (2, '-infinity', 2), (3, NULL, 3)")
    hours.run("UPDATE metrics SET at = '-infinity' WHERE value = 100")
    hours.run("UPDATE metrics SET at = NULL WHERE value = 110")
    hours.run("UPDATE metrics SET at = '2024-01-01 00:10+00' WHERE id = 3 AND at IS NULL")

    hours.refresh("q")

    assert hours.difference("q") == []
    assert hours.value("SELECT count(*) FROM _rollup_q WHERE bucket IS NULL OR NOT isfinite(bucket)") == 0


def test_rows_outside_every_chunk_are_rolled_up_too(hours: Stage) -> None:
    hours.rollup("q", query=in_full(QUERIES["alias"]))
    hours.run(
        "INSERT INTO metrics VALUES (1, '0044-03-15 12:00+00 BC', 1), (2, '1999-12-31 23:59+00', 2),"
        " (3, '9999-12-31', 3)"
    )
    hours.refresh("q")
    before = hours.difference("q")
    hours.run("SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry")
    hours.run("UPDATE metrics SET value = 20 WHERE at < '2000-01-01'")
    hours.refresh("q")

    assert (before, hours.difference("q")) == ([], [])
