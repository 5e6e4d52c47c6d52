"""time_bucket beside a model in Python's own calendar arithmetic."""

from __future__ import annotations

import calendar
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from psycopg import Connection

UTC = timezone.utc
DEFAULT_ORIGIN = datetime(2000, 1, 1)

instants = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1))
origins = st.one_of(st.just(DEFAULT_ORIGIN), instants)
widths = st.one_of(
    st.sampled_from([timedelta(minutes=1), timedelta(minutes=15), timedelta(hours=1), timedelta(days=1)]),
    st.timedeltas(timedelta(microseconds=1), timedelta(days=400)),
)
month_counts = st.one_of(st.sampled_from([1, 3, 12]), st.integers(1, 60))
examples = settings(max_examples=100, deadline=None)


def bucket(width: timedelta, instant: datetime, origin: datetime) -> datetime:
    return origin + (instant - origin) // width * width


def add_months(origin: datetime, months: int) -> datetime:
    year, month = divmod(origin.year * 12 + origin.month - 1 + months, 12)
    day = min(origin.day, calendar.monthrange(year, month + 1)[1])
    return origin.replace(year=year, month=month + 1, day=day)


def month_bucket(months: int, instant: datetime, origin: datetime) -> datetime:
    """Walk from a bucket surely too late back to the first that has begun."""
    step = ((instant.year - origin.year + 1) * 12) // months + 1
    while add_months(origin, step * months) > instant:
        step -= 1
    return add_months(origin, step * months)


def one(conn: Connection, query: str, **values: object) -> Any:
    row = conn.execute(query, values).fetchone()
    assert row is not None
    return row[0]


@given(width=widths, instant=instants, origin=origins)
@examples
def test_a_plain_width_counts_from_the_origin_in_every_time_zone(
    zoned: Connection, width: timedelta, instant: datetime, origin: datetime
) -> None:
    found = one(
        zoned,
        "SELECT lakets.time_bucket(%(width)s, %(instant)s::timestamptz, %(origin)s::timestamptz)",
        width=width,
        instant=instant.replace(tzinfo=UTC),
        origin=origin.replace(tzinfo=UTC),
    )

    assert found.astimezone(UTC) == bucket(width, instant, origin).replace(tzinfo=UTC)


@given(months=month_counts, instant=instants, origin=origins)
@examples
def test_months_follow_the_calendar_of_utc_in_every_time_zone(
    zoned: Connection, months: int, instant: datetime, origin: datetime
) -> None:
    found = one(
        zoned,
        """SELECT lakets.time_bucket(make_interval(months => %(months)s), %(instant)s::timestamptz,
                                     %(origin)s::timestamptz)""",
        months=months,
        instant=instant.replace(tzinfo=UTC),
        origin=origin.replace(tzinfo=UTC),
    )

    # Python holds an hour that a clock repeats unequal to the same instant elsewhere: compare in
    # UTC.
    assert found.astimezone(UTC) == month_bucket(months, instant, origin).replace(tzinfo=UTC)


@given(width=widths, months=month_counts, instant=instants, origin=origins)
@examples
def test_a_timestamp_without_zone_is_read_as_utc(
    zoned: Connection, width: timedelta, months: int, instant: datetime, origin: datetime
) -> None:
    row = zoned.execute(
        """SELECT lakets.time_bucket(%(width)s, %(instant)s::timestamp, %(origin)s::timestamp),
                  lakets.time_bucket(make_interval(months => %(months)s), %(instant)s::timestamp,
                                     %(origin)s::timestamp)""",
        {"width": width, "months": months, "instant": instant, "origin": origin},
    ).fetchone()

    assert row == (bucket(width, instant, origin), month_bucket(months, instant, origin))


@given(days=st.integers(1, 400), months=month_counts, instant=instants, origin=origins)
@examples
def test_a_date_gives_the_first_day_of_its_bucket(
    zoned: Connection, days: int, months: int, instant: datetime, origin: datetime
) -> None:
    day, first = (datetime(moment.year, moment.month, moment.day) for moment in (instant, origin))
    row = zoned.execute(
        """SELECT lakets.time_bucket(make_interval(days => %(days)s), %(day)s::date, %(first)s::date),
                  lakets.time_bucket(make_interval(months => %(months)s), %(day)s::date, %(first)s::date)""",
        {"days": days, "months": months, "day": day.date(), "first": first.date()},
    ).fetchone()

    expected = bucket(timedelta(days), day, first), month_bucket(months, day, first)
    assert row == (expected[0].date(), expected[1].date())


