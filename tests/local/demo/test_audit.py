"""The demo's audit on a small Lakebase after all its changes: it passes, and finds any fault."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable, write_deltalake

from airflow_provider_lakets.engine import install_script
from airflow_provider_lakets.local.demo import data, kept
from airflow_provider_lakets.local.demo.audit import Audit, audit
from airflow_provider_lakets.local.demo.lifecycle import Lifecycle
from airflow_provider_lakets.local.lakebase import LocalLakebase
from tests.conftest import THROWAWAY
from tests.demo import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

TIER = """
SELECT lakets.tier_chunk(due.chunk_name)
  FROM (VALUES ('weather'), ('flights')) AS tab (name), lakets._get_chunks_to_tier(tab.name) AS due
"""
RETAIN = "SELECT lakets.execute_retention(tab.name) FROM (VALUES ('weather'), ('flights')) AS tab (name)"
REFRESH = "SELECT lakets.refresh_rollup_cascade()"


class Lived(NamedTuple):
    """A Lakebase after the demo's lifecycle, and the rows of the source."""

    lakebase: LocalLakebase
    conn: psycopg.Connection[Any]
    truth: dict[str, Any]

    def audit(self) -> Audit:
        return audit(self.lakebase, self.conn, self.truth)

    def oldest_flight(self) -> dict[str, Any]:
        """Return a row that is in Delta only, and was never corrected."""
        row: dict[str, Any] = self.audit().tables[1].delta_only.sort_by("scheduled").to_pylist()[0]
        return row

    def value(self, query: str) -> Any:
        row = self.conn.execute(query).fetchone()
        assert row is not None
        return row[0]


@pytest.fixture(scope="module")
def lived() -> Iterator[Lived]:
    """Run the demo's lifecycle once, with the jobs called as SQL."""
    now = datetime.now(timezone.utc)
    with (
        tempfile.TemporaryDirectory(prefix="lakets-", ignore_cleanup_errors=True) as folder,
        LocalLakebase(Path(folder), feed_interval=0.5, settings=THROWAWAY) as lakebase,
        contextlib.closing(Lifecycle(lakebase, data.load(now, SMALL.days), SMALL, now)) as life,
    ):
        life.conn.execute(install_script())
        life.adopt_weather()
        life.stream_flights()
        life.wait_flushed()
        kept.prepare(life.conn)
        life.conn.execute(REFRESH)
        life.correct_while_feed_lags()
        _age(life)
        life.correct_again()
        life.conn.execute(REFRESH)
        _age(life)
        life.wait_flushed()
        yield Lived(lakebase, life.conn, life.truth)


def _age(life: Lifecycle) -> None:
    life.conn.execute(TIER)
    with kept.keep(life.conn):
        life.conn.execute(RETAIN)


@pytest.fixture
def undone(lived: Lived) -> Iterator[Lived]:
    """Yield the Lakebase for a mutation, and undo the mutation in Postgres and Delta afterwards."""
    delta = lived.lakebase.delta_dir
    copy = delta.with_name("copy")
    shutil.copytree(delta, copy)
    with lived.conn.transaction(force_rollback=True):
        yield lived
    shutil.rmtree(delta)
    copy.rename(delta)


def test_holds_after_a_whole_life(lived: Lived) -> None:
    found = lived.audit()

    assert found.problems == []
    assert [(one.missing, one.altered, one.extra) for one in found.tables] == [(0, 0, 0)] * 2
    assert [one.source for one in found.tables] == [len(lived.truth[one.name]) for one in found.tables]


def test_rows_are_counted_from_both_sides(lived: Lived) -> None:
    for one in lived.audit().tables:
        in_lakebase = lived.value(f"SELECT count(*) FROM {one.name}")
        in_delta = lived.lakebase.current_rows(f"_shadow_{one.name}").num_rows

        assert (one.in_lakebase, one.in_delta) == (in_lakebase, in_delta)
        assert len(one.delta_only) == one.source - in_lakebase > 0


def test_buckets_are_held_against_the_query_or_against_what_they_were(lived: Lived) -> None:
    for one in lived.audit().rollups:
        assert one.equal + one.kept == lived.value(f"SELECT count(*) FROM _rollup_{one.name}")
        assert one.equal > 0
        assert (one.kept > 0) == one.name.endswith("_hourly")


def test_fails_when_a_row_is_removed_from_delta(undone: Lived) -> None:
    row = undone.oldest_flight()
    table = DeltaTable(undone.lakebase.delta_path("_shadow_flights"))

    table.delete(
        f"carrier = '{row['carrier']}' AND flight = {row['flight']} AND scheduled = '{row['scheduled']}'"
    )

    found = undone.audit()
    assert [one.missing for one in found.tables] == [0, 1]
    (problem,) = found.problems
    assert problem.startswith("flights: 1 row is not in Delta; such as carrier")
    assert f"flight {row['flight']}" in problem


def _without(position: int) -> Callable[[pa.Table], pa.Table]:
    def change(rows: pa.Table) -> pa.Table:
        at = position % len(rows)
        return pa.concat_tables([rows.slice(0, at), rows.slice(at + 1)])

    return change


def _altered(rows: pa.Table) -> pa.Table:
    farther = pc.add(rows["distance"].slice(0, 1).cast(pa.int16()), pa.scalar(1, pa.int16()))
    column = pa.chunked_array([*farther.chunks, *rows["distance"].slice(1).chunks])
    return rows.set_column(rows.column_names.index("distance"), "distance", column)


