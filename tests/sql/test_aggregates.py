"""first, last and the aggregates named _agg compared with Python, in serial and parallel plans."""

from __future__ import annotations

import itertools
import math
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from psycopg import Connection

START = datetime(2024, 3, 10, tzinfo=timezone.utc)
examples = settings(max_examples=80, deadline=None)

TIMES = {
    "timestamptz": "'2024-03-10+00'::timestamptz + n * interval '1 hour'",
    "timestamp": "'2024-03-10'::timestamp + n * interval '1 hour'",
    "date": "'2024-03-10'::date + n",
}

hours = st.integers(-1, 2)  # few, for many ties
texts = st.text("aAzZ0é ", max_size=3)
samples = st.lists(st.tuples(st.none() | texts, st.none() | hours), max_size=8)
numbers = st.integers(-50, 50)
readings = st.lists(st.tuples(st.none() | numbers, st.none() | hours), max_size=8)


def one(conn: Connection, query: str, **values: object) -> Any:
    row = conn.execute(query, values).fetchone()
    assert row is not None
    return row[0]


def over(conn: Connection, call: str, rows: list[Any], kind: str) -> Any:
    """Return an aggregate over rows of a value and a number of hours, in that order."""
    return one(
        conn,
        f"""SELECT {call}
              FROM unnest(%(values)s::{kind}[], %(hours)s::integer[]) AS reading (value, hour),
                   LATERAL (SELECT %(start)s::timestamptz + make_interval(hours => hour)) AS clock (time)""",
        values=[value for value, _ in rows],
        hours=[hour for _, hour in rows],
        start=START,
    )


def extreme(rows: Sequence[tuple[Any, int | None]], *, newest: bool) -> Any:
    """Return the value at one end; of several there the one whose bytes sort to that end."""
    pick = max if newest else min
    end = pick((hour for _, hour in rows if hour is not None), default=None)
    at_end = [value for value, hour in rows if hour == end and hour is not None and value is not None]
    return pick(at_end, key=lambda value: str(value).encode(), default=None)


def first_met(rows: Sequence[tuple[Any, int | None]], *, newest: bool) -> Any:
    """Return the value at one end; of equal times the one first in the list, NULL or not."""
    end = (max if newest else min)((hour for _, hour in rows if hour is not None), default=None)
    return next((value for value, hour in rows if hour == end and hour is not None), None)


@given(rows=samples)
@examples
def test_first_and_last_give_the_first_value_met_at_the_extreme_time(
    calculator: Connection, rows: list[tuple[str | None, int | None]]
) -> None:
    found = over(calculator, "ARRAY[lakets.first(value, time), lakets.last(value, time)]", rows, "text")

    assert found == [first_met(rows, newest=False), first_met(rows, newest=True)]


def test_the_query_says_which_of_equal_times_is_met_first(calculator: Connection) -> None:
    found = calculator.execute(
        """SELECT lakets.first(n, now() ORDER BY n), lakets.first(n, now() ORDER BY n DESC),
                  lakets.last(n, now() ORDER BY n), lakets.last(n, now() ORDER BY n DESC)
             FROM generate_series(1, 3) AS n"""
    ).fetchone()

    assert found == (1, 3, 1, 3)


def test_a_null_at_the_extreme_time_is_the_answer(calculator: Connection) -> None:
    found = over(
        calculator,
        "ARRAY[lakets.first(value, time), lakets.last(value, time)]",
        [(None, 0), (5, 1), (None, 2), (9, None)],
        "integer",
    )

    assert found == [None, None]


@pytest.mark.parametrize("kind", TIMES)
def test_any_orderable_type_of_time_will_do(calculator: Connection, kind: str) -> None:
    found = calculator.execute(
        f"""SELECT lakets.first(n, at), lakets.last(n, at), lakets.delta_agg(n, at)
              FROM (SELECT n, ({TIMES[kind]})::{kind} AS at
                      FROM generate_series(-3, 3) AS n ORDER BY n % 3, n) AS x"""
    ).fetchone()

    assert found == (-3, 3, 6)