@pytest.mark.parametrize(
    ("width", "instant", "expected"),
    [
        ("1 hour", "2024-03-10 06:59:59.999999+00", "2024-03-10 06:00+00"),
        ("1 hour", "2024-03-10 07:00+00", "2024-03-10 07:00+00"),
        ("1 day", "2024-03-10 23:59:59+00", "2024-03-10 00:00+00"),
        ("1 day", "2024-11-03 05:30+00", "2024-11-03 00:00+00"),
        ("1 month", "2024-04-01 03:59+00", "2024-04-01 00:00+00"),
        ("1 week", "2024-03-09 00:00+00", "2024-03-09 00:00+00"),
    ],
    ids=["before-spring", "at-spring", "day-of-spring", "day-of-autumn", "month", "week-from-saturday"],
)
def test_daylight_saving_moves_no_border(zoned: Connection, width: str, instant: str, expected: str) -> None:
    assert one(
        zoned,
        "SELECT lakets.time_bucket(%(width)s, %(instant)s::timestamptz) = %(expected)s::timestamptz",
        width=width,
        instant=instant,
        expected=expected,
    )


@pytest.mark.parametrize(
    ("instant", "expected"),
    [
        ("2023-02-28 00:00", "2023-02-28"),
        ("2023-02-27 23:59", "2023-01-31"),
        ("2024-02-28 12:00", "2024-01-31"),
        ("2024-02-29 00:00", "2024-02-29"),
        ("1999-12-31 00:00", "1999-12-31"),
        ("1999-12-30 23:59", "1999-11-30"),
    ],
)
def test_an_origin_on_the_31st_starts_short_months_on_their_last_day(
    calculator: Connection, instant: str, expected: str
) -> None:
    found = one(
        calculator,
        "SELECT lakets.time_bucket('1 month', %(instant)s::timestamp, '2000-01-31')::date",
        instant=instant,
    )

    assert found == date.fromisoformat(expected)


@pytest.mark.parametrize("width", ["1 month", "5 months", "1 year", "7 years", "90 days"])
def test_every_bucket_before_christ_holds_its_instants(calculator: Connection, width: str) -> None:
    outside = one(
        calculator,
        """SELECT count(*)
             FROM generate_series('0004-01-01 BC'::timestamp, '0004-01-01', '13 days') AS at,
                  lakets.time_bucket(%(width)s, at) AS start
            WHERE at < start OR at >= start + %(width)s::interval""",
        width=width,
    )

    assert outside == 0


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
@pytest.mark.parametrize("width", ["1 day", "1 month", "5 months"])
@pytest.mark.parametrize("instant", ["infinity", "-infinity"])
def test_infinity_is_its_own_bucket(calculator: Connection, kind: str, width: str, instant: str) -> None:
    found = one(calculator, f"SELECT lakets.time_bucket('{width}', '{instant}'::{kind})::text")

    assert found == instant


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
@pytest.mark.parametrize("width", ["'1 day'", "'1 month'", "'5 months'"])
def test_null_gives_null(calculator: Connection, kind: str, width: str) -> None:
    found = calculator.execute(
        f"""SELECT lakets.time_bucket({width}, NULL::{kind}),
                   lakets.time_bucket(NULL, '2024-01-01'::{kind}),
                   lakets.time_bucket({width}, '2024-01-01'::{kind}, NULL::{kind})"""
    ).fetchone()

    assert found == (None, None, None)


