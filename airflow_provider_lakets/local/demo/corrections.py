"""Late corrections to old rows, as sources send them weeks or months later."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import sql

from airflow_provider_lakets.local.demo.data import FLIGHTS, WEATHER
from airflow_provider_lakets.local.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from airflow_provider_lakets.local.demo.data import Source

# Flight numbers that no real flight of the year has.
_LATE_FLIGHT = 20_000

Row = dict[str, Any]


@dataclass(frozen=True)
class Correction:
    """
    Rows that change: ``old`` alone is a delete, ``new`` alone an insert, both an update.

    :param what: A description.
    """

    what: str
    source: Source
    old: Sequence[Row] = ()
    new: Sequence[Row] = ()

    def execute(self, conn: psycopg.Connection[Any]) -> None:
        """Apply the correction to Lakebase in one transaction; fail if a row is not found."""
        columns, key = list(self.source.columns), list(self.source.key)
        table = sql.Identifier("public", self.source.name)
        into = sql.SQL(", ").join(map(sql.Identifier, columns))
        values = sql.SQL(", ").join(sql.Placeholder(name) for name in columns)
        here = sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(f"old_{name}")) for name in key
        )
        old = [{f"old_{name}": row[name] for name in key} for row in self.old]
        if not self.new:
            query, rows = sql.SQL("DELETE FROM {} WHERE {}").format(table, here), old
        elif not self.old:
            query = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(table, into, values)
            rows = list(self.new)
        else:
            query = sql.SQL("UPDATE {} SET ({}) = ROW ({}) WHERE {}").format(table, into, values, here)
            rows = [{**new, **gone} for new, gone in zip(self.new, old, strict=True)]
        with conn.transaction(), conn.cursor() as cursor:
            cursor.executemany(query, rows)
            if cursor.rowcount != len(rows):
                raise DemoError(
                    f"{self.what}: {len(rows)} rows should have changed, but {cursor.rowcount} did."
                )

    def apply(self, rows: pa.Table) -> pa.Table:
        """Apply the correction to the demo's copy of the source, which the audit compares with."""
        key = list(self.source.key)
        if self.old:
            gone = pa.Table.from_pylist(list(self.old), rows.schema)
            rows = rows.join(gone.select(key), keys=key, join_type="left anti")
        if self.new:
            rows = pa.concat_tables([rows, pa.Table.from_pylist(list(self.new), rows.schema)])
        return rows


@dataclass(frozen=True)
class Ages:
    """
    Ages and instants in the lifecycle of a row.

    :param now: The end of the data.
    :param tier: The age at which tiering is due.
    :param drop: The age at which retention is due.
    :param span: The age of the oldest row.
    :param chunk: The length of a chunk of flights.
    """

    now: datetime
    tier: timedelta
    drop: timedelta
    span: timedelta
    chunk: timedelta

    def cold(self, share: float) -> datetime:
        """Return an instant between the horizons: 0 is that of tiering, 1 that of retention."""
        return self.now - self.tier - (self.drop - self.tier) * share

    def expired(self, share: float) -> datetime:
        """Return an instant past retention: 0 is where it is due, 1 where the data begins."""
        return self.now - self.drop - (self.span - self.drop) * share


def first_wave(rows: Mapping[str, pa.Table], ages: Ages) -> list[Correction]:
    """Return corrections of rows that are due for tiering or past retention."""
    flights, weather = rows["flights"], rows["weather"]
    return [
        _update("delays filed again", FLIGHTS, _from(flights, FLIGHTS, ages.expired(0.5), 150), _more_delay),
        Correction("double entries withdrawn", FLIGHTS, old=_from(flights, FLIGHTS, ages.cold(0.3), 40)),
        _update("sensor recalibrated", WEATHER, _from(weather, WEATHER, ages.expired(0.3), 24), _warmer),
    ]


def second_wave(rows: Mapping[str, pa.Table], ages: Ages) -> list[Correction]:
    """Return corrections of tiered rows, moves between buckets and chunks, and late rows."""
    flights, weather = rows["flights"], rows["weather"]
    return [
        _update("delays filed again", FLIGHTS, _from(flights, FLIGHTS, ages.cold(0.5), 100), _more_delay),
        Correction("double entries withdrawn", FLIGHTS, old=_from(flights, FLIGHTS, ages.cold(0.6), 25)),
        Correction(
            "flights filed late",
            FLIGHTS,
            new=[_filed_late(row) for row in _from(flights, FLIGHTS, ages.cold(0.4), 20)],
        ),
        _update(
            "moved to another hour",
            FLIGHTS,
            _from(flights, FLIGHTS, ages.cold(0.2), 12),
            _later(timedelta(hours=3)),
        ),
        _update(
            "moved to another chunk", FLIGHTS, _from(flights, FLIGHTS, ages.cold(0.1), 12), _later(ages.chunk)
        ),
        Correction(
            "filed after retention",
            FLIGHTS,
            new=[_filed_late(row) for row in _from(flights, FLIGHTS, ages.expired(0.7), 5)],
        ),
        _update("sensor recalibrated", WEATHER, _from(weather, WEATHER, ages.cold(0.5), 24), _warmer),
        Correction("readings withdrawn", WEATHER, old=_from(weather, WEATHER, ages.cold(0.2), 6)),
    ]


def _from(rows: pa.Table, source: Source, start: datetime, count: int) -> list[Row]:
    """Return the first rows from an instant on."""
    due = rows.filter(
        pc.greater_equal(rows[source.time], pa.scalar(start, rows.schema.field(source.time).type))
    )
    order = [(name, "ascending") for name in (source.time, *source.key)]
    picked: list[Row] = due.sort_by(order).slice(0, count).to_pylist()
    return picked


def _update(what: str, source: Source, old: list[Row], change: Callable[[Row], Row]) -> Correction:
    return Correction(what, source, old=old, new=[{**row, **change(row)} for row in old])


def _more_delay(row: Row) -> Row:
    # A flight without a delay was cancelled; the correction says that it has flown.
    return {"dep_delay": (row["dep_delay"] or 0) + 20, "arr_delay": (row["arr_delay"] or 0) + 25}


def _warmer(row: Row) -> Row:
    return {"temp": None if row["temp"] is None else row["temp"] + 1}


def _filed_late(row: Row) -> Row:
    return {**row, "flight": row["flight"] + _LATE_FLIGHT}


def _later(by: timedelta) -> Callable[[Row], Row]:
    # With another flight number, because the flight of that hour may exist already.
    return lambda row: {**_filed_late(row), "scheduled": row["scheduled"] + by}