def test_a_domain_over_a_time_is_a_time(calculator: Connection) -> None:
    calculator.execute("CREATE DOMAIN pg_temp.moment AS timestamptz NOT NULL")

    found = one(
        calculator,
        "SELECT lakets.last(n, (now() + n * interval '1 s')::pg_temp.moment) FROM generate_series(1, 3) AS n",
    )

    assert found == 3


VALUES = {
    "boolean": "false",
    "bytea": r"'\x00ff'::bytea",
    "char": "'ab'::char(2)",
    "composite": "ROW('(a', NULL)::pg_temp.labelled",
    "composite-of-null": "ROW(NULL, NULL)::pg_temp.labelled",
    "date": "'infinity'::date",
    "double precision": "0.1::double precision + 0.2::double precision",
    "enum": "'low'::pg_temp.level",
    "array": "ARRAY[NULL, 0.1, 'NaN']::double precision[]",
    "interval": "'1 mon -3 days 04:05:06.789'::interval",
    "inet": "'10.0.0.1/8'::inet",
    "jsonb": """'{"a": [1, null]}'::jsonb""",
    "nan": "'NaN'::double precision",
    "negative-zero": "'-0'::double precision",
    "numeric": "123456789012345678901234567890.120",
    "point": "point(0.1, -3)",
    "range": "'[2024-01-01,)'::daterange",
    "regclass": "'pg_temp.labelled'::regclass",
    "text": "'(odd'::text",
    "empty-text": "''::text",
    "timestamptz": "'2024-03-10 07:30:00.000001+00'::timestamptz",
    "uuid": "'2f1b3a0e-8f5d-4a59-9d0b-0f4f5a4c1e55'::uuid",
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_of_any_type_comes_back_as_it_was(calculator: Connection, value: str) -> None:
    calculator.execute(
        """DROP TYPE IF EXISTS pg_temp.labelled, pg_temp.level;
           CREATE TYPE pg_temp.labelled AS (name text, score double precision);
           CREATE TYPE pg_temp.level AS ENUM ('low', 'high')"""
    )

    found = calculator.execute(
        f"""SELECT pg_typeof(x.first) = pg_typeof({value}), pg_typeof(x.last) = pg_typeof({value}),
                   array_send(ARRAY[x.first]) = array_send(ARRAY[{value}]),
                   array_send(ARRAY[x.last]) = array_send(ARRAY[{value}])
              FROM (SELECT lakets.first(y.value, y.at), lakets.last(y.value, y.at)
                      FROM (SELECT {value}, now() UNION ALL SELECT {value}, now()) AS y (value, at)) AS x"""
    ).fetchone()

    assert found == (True, True, True, True)


@pytest.mark.parametrize("kind", ["smallint", "integer", "bigint", "real"])
def test_numbers_come_back_as_double_precision(calculator: Connection, kind: str) -> None:
    found = calculator.execute(
        f"SELECT pg_typeof(lakets.first(7::{kind}, now()))::text, lakets.last(7::{kind}, now()) / 2"
    ).fetchone()

    assert found == ("double precision", 3.5)


def test_whole_rows_of_a_table_are_values(readings_table: Connection) -> None:
    found = one(
        readings_table,
        "SELECT (lakets.last(reading, reading.at)).id FROM reading WHERE id IN (10, 90)",
    )

    assert found == 90


@pytest.fixture(scope="module")
def readings_table(calculator: Connection) -> Connection:
    """Fill a table that is worth scanning in parallel, with many ties and a few NULLs."""
    calculator.execute(
        """CREATE TABLE reading AS
           SELECT n AS id, n % 5 AS device, CASE WHEN n % 7 <> 0 THEN n * 37 % 1000 END AS value,
                  CASE WHEN n % 97 <> 0
                       THEN '2024-03-10+00'::timestamptz + n / 50 * interval '1 minute' END AS at
             FROM generate_series(1, 20000) AS n;
           ANALYZE reading"""
    )
    return calculator


@pytest.fixture
def parallel(readings_table: Connection) -> Iterator[Connection]:
    """Make two workers the cheapest plan."""
    knobs = {
        "parallel_setup_cost": "0",
        "parallel_tuple_cost": "0",
        "min_parallel_table_scan_size": "0",
        "max_parallel_workers_per_gather": "2",
    }
    for name, value in knobs.items():
        readings_table.execute(f"SET {name} = {value}")
    yield readings_table
    for name in knobs:
        readings_table.execute(f"RESET {name}")


CLOCKS = {
    "timestamptz": "at",
    "timestamp": "at AT TIME ZONE 'UTC'",
    "date": "(at AT TIME ZONE 'UTC')::date",
}
IN_PARALLEL = (
    {
        f"{name}-{kind}": f"lakets.{name}(value, {clock})"
        for name in ("delta_agg",)
        for kind, clock in CLOCKS.items()
    }
    | {
        # Which of equal times a worker meets first is chance: here they have equal values.
        f"{name}-{kind}": f"lakets.{name}(({clock})::text, {clock})"
        for name in ("first", "last")
        for kind, clock in CLOCKS.items()
    }
    | {"histogram": "lakets.histogram_agg(value, 100, 900, 7)"}
)


def plan(conn: Connection, query: str) -> str:
    return "\n".join(line for (line,) in conn.execute(f"EXPLAIN (COSTS OFF) {query}").fetchall())


@pytest.mark.parametrize("call", IN_PARALLEL.values(), ids=IN_PARALLEL)
def test_workers_agree_with_a_serial_plan(parallel: Connection, call: str) -> None:
    query = f"SELECT device, {call} FROM reading GROUP BY device ORDER BY device"
    assert "Partial" in plan(parallel, query)
    shared = parallel.execute(query).fetchall()

    parallel.execute("SET max_parallel_workers_per_gather = 0")
    assert "Partial" not in plan(parallel, query)
    serial = parallel.execute(query).fetchall()

    assert shared == serial


@pytest.mark.parametrize(
    "call", ["first(value, NULL::date)", "delta_agg(value, NULL::date)", "histogram_agg(NULL, 0, 1, 3)"]
)
def test_workers_without_a_row_that_counts_give_null(parallel: Connection, call: str) -> None:
    query = f"SELECT lakets.{call} FROM reading"
    assert "Partial" in plan(parallel, query)

    assert one(parallel, query) is None


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("first(id, {}at END)", 11111),
        ("last(id, {}at END)", 11111),
        ("delta_agg(id, {}at END)", 0),
        ("histogram_agg({}5 END, 0, 9, 1)", [0, 1, 0]),
    ],
)
def test_one_row_that_counts_is_found_whichever_worker_has_it(
    parallel: Connection, call: str, expected: object
) -> None:
    query = f"SELECT lakets.{call.format('CASE WHEN id = 11111 THEN ')} FROM reading"
    assert "Partial" in plan(parallel, query)

    assert one(parallel, query) == expected


