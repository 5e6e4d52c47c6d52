"""Promise 6 on every kind of bucket: after any change and a refresh, a RollUp equals its query."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sandbox import Sandbox
    from tests.stage import Raises, Stage

# Bucket, and its length.
GRIDS = {
    "quarter hours": ("lakets.time_bucket('15 minutes', at)", "15 minutes"),
    "hours": ("lakets.time_bucket('1 hour', at)", "1 hour"),
    "hours off the full hour": ("date_bin('1 hour', at, '2024-01-01 00:20+00')", "1 hour"),
    "days": ("lakets.time_bucket('1 day', at)", "1 day"),
    "weeks from Monday": ("date_trunc('week', at)", "7 days"),
    "weeks from Saturday": ("lakets.time_bucket('7 days', at)", "7 days"),
    "months": ("lakets.time_bucket('1 month', at)", "1 month"),
    "months by date_trunc": ("date_trunc('month', at)", "1 month"),
    "quarters": ("date_trunc('quarter', at)", "3 months"),
    "years": ("lakets.time_bucket('1 year', at)", "1 year"),
    "days without zone": ("date_trunc('day', at AT TIME ZONE 'UTC')", "1 day"),
    "dates": ("(at AT TIME ZONE 'UTC')::date", "1 day"),
    "local days": ("date_trunc('day', at, 'Europe/Berlin')", "1 day"),
    "local days, half an hour": ("date_trunc('day', at, 'Australia/Lord_Howe')", "1 day"),
    "local weeks": ("date_trunc('week', at, 'America/New_York')", "7 days"),
    "local months": ("date_trunc('month', at, 'Europe/Berlin')", "1 month"),
    "local months far east": ("date_trunc('month', at, 'Pacific/Kiritimati')", "1 month"),
    "local months far west": ("date_trunc('month', at, 'Pacific/Niue')", "1 month"),
    "hours, though days were said": ("lakets.time_bucket('1 hour', at)", "1 day"),
    "local days as timestamps": ("date_trunc('day', at AT TIME ZONE 'Europe/Madrid')", "1 day"),
    "local days as dates": ("(at AT TIME ZONE 'Asia/Tokyo')::date", "1 day"),
    "local days far west": ("lakets.time_bucket('1 day', at AT TIME ZONE 'Pacific/Niue')", "1 day"),
    "local days far east": ("(at AT TIME ZONE 'Pacific/Kiritimati')::date", "1 day"),
    "local days at a quarter hour": ("(at AT TIME ZONE 'Asia/Kathmandu')::date", "1 day"),
    "local days without daylight saving": ("(at AT TIME ZONE 'America/Phoenix')::date", "1 day"),
    "local days whose midnight is skipped": ("date_trunc('day', at, 'Africa/Cairo')", "1 day"),
    "local days that end twice": ("(at AT TIME ZONE 'America/Havana')::date", "1 day"),
    "local hours": ("date_trunc('hour', at AT TIME ZONE 'Europe/Madrid')", "1 hour"),
    "local half hours": ("date_bin('30 min', at AT TIME ZONE 'Europe/Berlin', '2024-01-01')", "1 hour"),
    "local hours as instants": ("date_trunc('hour', at, 'Australia/Lord_Howe')", "1 hour"),
    "local hours of a half-hour zone": ("date_trunc('hour', at, 'Asia/Kolkata')", "1 hour"),
    "local hours and back": (
        "date_trunc('hour', at AT TIME ZONE 'Europe/Berlin') AT TIME ZONE 'Europe/Berlin'",
        "1 hour",
    ),
    "local buckets of 40 minutes and back": (
        "date_bin('40 min', at AT TIME ZONE 'Europe/Berlin', '2000-01-01') AT TIME ZONE 'Europe/Berlin'",
        "40 minutes",
    ),
    "zone by an interval": ("date_trunc('day', at AT TIME ZONE INTERVAL '+05:30')", "1 day"),
    "hours, labelled at their end": ("lakets.time_bucket('1 hour', at) + interval '1 hour'", "1 hour"),
    "hours, labelled in their middle": ("lakets.time_bucket('1 hour', at) + '30 min'", "1 hour"),
    "days, labelled before they begin": ("date_trunc('day', at) - interval '2 days'", "1 day"),
    "months, labelled at their end": ("date_trunc('month', at) + interval '1 month'", "1 month"),
    "months, labelled by their last day": (
        "(date_trunc('month', at) + interval '1 month' - interval '1 day')::date",
        "1 month",
    ),
    "local days, labelled at their end": (
        "date_trunc('day', at AT TIME ZONE 'Europe/Madrid') + interval '1 day'",
        "1 day",
    ),
    "days from six in the morning": ("date_trunc('day', at - interval '6 hours')::date", "1 day"),
    "months of weeks": ("date_trunc('month', date_trunc('week', at))", "1 month"),
    "months from the 15th": ("lakets.time_bucket('1 month', at, '2000-01-15')", "1 month"),
    "months from the 31st": ("lakets.time_bucket('1 month', at, '2000-01-31')", "1 month"),
    "each instant": ("at", "1 hour"),
}


@pytest.fixture
def year(stage: Stage) -> Stage:
    """Make a ChronoTable with a chunk for each month of 2024."""
    stage.once(make_year)
    return stage


def make_year(stage: Stage) -> None:
    stage.run("CREATE TABLE metrics (id integer, at timestamptz, value integer)")
    table_id = stage.value("SELECT lakets.create_chronotable('metrics', 'at', '1 month')")
    stage.run(f"SELECT lakets._ensure_partitions({table_id}, 1, 1, '2024-01-01', '2025-01-01')")


def some_instant(dice: random.Random) -> str:
    """Return an instant of 2024, often next to where a day, a month, or summer time begins."""
    if dice.random() < 0.5:
        day = dice.choice(
            ["01-01", "02-28", "02-29", "03-01", "03-29", "03-31", "04-01", "10-27", "10-31", "12-31"]
        )
        return f"2024-{day} {dice.randrange(24):02}:{dice.choice(['00', '29', '30', '59'])}+00"
    return f"2024-{dice.randint(1, 12):02}-{dice.randint(1, 28):02} {dice.randrange(24):02}:30+00"


def insert(stage: Stage, dice: random.Random, count: int) -> None:
    rows = ", ".join(
        f"({dice.randrange(1000)}, '{some_instant(dice)}', {dice.randrange(100)})" for _ in range(count)
    )
    stage.run(f"INSERT INTO metrics VALUES {rows}")


def change(stage: Stage, dice: random.Random) -> None:
    """Make a few changes, some of which empty buckets and some of which move rows to others."""
    insert(stage, dice, 3)
    chosen = f"id % 50 = {dice.randrange(50)}"
    stage.run(f"UPDATE metrics SET value = value + 1 WHERE {chosen}")
    stage.run(f"UPDATE metrics SET at = '{some_instant(dice)}' WHERE id % 97 = {dice.randrange(97)}")
    stage.run(f"DELETE FROM metrics WHERE id % 61 = {dice.randrange(61)}")


def create(stage: Stage, name: str, bucket: str, interval: str) -> None:
    stage.rollup(
        name,
        every=interval,
        query=f"SELECT {bucket} AS bucket, sum(value) AS total, count(*) AS n FROM metrics GROUP BY 1",
    )


@pytest.mark.parametrize(("bucket", "interval"), GRIDS.values(), ids=GRIDS.keys())
def test_refresh_equals_the_query_on_any_grid(year: Stage, bucket: str, interval: str) -> None:
    dice = random.Random(bucket)
    create(year, "from_nothing", bucket, interval)
    insert(year, dice, 200)
    create(year, "from_rows", bucket, interval)

    differences = []
    for _ in range(8):
        change(year, dice)
        year.cascade()
        differences.append((year.difference("from_nothing"), year.difference("from_rows")))

    assert differences == [([], [])] * 8


@pytest.mark.parametrize(
    ("zone", "day"),
    [("Europe/Berlin", "2024-03-31"), ("Australia/Lord_Howe", "2024-10-06"), ("Pacific/Apia", "2011-12-30")],
)
@pytest.mark.parametrize("and_back", ["", " AT TIME ZONE '{}'"], ids=["", "and back"])
@pytest.mark.parametrize("width", ["1 day", "1 hour", "40 minutes", "1 minute"])
def test_times_that_a_clock_skips_are_in_buckets_too(
    stage: Stage, width: str, and_back: str, zone: str, day: str
) -> None:
    # As if UTC were taken for local time. At 2:00 the clock is set to 3:00, or to 2:30. In Apia it
    # skips the whole day.
    stage.run("CREATE TABLE metrics (at timestamp, value integer)")
    stage.run("SELECT lakets.create_chronotable('metrics', 'at', '1 month')")
    create(
        stage, "q", f"lakets.time_bucket('{width}', at) AT TIME ZONE '{zone}'" + and_back.format(zone), width
    )

    differences = []
    for hour in (1, 2, 3):
        for rest in ("00:00", "00:59", "29:30", "30:00", "59:59.9"):
            stage.run(f"INSERT INTO metrics VALUES ('{day} {hour}:{rest}', 1)")
            stage.refresh("q")
            differences.append(stage.difference("q"))
    stage.run("UPDATE metrics SET value = 2")
    stage.refresh("q")

    assert [*differences, stage.difference("q")] == [[]] * 16


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/New_York"])
def test_buckets_do_not_depend_on_the_time_zone_of_who_refreshes(year: Stage, zone: str) -> None:
    year.run("SET timezone = 'Europe/Berlin'")
    create(year, "plain", "date_trunc('day', at)", "1 day")
    year.run(f"SET timezone = '{zone}'")
    insert(year, random.Random(1), 50)

    year.refresh("plain")

    year.run("SET timezone = 'UTC'")
    assert year.difference("plain") == []


@pytest.mark.parametrize(
    "bucket", ["lakets.time_bucket('1 day', at)", "date_trunc('month', at, 'Europe/Berlin')"]
)
def test_buckets_longer_than_said_are_refused(year: Stage, raises: Raises, bucket: str) -> None:
    insert(year, random.Random(1), 300)

    with raises("P0001", match="are longer than 01:00:00"):
        create(year, "daily", bucket, "1 hour")


def test_buckets_longer_than_said_are_refused_while_there_are_no_rows(year: Stage, raises: Raises) -> None:
    with raises("P0001", match="are longer than 01:00:00"):
        create(year, "daily", "lakets.time_bucket('1 day', at)", "1 hour")


def test_uneven_bucket_beside_a_dropped_chunk_is_still_refreshed(year: Stage) -> None:
    # Of the local days around 1 March, the one that ends where the dropped chunk begins is wholly
    # resident.
    zone = "Etc/GMT-2"
    year.run(
        "INSERT INTO metrics VALUES (1, '2024-02-28 12:00+00', 1), (2, '2024-02-29 12:00+00', 2),"
        " (3, '2024-02-29 23:00+00', 3), (4, '2024-03-01 12:00+00', 4)"
    )
    create(year, "local", f"date_trunc('day', at, '{zone}')", "1 day")
    year.run("UPDATE lakets._chunk_metadata SET status = 'tiered' WHERE range_start < '2024-03-01'")
    year.run("SELECT lakets.drop_chunks('metrics', '1 day')")
    year.run("UPDATE metrics SET value = value + 10")

    year.refresh("local")

    assert year.run(
        "SELECT to_char(bucket AT TIME ZONE 'UTC', 'MM-DD HH24'), total FROM _rollup_local ORDER BY 1"
    ) == [
        ("02-27 22", 11),
        ("02-28 22", 12),
        ("02-29 22", 7),  # reaches into March
    ]


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles", "Asia/Kathmandu", "Pacific/Niue"])
def test_local_day_whose_first_hours_are_dropped_keeps_its_value(stage: Stage, zone: str) -> None:
    stage.run("CREATE TABLE metrics (at timestamptz, value integer)")
    stage.run(
        "INSERT INTO metrics SELECT t, 1 FROM"
        " generate_series('2024-01-01'::timestamptz, '2024-01-08 23:00+00', '1 hour') AS t"
    )
    stage.run("SELECT lakets.create_chronotable('metrics', 'at', '1 day')")
    stage.rollup(
        "daily",
        every="1 day",
        query=f"SELECT (at AT TIME ZONE '{zone}')::date AS day, count(*) AS n, sum(value) AS v"
        " FROM metrics GROUP BY 1",
    )
    counts = "SELECT n FROM _rollup_daily ORDER BY day"
    before = stage.column(counts)
    stage.run("UPDATE lakets._chunk_metadata SET status = 'tiered' WHERE range_start >= '2024-01-04'")
    stage.run("SELECT lakets.drop_chunks('metrics', '1 day')")
    stage.run("UPDATE metrics SET value = 2")

    stage.refresh("daily")

    # The day that is dropped in part keeps its value; those after it are aggregated again.
    assert stage.column(counts) == before
    per_hour = stage.column("SELECT v / n FROM _rollup_daily ORDER BY day")
    assert per_hour == sorted(per_hour)
    assert per_hour.count(2) in (4, 5)


@pytest.mark.parametrize("change", ["2024-03-10 07:00", "2024-11-03 06:00"], ids=["forward", "back"])
@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_local_times_with_fractions_of_seconds_where_a_clock_is_set(
    db: Sandbox, change: str, hours: int
) -> None:
    db.chronotable("ts timestamptz, value int", interval="1 month")
    query = "SELECT ts AT TIME ZONE 'America/New_York' AS local, sum(value) AS total FROM metrics GROUP BY 1"
    db.run("SELECT lakets.create_rollup('local', %s, '1 day')", query)
    db.run("SET LOCAL statement_timeout = '30s'")

    for seconds in (-1.1, -0.1, 0.1, 0.9, 1, 1.1, 1.9):
        after = 3600 * hours + seconds
        db.run("INSERT INTO metrics VALUES (%s::timestamptz + %s * interval '1 s', 1)", f"{change}+00", after)
        db.run("SELECT lakets.refresh_rollup('local', true)")

        assert db.run("TABLE _rollup_local ORDER BY 1") == db.run(f"{query} ORDER BY 1")
