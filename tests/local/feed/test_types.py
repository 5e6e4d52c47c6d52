"""How values of each type are stored, from the stream and from the first rows."""

from __future__ import annotations

import math
import struct
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from airflow_provider_lakets.local.feed.values import ConversionError, arrow_type, to_array

if TYPE_CHECKING:
    from tests.local.conftest import Cdf

UTC = timezone.utc
FIRST, LAST = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)

# What str.splitlines takes for the end of a line, beside the newline.
LINE_ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"

# (type, literal, type in Delta, value in Delta)
VALUES = [
    ("smallint", "-32768", pa.int16(), -32768),
    ("integer", "2147483647", pa.int32(), 2147483647),
    ("bigint", "-9223372036854775808", pa.int64(), -9223372036854775808),
    ("oid", "4294967295", pa.int64(), 4294967295),
    ("real", "0.1", pa.float32(), struct.unpack("f", struct.pack("f", 0.1))[0]),
    ("double precision", "4.9e-324", pa.float64(), 5e-324),
    ("double precision", "-Infinity", pa.float64(), -math.inf),
    ("numeric(38, 10)", "-1234567890123456789012345678.0123456789", pa.decimal128(38, 10), ...),
    ("numeric(3, -2)", "12345", pa.decimal128(5, 0), Decimal(12300)),
    ("numeric(2, 4)", "0.0012", pa.decimal128(4, 4), Decimal("0.0012")),
    ("numeric(5, 2)", "NaN", pa.decimal128(5, 2), None),
    ("numeric(39, 0)", "9" * 39, pa.string(), "9" * 39),
    ("numeric", "1.10", pa.string(), "1.10"),
    ("numeric", "Infinity", pa.string(), "Infinity"),
    ("boolean", "true", pa.bool_(), True),
    ("text", "a\tb\\N\n\U0001f986", pa.string(), "a\tb\\N\n\U0001f986"),
    ("text", "", pa.string(), ""),
    *(("text", f"a{end}b", pa.string(), f"a{end}b") for end in LINE_ENDS),
    ("varchar(5)", "abc", pa.string(), "abc"),
    ("char(5)", "abc", pa.string(), "abc  "),
    ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", pa.string(), "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("date", "2024-02-29", pa.date32(), date(2024, 2, 29)),
    ("date", "infinity", pa.date32(), LAST.date()),
    ("date", "0044-03-15 BC", pa.date32(), FIRST.date()),
    ("timestamp", "2024-02-29 23:59:59.000001", pa.timestamp("us"), datetime(2024, 2, 29, 23, 59, 59, 1)),
    ("timestamp", "-infinity", pa.timestamp("us"), FIRST),
    ("timestamp", "294276-12-31 23:59:59", pa.timestamp("us"), LAST),
    ("timestamptz", "2024-02-29 01:00:00.5+05:30", pa.timestamp("us", "UTC"), ...),
    ("timestamptz", "infinity", pa.timestamp("us", "UTC"), LAST.replace(tzinfo=UTC)),
    ("timestamptz", "4713-01-01 BC", pa.timestamp("us", "UTC"), FIRST.replace(tzinfo=UTC)),
    ("time", "24:00:00", pa.string(), "24:00:00"),
    ("timetz", "12:00:00.25+02", pa.string(), "12:00:00.25+02"),
    ("interval", "1 year 2 days 03:04:05.6", pa.string(), "1 year 2 days 03:04:05.6"),
    ("jsonb", '{"b": [1, null], "a": "é"}', pa.string(), '{"a": "é", "b": [1, null]}'),
    ("json", '{"b":1,  "b":2}', pa.string(), '{"b":1,  "b":2}'),
    ("bytea", "\\x00ff5c", pa.binary(), b"\x00\xff\\"),
    ("bytea", "", pa.binary(), b""),
    ("integer[]", "{1,NULL,3}", pa.string(), "{1,NULL,3}"),
    ("text[]", '{"a,b",NULL,"NULL",""}', pa.string(), '{"a,b",NULL,"NULL",""}'),
    ("int4range", "[1,5]", pa.string(), "[1,6)"),
    ("inet", "10.0.0.0/8", pa.string(), "10.0.0.0/8"),
    ("mood", "so-so", pa.string(), "so-so"),
    ("pair", '(1,"a b")', pa.string(), '(1,"a b")'),
    ("cents", "12.34", pa.decimal128(10, 2), Decimal("12.34")),
    ("small_cents", "12.34", pa.decimal128(10, 2), Decimal("12.34")),
]
EXACTLY = {
    "numeric(38, 10)": Decimal("-1234567890123456789012345678.0123456789"),
    "timestamptz": datetime(2024, 2, 28, 19, 30, 0, 500000, tzinfo=UTC),
}

TYPES = """
CREATE TYPE mood AS ENUM ('good', 'so-so');
CREATE TYPE pair AS (number integer, word text);
CREATE DOMAIN cents AS numeric(10, 2);
CREATE DOMAIN small_cents AS cents CHECK (VALUE < 100);
"""