def test_rate_and_locf_are_never_split_over_workers(parallel: Connection) -> None:
    query = "SELECT lakets.rate_agg(value, at), lakets.locf_agg(value) FROM reading"

    assert "Partial" not in plan(parallel, query)


@given(rows=readings)
@examples
def test_delta_is_the_last_value_minus_the_first(
    calculator: Connection, rows: list[tuple[int | None, int | None]]
) -> None:
    found = over(calculator, "lakets.delta_agg(value, time)", rows, "numeric")

    known = [(value, hour) for value, hour in rows if value is not None and hour is not None]
    expected = extreme(known, newest=True) - extreme(known, newest=False) if known else None
    assert found == expected


@pytest.mark.parametrize("kind", ["smallint", "integer", "bigint", "numeric", "real", "double precision"])
def test_delta_keeps_the_type_of_the_value(calculator: Connection, kind: str) -> None:
    found = one(
        calculator,
        f"SELECT pg_typeof(lakets.delta_agg(n::{kind}, now()))::text FROM generate_series(1, 2) AS n",
    )

    assert found == kind


def test_delta_of_large_counts_is_exact(calculator: Connection) -> None:
    found = over(calculator, "lakets.delta_agg(value, time)", [(2**53, 0), (2**53 + 1, 1)], "bigint")

    assert found == 1


