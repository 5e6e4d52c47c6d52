"""The change feed for the REST API of the local Lakebase, and the faults that affect it."""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING, Any, Protocol

import psutil
import psycopg
from psycopg import sql

from airflow_provider_lakets.local.api.faults import FaultName
from airflow_provider_lakets.local.api.requests import invalid
from airflow_provider_lakets.local.feed import control
from airflow_provider_lakets.local.feed.catalog import SCHEMA
from airflow_provider_lakets.local.pg.postgres import DEFAULT_DATABASE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_lakets.local.api.workspace import CdfConfig, Database

_STATUSES = """
SELECT c.relname, t.status, t.committed_lsn::text, t.last_write_time
  FROM wal2delta.tables AS t JOIN pg_catalog.pg_class AS c ON c.oid = t.table_oid
 WHERE c.relnamespace = to_regnamespace(%s) AND t.status <> 'PENDING' ORDER BY c.relname
"""
_SHADOWS = """
SELECT c.oid::regclass::text FROM pg_catalog.pg_class AS c
 WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind = 'r'
"""


class FedDatabase(Protocol):
    """The database of the default branch, and the feed that follows it."""

    feed_interval: float

    def conninfo(self) -> str:
        """Return a libpq connection string of a superuser."""

    def start_feed(self) -> None:
        """Start the feed with its interval."""

    def stop_feed(self) -> None:
        """Let the feed finish its batch, and stop it."""

    def pause_feed(self) -> None:
        """Pause the feed until it is resumed."""

    def resume_feed(self) -> None:
        """Resume a paused feed."""

    def feed_pid(self) -> int | None:
        """Return the process id of the feed; None if no feed runs."""


class LocalFeeds:
    """
    Start, stop and describe the only feed: that of ``lakets_cdf`` in the default branch.

    :param lakebase: The database with the feed.
    """

    def __init__(self, lakebase: FedDatabase) -> None:
        self._lakebase = lakebase
        self._interval = lakebase.feed_interval

    async def start(self, database: Database, config: CdfConfig) -> None:
        """Start streaming."""
        fed = "/branches/production/" in database.name and database.postgres_database == DEFAULT_DATABASE
        if config.postgres_schema != SCHEMA or not fed:
            raise invalid(
                f"Only schema {SCHEMA} of database {DEFAULT_DATABASE} in branch production can be streamed."
            )
        await asyncio.to_thread(control.resume, self._lakebase.conninfo())

    async def stop(self, database: Database, config: CdfConfig) -> None:
        """Stop streaming; the history stays."""
        await asyncio.to_thread(control.pause, self._lakebase.conninfo())

    async def statuses(self, database: Database, config: CdfConfig) -> list[dict[str, Any]]:
        """Return the state of each table, as in the REST API."""
        async with await psycopg.AsyncConnection.connect(self._lakebase.conninfo(), autocommit=True) as conn:
            rows = await (await conn.execute(_STATUSES, [config.postgres_schema])).fetchall()
        return [
            {
                "name": f"{config.name}/cdf-statuses/{table}",
                "postgres_table": f"{config.postgres_schema}.{table}",
                "uc_table": f"{config.catalog}.{config.schema}.lb_{table}_history",
                "state": f"CDF_STATE_{status}",
                **({"committed_lsn": lsn} if lsn else {}),
                **({"last_sync_time": at.isoformat().replace("+00:00", "Z")} if at else {}),
            }
            for table, status, lsn, at in rows
        ]

    def cause(self, fault: FaultName, seconds: float) -> None:
        """Cause a fault, if it is one of the feed."""
        match fault:
            case FaultName.FEED_PAUSED:
                self._lakebase.pause_feed()
            case FaultName.FEED_LAGGING:
                self._restart(seconds)
            case FaultName.FEED_SKIPPED:
                self._alter_shadows("REPLICA IDENTITY DEFAULT")
            case FaultName.FEED_UNREADABLE:
                self._execute([sql.SQL("REVOKE ALL ON wal2delta.tables FROM PUBLIC")])
            case FaultName.DISK_FULL:
                self._limit_files(1)

    def clear(self, fault: FaultName) -> None:
        """Undo :meth:`cause`."""
        match fault:
            case FaultName.FEED_PAUSED:
                self._lakebase.resume_feed()
            case FaultName.FEED_LAGGING:
                self._restart(self._interval)
            case FaultName.FEED_SKIPPED:
                self._alter_shadows("REPLICA IDENTITY FULL")
            case FaultName.FEED_UNREADABLE:
                self._execute([sql.SQL("GRANT SELECT ON wal2delta.tables TO PUBLIC")])
            case FaultName.DISK_FULL:
                self._limit_files(resource.RLIM_INFINITY)

    def _restart(self, interval: float) -> None:
        self._lakebase.stop_feed()
        self._lakebase.feed_interval = interval
        self._lakebase.start_feed()

    def _alter_shadows(self, change: str) -> None:
        with psycopg.connect(self._lakebase.conninfo(), autocommit=True) as conn:
            shadows = [row[0] for row in conn.execute(_SHADOWS, [SCHEMA])]
        self._execute([sql.SQL(f"ALTER TABLE {shadow} {change}") for shadow in shadows])  # regclass text

    def _execute(self, statements: Sequence[sql.SQL]) -> None:
        with psycopg.connect(self._lakebase.conninfo(), autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement)

    def _limit_files(self, size: int) -> None:
        """Limit the size of the files that the feed writes, to simulate a full disk."""
        pid = self._lakebase.feed_pid()
        if pid is not None:
            psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
