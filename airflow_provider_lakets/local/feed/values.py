"""
Postgres values as Arrow, and so as Delta.

========================================  ==========================================================
Postgres                                  Delta
========================================  ==========================================================
smallint, integer, bigint, oid            short, integer, long, long
real, double precision                    float, double (NaN and infinity as they are)
numeric(p, s), p <= 38                    decimal(p, s), exact; NaN becomes NULL
numeric without or with larger precision  string
boolean                                   boolean
date                                      date
timestamp                                 timestamp_ntz, microseconds
timestamptz                               timestamp (UTC), microseconds
bytea                                     binary
a domain                                  the type it is based on
all else: text, uuid, json(b), enum,      string: what ``::text`` gives (arrays too: ``{1,NULL,3}``)
time, interval, arrays, ranges, ...
========================================  ==========================================================

A Delta date or timestamp lies between the years 1 and 9999. A value outside, such as infinity, is
stored as the nearest end of that range, as Spark does when it reads Postgres.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Sequence

_BY_OID = {
    16: pa.bool_(),
    17: pa.binary(),
    20: pa.int64(),
    21: pa.int16(),
    23: pa.int32(),
    26: pa.int64(),
    700: pa.float32(),
    701: pa.float64(),
    1082: pa.date32(),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", tz="UTC"),
}
NUMERIC_OID = 1700
_MAX_PRECISION = 38

_DATE_ENDS = ("0001-01-01", "9999-12-31")
_TIMESTAMP_ENDS = ("0001-01-01 00:00:00", "9999-12-31 23:59:59.999999")


class ConversionError(Exception):
    """A value does not fit the type of its Delta column."""


def arrow_type(type_oid: int, typmod: int) -> pa.DataType:
    """Return the Arrow type for a column of this Postgres type."""
    if type_oid == NUMERIC_OID and typmod >= 0:
        return _decimal(typmod)
    return _BY_OID.get(type_oid, pa.string())


def _decimal(typmod: int) -> pa.DataType:
    packed = typmod - 4
    precision = packed >> 16
    scale = ((packed & 0x7FF) ^ 0x400) - 0x400  # eleven bits, signed
    if scale < 0:  # numeric(3, -2) holds up to 99900
        precision, scale = precision - scale, 0
    elif scale > precision:  # numeric(3, 5) holds up to 0.00999
        precision = scale
    return pa.decimal128(precision, scale) if precision <= _MAX_PRECISION else pa.string()


def to_array(values: Sequence[bytes | str | None], target: pa.DataType) -> pa.Array:
    """
    Convert a column of Postgres text values.

    :param values: As the server printed them, under the settings of the replication stream.
    :param target: An Arrow type that :func:`arrow_type` gives, not necessarily for this column: a
        Delta table keeps the type it began with.
    """
    try:
        if pa.types.is_binary(target):
            return pa.array([None if value is None else _bytea(value) for value in values], target)
        texts = pa.array(values, pa.string())
        if pa.types.is_string(target):
            return texts
        if pa.types.is_boolean(target):
            return _booleans(texts)
        if pa.types.is_temporal(target):
            return _temporals(texts, target)
        if pa.types.is_decimal(target):
            texts = pc.if_else(pc.equal(texts, "NaN"), None, texts)
        return pc.cast(texts, target)
    except (pa.ArrowException, ValueError) as err:
        raise ConversionError(f"cannot be stored as {target}: {err}") from err


def _bytea(value: bytes | str) -> bytes:
    if value[:2] not in (b"\\x", "\\x"):
        raise ValueError("not a bytea value")
    return binascii.unhexlify(value[2:])


def _booleans(texts: pa.Array) -> pa.Array:
    if not pc.all(pc.is_in(texts, pa.array(["t", "f", None]))).as_py() and len(texts):
        raise ValueError("not a boolean value")
    return pc.equal(texts, "t")


def _temporals(texts: pa.Array, target: pa.DataType) -> pa.Array:
    try:
        return pc.cast(texts, target)
    except pa.ArrowInvalid:
        # Rare: some value lies outside the years 1 to 9999.
        ends = _DATE_ENDS if pa.types.is_date(target) else _TIMESTAMP_ENDS
        zone = "+00" if getattr(target, "tz", None) else ""
        clamped = [_clamp(text, ends, zone) for text in texts.to_pylist()]
        return pc.cast(pa.array(clamped, pa.string()), target)


def _clamp(text: Any, ends: tuple[str, str], zone: str) -> Any:
    if text is None:
        return None
    if text == "-infinity" or text.endswith(" BC"):
        return ends[0] + zone
    year = text.partition("-")[0]
    if text == "infinity" or (year.isdigit() and len(year) > len("9999")):
        return ends[1] + zone
    return text