def expected_rate(rows: list[tuple[int | None, int | None]]) -> float | None:
    """Return the expected rate: the greatest value of an hour counts, a fall is a restart."""
    at: dict[int, int] = {}
    for value, hour in rows:
        if value is not None and hour is not None:
            at[hour] = max(value, at.get(hour, value))
    if len(at) < 2:
        return None
    known = [at[hour] for hour in sorted(at)]
    growth = sum(b - a if b >= a else b for a, b in itertools.pairwise(known))
    return growth / ((max(at) - min(at)) * 3600)


@given(rows=st.lists(st.tuples(st.none() | st.integers(0, 50), st.none() | hours), max_size=8))
@examples
def test_rate_adds_up_the_growth_and_sees_restarts(
    calculator: Connection, rows: list[tuple[int | None, int | None]]
) -> None:
    found = over(calculator, "lakets.rate_agg(value, time ORDER BY time)", rows, "integer")

    expected = expected_rate(rows)
    assert found == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
def test_rate_counts_seconds_in_every_type_of_time(utc: Connection, kind: str) -> None:
    found = one(
        utc,
        f"""SELECT lakets.rate_agg(n * 86400, at ORDER BY at)
              FROM (SELECT n, ('2024-03-09'::timestamp + n * interval '1 day')::{kind} AS at
                      FROM generate_series(0, 3) AS n) AS x""",
    )

    assert found == 1.0


@pytest.mark.parametrize("tied", [(5, 3), (3, 5)], ids=["falling", "rising"])
def test_rate_takes_the_greatest_value_of_one_time(calculator: Connection, tied: tuple[int, int]) -> None:
    rows = [(4, 0), *((value, 1) for value in tied), (6, 2)]

    found = over(calculator, "lakets.rate_agg(value, time)", rows, "integer")

    assert found == pytest.approx(2 / 7200)


def test_rate_refuses_rows_out_of_order_and_says_how_to_order_them(calculator: Connection) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="in order of time") as failure:
        over(calculator, "lakets.rate_agg(value, time)", [(1, 1), (2, 0)], "integer")

    assert failure.value.diag.message_hint == "Write rate_agg(value, time ORDER BY time)."


def expected_histogram(values: list[float | None], low: float, high: float, parts: int) -> list[int] | None:
    counts = [0] * (parts + 2)
    for value in values:
        if value is None:
            continue
        if math.isnan(value) or value >= high:
            counts[-1] += 1
        elif value < low:
            counts[0] += 1
        else:
            counts[1 + int((value - low) * parts / (high - low))] += 1
    return counts if any(counts) else None


# Quarters: exact in binary, so that a border is the same border in both computations.
quarters = st.integers(-40, 40).map(lambda number: number / 4)
odd_ones = st.sampled_from([None, math.nan, math.inf, -math.inf])


