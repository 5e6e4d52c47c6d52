"""A database with a change feed, stepped by hand."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest
from deltalake import DeltaTable

from airflow_provider_lakets.local.feed.delta import METADATA_FIELDS, history_path, present_rows
from airflow_provider_lakets.local.feed.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

METADATA = {field.name for field in METADATA_FIELDS}


class Status(NamedTuple):
    status: str
    committed_lsn: str | None
    has_written: bool


class Cdf:
    """
    Schema ``lakets_cdf`` of one database, and its Delta tables.

    :param conninfo: The connection string of a superuser.
    :param delta_dir: The folder to which the feed writes.
    """

    def __init__(self, conninfo: str, delta_dir: Path) -> None:
        self.conninfo = conninfo
        self.delta_dir = delta_dir
        self.conn = psycopg.connect(conninfo, autocommit=True)
        self.conn.execute("CREATE SCHEMA lakets_cdf; SET search_path = lakets_cdf, public")
        self.feed = Feed(conninfo, delta_dir)
        self.execute = self.conn.execute

    def shadow(self, name: str, columns: str = "id integer, note text") -> str:
        """Create a table that the feed follows."""
        self.execute(f"CREATE TABLE {name} ({columns}); ALTER TABLE {name} REPLICA IDENTITY FULL")
        return name

    def session(self) -> psycopg.Connection[Any]:
        """Open a session that is not in autocommit mode."""
        conn = psycopg.connect(self.conninfo)
        conn.execute("SET search_path = lakets_cdf, public")
        conn.commit()
        return conn

    def history(self, name: str) -> list[dict[str, Any]]:
        """Return the history in the order of the changes."""
        return [dict(row) for row in self.table(name).sort_by("_sort_by").to_pylist()]

    def changes(self, name: str) -> list[tuple[Any, ...]]:
        """Return the history as (type of change, values of the table's columns)."""
        return [
            (row["_pg_change_type"], *(value for column, value in row.items() if column not in METADATA))
            for row in self.history(name)
        ]

    def table(self, name: str) -> pa.Table:
        return DeltaTable(history_path(self.delta_dir, name)).to_pyarrow_table()

    def is_in_delta(self, name: str) -> bool:
        return DeltaTable.is_deltatable(str(history_path(self.delta_dir, name)))

    def status(self, name: str) -> Status | None:
        row = self.execute(
            "SELECT status, committed_lsn::text, last_write_time IS NOT NULL"
            " FROM wal2delta.tables WHERE table_oid = to_regclass(%s)",
            [name],
        ).fetchone()
        return Status(*row) if row else None

    def commit_lsn(self, name: str) -> str:
        """Return the commit position of the last change in Delta."""
        lsn = self.history(name)[-1]["_pg_lsn"]
        return str(self.one("SELECT ('0/0'::pg_lsn + %s::numeric)::text", lsn))

    def one(self, query: str, *parameters: object) -> Any:
        """Return the one value of a query."""
        row = self.execute(query, parameters).fetchone()
        assert row is not None
        return row[0]

    def is_replayed(self, name: str) -> bool:
        """Return whether the replayed history equals the table, and no change is in it twice."""
        history = self.table(name)
        columns = [column for column in history.column_names if column not in METADATA]
        names = ", ".join(f'"{column}"' for column in columns)
        wanted = Counter(self.execute(f"SELECT {names} FROM {name}").fetchall())
        found = Counter(tuple(row.values()) for row in present_rows(history, columns).to_pylist())
        order = history["_sort_by"].to_pylist()
        return wanted == found and len(set(order)) == len(order)

    def close(self) -> None:
        self.feed.close()
        self.conn.close()


@pytest.fixture
def cdf(empty_database: str, tmp_path: Path) -> Iterator[Cdf]:
    """Yield a database whose feed runs a round only when the test calls it."""
    lab = Cdf(empty_database, tmp_path / "delta")
    yield lab
    lab.close()
