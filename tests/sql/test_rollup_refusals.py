"""A query that a RollUp cannot keep right is refused at creation, with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.stage import Raises, Stage

OTHERS = "rows depend on the source rows of their own bucket only"
HOUR = "lakets.time_bucket('1 hour', at)"
HOURS = f"SELECT {HOUR} AS bucket, sum(value) AS v, count(*) AS n FROM metrics GROUP BY 1"
LEFT = f"(SELECT y.bucket AS a FROM ({HOURS}) AS x LEFT JOIN ({HOURS}) AS y USING (bucket))"

# Query, and what the error says of it.
REFUSED = {
    "grouping without a bucket": (
        f"SELECT {HOUR} AS bucket, count(*) FROM metrics GROUP BY ROLLUP (1)",
        "GROUPING SETS, ROLLUP or CUBE",
    ),
    "cube": (f"SELECT {HOUR} AS bucket, id, count(*) FROM metrics GROUP BY CUBE (1, 2)", "GROUPING SETS"),
    "right join": (
        f"SELECT {HOUR} AS bucket, name FROM metrics RIGHT JOIN device USING (id) GROUP BY 1, 2",
        "an outer join makes rows without it",
    ),
    "full join": (
        f"SELECT {HOUR} AS bucket, name FROM device FULL JOIN metrics USING (id) GROUP BY 1, 2",
        "an outer join makes rows without it",
    ),
    "labels of two subqueries whose joins may leave them out": (
        f"SELECT coalesce(q.a, r.a) AS bucket FROM {LEFT} AS q JOIN {LEFT} AS r ON q.a = r.a",
        "an outer join makes rows without it",
    ),
    "bucket by case": (
        f"SELECT CASE WHEN value > 1 THEN {HOUR} END AS bucket, count(*) FROM metrics GROUP BY 1",
        OTHERS,
    ),
    "running sum": (
        f"SELECT bucket, sum(v) OVER (ORDER BY bucket) FROM ({HOURS}) AS h",
        "a window function looks at rows of other buckets",
    ),
    "lag": (f"SELECT bucket, v - lag(v) OVER (ORDER BY bucket) FROM ({HOURS}) AS h", "a window function"),
    "lead": (f"SELECT bucket, lead(v) OVER (ORDER BY bucket) FROM ({HOURS}) AS h", "a window function"),
    "share of the whole": (f"SELECT bucket, v / sum(v) OVER () FROM ({HOURS}) AS h", "a window function"),
    "share by a subquery": (
        f"SELECT {HOUR} AS bucket, count(*) * 1.0 / (SELECT count(*) FROM metrics) FROM metrics GROUP BY 1",
        "a subquery reads source rows of other buckets",
    ),
    "share by a join": (
        f"SELECT h.bucket, h.v / w.v FROM ({HOURS}) AS h, (SELECT sum(value) AS v FROM metrics) AS w",
        "joins source rows of different buckets",
    ),
    "newest of a device": (
        f"SELECT DISTINCT ON (id) id, {HOUR} AS bucket, value FROM metrics ORDER BY id, at DESC",
        "DISTINCT ON takes rows",
    ),
    "first rows": (f"{HOURS} ORDER BY 1 LIMIT 3", "LIMIT takes rows"),
    "all but the first": (f"{HOURS} ORDER BY 1 OFFSET 1", "LIMIT takes rows"),
    "with ties": (f"{HOURS} ORDER BY 1 FETCH FIRST 1 ROW WITH TIES", "LIMIT takes rows"),
    "limit further inside": (
        f"SELECT {HOUR} AS bucket, count(*) FROM (SELECT * FROM metrics ORDER BY at DESC LIMIT 9) AS"
        " m GROUP BY 1",
        "LIMIT takes rows",
    ),
    "limit of a union": (
        f"SELECT bucket FROM ((SELECT {HOUR} AS bucket FROM metrics UNION SELECT {HOUR} FROM metrics"
        " LIMIT 3))"
        " AS u",
        "LIMIT takes rows",
    ),
    "newest in a condition": (
        f"SELECT {HOUR} AS bucket, count(*) FROM metrics WHERE at = (SELECT max(at) FROM metrics) GROUP BY 1",
        "a subquery reads source rows",
    ),
    "nothing later": (
        f"SELECT {HOUR} AS bucket FROM metrics m WHERE NOT EXISTS (SELECT FROM metrics n WHERE n.at > m.at)",
        "a subquery reads source rows",
    ),
    "above the average": (
        f"{HOURS} HAVING sum(value) > (SELECT avg(value) FROM metrics)",
        "a subquery reads source rows",
    ),
    "joined on the device": (
        "SELECT lakets.time_bucket('1 hour', a.at) AS bucket, count(*) FROM metrics a JOIN metrics b"
        " USING (id)"
        " GROUP BY 1",
        "joins source rows of different buckets",
    ),
    "joined on the hour before": (
        f"SELECT a.bucket, b.v FROM ({HOURS}) AS a JOIN ({HOURS}) AS b ON b.bucket = a.bucket -"
        " interval '1 hour'",
        "joins source rows of different buckets",
    ),
    "joined in a range": (
        f"SELECT a.bucket, sum(b.v) FROM ({HOURS}) AS a JOIN ({HOURS}) AS b ON b.bucket <= a.bucket"
        " GROUP BY 1",
        "joins source rows of different buckets",
    ),
    "hours of a day": (
        "SELECT date_trunc('hour', m.at) AS bucket, max(d.v) FROM metrics m JOIN (SELECT"
        " date_trunc('day', at)"
        " AS day, sum(value) AS v FROM metrics GROUP BY 1) AS d ON d.day = date_trunc('day', m.at)"
        " GROUP BY 1",
        "joins source rows of different buckets",
    ),
    "lateral": (
        f"SELECT h.bucket, l.value FROM ({HOURS}) AS h CROSS JOIN LATERAL (SELECT value FROM metrics"
        " WHERE at < h.bucket ORDER BY at DESC LIMIT 1) AS l",
        "joins source rows of different buckets",
    ),
    "buckets without rows": (
        "SELECT g AS bucket, count(value) FROM generate_series('2024-01-01'::timestamptz,"
        " '2024-01-02', '1 hour')"
        f" AS g LEFT JOIN metrics ON {HOUR} = g GROUP BY 1",
        "it is no bucket of a source's time column",
    ),
    "added rows": (
        f"SELECT {HOUR} AS bucket, value FROM metrics UNION ALL SELECT '2024-01-01', 0",
        "rows that do not come from the source",
    ),
    "hours and days": (
        f"SELECT {HOUR} AS bucket, value FROM metrics UNION ALL SELECT date_trunc('day', at), value"
        " FROM metrics",
        "have different buckets",
    ),
    "all rows as one": (f"SELECT max({HOUR}) AS bucket, count(*) FROM metrics", OTHERS),
    "another time column": (
        "SELECT lakets.time_bucket('1 hour', seen) AS bucket, count(*) FROM metrics GROUP BY 1",
        "it is no bucket of a source's time column",
    ),
    "grouped by something else": (
        "SELECT id, max(at) AS bucket, count(*) FROM metrics GROUP BY 1",
        "it is no bucket of a source's time column",
    ),
    "a zone from a column": (
        "SELECT (at AT TIME ZONE name)::date AS bucket, count(*) FROM metrics JOIN device USING (id)"
        " GROUP BY 1",
        "it is no bucket of a source's time column",
    ),
    "a width from a column": (
        "SELECT date_bin(value * interval '1 minute', at, '2000-01-01') AS bucket FROM metrics",
        "it is no bucket of a source's time column",
    ),
    "recursive": (
        "WITH RECURSIVE r AS (SELECT at, value FROM metrics UNION ALL SELECT at, value - 1 FROM r"
        " WHERE value > 0)"
        " SELECT date_trunc('hour', at) AS bucket, count(*) FROM r GROUP BY 1",
        OTHERS,
    ),
    "by way of a view": (
        "SELECT date_trunc('hour', at) AS bucket, count(*) FROM metrics JOIN plain_view USING (at)"
        " GROUP BY 1",
        "by way of public.plain_view",
    ),
    "by way of a chunk": (
        "SELECT date_trunc('hour', m.at) AS bucket, count(*) FROM metrics m JOIN metrics_20240101_000000 c"
        " ON c.id = m.id GROUP BY 1",
        "by way of public.metrics_20240101_000000",
    ),
    "random": (f"SELECT {HOUR} AS bucket, sum(value * random()) FROM metrics GROUP BY 1", "volatile"),
    "now": (f"{HOURS} HAVING max(at) < now()", "depends on when, where and by whom"),
    "literal of the current time": (HOURS.replace("GROUP", "WHERE at > 'Yesterday' GROUP"), "'Yesterday'"),
    "literal with the current day": (
        HOURS.replace("GROUP", "WHERE at < $a$today 10:00$a$ GROUP"),
        "current time",
    ),
    "range to the current time": (
        HOURS.replace(
            "GROUP", "WHERE at <@ '(-infinity,now)'::tstzrange AND id::text <> '(-infinity,now)' GROUP"
        ),
        "current time",
    ),
    "text as the current date": (HOURS.replace("GROUP", "WHERE at > 'now'::text::date GROUP"), "'now'"),
    "texts as the current times": (
        HOURS.replace("GROUP", "WHERE at = ANY ('{tomorrow,2025-01-01}'::text::timestamptz[]) GROUP"),
        "current time",
    ),
    "times with other words": (
        HOURS.replace("GROUP", "WHERE concat(E'\\'', 'now') <> '' AND at < 'today 10:00 PM UTC' GROUP"),
        "current time",
    ),
    "literal that is a group, too": (
        f"SELECT {HOUR} AS bucket, concat(id, 'now') FROM metrics WHERE at < 'now' GROUP BY 1, 2",
        "'now'",
    ),
    "text through several types": (
        HOURS.replace("GROUP", "WHERE at > 'now'::name::text::date GROUP"),
        "'now'",
    ),
    "texts as an array of times": (
        HOURS.replace("GROUP", "WHERE at = ANY ('{now}'::text[]::timestamptz[]) GROUP"),
        "'{now}'",
    ),
    "time of day in a zone": (
        f"SELECT {HOUR} AS bucket, min(at::time AT TIME ZONE 'Europe/Paris') FROM metrics GROUP BY 1",
        "the offset that the zone has today",
    ),
    "current date": (
        f"SELECT {HOUR} AS bucket, count(*) FROM metrics WHERE at > CURRENT_DATE - 30 GROUP BY 1",
        "current time or user",
    ),
    "age": (f"SELECT {HOUR} AS bucket, max(age(at)) FROM metrics GROUP BY 1", "depends on when"),
    "a setting": (
        f"SELECT {HOUR} AS bucket, max(current_setting('work_mem')) FROM metrics GROUP BY 1",
        "depends on",
    ),
    "text search": (
        f"SELECT {HOUR} AS bucket, count(*) FROM metrics WHERE to_tsvector(mood::text) @@ 'ok' GROUP BY 1",
        "depends on default_text_search_config",
    ),
    "text search without a function": (
        f"SELECT {HOUR} AS bucket, count(*) FROM metrics WHERE mood::text @@ 'ok'::tsquery GROUP BY 1",
        "depends on default_text_search_config",
    ),
    "its text search": (
        f"SELECT {HOUR} AS bucket, max(get_current_ts_config()::text) FROM metrics GROUP BY 1",
        "depends on when, where and by whom",
    ),
    "who is logged in": (f"SELECT {HOUR} AS bucket, max(SYSTEM_USER) FROM metrics GROUP BY 1", "by whom"),
    "case of a type with its own =": (
        f"SELECT {HOUR} AS bucket, sum(CASE mood WHEN 'ok' THEN 1 ELSE 0 END) FROM metrics GROUP BY 1",
        r"compares by public.=\(public.mood,public.mood\) where SQL cannot name the operator",
    ),
    "nullif of a type with its own =": (
        f"SELECT {HOUR} AS bucket, count(NULLIF(mood, 'ok')) FROM metrics GROUP BY 1",
        "where SQL cannot name",
    ),
    "distinct from": (
        f"SELECT {HOUR} AS bucket, count(*) FROM metrics WHERE mood IS DISTINCT FROM 'ok' GROUP BY 1",
        "where SQL cannot name",
    ),
    "using a type with its own =": (
        f"SELECT {HOUR} AS bucket, count(*) FROM metrics JOIN limits USING (mood) GROUP BY 1",
        "where SQL cannot name",
    ),
    "naturally joined": (
        f"SELECT {HOUR} AS bucket, count(*) FROM metrics NATURAL JOIN limits GROUP BY 1",
        "where SQL cannot name",
    ),
    "distinct from, of a type without another =": (
        f"SELECT {HOUR} AS bucket, count(*) FROM metrics WHERE place IS DISTINCT FROM '1'::json GROUP BY 1",
        r"compares by public.=\(json,json\)",
    ),
    "own function": (
        f"SELECT {HOUR} AS bucket, max(looked_up(id)) FROM metrics GROUP BY 1",
        "may read tables",
    ),
    "own aggregate": (f"SELECT {HOUR} AS bucket, guessed(value) FROM metrics GROUP BY 1", "may read tables"),
    "sample": (f"SELECT {HOUR} AS bucket FROM metrics TABLESAMPLE BERNOULLI (50)", "TABLESAMPLE"),
    "row locks": (f"SELECT {HOUR} AS bucket, value FROM metrics FOR UPDATE", "FOR UPDATE"),
    "where a row is stored": (f"SELECT {HOUR} AS bucket, max(ctid) FROM metrics GROUP BY 1", "system column"),
    "who wrote a row": (f"SELECT {HOUR} AS bucket, max(xmin::text) FROM metrics GROUP BY 1", "system column"),
    "who locks a row": (
        f"SELECT {HOUR} AS bucket, count(*) FROM metrics WHERE xmax::text = '0' GROUP BY 1",
        "system column",
    ),
    "into": (f"SELECT {HOUR} AS bucket INTO elsewhere FROM metrics", "is not one SELECT"),
    "two statements": (f"{HOURS}; DELETE FROM metrics", "is not one SELECT"),
    "two selects": (f"{HOURS}; SELECT 1", "is not one SELECT"),
    "closed early": (f"{HOURS}) AS fresh; DELETE FROM metrics; SELECT * FROM (SELECT 1", "syntax error"),
    "a deletion inside": (
        f"WITH gone AS (DELETE FROM metrics RETURNING *) SELECT {HOUR} AS bucket FROM gone",
        "is not one SELECT",
    ),
    "nothing": (" ; ", "is not one SELECT"),
}


SCENE = """
    CREATE TYPE mood AS ENUM ('ok', 'OK', 'bad');  -- compared as citext compares
    CREATE FUNCTION alike(mood, mood) RETURNS boolean LANGUAGE sql IMMUTABLE
        AS 'SELECT lower($1::text) = lower($2::text)';
    CREATE OPERATOR = (LEFTARG = mood, RIGHTARG = mood, FUNCTION = alike);
    CREATE FUNCTION alike(json, json) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1::text = $2::text';
    CREATE OPERATOR = (LEFTARG = json, RIGHTARG = json, FUNCTION = alike);
    CREATE TABLE metrics (id integer, at timestamptz, value integer, seen timestamptz, mood mood, place json);
    CREATE TABLE limits (mood mood, highest integer);
    SELECT lakets._ensure_partitions(lakets.create_chronotable('metrics', 'at', '1 day'), 1, 1,
                                     '2024-01-01', '2024-01-04');
    CREATE TABLE device (id integer, name text);
    CREATE VIEW plain_view AS SELECT at FROM metrics;
    CREATE FUNCTION looked_up(integer) RETURNS text LANGUAGE sql STABLE
        AS 'SELECT name FROM device WHERE id = $1';
    CREATE FUNCTION guess(bigint, integer) RETURNS bigint LANGUAGE sql STABLE
        AS 'SELECT $1 + $2 + count(*) FROM device';
    CREATE AGGREGATE guessed(integer) (sfunc = guess, stype = bigint, initcond = '0');