@given(
    values=st.lists(quarters | odd_ones, max_size=20),
    low=st.integers(-8, 0),
    span=st.sampled_from([1, 2, 4, 8]),
    parts=st.sampled_from([1, 2, 4, 8]),
)
@examples
def test_histogram_counts_below_within_and_above(
    calculator: Connection, values: list[float | None], low: int, span: int, parts: int
) -> None:
    found = one(
        calculator,
        """SELECT lakets.histogram_agg(value, %(low)s, %(high)s, %(parts)s)
             FROM unnest(%(values)s::double precision[]) AS reading (value)""",
        values=values,
        low=low,
        high=low + span,
        parts=parts,
    )

    assert found == expected_histogram(values, low, low + span, parts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("1, 0, 10, 0", "from 1 to 10000 buckets; asked for 0"),
        ("1, 0, 10, -3", "from 1 to 10000 buckets; asked for -3"),
        ("1, 0, 10, 10001", "from 1 to 10000 buckets; asked for 10001"),
        ("1, 0, 10, NULL", "from 1 to 10000 buckets"),
        ("1, 10, 10, 5", "cannot span from 10 to 10"),
        ("1, 10, 0, 5", "cannot span from 10 to 0"),
        ("1, NULL, 10, 5", "cannot span"),
        ("1, '-infinity', 10, 5", "cannot span from -Infinity to 10"),
        ("1, 0, 'NaN', 5", "cannot span from 0 to NaN"),
        ("1, 0, 10, n", "cannot change from 1 to 2 buckets"),
    ],
)
def test_histogram_refuses_what_it_cannot_count(calculator: Connection, arguments: str, message: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        calculator.execute(f"SELECT lakets.histogram_agg({arguments}) FROM generate_series(1, 2) AS n")


def test_histogram_refuses_workers_that_count_different_buckets(calculator: Connection) -> None:
    # Which worker meets which row is chance, so the merge is called as the executor would.
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="cannot change from 1 to 2 buckets"):
        calculator.execute("SELECT lakets._histogram_merge('{0,1,0}', '{0,1,0,0}')")


@pytest.mark.parametrize(
    "call",
    [
        "first(1, '2024-01-01'::date)",
        "last(1, '2024-01-01'::date)",
        "delta_agg(1, '2024-01-01'::date)",
        "rate_agg(1, '2024-01-01'::date)",
        "histogram_agg(1, 0, 10, 2)",
        "locf_agg(1)",
    ],
)
def test_no_rows_give_null(calculator: Connection, call: str) -> None:
    assert one(calculator, f"SELECT lakets.{call} WHERE false") is None


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("first(value, at)", 0),
        ("last(value, at)", 9),
        ("delta_agg(value, at)", 9),
        ("rate_agg(value, at ORDER BY at)", 1.0),
        ("histogram_agg(value, 0, 10, 2)", [0, 5, 5, 0]),
        ("locf_agg(value ORDER BY at)", 9),
    ],
)
def test_they_do_not_look_names_up_in_the_search_path(
    calculator: Connection, call: str, expected: object
) -> None:
    kinds = ("timestamptz", "integer", "double precision", "text")
    lies = "".join(
        f"""CREATE FUNCTION evil.lie({kind}, {kind}) RETURNS boolean LANGUAGE sql AS 'SELECT NULL::boolean';
            CREATE OPERATOR evil.< (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = evil.lie);
            CREATE OPERATOR evil.> (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = evil.lie);
            CREATE OPERATOR evil.= (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = evil.lie);
            CREATE OPERATOR evil.>= (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = evil.lie);"""
        for kind in kinds
    )
    types = calculator.execute(
        "SELECT quote_ident(typname) FROM pg_type"
        " WHERE typnamespace = 'pg_catalog'::regnamespace AND typtype = 'b'"
    )
    domains = "".join(f"CREATE DOMAIN evil.{name} AS pg_catalog.int4;" for (name,) in types)
    query = f"""SELECT lakets.{call}
                  FROM (SELECT n * 7 %% 10 AS value, to_timestamp(n * 7 %% 10) AS at
                          FROM generate_series(0, 9) AS n) AS x"""
    calculator.execute(
        f"""DROP SCHEMA IF EXISTS evil CASCADE;
            CREATE SCHEMA evil;
            {lies}
            CREATE FUNCTION evil.date_part(text, interval) RETURNS float8 LANGUAGE sql AS 'SELECT -1::float8';
            CREATE FUNCTION evil.width_bucket(float8, float8, float8, integer)
                RETURNS integer LANGUAGE sql AS 'SELECT 0';
            {domains}"""
    )
    # A function is compiled at its first call in a session.
    with psycopg.connect(calculator.info.dsn, autocommit=True) as stranger:
        stranger.execute("SET search_path = evil, pg_catalog")
        found = one(stranger, query)

    assert found == expected