BAD_WIDTHS = {
    "zero": ("0", "positive"),
    "negative": ("-1 hour", "positive"),
    "negative-month": ("-1 month", "positive"),
    "mixed": ("1 month 1 day", "cannot mix"),
    "mixed-year": ("1 year 2 hours", "cannot mix"),
}


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
@pytest.mark.parametrize(("width", "message"), BAD_WIDTHS.values(), ids=BAD_WIDTHS)
def test_a_bad_width_is_refused(calculator: Connection, kind: str, width: str, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        calculator.execute(f"SELECT lakets.time_bucket('{width}', '2024-01-01'::{kind})")


@pytest.mark.parametrize(("width", "message"), BAD_WIDTHS.values(), ids=BAD_WIDTHS)
def test_a_bad_width_that_only_the_row_knows_is_refused(
    calculator: Connection, width: str, message: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        calculator.execute(
            """SELECT lakets.time_bucket(row.width, '2024-01-01+00')
                 FROM (VALUES ('1 day'::interval), (%s)) AS row (width)""",
            [width],
        )


def test_widths_of_all_kinds_may_come_from_rows(calculator: Connection) -> None:
    found = calculator.execute(
        """SELECT lakets.time_bucket(row.width, '2024-08-17 15:45', row.origin)
             FROM (VALUES ('1 hour'::interval, '2000-01-01'::timestamp), ('7 days', '2000-01-03'),
                          ('1 month', '2000-01-01'), ('1 month', '2000-01-20'), ('1 year', '2000-01-01'))
                  AS row (width, origin)"""
    ).fetchall()

    assert found == [
        (datetime(2024, 8, 17, 15),),
        (datetime(2024, 8, 12),),
        (datetime(2024, 8, 1),),
        (datetime(2024, 7, 20),),
        (datetime(2024, 1, 1),),
    ]


@pytest.mark.parametrize("width", ["36 hours", "1 hour", "1 day 1 second"])
def test_a_date_bucket_of_parts_of_a_day_is_refused(calculator: Connection, width: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="whole days"):
        calculator.execute("SELECT lakets.time_bucket(%s, '2024-01-01'::date)", [width])


def test_a_date_bucket_may_be_given_in_hours(calculator: Connection) -> None:
    found = one(calculator, "SELECT lakets.time_bucket('48 hours', '2000-01-04'::date)")

    assert found == date(2000, 1, 3)


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
@pytest.mark.parametrize("width", ["1 day", "1 month"])
def test_an_infinite_origin_is_refused(calculator: Connection, kind: str, width: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="cannot be counted from infinity"):
        calculator.execute(f"SELECT lakets.time_bucket('{width}', '2024-01-01'::{kind}, 'infinity')")


def test_an_infinite_width_is_refused_where_postgres_has_one(calculator: Connection) -> None:
    # Postgres 16 has no infinite interval: the literal itself fails there.
    refusal = (
        psycopg.errors.InvalidParameterValue
        if calculator.info.server_version >= 170000
        else psycopg.errors.InvalidDatetimeFormat
    )

    with pytest.raises(refusal):
        calculator.execute("SELECT lakets.time_bucket('infinity', '2024-01-01+00')")


INLINED = {
    "hour": ("'1 hour', at", "date_bin('01:00:00'::interval, at, "),
    "hour-wall": ("'1 hour', at::timestamp", "date_bin('01:00:00'::interval, (at)::timestamp "),
    "day-date": ("'1 day', at::date", "date_bin('1 day'::interval, "),
    "origin": ("'7 days', at, '2000-01-03+00'", "date_bin('7 days'::interval, at, '2000-01-03"),
    "month": ("'1 month', at", "date_trunc('month'::text, timezone("),
    "quarter": ("'3 months', at", "date_trunc('quarter'::text, timezone("),
    "year": ("'1 year', at", "date_trunc('year'::text, timezone("),
    "months": ("'5 months', at", "make_interval("),
    "row": ("make_interval(hours => hours), at", "THEN date_bin(make_interval("),
}


@pytest.mark.parametrize(("arguments", "left_over"), INLINED.values(), ids=INLINED)
def test_the_planner_sees_through_it(calculator: Connection, arguments: str, left_over: str) -> None:
    calculator.execute("CREATE TEMP TABLE IF NOT EXISTS probe (at timestamptz, hours integer)")

    plan = calculator.execute(
        f"EXPLAIN (VERBOSE, COSTS OFF) SELECT lakets.time_bucket({arguments}) FROM probe"
    ).fetchall()

    output = next(line for (line,) in plan if "Output:" in line)
    assert left_over in output
    assert "time_bucket" not in output


def test_it_can_be_indexed_and_grouped_in_parallel(calculator: Connection) -> None:
    found = calculator.execute(
        """SELECT DISTINCT fn.provolatile, fn.proparallel FROM pg_proc AS fn
            WHERE fn.pronamespace = 'lakets'::regnamespace AND fn.proname = 'time_bucket'"""
    ).fetchall()

    assert found == [("i", "s")]


def test_a_hostile_search_path_changes_nothing(calculator: Connection) -> None:
    calculator.execute(
        """CREATE SCHEMA IF NOT EXISTS hostile;
           CREATE OR REPLACE FUNCTION hostile.date_bin(interval, timestamptz, timestamptz)
               RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$ SELECT 'infinity'::timestamptz $$;
           CREATE OR REPLACE FUNCTION hostile.date_trunc(text, timestamp)
               RETURNS timestamp LANGUAGE sql IMMUTABLE AS $$ SELECT 'infinity'::timestamp $$;
           SET search_path = hostile, pg_catalog"""
    )
    try:
        row = calculator.execute(
            """SELECT lakets.time_bucket('1 day', '2024-05-06+00'),
                      lakets.time_bucket('1 month', '2024-05-06+00')"""
        ).fetchone()
    finally:
        calculator.execute("RESET search_path")

    assert row == (datetime(2024, 5, 6, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC))


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_a_prepared_statement_takes_any_width(calculator: Connection, mode: str) -> None:
    calculator.execute(f"SET plan_cache_mode = {mode}")
    try:
        found = [
            calculator.execute(
                "SELECT lakets.time_bucket(%s::interval, '2024-05-06 07:08'::timestamp)",
                [width],
                prepare=True,
            ).fetchone()
            for width in ("1 hour", "1 month", "5 months")
        ]
    finally:
        calculator.execute("RESET plan_cache_mode")

    assert found == [(datetime(2024, 5, 6, 7),), (datetime(2024, 5, 1),), (datetime(2024, 3, 1),)]
