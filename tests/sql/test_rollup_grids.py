"""Promise 6 on every kind of bucket: after any change and a refresh, a RollUp equals its query."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.stage import Stage

# Bucket, its length, and whether the buckets of a year are of even length.
GRIDS = {
    "quarter hours": ("lakets.time_bucket('15 minutes', at)", "15 minutes", True),
    "hours": ("lakets.time_bucket('1 hour', at)", "1 hour", True),
    "hours off the full hour": ("date_bin('1 hour', at, '2024-01-01 00:20+00')", "1 hour", True),
    "days": ("lakets.time_bucket('1 day', at)", "1 day", True),
    "weeks from Monday": ("date_trunc('week', at)", "7 days", True),
    "weeks from Saturday": ("lakets.time_bucket('7 days', at)", "7 days", True),
    "months": ("lakets.time_bucket('1 month', at)", "1 month", True),
    "months by date_trunc": ("date_trunc('month', at)", "1 month", True),
    "quarters": ("date_trunc('quarter', at)", "3 months", True),
    "years": ("lakets.time_bucket('1 year', at)", "1 year", True),
    "days without zone": ("date_trunc('day', at AT TIME ZONE 'UTC')", "1 day", True),
    "dates": ("(at AT TIME ZONE 'UTC')::date", "1 day", True),
    "local days": ("date_trunc('day', at, 'Europe/Berlin')", "1 day", False),
    "local days, half an hour": ("date_trunc('day', at, 'Australia/Lord_Howe')", "1 day", False),
    "local weeks": ("date_trunc('week', at, 'America/New_York')", "7 days", False),
    "local months": ("date_trunc('month', at, 'Europe/Berlin')", "1 month", False),
    "local months far east": (
        "date_trunc('month', at, 'Pacific/Kiritimati')",
        "1 month",
        None,
    ),  # as it begins
    "local months far west": ("date_trunc('month', at, 'Pacific/Niue')", "1 month", True),
    "hours, though days were said": ("lakets.time_bucket('1 hour', at)", "1 day", False),
}


@pytest.fixture
def year(stage: Stage) -> Stage:
    """Make a ChronoTable with a chunk for each month of 2024."""
    stage.run("CREATE TABLE metrics (id integer, at timestamptz, value integer)")
    table_id = stage.value("SELECT lakets.create_chronotable('metrics', 'at', '1 month')")
    stage.run(f"SELECT lakets._ensure_partitions({table_id}, 1, 1, '2024-01-01', '2025-01-01')")
    return stage


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


@pytest.mark.parametrize(("bucket", "interval", "is_even"), GRIDS.values(), ids=GRIDS.keys())
def test_refresh_equals_the_query_on_any_grid(
    year: Stage, bucket: str, interval: str, is_even: bool | None
) -> None:
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
    if is_even is not None:
        assert set(year.column("SELECT on_grid FROM lakets._rollup_registry")) == {is_even}


def test_uneven_days_are_noticed_when_the_clocks_change(year: Stage) -> None:
    year.run("INSERT INTO metrics VALUES (1, '2024-01-10 12:00+00', 1)")
    create(year, "local", "date_trunc('day', at, 'Europe/Berlin')", "1 day")
    before = year.value("SELECT on_grid FROM lakets._rollup_registry")
    year.run("INSERT INTO metrics VALUES (2, '2024-07-10 22:30+00', 2), (3, '2024-07-10 21:30+00', 3)")

    year.refresh("local")

    assert (before, year.value("SELECT on_grid FROM lakets._rollup_registry")) == (True, False)
    assert year.difference("local") == []


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
def test_buckets_longer_than_said_are_refused(
    year: Stage, raises: Callable[..., object], bucket: str
) -> None:
    insert(year, random.Random(1), 300)

    with raises("22023", match="are longer than 01:00:00"):  # type: ignore[attr-defined]
        create(year, "daily", bucket, "1 hour")


def test_buckets_found_to_be_longer_than_said_fail_the_refresh(
    year: Stage, raises: Callable[..., object]
) -> None:
    create(year, "daily", "lakets.time_bucket('1 day', at)", "1 hour")
    insert(year, random.Random(1), 300)

    with raises("22023", match="are longer than 01:00:00"):  # type: ignore[attr-defined]
        year.refresh("daily")


def test_uneven_bucket_beside_a_dropped_chunk_is_still_refreshed(year: Stage) -> None:
    # Of the local days around 1 March, the one that ends where the dropped chunk begins is wholly resident.
    zone = "Etc/GMT-2"
    year.run(
        "INSERT INTO metrics VALUES (1, '2024-02-28 12:00+00', 1), (2, '2024-02-29 12:00+00', 2),"
        " (3, '2024-02-29 23:00+00', 3), (4, '2024-03-01 12:00+00', 4)"
    )
    create(year, "local", f"date_trunc('day', at, '{zone}')", "1 day")
    year.run("UPDATE lakets._rollup_registry SET on_grid = false")
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
