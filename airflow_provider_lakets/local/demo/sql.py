"""The demo's tables, RollUps and policies: the SQL that a user would write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from airflow_provider_lakets.local.demo.data import Source


@dataclass(frozen=True)
class Rollup:
    """
    A RollUp of the demo.

    :param name: Its name.
    :param interval: The length of its buckets.
    :param source: The ChronoTable that it reads; None if it reads another RollUp.
    :param query: Its query.
    """

    name: str
    interval: str
    source: str | None
    query: str

    @property
    def table(self) -> str:
        """The table with its rows."""
        return f"public._rollup_{self.name}"


# Sums and counts, not averages: a day adds up exactly from its hours, a month from its days.
ROLLUPS = (
    Rollup(
        "weather_hourly",
        "1 hour",
        "weather",
        """
        SELECT lakets.time_bucket('1 hour', observed) AS bucket,
               count(temp) AS temps, sum(temp) AS temp_sum, min(temp) AS temp_min, max(temp) AS temp_max,
               sum(precip) AS precip
          FROM public.weather GROUP BY 1
        """,
    ),
    *(
        Rollup(
            f"weather_{name}",
            interval,
            None,
            f"""
            SELECT lakets.time_bucket('{interval}', bucket) AS bucket,
                   sum(temps)::bigint AS temps, sum(temp_sum) AS temp_sum, min(temp_min) AS temp_min,
                   max(temp_max) AS temp_max, sum(precip) AS precip
              FROM public._rollup_weather_{below} GROUP BY 1
            """,  # noqa: S608 - constants only
        )
        for name, interval, below in (("daily", "1 day", "hourly"), ("monthly", "1 month", "daily"))
    ),
    Rollup(
        "flights_hourly",
        "1 hour",
        "flights",
        """
        SELECT lakets.time_bucket('1 hour', scheduled) AS bucket, origin,
               count(*) AS flights, count(*) FILTER (WHERE dep_delay IS NULL) AS cancelled,
               count(*) FILTER (WHERE dep_delay > 15) AS late, sum(dep_delay) AS delay_sum
          FROM public.flights GROUP BY 1, 2
        """,
    ),
    *(
        Rollup(
            f"flights_{name}",
            interval,
            None,
            f"""
            SELECT lakets.time_bucket('{interval}', bucket) AS bucket, origin,
                   sum(flights)::bigint AS flights, sum(cancelled)::bigint AS cancelled,
                   sum(late)::bigint AS late, sum(delay_sum)::bigint AS delay_sum
              FROM public._rollup_flights_{below} GROUP BY 1, 2
            """,  # noqa: S608 - constants only
        )
        for name, interval, below in (("daily", "1 day", "hourly"), ("monthly", "1 month", "daily"))
    ),
)

# The RollUp that is also streamed to Delta.
SYNCED_ROLLUP = "flights_daily"


def create_table(source: Source) -> str:
    """Return the statement that creates an ordinary table."""
    columns = [f"{name} {_postgres_type(kind)}" for name, kind in source.columns.items()]
    return f"CREATE TABLE public.{source.name} ({', '.join(columns)}, PRIMARY KEY ({', '.join(source.key)}))"


def _postgres_type(kind: pa.DataType) -> str:
    if pa.types.is_decimal(kind):
        return f"numeric({kind.precision}, {kind.scale})"
    return {
        pa.string(): "text",
        pa.int16(): "smallint",
        pa.int32(): "integer",
        pa.timestamp("us", tz="UTC"): "timestamptz",
    }[kind]
