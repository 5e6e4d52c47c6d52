"""Alerts as rows, and statements ordered by their total time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sandbox import Sandbox


def check(db: Sandbox, query: str) -> list[tuple[object, ...]]:
    return db.run("SELECT alert_name, severity, alert_data FROM lakets.alert_check('hot', %s)", query)


def test_each_row_of_the_query_is_an_alert(db: Sandbox) -> None:
    found = db.run(
        "SELECT alert_name, severity, fired_at = now(), alert_data"
        " FROM lakets.alert_check('hot', 'SELECT n, ''x'' AS d FROM generate_series(1, 2) AS n;', 'critical')"
    )

    assert found == [
        ("hot", "critical", True, {"n": 1, "d": "x"}),
        ("hot", "critical", True, {"n": 2, "d": "x"}),
    ]


def test_the_query_means_what_its_caller_means(db: Sandbox) -> None:
    db.run("CREATE SCHEMA mine; CREATE TABLE mine.readings (v int); INSERT INTO mine.readings VALUES (9)")
    db.run("SET LOCAL search_path = mine, public")

    assert check(db, "SELECT v FROM readings WHERE v > 5 -- too hot") == [("hot", "warning", {"v": 9})]
    assert db.value("SHOW search_path") == "mine, public"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SELECT 'a' AS v; -- too hot", "a"),
        ("SELECT 'a' AS v ; /* too ** hot */ ; -- or not\n", "a"),
        ("SELECT ';--' AS v -- ;", ";--"),
        ("SELECT 1 AS w, 'a' AS v, ';-- x'", "a"),
    ],
)
def test_comments_after_the_query_change_nothing(db: Sandbox, query: str, text: str) -> None:
    assert db.column("SELECT alert_data ->> 'v' FROM lakets.alert_check('hot', %s)", query) == [text]


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("SELECT 1; DELETE FROM m", "syntax_error"),
        ("SELECT 1) AS alert; DELETE FROM m; SELECT (1", "invalid_cursor_definition"),
        ("SELECT 1) AS alert; DELETE FROM m RETURNING to_jsonb(v); SELECT (1", "invalid_cursor_definition"),
        ("DELETE FROM m RETURNING v", "syntax_error"),
    ],
)
def test_what_is_not_one_query_is_refused(db: Sandbox, query: str, condition: str) -> None:
    db.run("CREATE TABLE m (v int); INSERT INTO m VALUES (1)")

    with db.refused(condition):
        check(db, query)
    assert db.value("SELECT count(*) FROM m") == 1


@pytest.mark.parametrize("query", ["", "  ;\n", None, "-- none; yet", "/* none */ ;\n-- yet\n"])
def test_an_alert_without_a_query_is_refused(db: Sandbox, query: str) -> None:
    with db.refused("P0001", "has no query"):
        check(db, query)


def test_who_fell_silent_is_told(db: Sandbox) -> None:
    db.chronotable()
    db.run(
        "INSERT INTO metrics SELECT now() - silence, device, 1 FROM (VALUES"
        " ('a', interval '3 hours'), ('a', '2 hours'), ('b', '5 minutes'), (NULL, '1 day'))"
        " AS v (device, silence)"
    )

    found = db.run(
        "SELECT alert_name, severity, dead_key, silent_for"
        " FROM lakets.alert_deadman('silent', 'metrics', 'device', '1 hour')"
    )

    assert found == [
        ("silent", "critical", None, timedelta(days=1)),
        ("silent", "critical", "a", timedelta(hours=2)),
    ]


@pytest.mark.parametrize("ts", ["timestamptz", "timestamp", "date"])
def test_a_row_with_a_wrong_clock_does_not_hide_who_fell_silent(db: Sandbox, ts: str) -> None:
    db.run("SET LOCAL timezone = 'Pacific/Apia'")
    db.chronotable(f"ts {ts}, device text, value float8")
    db.run(
        f"INSERT INTO metrics SELECT ts::{ts}, device, 1 FROM (VALUES"
        " ('a', (now() - interval '3 days')::text), ('a', (now() + interval '500 years')::text),"
        " ('b', (now() AT TIME ZONE 'UTC' - interval '1 minute')::text),"
        " ('c', '-infinity'), ('c', 'infinity'))"
        " AS v (device, ts)"
    )

    found = db.column("SELECT dead_key FROM lakets.alert_deadman('silent', 'metrics', 'device', '2 days')")

    assert found == ["a"]


@pytest.mark.parametrize("column", ["nope", "device; DROP TABLE metrics", None, "upper(device)"])
def test_a_group_that_is_no_column_is_refused(db: Sandbox, column: str) -> None:
    db.chronotable()

    with db.refused("P0001", "has no column"):
        db.run("SELECT * FROM lakets.alert_deadman('silent', 'metrics', %s, '1 hour')", column)


@pytest.mark.parametrize("timeout", [None, "0", "-1 hour", "1 month -40 days"])
def test_a_timeout_that_makes_no_sense_is_refused(db: Sandbox, timeout: str | None) -> None:
    db.chronotable()

    with db.refused("P0001", "p_timeout must be a positive interval"):
        db.run("SELECT * FROM lakets.alert_deadman('silent', 'metrics', 'device', %s)", timeout)


@pytest.mark.parametrize("function", ["query_stats", "job_history"])
@pytest.mark.parametrize("limit", [None, 0, -1])
def test_a_limit_that_shows_nothing_is_refused(db: Sandbox, function: str, limit: int | None) -> None:
    with db.refused("P0001", "p_limit must be from 1 to"):
        db.run(f"SELECT * FROM lakets.{function}(p_limit => %s)", limit)


def test_statistics_are_empty_without_the_extension_and_of_lakets_with_it(db: Sandbox) -> None:
    assert db.run("SELECT * FROM lakets.query_stats()") == []

    # What the extension shows, where it is not to be had.
    db.run("CREATE SCHEMA stats")
    db.run(
        "CREATE VIEW stats.pg_stat_statements AS"
        " SELECT oid AS dbid, query, 2::bigint AS calls, cost AS total_exec_time, cost / 2 AS mean_exec_time,"
        " 5::bigint AS rows FROM pg_database, (VALUES ('SELECT lakets.show_rollups()', 10::float8),"
        " ('SELECT time_bucket(...)', 20), ('SELECT 1', 99)) AS v (query, cost)"
        " WHERE datname = current_database()"
    )
    db.run(
        "INSERT INTO pg_extension SELECT 999999, 'pg_stat_statements', 10, 'stats'::regnamespace, true, '1'"
    )

    assert db.run("SELECT * FROM lakets.query_stats()") == [
        ("SELECT time_bucket(...)", 2, 20.0, 10.0, 5),
        ("SELECT lakets.show_rollups()", 2, 10.0, 5.0, 5),
    ]
    assert len(db.run("SELECT * FROM lakets.query_stats(1)")) == 1
