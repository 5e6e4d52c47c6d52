"""The view of the whole history over real Delta tables: every row that was ever kept, trimmed or not."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pyarrow as pa
import pytest
import sqlglot
from deltalake import DeltaTable

from airflow_provider_lakets.local.delta import history_path
from airflow_provider_lakets.local.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Row = tuple[Any, ...]

DAYS = range(1, 6)
LOG = "_trim_log"
WHERE = "p_catalog => 'ops', p_uc_schema => 'lake'"


def at(day: int, hour: int = 12) -> str:
    return f"2024-01-{day:02} {hour:02}:00:00+00"


class Lake:
    """
    A ChronoTable whose shadow is trimmed, the feed, and the Databricks that reads its Delta tables.

    :param conninfo: The database.
    :param delta_dir: Where the feed writes.
    """

    def __init__(self, conninfo: str, delta_dir: Path) -> None:
        self.delta_dir = delta_dir
        self.conn = psycopg.connect(conninfo, autocommit=True)
        self.conn.execute("SET client_min_messages = error; SET timezone = 'UTC'")
        self.feed = Feed(conninfo, delta_dir)
        self.name = "metrics"

    def run(self, query: str, *parameters: Any) -> list[Row]:
        cursor = self.conn.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, query: str, *parameters: Any) -> Any:
        return self.run(query, *parameters)[0][0]

    def table(
        self, name: str = "metrics", *, key: str = "PRIMARY KEY (id, at)", trimmed: bool = True
    ) -> None:
        """Make a synced ChronoTable with chunks in January 2024, all of them past retention."""
        self.name = name
        self.run(f'CREATE TABLE "{name}" (id integer, at timestamptz, value float8{key and ", " + key})')
        table_id = self.value("SELECT lakets.create_chronotable(%s, 'at', '1 day')", name)
        for day in DAYS:
            self.value(
                "SELECT lakets._ensure_partitions(%s, 0, 0, %s, %s)", table_id, at(day, 0), at(day, 23)
            )
        self.run("SELECT lakets.enable_sync(%s)", name)
        self.retain_after("1 year", trimmed=trimmed)

    def retain_after(self, drop_after: str, *, trimmed: bool = True) -> None:
        if self.run("SELECT FROM lakets.show_retention_policy(%s)", self.name):
            self.run("SELECT lakets.remove_retention_policy(%s)", self.name)
        self.run(
            "SELECT lakets.add_tiered_retention_policy(%s, '1 hour', %s::interval, p_trim_shadow => %s)",
            *(self.name, drop_after, trimmed),
        )

    def insert(self, *rows: Row) -> Counter[Row]:
        for row in rows:
            self.run(f'INSERT INTO "{self.name}" VALUES (%s, %s, %s)', *row)
        return Counter(rows)

    def drop(self) -> int:
        """Bring all to Delta, then drop every chunk that is past retention."""
        for _ in range(3):
            self.feed.run_once()
            if dropped := self.value("SELECT lakets.execute_retention(%s)", self.name):
                return int(dropped)
        return 0

    def trim(self, most: int = 10_000) -> int:
        """Trim until nothing is left, batch after batch, each flushed."""
        removed = 0
        for _ in range(3):
            self.feed.run_once()
            while batch := self.value("SELECT lakets.trim_shadow(%s, p_max_rows => %s)", self.name, most):
                removed += batch
        self.feed.run_once()
        return removed

    @property
    def shadow(self) -> str:
        return str(
            self.value(
                "SELECT shadow_table_name FROM lakets._chronotable_registry WHERE table_name = %s", self.name
            )
        )

    def shadow_rows(self) -> int:
        return int(self.value(f'SELECT count(*) FROM lakets_cdf."{self.shadow}"'))

    def view_sql(self, more: str = "") -> str:
        return str(self.value(f"SELECT lakets.history_view_sql(%s, {WHERE}{more})", self.name))

    def history(self, shadow: str) -> pa.Table:
        path = history_path(self.delta_dir, shadow)
        return DeltaTable(path).to_pyarrow_table() if path.exists() else None

    def in_databricks(self, *statements: str, **tables: pa.Table) -> pa.Table:
        """Run Databricks SQL on the Delta tables, or on others in their place, and return the last rows."""
        lake = duckdb.connect()
        lake.execute("SET timezone = 'UTC'; ATTACH ':memory:' AS ops; CREATE SCHEMA ops.lake; USE ops.lake")
        lake.execute(
            "CREATE MACRO pmod(a, b) AS ((a % b) + b) % b"
        )  # of Databricks' functions, it lacks this
        found = {shadow: self.history(shadow) for shadow in (self.shadow, LOG)} | tables
        for shadow, rows in found.items():
            if rows is not None:
                lake.register("arrow", rows)
                lake.execute(f'CREATE TABLE ops.lake."lb_{shadow}_history" AS FROM arrow')
        *before, last = [sqlglot.transpile(one, read="databricks", write="duckdb")[0] for one in statements]
        for statement in before:
            lake.execute(statement)
        return lake.sql(last).to_arrow_table()

    def view(self, more: str = "", **tables: pa.Table) -> Counter[Row]:
        """Return what the view over Delta shows."""
        rows = self.in_databricks(
            self.view_sql(more), f"SELECT * FROM ops.lake.`{self.name}_history`", **tables
        )
        return Counter(
            (row["id"], row["at"].strftime("%Y-%m-%d %H:%M:%S+00"), row["value"]) for row in rows.to_pylist()
        )

    def close(self) -> None:
        self.feed.close()
        self.conn.close()


@pytest.fixture
def lake(database: str, tmp_path: Path) -> Iterator[Lake]:
    """Yield an empty database that is fed to Delta."""
    lake = Lake(database, tmp_path / "delta")
    yield lake
    lake.close()


@pytest.mark.parametrize(
    "key", ["PRIMARY KEY (id, at)", "PRIMARY KEY (at, id)", ""], ids=["keyed", "by time", "keyless"]
)
def test_the_view_shows_every_row_that_was_ever_kept(lake: Lake, key: str) -> None:
    lake.table(key=key)
    kept = lake.insert(*((number, at(day, number), day / 10) for day in DAYS for number in range(8)))
    lake.run("UPDATE metrics SET value = 7 WHERE id = 1")
    lake.run("DELETE FROM metrics WHERE id = 2")
    kept = Counter(
        (number, when, 7.0 if number == 1 else value) for number, when, value in kept if number != 2
    )

    dropped = lake.drop()
    trimmed = lake.trim(most=10)
    kept += lake.insert((100, at(28), 1.0))
    lake.feed.run_once()

    assert (dropped, trimmed) == (len(DAYS), 7 * len(DAYS))
    assert lake.shadow_rows() == 1
    assert lake.view() == kept