DELTA = {
    "newest-row-gone-though-lakebase-has-it": ("flights", _without(-1), "flights: 1 row is not in Delta"),
    "value-altered": ("flights", _altered, "flights: 1 row is in Delta with other values"),
    "row-doubled": (
        "weather",
        lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]),
        "weather: 1 row is in Delta, but not in the source",
    ),
    "beginning-gone": (
        "flights",
        lambda rows: rows.filter(pc.not_equal(rows["_pg_change_type"], "insert")),
        "flights: its Delta history cannot be replayed",
    ),
    "all-gone": ("weather", lambda rows: rows.slice(0, 0), "weather: 1,... rows are not in Delta"),
    "row-of-a-rollup-gone": (
        "rollup_flights_daily",
        _without(-1),
        "RollUp flights_daily: 1 row.s. are not the same in Delta",
    ),
}


@pytest.mark.parametrize("tampering", DELTA)
def test_fails_when_delta_is_tampered_with(undone: Lived, tampering: str) -> None:
    name, change, problem = DELTA[tampering]
    history = undone.lakebase.history(f"_shadow_{name}").sort_by("_sort_by")

    write_deltalake(undone.lakebase.delta_path(f"_shadow_{name}"), change(history), mode="overwrite")

    assert _matching(undone.audit(), problem) == 1


LAKEBASE = {
    "row-gone": (
        "DELETE FROM flights WHERE (carrier, flight, scheduled) ="
        " (SELECT carrier, flight, scheduled FROM flights ORDER BY scheduled DESC LIMIT 1)",
        "flights: 1 row is not in Lakebase, though no chunk of that time was dropped",
    ),
    "value-altered": (
        "UPDATE weather SET humid = humid + 1 WHERE observed = (SELECT max(observed) FROM weather)"
        " AND origin = 'JFK'",
        "weather: 1 row is in Lakebase with other values",
    ),
    "value-nulled": (
        "UPDATE weather SET visib = NULL WHERE observed = (SELECT max(observed) FROM weather)"
        " AND origin = 'JFK'",
        "weather: 1 row is in Lakebase with other values",
    ),
    "row-made-up": (
        "INSERT INTO flights (scheduled, carrier, flight) VALUES (now(), 'XX', 1)",
        "flights: 1 row is in Lakebase, but not in the source",
    ),
    "chunk-gone": (
        "DO $$ BEGIN EXECUTE (SELECT 'DROP TABLE ' || min(chunk_name) FROM lakets.show_chunks('flights')"
        " WHERE status = 'tiered'); END $$",
        "Chunk public.flights_",
    ),
    "chunk-said-to-be-dropped": (
        "UPDATE lakets._chunk_metadata SET status = 'dropped' WHERE chunk_name ="
        " (SELECT min(chunk_name) FROM lakets.show_chunks('weather'))",
        "Chunk public.weather_",
    ),
    "rollup-altered": (
        "UPDATE _rollup_flights_hourly SET late = late + 1 WHERE bucket ="
        " (SELECT max(bucket) FROM _rollup_flights_hourly)",
        "RollUp flights_hourly: 1 bucket.s. differ from the query",
    ),
    "rollup-row-gone": (
        "DELETE FROM _rollup_weather_daily WHERE bucket = (SELECT min(bucket) FROM _rollup_weather_daily)",
        "RollUp weather_daily: 1 bucket.s. differ from the query",
    ),
    "rollup-row-doubled": (
        "INSERT INTO _rollup_weather_monthly SELECT * FROM _rollup_weather_monthly ORDER BY bucket LIMIT 1",
        "RollUp weather_monthly: 1 bucket.s. differ from the query",
    ),
    "bucket-altered-whose-source-is-gone": (
        "UPDATE _rollup_weather_hourly SET precip = precip + 1 WHERE bucket ="
        " (SELECT min(bucket) FROM _rollup_weather_hourly)",
        "RollUp weather_hourly: 1 bucket.s. changed after their source had left Lakebase",
    ),
    "bucket-emptied-whose-source-is-gone": (
        "DELETE FROM _rollup_flights_hourly WHERE bucket = (SELECT min(bucket) FROM _rollup_flights_hourly)",
        "RollUp flights_hourly: 1 bucket.s. changed after their source had left Lakebase",
    ),
}


@pytest.mark.parametrize("tampering", LAKEBASE)
def test_fails_when_lakebase_is_tampered_with(undone: Lived, tampering: str) -> None:
    statement, problem = LAKEBASE[tampering]
    # Behind the back of every trigger: nothing reaches the shadows, the feed and the RollUps.
    undone.conn.execute("SET LOCAL session_replication_role = replica")

    undone.conn.execute(statement)

    assert _matching(undone.audit(), problem) == 1


def test_fails_when_the_source_has_a_row_that_is_in_neither_tier(lived: Lived) -> None:
    flights = lived.truth["flights"]
    truth = {**lived.truth, "flights": pa.concat_tables([flights, _forgotten(flights)])}

    found = audit(lived.lakebase, lived.conn, truth)

    assert [one.missing for one in found.tables] == [0, 1]
    assert len(found.problems) == 1


def _forgotten(flights: pa.Table) -> pa.Table:
    """Return a row of a dropped chunk, which is therefore not in Lakebase."""
    oldest = flights.sort_by("scheduled").slice(0, 1).to_pylist()[0]
    return pa.Table.from_pylist([{**oldest, "flight": 1_000_000}], flights.schema)


def _matching(found: Audit, problem: str) -> int:
    return sum(re.match(problem, said) is not None for said in found.problems)
