"""The view of the whole history over real Delta tables: every row ever kept, trimmed or not."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import duckdb
import psycopg
import pyarrow as pa
import pytest
import sqlglot
from deltalake import DeltaTable

from airflow_provider_lakets.local.feed.delta import history_path
from airflow_provider_lakets.local.feed.feed import Feed

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
    :param delta_dir: The folder to which the feed writes.
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
        """Create a synced ChronoTable with chunks in January 2024, all of them past retention."""
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
        if self.run("SELECT 1 FROM lakets.show_retention_policy(%s)", self.name):
            self.run("SELECT lakets.remove_retention_policy(%s)", self.name)
        self.run(
            "SELECT lakets.add_tiered_retention_policy(%s, '1 hour', %s::interval, p_trim_shadow => %s)",
            *(self.name, drop_after, trimmed),
        )

    def insert(self, *rows: Row) -> Counter[Row]:
        with self.conn.cursor() as cursor:
            cursor.executemany(f'INSERT INTO "{self.name}" VALUES (%s, %s, %s)'.encode(), rows)
        return Counter(rows)

    def present(self) -> Counter[Row]:
        """Return the rows that Lakebase has."""
        return Counter(
            self.run(f"SELECT id, to_char(at, 'YYYY-MM-DD HH24:MI:SS+00'), value FROM \"{self.name}\"")
        )

    def drop(self) -> int:
        """Flush everything to Delta, then drop every chunk that is past retention."""
        for _ in range(3):
            self.feed.run_once()
            if dropped := self.value("SELECT lakets.execute_retention(%s)", self.name):
                return int(dropped)
        return 0

    def trim(self, most: int = 10_000) -> int:
        """Trim until nothing is left, then flush the trims to Delta."""
        removed = 0
        for _ in range(3):  # the first look may only see to it that the feed moves
            self.feed.run_once()
            while batch := self.trim_once(most):
                removed += batch
        self.feed.run_once()
        return removed

    def trim_once(self, most: int = 10_000) -> int:
        return int(self.value("SELECT lakets.trim_shadow(%s, p_max_rows => %s)", self.name, most))

    def begin_again(self, shadow: str) -> str:
        """Let the feed skip a shadow, then read it again; return an instant before it reads it."""
        self.run(f'ALTER TABLE lakets_cdf."{shadow}" REPLICA IDENTITY DEFAULT')
        self.feed.run_once()
        since = self.value("SELECT clock_timestamp()::text")
        self.run(f'ALTER TABLE lakets_cdf."{shadow}" REPLICA IDENTITY FULL')
        self.feed.run_once()
        return str(since)

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
        """Run Databricks SQL on the Delta tables, or on given tables, and return the last rows."""
        lake = duckdb.connect()
        lake.execute("SET timezone = 'UTC'; ATTACH ':memory:' AS ops; CREATE SCHEMA ops.lake; USE ops.lake")
        lake.execute("CREATE MACRO pmod(a, b) AS ((a % b) + b) % b")  # the one function that it lacks
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
    """Yield an empty database with a feed to Delta."""
    lake = Lake(database, tmp_path / "delta")
    yield lake
    lake.close()


KEYS = pytest.mark.parametrize(
    "key", ["PRIMARY KEY (id, at)", "PRIMARY KEY (at, id)", ""], ids=["keyed", "keyed by time", "keyless"]
)


@KEYS
def test_the_view_shows_every_row_that_was_ever_kept(lake: Lake, key: str) -> None:
    lake.table(key=key)
    lake.insert(*((number, at(day, number), day / 10) for day in DAYS for number in range(8)))
    lake.run("UPDATE metrics SET value = 7 WHERE id = 1")
    lake.run("DELETE FROM metrics WHERE id = 2")
    kept = lake.present()

    dropped = lake.drop()
    trimmed = lake.trim(most=10)
    kept += lake.insert((100, at(28), 1.0))
    lake.feed.run_once()

    assert (dropped, trimmed) == (len(DAYS), 7 * len(DAYS))
    assert lake.shadow_rows() == 1
    assert lake.view() == kept


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_the_view_is_the_same_at_every_step_of_a_trim(lake: Lake, batches: int) -> None:
    lake.table()
    kept = lake.insert(*((number, at(1), 0.5) for number in range(30)))
    lake.drop()
    lake.feed.run_once()
    for _ in range(batches):
        assert lake.trim_once(most=10) == 10
    lake.feed.run_once()

    assert lake.shadow_rows() == 30 - 10 * batches
    assert lake.view() == kept


@KEYS
def test_a_row_that_came_again_is_there_twice_until_it_is_deleted(lake: Lake, key: str) -> None:
    lake.table(key=key)
    kept = lake.insert((1, at(1), 0.5), (2, at(1), 0.5))
    lake.drop()
    again = lake.insert((1, at(1), 0.5), (2, at(1), 0.5))
    assert lake.trim() == 2

    assert lake.view() == kept + again

    lake.run("DELETE FROM metrics WHERE id = 1")
    lake.run("UPDATE metrics SET value = 9 WHERE id = 2")
    lake.feed.run_once()

    assert lake.view() == kept + Counter([(2, at(1), 9.0)])


@KEYS
def test_whatever_happens_the_view_shows_what_was_kept(lake: Lake, key: str) -> None:
    # Rows of few values, so that many look alike: dropped, late and resident ones.
    lake.table(key=key)
    chance = random.Random(key)
    gone: Counter[Row] = Counter()
    trimmed = 0
    lake.insert((0, at(1), 0.5))
    for _ in range(40):
        step = chance.choice(["insert", "insert", "update", "delete", "retain", "trim", "flush"])
        day, number = chance.choice(DAYS), chance.randrange(3)
        row = (number, at(day), chance.choice([0.5, 1.5]))
        if step == "insert":
            if not key or not lake.run("SELECT 1 FROM metrics WHERE (id, at) = (%s, %s)", *row[:2]):
                lake.insert(row)
        elif step == "update":
            lake.run("UPDATE metrics SET value = value + 1 WHERE id = %s AND at = %s", *row[:2])
        elif step == "delete":
            lake.run("DELETE FROM metrics WHERE id = %s AND at = %s AND value = %s", *row)
        elif step == "retain":
            lake.feed.run_once()
            before = lake.present()
            lake.retain_after(str(lake.value("SELECT now() - %s::timestamptz", at(day, 0))))
            lake.run("SELECT lakets.execute_retention('metrics')")
            gone += before - lake.present()
        elif step == "trim":
            trimmed += lake.trim_once(most=2)
        else:
            lake.feed.run_once()
            assert lake.view() == gone + lake.present()

    trimmed += lake.trim()
    assert lake.view() == gone + lake.present()
    assert lake.shadow_rows() == lake.present().total()
    assert trimmed == gone.total() > 0


def test_a_table_that_is_not_trimmed_has_a_view_too(lake: Lake) -> None:
    lake.table(trimmed=False)
    kept = lake.insert(*((number, at(1), 0.5) for number in range(3)))
    lake.drop()
    lake.feed.run_once()

    assert LOG not in lake.view_sql()
    assert lake.trim_once() == 0
    assert lake.view() == kept


def test_ranges_dropped_before_it_was_asked_for_are_trimmed_as_well(lake: Lake) -> None:
    lake.table(trimmed=False)
    kept = lake.insert(*((number, at(1), 0.5) for number in range(3)))
    lake.drop()
    lake.retain_after("1 year", trimmed=True)

    assert lake.trim() == 3
    assert lake.view() == kept


def test_a_delete_in_the_transaction_of_another_tables_trim_is_a_delete(lake: Lake) -> None:
    lake.table("other")
    lake.insert((1, at(1), 0.5))
    lake.drop()
    lake.feed.run_once()
    lake.table()
    lake.insert((1, at(1), 0.5))
    lake.feed.run_once()
    with lake.conn.transaction():
        assert lake.value("SELECT lakets.trim_shadow('other')") == 1
        lake.run("DELETE FROM metrics")
    lake.feed.run_once()

    assert lake.view() == Counter()


# Transaction ids


def test_a_trim_is_known_by_the_32_bits_that_the_feed_tells(lake: Lake) -> None:
    lake.table()
    kept = lake.insert((1, at(1), 0.5))
    lake.drop()
    lake.trim()
    log = lake.history(LOG)
    later = pa.array([xid + (5 << 32) for xid in log["xid"].to_pylist()], pa.int64())

    assert lake.view(**{LOG: log.set_column(log.schema.get_field_index("xid"), "xid", later)}) == kept


def test_a_delete_whose_transaction_has_the_number_of_an_old_trim_is_a_delete(lake: Lake) -> None:
    lake.table()
    lake.insert((1, at(1), 0.5))
    lake.drop()
    lake.trim()
    log = lake.history(LOG)
    last_year = pa.array(
        [when - timedelta(days=365) for when in log["trimmed_at"].to_pylist()], pa.timestamp("us", tz="UTC")
    )
    older = log.set_column(log.schema.get_field_index("trimmed_at"), "trimmed_at", last_year)

    assert lake.view(**{LOG: older}) == Counter()


# The feed begins anew


def test_the_log_may_be_read_anew(lake: Lake) -> None:
    lake.table()
    kept = lake.insert((1, at(1), 0.5))
    lake.drop()
    lake.trim()
    lake.begin_again(LOG)

    assert len(lake.history(LOG)) > lake.value("SELECT count(*) FROM lakets_cdf._trim_log")
    assert lake.view() == kept


def test_a_shadow_read_anew_is_read_from_there_and_what_was_trimmed_before_stays(lake: Lake) -> None:
    lake.table()
    kept = lake.insert(*((number, at(1), 0.5) for number in range(20)))
    lake.drop()
    lake.feed.run_once()
    lake.trim_once(most=5)
    kept += lake.insert((100, at(28), 1.0))
    lake.feed.run_once()
    since = lake.begin_again(lake.shadow)
    lake.trim()

    assert lake.view(f", p_since => '{since}'") == kept
    assert lake.view() != kept


def test_a_table_that_is_synced_anew_keeps_what_was_trimmed(lake: Lake) -> None:
    lake.table()
    kept = lake.insert((1, at(1), 0.5), (100, at(28), 1.0))
    lake.drop()
    kept += lake.insert((1, at(1), 0.5))
    lake.trim()
    lake.run("SELECT lakets.disable_sync('metrics')")
    lake.feed.run_once()
    since = lake.value("SELECT clock_timestamp()::text")
    lake.run("SELECT lakets.enable_sync('metrics')")
    kept += lake.insert((101, at(28), 1.0))
    lake.feed.run_once()

    assert lake.view(f", p_since => '{since}'") == kept


# Names and types


def test_odd_names_are_quoted_as_databricks_wants_it(lake: Lake) -> None:
    lake.name = "it's\\a `view`"
    lake.run('CREATE TABLE "it\'s\\a `view`" ("sum" integer, "a`t" timestamptz, "select \'x\'" text)')
    table_id = lake.value("SELECT lakets.create_chronotable(%s, 'a`t', '1 day')", lake.name)
    lake.value("SELECT lakets._ensure_partitions(%s, 0, 0, %s, %s)", table_id, at(1), at(2))
    lake.run("SELECT lakets.enable_sync(%s)", lake.name)
    lake.retain_after("1 year")
    lake.run("INSERT INTO \"it's\\a `view`\" VALUES (1, %s, 'kept')", at(1))
    lake.drop()

    assert lake.trim() == 1
    rows = lake.in_databricks(
        lake.view_sql(), "SELECT `sum`, `select 'x'` AS note FROM ops.lake.`it's\\a ``view``_history`"
    )
    assert rows.to_pylist() == [{"sum": 1, "note": "kept"}]


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
def test_every_kind_of_time_column_is_trimmed(lake: Lake, kind: str) -> None:
    lake.run(f"CREATE TABLE metrics (id integer, at {kind}, nothing text, number numeric, real float8)")
    table_id = lake.value("SELECT lakets.create_chronotable('metrics', 'at', '1 day')")
    lake.value("SELECT lakets._ensure_partitions(%s, 0, 0, %s, %s)", table_id, at(1), at(3))
    lake.run("SELECT lakets.enable_sync('metrics')")
    lake.retain_after("1 year")
    lake.run("INSERT INTO metrics SELECT 1, '2024-01-01', NULL, 1.50, 'NaN' FROM generate_series(1, 3)")
    lake.run("INSERT INTO metrics VALUES (2, NULL, NULL, 1, 0), (3, 'infinity', NULL, 1, 0)")
    lake.drop()

    assert lake.trim() == 3
    assert lake.shadow_rows() == 2
    rows = lake.in_databricks(
        lake.view_sql(), "SELECT id, number, isnan(real) AS odd FROM ops.lake.metrics_history ORDER BY id"
    )
    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        *[(1, "1.50", True)] * 3,
        (2, "1", False),
        (3, "1", False),
    ]
