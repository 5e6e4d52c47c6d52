"""The lifecycle of the demo's tables, step by step; each step returns a summary."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa
import pyarrow.csv

from airflow_provider_lakets.local.demo import corrections
from airflow_provider_lakets.local.demo.data import FLIGHTS, WEATHER
from airflow_provider_lakets.local.demo.sql import ROLLUPS, SYNCED_ROLLUP, create_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from airflow_provider_lakets.local.demo.corrections import Correction
    from airflow_provider_lakets.local.demo.data import Source
    from airflow_provider_lakets.local.lakebase import LocalLakebase

_FLUSH_SECONDS = 180.0


@dataclass(frozen=True)
class Scale:
    """
    How much data the demo has, and when it is tiered and dropped.

    :param days: The number of days of data.
    :param chunks: The chunk interval of each table.
    :param tier_days: The age at which chunks are tiered.
    :param drop_days: The age at which they are dropped from Lakebase.
    """

    days: int
    chunks: Mapping[str, str]
    tier_days: int
    drop_days: int

    def ages(self, now: datetime) -> corrections.Ages:
        """Return the ages in days as instants."""
        days = timedelta(days=1)
        chunk = timedelta(days=int(self.chunks["flights"].split()[0]), hours=1)
        return corrections.Ages(now, self.tier_days * days, self.drop_days * days, self.days * days, chunk)


YEAR = Scale(366, {"weather": "1 month", "flights": "7 days"}, tier_days=90, drop_days=180)


class Lifecycle:
    """
    The demo's tables in one Lakebase, and the demo's own copy of their rows.

    :param lakebase: A running Lakebase; LakeTS must be installed before the first step.
    :param tables: The rows, by table.
    :param scale: Policies and chunks.
    :param now: The end of the data.
    :param conn: The session to work in; by default one of the superuser.
    """

    def __init__(
        self,
        lakebase: LocalLakebase,
        tables: Mapping[str, pa.Table],
        scale: Scale,
        now: datetime,
        conn: psycopg.Connection[Any] | None = None,
    ) -> None:
        self.lakebase = lakebase
        self.scale = scale
        self.truth = dict(tables)
        self._ages = scale.ages(now)
        self.conn = conn or psycopg.connect(lakebase.conninfo(), autocommit=True)

    def close(self) -> None:
        """Close the session."""
        self.conn.close()

    # Set up

    def adopt_weather(self) -> str:
        """Turn a table with rows into a ChronoTable, and stream it."""
        self.conn.execute(create_table(WEATHER))
        rows = self._copy(WEATHER)
        self._create_chronotable(WEATHER)
        self._begin(WEATHER)
        return f"{rows:,} rows kept, now {self._chunks(WEATHER)} chunks"

    def stream_flights(self) -> str:
        """Fill an empty ChronoTable that is synced and has RollUps, as an application would."""
        self.conn.execute(create_table(FLIGHTS))
        # Daily chunks would be too small: the interval is changed for chunks created from now on.
        self._create_chronotable(FLIGHTS, "1 day")
        self.conn.execute(
            "SELECT lakets.set_chunk_interval('flights', %s::interval)", [self.scale.chunks["flights"]]
        )
        self.conn.execute(
            "SELECT lakets._ensure_partitions(reg.id, p_range_start => %s, p_range_end => now())"
            "  FROM lakets._chronotable_registry AS reg WHERE reg.table_name = 'flights'",
            [self._ages.now - self._ages.span],
        )
        self._begin(FLIGHTS)
        rows = self._copy(FLIGHTS)
        return f"{rows:,} rows, {self._chunks(FLIGHTS)} chunks"

    def _create_chronotable(self, source: Source, interval: str | None = None) -> None:
        self.conn.execute(
            "SELECT lakets.create_chronotable(p_table_name => %s, p_time_column => %s,"
            " p_chunk_interval => %s::interval)",
            [source.name, source.time, interval or self.scale.chunks[source.name]],
        )

    def _begin(self, source: Source) -> None:
        """Stream a ChronoTable, and give it RollUps and a policy."""
        self.conn.execute("SELECT lakets.enable_sync(%s)", [source.name])
        for rollup in ROLLUPS:
            if not rollup.name.startswith(source.name):
                continue
            self.conn.execute(
                "SELECT lakets.create_rollup(p_name => %s, p_query => %s, p_bucket_interval => %s::interval,"
                " p_source_table => %s)",
                [rollup.name, rollup.query, rollup.interval, rollup.source],
            )
            # An hour by default, so that refreshes do not pile up; the demo does not wait so long.
            self.conn.execute("SELECT lakets.set_refresh_lag(%s, interval '0')", [rollup.name])
            if rollup.name == SYNCED_ROLLUP:
                self.conn.execute("SELECT lakets.enable_sync(%s)", [rollup.name])
        self.conn.execute(
            "SELECT lakets.add_tiered_retention_policy(p_table_name => %s,"
            " p_tier_after => make_interval(days => %s), p_drop_after => make_interval(days => %s))",
            [source.name, self.scale.tier_days, self.scale.drop_days],
        )

    def _copy(self, source: Source) -> int:
        table = self.truth[source.name]
        columns = ", ".join(source.columns)
        with self.conn.cursor() as cursor:
            with cursor.copy(f"COPY public.{source.name} ({columns}) FROM STDIN (FORMAT csv)") as copy:
                for batch in table.to_batches(max_chunksize=20_000):
                    sink = pa.BufferOutputStream()
                    pa.csv.write_csv(batch, sink, pa.csv.WriteOptions(include_header=False))
                    copy.write(sink.getvalue().to_pybytes())
            return cursor.rowcount

    def _chunks(self, source: Source) -> int:
        return len(self.conn.execute("SELECT FROM lakets.show_chunks(%s)", [source.name]).fetchall())

    # Live

    def wait_flushed(self) -> str:
        """Wait until Delta has everything."""
        started = time.monotonic()
        self.lakebase.wait_flushed(_FLUSH_SECONDS)
        return f"caught up after {time.monotonic() - started:.1f} s"

    def correct(self, wave: Iterable[Correction]) -> str:
        """Apply corrections, in Lakebase and in the demo's own copy."""
        touched = 0
        for correction in wave:
            correction.execute(self.conn)
            name = correction.source.name
            self.truth[name] = correction.apply(self.truth[name])
            touched += len(correction.old) or len(correction.new)
        return f"{touched} rows"

    def correct_while_feed_lags(self) -> str:
        """Pause the feed and correct old rows, so that Delta lacks changes."""
        self.lakebase.pause_feed()
        return self.correct(corrections.first_wave(self.truth, self._ages))

    def correct_again(self) -> str:
        """Correct rows that are tiered or next to dropped ones, and let the feed continue."""
        said = self.correct(corrections.second_wave(self.truth, self._ages))
        self.lakebase.resume_feed()
        self.wait_flushed()
        return said