"""


@pytest.fixture
def scene(stage: Stage) -> Stage:
    stage.run(SCENE)
    return stage


@pytest.fixture(scope="module")
def set_scene(postgres: EmbeddedPostgres, template: str) -> Iterator[psycopg.Connection]:
    """Set the scene once, for tests that only fail in it."""
    name = "lakets_refusals"
    with psycopg.connect(postgres.ensure_database(name, template=template), autocommit=True) as session:
        session.execute("SET client_min_messages = error; SET timezone = 'UTC'")
        session.execute(SCENE)
        yield session
    postgres.drop_database(name)


@pytest.mark.parametrize("has_rows", [False, True], ids=["empty", "with rows"])
@pytest.mark.parametrize(("query", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_query_that_cannot_be_kept_right_is_refused(
    set_scene: psycopg.Connection, query: str, reason: str, has_rows: bool
) -> None:
    db = Sandbox(set_scene)
    with db.undone():
        if has_rows:
            db.run("INSERT INTO metrics VALUES (1, '2024-01-01 12:30+00', 5, now())")
        before = db.value("SELECT count(*) FROM metrics")

        with db.refused("42601" if reason == "syntax error" else "P0001", match=reason):
            db.run("SELECT lakets.create_rollup('q', %s)", query)

        assert db.value("SELECT count(*) FROM metrics") == before
        assert db.column("SELECT relname::text FROM pg_class WHERE relname ~ 'rollup_q|_definition_'") == []


def test_local_times_get_their_zone_after_the_bucket(db: Sandbox) -> None:
    db.chronotable("ts timestamp, value int")
    db.run(
        "INSERT INTO metrics SELECT '2024-03-30'::timestamp + n * interval '1 h', n"
        " FROM generate_series(0, 60) AS n"
    )
    query = "SELECT date_trunc('day', ts{}) AS day, sum(value) AS total FROM metrics GROUP BY 1"
    before = query.format(" AT TIME ZONE 'Europe/Madrid', 'Europe/Madrid'")
    after = query.format("").replace("ts)", "ts) AT TIME ZONE 'Europe/Madrid'")

    with db.refused("raise_exception", match="it is no bucket of a source's time column"):
        db.run("SELECT lakets.create_rollup('q', %s, '1 day')", before)
    db.run("SELECT lakets.create_rollup('q', %s, '1 day')", after)

    assert db.run("TABLE _rollup_q ORDER BY 1") == db.run(f"{before} ORDER BY 1")


def test_type_with_its_own_equality_is_compared_by_it(scene: Stage) -> None:
    scene.run(
        "INSERT INTO metrics VALUES (1, '2024-01-01 12:30+00', 5, now(), 'OK');"
        " INSERT INTO limits VALUES ('ok', 9)"
    )

    scene.rollup(
        "q",
        query=f"SELECT {HOUR} AS bucket, sum(CASE WHEN m.mood = 'ok' THEN 1 ELSE 0 END) AS equal,"
        " count(*) FILTER (WHERE m.mood IN ('ok', 'bad')) AS among,"
        " count(*) FILTER (WHERE m.mood IN (SELECT mood FROM limits)) AS found"
        " FROM metrics AS m JOIN limits AS l ON l.mood = m.mood GROUP BY 1",
    )

    assert scene.run("SELECT equal, among, found FROM _rollup_q") == [(1, 1, 1)]


def test_hours_beside_the_day_of_a_rollup_are_refused(scene: Stage, raises: Raises) -> None:
    scene.rollup("daily", every="1 day")

    with raises("P0001", match="joins source rows of different buckets"):
        scene.rollup(
            "hourly",
            query="SELECT date_trunc('hour', m.at) AS bucket, max(d.total) FROM metrics m"
            " JOIN _rollup_daily d ON d.bucket = date_trunc('day', m.at) GROUP BY 1",
        )


def test_column_is_the_bucket_by_what_it_is_and_not_by_its_place_or_name(scene: Stage) -> None:
    scene.run(
        "INSERT INTO metrics SELECT 1, '2024-01-01'::timestamptz + n * interval '10 min', n"
        " FROM generate_series(1, 40) AS n"
    )
    scene.rollup(
        "q",
        query=f"SELECT max(at) AS bucket, date_trunc('day', at) AS day, {HOUR} AS hour, count(*) AS n"
        " FROM metrics GROUP BY day, hour",
    )
    scene.run("INSERT INTO metrics VALUES (2, '2024-01-01 02:20+00', 1)")

    scene.refresh("q")

    assert scene.value("SELECT bucket_column FROM lakets._rollup_registry") == "hour"
    assert scene.difference("q") == []


def test_table_whose_changes_nobody_tracks_is_named(scene: Stage) -> None:
    warnings: list[tuple[str | None, str | None]] = []
    scene.conn.add_notice_handler(lambda note: warnings.append((note.message_primary, note.message_hint)))
    scene.run("SET client_min_messages = warning")

    scene.rollup(
        "q", query=f"SELECT {HOUR} AS bucket, name FROM metrics JOIN device USING (id) GROUP BY 1, 2"
    )

    ((said, hint),) = warnings
    assert said is not None
    assert said.startswith("Changes of public.device are not tracked")
    assert hint is not None
    assert "lakets.invalidate_rollup_range('q'" in hint


def test_refresh_that_finds_a_row_in_no_bucket_changes_nothing(scene: Stage, raises: Raises) -> None:
    # As if the proof had missed something: the RollUp is filled by another query than the one
    # looked at.
    scene.run("INSERT INTO metrics VALUES (1, '2024-01-01 12:30+00', 5, now())")
    scene.rollup("q", query=HOURS)
    written = scene.value("SELECT pg_get_functiondef('lakets._fill_q'::regproc)")
    scene.run(str(written).replace("01:00:00", "02:00:00"))
    scene.run("INSERT INTO metrics VALUES (1, '2024-01-01 13:30+00', 7, now())")

    with raises("P0001", match="in no bucket of the source rows"):
        scene.refresh("q")

    assert scene.column("SELECT v FROM _rollup_q") == [5]


@pytest.mark.parametrize("column", ["query_text", "window_query"])
@pytest.mark.parametrize(
    "tail", ["; DELETE FROM metrics", " -- ;", " $a$ $a$", "E'\\'' ; DELETE FROM metrics; SELECT ''"]
)
def test_stored_query_that_was_changed_is_not_run(
    scene: Stage, raises: Raises, column: str, tail: str
) -> None:
    scene.run("INSERT INTO metrics VALUES (1, '2024-01-01 12:30+00', 5, now())")
    scene.rollup("q", query=HOURS)
    scene.run(f"UPDATE lakets._rollup_registry SET {column} = {column} || %s", tail)
    scene.run("INSERT INTO metrics VALUES (1, '2024-01-01 13:30+00', 7, now())")

    with raises("P0001", match="was not made from its stored query"):
        scene.refresh("q")

    assert scene.value("SELECT count(*) FROM metrics") == 2


def test_stored_literals_and_names_may_hold_anything(scene: Stage) -> None:
    scene.run("INSERT INTO metrics VALUES (1, '2024-01-01 12:30+00', 5, now())")
    scene.rollup(
        "q",
        query=f"""SELECT {HOUR} AS bucket, max('; -- it''s $a$ "' || E' \\\\ \\' ; ') AS "a; ""b"
        FROM metrics GROUP BY 1""",
    )
    scene.run("INSERT INTO metrics VALUES (1, '2024-01-01 13:30+00', 7, now())")

    assert scene.refresh("q")
    assert scene.difference("q") == []


def test_words_for_the_current_time_may_be_text(scene: Stage) -> None:
    """Only where they stand for a time they change from day to day."""
    scene.run("INSERT INTO metrics VALUES (1, '2024-01-01 12:30+00', 5, now())")
    scene.run("CREATE TYPE day AS ENUM ('1', 'today')")
    scene.rollup(
        "q",
        query=f"""SELECT {HOUR} AS bucket, max(concat('a', tomorrow, 'now')) AS word -- not 'now'
        FROM (SELECT *, value AS tomorrow, id::text AS "now" FROM metrics) AS m /* 'today' */
        WHERE "now" NOT IN ('now', 'today') AND "now" <> ALL ('{{now, today}}') AND "now" <> $$yesterday$$
          AND "now"::varchar(5) <> 'now' AND '{{"at":"now"}}'::jsonb <> '{{}}' AND at > 'epoch'
          AND "now" <> ALL ('{{"now","today"}}') AND '{{"today": 1, "now": 2}}'::jsonb <> '{{}}'
          AND 'today now'::tsvector <> '' AND "now" <> E'today\\t' AND "now" <> U&'today\\0021'
          AND "now" <> $a$ $b$ now $b$ today$a$ AND "now"::day IS DISTINCT FROM 'today' GROUP BY 1""",
    )

    assert scene.value("SELECT word FROM _rollup_q") == "a5now"


def test_a_word_for_the_current_time_is_found_beside_the_same_word_of_another_type(
    scene: Stage, raises: Raises
) -> None:
    scene.run("CREATE TYPE day AS ENUM ('1', 'today')")

    with raises("P0001", match=r"uses the current time \('today'\)"):
        scene.rollup(
            "q", query=HOURS.replace("GROUP", "WHERE id::text::day <> 'today' AND at < 'today' GROUP")
        )