def test_a_value_arrives_alike_by_the_stream_and_among_the_first_rows(cdf: Cdf) -> None:
    cdf.execute(TYPES)
    cdf.shadow("t", ", ".join(f"c{at} {kind}" for at, (kind, *_) in enumerate(VALUES)))
    insert = f"INSERT INTO t VALUES ({', '.join('%s' for _ in VALUES)})"
    wanted = [EXACTLY[kind] if value is ... else value for kind, _, _, value in VALUES]
    nothing = [None] * len(VALUES)

    cdf.execute(insert, [literal for _, literal, _, _ in VALUES])
    cdf.execute(insert, nothing)
    cdf.feed.run_once()
    cdf.execute(insert, [literal for _, literal, _, _ in VALUES])
    cdf.execute(insert, nothing)
    cdf.feed.run_once()

    schema = cdf.table("t").schema
    assert [schema.field(at).type for at in range(len(VALUES))] == [kind for _, _, kind, _ in VALUES]
    rows = [list(change[1:]) for change in cdf.changes("t")]
    assert rows == [wanted, nothing, wanted, nothing]


def test_settings_of_the_database_do_not_shape_values(cdf: Cdf) -> None:
    name = cdf.conn.info.dbname
    for setting in ("datestyle = 'German'", "intervalstyle = 'iso_8601'", "timezone = 'Asia/Tokyo'"):
        cdf.execute(f"ALTER DATABASE {name} SET {setting}")
    for setting in ("bytea_output = 'escape'", "extra_float_digits = -5"):
        cdf.execute(f"ALTER DATABASE {name} SET {setting}")
    cdf.shadow("t", "at timestamptz, took interval, raw bytea, ratio double precision")
    insert = "INSERT INTO t VALUES ('2024-02-01 12:00+00', '1 hour', '\\x01ff', 0.1234567890123456)"

    cdf.execute(insert)
    cdf.feed.run_once()
    cdf.execute(insert)
    cdf.feed.run_once()

    value = ("insert", datetime(2024, 2, 1, 12, tzinfo=UTC), "01:00:00", b"\x01\xff", 0.1234567890123456)
    assert cdf.changes("t") == [value, value]


instants = st.datetimes(FIRST, LAST)
ROUND_TRIPS: dict[str, st.SearchStrategy[Any]] = {
    "smallint": st.integers(-(2**15), 2**15 - 1),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "real": st.floats(width=32, allow_nan=False),
    "double precision": st.floats(allow_nan=False),
    "numeric(38, 9)": st.decimals(-(10**28), 10**28, places=9, allow_nan=False),
    "boolean": st.booleans(),
    "text": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    "bytea": st.binary(),
    "date": st.dates(),
    "timestamp": instants,
    # Not at the very ends: the zone of the session moves them out of what Python can hold.
    "timestamptz": st.datetimes(FIRST + timedelta(days=2), LAST - timedelta(days=2), timezones=st.just(UTC)),
}


# A failure is not shrunk: each example is a table and two rounds of the feed.
@settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.fixed_dictionaries({kind: st.none() | values for kind, values in ROUND_TRIPS.items()}),
        min_size=1,
        max_size=20,
    )
)
def test_whatever_a_table_holds_comes_back(cdf: Cdf, rows: list[dict[str, Any]]) -> None:
    cdf.execute("DROP TABLE IF EXISTS t")
    cdf.shadow("t", ", ".join(f"c{at} {kind}" for at, kind in enumerate(ROUND_TRIPS)))
    cdf.feed.run_once()
    start = len(cdf.changes("t")) if cdf.is_in_delta("t") else 0

    with cdf.conn.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO t VALUES ({', '.join('%s' for _ in ROUND_TRIPS)})",
            [[row[kind] for kind in ROUND_TRIPS] for row in rows],
        )
    cdf.feed.run_once()

    assert cdf.changes("t")[start:] == [("insert", *(row[kind] for kind in ROUND_TRIPS)) for row in rows]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        pytest.param(pa.int32(), b"2147483648", id="overflow"),
        pytest.param(pa.int32(), b"one", id="text-as-integer"),
        pytest.param(pa.bool_(), b"1", id="number-as-boolean"),
        pytest.param(pa.binary(), b"text", id="text-as-binary"),
        pytest.param(pa.decimal128(5, 2), b"0.001", id="too-many-digits"),
        pytest.param(pa.timestamp("us"), b"noon", id="text-as-timestamp"),
        pytest.param(pa.date32(), b"noon", id="text-as-date"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_rather_than_bent(kind: pa.DataType, text: bytes) -> None:
    with pytest.raises(ConversionError):
        to_array([text], kind)


def test_an_unknown_type_is_kept_as_text() -> None:
    assert arrow_type(999_999, -1) == pa.string()
