"""delta, rate, locf and histogram of single values, as 0.1.3 computes them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from psycopg import Connection

examples = settings(max_examples=80, deadline=None)
values = st.none() | st.floats(-1e6, 1e6, width=32)
seconds = st.none() | st.integers(-100, 100)


def one(conn: Connection, query: str, **arguments: object) -> Any:
    row = conn.execute(query, arguments).fetchone()
    assert row is not None
    return row[0]


def expected_delta(value: float | None, previous: float | None, resets: bool) -> float | None:
    if value is None or previous is None:
        return None
    return value if resets and value < previous else value - previous


@given(value=values, previous=values, resets=st.booleans())
@examples
def test_delta_is_the_growth_since_the_previous_value(
    calculator: Connection, value: float | None, previous: float | None, resets: bool
) -> None:
    found = one(
        calculator,
        "SELECT lakets.delta(%(value)s::float8, %(previous)s::float8, %(resets)s)",
        value=value,
        previous=previous,
        resets=resets,
    )

    assert found == expected_delta(value, previous, resets)


@given(value=values, previous=values, at=seconds, before=seconds, resets=st.booleans())
@examples
def test_rate_is_delta_by_the_second(
    zoned: Connection,
    value: float | None,
    previous: float | None,
    at: int | None,
    before: int | None,
    resets: bool,
) -> None:
    found = one(
        zoned,
        """SELECT lakets.rate(%(value)s::float8, %(previous)s::float8, to_timestamp(%(at)s::integer),
                              to_timestamp(%(before)s::integer), %(resets)s)""",
        value=value,
        previous=previous,
        at=at,
        before=before,
        resets=resets,
    )

    growth = expected_delta(value, previous, resets)
    if growth is None or at is None or before is None or at == before:
        assert found is None
    else:
        assert math.isclose(found, growth / (at - before), abs_tol=1e-9)


@given(value=values, previous=values)
@examples
def test_locf_is_the_previous_value_where_there_is_none(
    calculator: Connection, value: float | None, previous: float | None
) -> None:
    found = one(
        calculator,
        "SELECT lakets.locf(%(value)s::float8, %(previous)s::float8)",
        value=value,
        previous=previous,
    )

    assert found == (previous if value is None else value)


@pytest.mark.parametrize(
    ("value", "bucket"),
    [
        ("-1", 0),
        ("0", 0),
        ("24.9", 0),
        ("25", 1),
        ("99.9", 3),
        ("100", 3),
        ("1e9", 3),
        ("'NaN'", 3),
        ("NULL", None),
    ],
)
def test_histogram_is_the_number_of_the_bucket(
    calculator: Connection, value: str, bucket: int | None
) -> None:
    assert one(calculator, f"SELECT lakets.histogram({value}, 0, 100, 4)") == bucket


def test_a_value_just_below_the_upper_bound_is_in_the_last_bucket(calculator: Connection) -> None:
    assert one(calculator, "SELECT lakets.histogram(0.3 - 5e-17, 0.1, 0.3, 3)") == 2


@pytest.mark.parametrize(
    ("arguments", "bucket"),
    [
        ("-9.9e307, -1e308, 1e308, 10", 0),
        ("1, -1e308, 1e308, 10", 5),
        ("9.9e307, -1e308, 1e308, 10", 9),
        ("5, 0, 'infinity', 4", 0),
        ("5, -1e308, 'infinity', 4", 0),
        ("5, NULL, 10, 4", None),
        ("5, 0, NULL, 4", None),
        ("5, 0, 10, NULL", None),
    ],
)
def test_histogram_has_bounds_of_any_size_and_no_bucket_without_a_bound(
    calculator: Connection, arguments: str, bucket: int | None
) -> None:
    assert one(calculator, f"SELECT lakets.histogram({arguments})") == bucket


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("5, 0, 10, 0", "at least 1 bucket; asked for 0"),
        ("5, 0, 10, -3", "at least 1 bucket; asked for -3"),
        ("5, '-infinity', 10, 4", "cannot span from -Infinity to 10"),
        ("5, 0, 'NaN', 4", "cannot span from 0 to NaN"),
    ],
)
def test_histogram_refuses_bounds_without_buckets(
    calculator: Connection, arguments: str, message: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        calculator.execute(f"SELECT lakets.histogram({arguments})")


@pytest.mark.parametrize(
    "call",
    ["delta(5, 3)", "locf(NULL, 2)", "histogram(5, 0, 10, 2)", "rate(5, 3, '2026-01-02', '2026-01-01')"],
)
def test_they_are_inlined_into_the_query(calculator: Connection, call: str) -> None:
    plan = calculator.execute(f"EXPLAIN (VERBOSE, COSTS OFF) SELECT lakets.{call}").fetchall()

    assert not any("lakets." in line for (line,) in plan)
