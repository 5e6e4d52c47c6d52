"""Buckets without data, and values for them."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from psycopg import Connection

UTC = timezone.utc
examples = settings(max_examples=60, deadline=None)

instants = st.datetimes(datetime(2020, 1, 1), datetime(2027, 1, 1))
ranges = st.tuples(instants, st.timedeltas(timedelta(0), timedelta(days=90)))
widths = st.sampled_from(["7 hours", "1 day", "25 hours", "1 week", "1 month", "2 months", "1 year"])
origins = st.one_of(st.just(datetime(2000, 1, 1)), st.just(datetime(2000, 1, 31, 6)), instants)


def column(conn: Connection, query: str, **values: object) -> list[Any]:
    return [value for (value,) in conn.execute(query, values).fetchall()]


@given(span=ranges, width=widths, origin=origins)
@examples
def test_the_buckets_are_those_of_the_two_ends_and_all_between(
    zoned: Connection, span: tuple[datetime, timedelta], width: str, origin: datetime
) -> None:
    start, length = span
    arguments = {
        "width": width,
        "start": start.replace(tzinfo=UTC),
        "finish": (start + length).replace(tzinfo=UTC),
        "origin": origin.replace(tzinfo=UTC),
    }

    filled = column(
        zoned,
        """SELECT * FROM lakets.time_bucket_gapfill(
               %(width)s, %(start)s::timestamptz, %(finish)s::timestamptz, %(origin)s::timestamptz)""",
        **arguments,
    )

    # No width is below 7 hours, so a probe an hour meets every bucket; so do the two ends, both
    # included.
    met = column(
        zoned,
        """SELECT DISTINCT lakets.time_bucket(%(width)s, probe.at, %(origin)s::timestamptz) AS bucket
             FROM (SELECT generate_series(%(start)s::timestamptz, %(finish)s, '1 hour')
                   UNION SELECT %(finish)s::timestamptz) AS probe (at)
            ORDER BY bucket""",
        **arguments,
    )
    assert filled == met


def test_days_are_listed_across_daylight_saving_by_24_hours(zoned: Connection) -> None:
    found = column(
        zoned, "SELECT * FROM lakets.time_bucket_gapfill('1 day', '2024-03-09 12:00+00', '2024-03-12+00')"
    )

    assert found == [datetime(2024, 3, day, tzinfo=UTC) for day in (9, 10, 11, 12)]


def test_months_from_the_31st_come_back_to_the_31st_after_february(calculator: Connection) -> None:
    found = column(
        calculator,
        "SELECT * FROM lakets.time_bucket_gapfill('1 month', '2024-01-31'::date, '2024-04-01', '2000-01-31')",
    )

    assert found == [date(2024, 1, 31), date(2024, 2, 29), date(2024, 3, 31)]


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
@pytest.mark.parametrize(
    ("width", "start", "finish", "days"),
    [
        ("1 day", "2024-02-28", "2024-03-01", [28, 29, 1]),
        ("1 month", "2024-01-31", "2024-03-01", [1, 1, 1]),
        ("1 day", "2024-02-28", "2024-02-28", [28]),
    ],
    ids=["days", "months", "one"],
)
def test_the_bucket_of_the_finish_is_included(
    utc: Connection, kind: str, width: str, start: str, finish: str, days: list[int]
) -> None:
    found = column(
        utc,
        f"""SELECT extract(day FROM at)::integer
              FROM lakets.time_bucket_gapfill('{width}', '{start}'::{kind}, '{finish}'::{kind}) AS at""",
    )

    assert found == days


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
@pytest.mark.parametrize("width", ["1 day", "1 month"])
@pytest.mark.parametrize(
    ("start", "finish"),
    [("2024-03-15", "2024-01-15"), (None, "2024-01-15"), ("2024-01-15", None)],
    ids=["backwards", "no-start", "no-finish"],
)
def test_an_empty_range_has_no_buckets(
    calculator: Connection, kind: str, width: str, start: str | None, finish: str | None
) -> None:
    found = column(
        calculator,
        f"SELECT * FROM lakets.time_bucket_gapfill('{width}', %(start)s::{kind}, %(finish)s::{kind})",
        start=start,
        finish=finish,
    )

    assert found == []


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
@pytest.mark.parametrize(
    ("start", "finish"), [("2024-01-01", "infinity"), ("-infinity", "2024-01-01")], ids=["finish", "start"]
)
def test_an_endless_range_is_refused(calculator: Connection, kind: str, start: str, finish: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="both ends must be finite"):
        calculator.execute(
            f"SELECT * FROM lakets.time_bucket_gapfill('1 day', '{start}'::{kind}, '{finish}'::{kind})"
        )


@pytest.mark.parametrize(
    ("width", "kind"),
    [("0", "timestamptz"), ("-1 day", "timestamp"), ("1 month 1 day", "timestamptz"), ("36 hours", "date")],
)
def test_a_width_that_time_bucket_refuses_is_refused(calculator: Connection, width: str, kind: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="A time bucket"):
        calculator.execute(
            f"SELECT * FROM lakets.time_bucket_gapfill('{width}', '2024-01-01'::{kind}, '2024-02-01'::{kind})"
        )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("{NULL,1,NULL,NULL,2,NULL}::int[]", [None, 1, 1, 1, 2, 2]),
        ("{a,NULL,b}::text[]", ["a", "a", "b"]),
        ("{NULL,NULL}::float8[]", [None, None]),
    ],
    ids=["int", "text", "nothing-yet"],
)
def test_locf_agg_carries_the_last_value_forward(
    calculator: Connection, values: str, expected: list[object]
) -> None:
    literal, kind = values.split("::")

    found = column(
        calculator,
        f"""SELECT lakets.locf_agg(row.value) OVER (ORDER BY row.place)
              FROM unnest('{literal}'::{kind}) WITH ORDINALITY AS row (value, place)
             ORDER BY row.place""",
    )

    assert found == expected


def test_locf_agg_carries_arrays_and_rows(calculator: Connection) -> None:
    calculator.execute("CREATE TYPE pg_temp.int_pair AS (a integer, b integer)")

    found = calculator.execute(
        """SELECT lakets.locf_agg(row.list) OVER up, lakets.locf_agg(row.pair) OVER up
             FROM (SELECT 1, ARRAY[1, 2], ROW(3, NULL)::int_pair UNION ALL SELECT 2, NULL, NULL)
                  AS row (place, list, pair)
           WINDOW up AS (ORDER BY row.place)"""
    ).fetchall()

    assert found == [([1, 2], "(3,)"), ([1, 2], "(3,)")]


def test_locf_agg_stays_within_its_partition(calculator: Connection) -> None:
    found = column(
        calculator,
        """SELECT lakets.locf_agg(row.value) OVER (PARTITION BY row.device ORDER BY row.place)
             FROM (VALUES ('a', 1, 5), ('b', 1, NULL), ('b', 2, 7)) AS row (device, place, value)
            ORDER BY row.device, row.place""",
    )

    assert found == [5, None, 7]


# Single precision: Postgres reports an underflow where Python would go on with zero.
measurements = st.floats(-1e9, 1e9, width=32)
MIDDAY = datetime(2024, 3, 10, 12, tzinfo=UTC)


@given(
    before=st.timedeltas(timedelta(microseconds=1), timedelta(days=30)),
    after=st.timedeltas(timedelta(microseconds=1), timedelta(days=30)),
    prev=measurements,
    following=measurements,
)
@examples
def test_interpolate_lies_on_the_line_between_the_neighbours(
    zoned: Connection, before: timedelta, after: timedelta, prev: float, following: float
) -> None:
    (found,) = column(
        zoned,
        """SELECT lakets.interpolate(NULL, %(prev)s, %(following)s, %(prev_at)s::timestamptz,
                                     %(at)s::timestamptz, %(next_at)s::timestamptz)""",
        at=MIDDAY,
        prev_at=MIDDAY - before,
        prev=prev,
        next_at=MIDDAY + after,
        following=following,
    )

    expected = prev + (following - prev) * (before / (before + after))
    assert math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("7, 1, 5, '2024-03-09+00', '2024-03-10+00', '2024-03-13+00'", 7.0),
        ("NULL, 1, 5, '2024-03-09+00', '2024-03-10+00', '2024-03-13+00'", 2.0),
        ("NULL, 1, 5, '2024-03-09+00', '2024-03-09+00', '2024-03-13+00'", 1.0),
        ("NULL, 1, 5, '2024-03-09+00', '2024-03-14+00', '2024-03-13+00'", 6.0),
        ("NULL, 1, 5, '2024-03-09+00', '2024-03-09+00', '2024-03-09+00'", 1.0),
        ("NULL, NULL, 5, '2024-03-09+00', '2024-03-10+00', '2024-03-13+00'", None),
        ("NULL, 1, NULL, '2024-03-09+00', '2024-03-10+00', '2024-03-13+00'", None),
        ("NULL, 1, 5, '2024-03-09+00', NULL, '2024-03-13+00'", None),
    ],
    ids=["known", "between", "at-prev", "beyond", "one-time", "no-prev", "no-next", "no-time"],
)
def test_interpolate_of_values_and_neighbours(
    zoned: Connection, arguments: str, expected: float | None
) -> None:
    (found,) = column(zoned, f"SELECT lakets.interpolate({arguments})")

    assert found == expected


def test_a_series_with_gaps_is_carried_and_interpolated(calculator: Connection) -> None:
    found = calculator.execute(
        """SELECT temp, lakets.locf(temp, lag(temp) OVER w), lakets.locf_agg(temp) OVER w,
                  lakets.interpolate(temp, lag(temp) OVER w, lead(temp) OVER w,
                                     lag(bucket) OVER w, bucket, lead(bucket) OVER w)
             FROM (SELECT gap.bucket, avg(obs.temp) AS temp
                     FROM lakets.time_bucket_gapfill('1 hour', '2026-01-01+00', '2026-01-01 05:00+00')
                          AS gap (bucket)
                     LEFT JOIN (VALUES ('2026-01-01 01:10+00'::timestamptz, 10.0::float8),
                                       ('2026-01-01 01:50+00', 20), ('2026-01-01 03:30+00', 17))
                               AS obs (ts, temp) ON lakets.time_bucket('1 hour', obs.ts) = gap.bucket
                    GROUP BY gap.bucket) AS filled
           WINDOW w AS (ORDER BY bucket) ORDER BY bucket"""
    ).fetchall()

    assert found == [
        (None, None, None, None),
        (15.0, 15.0, 15.0, 15.0),
        (None, 15.0, 15.0, 16.0),
        (17.0, 17.0, 17.0, 17.0),
        (None, 17.0, 17.0, None),
        (None, None, 17.0, None),
    ]
