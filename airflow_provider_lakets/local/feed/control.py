"""Control a running feed, from any process that can connect to its database as a superuser."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.local.feed.catalog import CHANNEL, ROUND_LOCK, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_INTERVAL = 15.0  # seconds between two rounds, as in Lakebase
_POLL_SECONDS = 0.05
_NOTIFY_SECONDS = 1.0

_SLOT = """
SELECT s.slot_name, s.active, (s.confirmed_flush_lsn - %(lsn)s::pg_lsn) >= 0
  FROM pg_catalog.pg_replication_slots AS s JOIN pg_catalog.pg_database AS d ON d.oid = s.datoid
 WHERE d.datname = current_database() AND s.slot_name = 'wal2delta_' || d.oid
"""

# Tables whose first rows are not in Delta yet.
_UNREAD = f"""
SELECT c.relname FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN wal2delta.tables AS t ON t.table_oid = c.oid
  LEFT JOIN wal2delta_local.sync AS s ON s.table_oid = c.oid
 WHERE n.nspname = '{SCHEMA}' AND c.relkind = 'r' AND c.relpersistence = 'p' AND NOT c.relispartition
   AND c.relreplident = 'f' AND s.skipped_for IS NULL
   AND (s.first_rows IS NULL OR t.status IS NULL OR t.status = 'SNAPSHOTTING')
"""  # noqa: S608 - constants only


class FeedNotCaughtUpError(LakeTSError):
    """The feed did not write all committed changes to Delta in time."""


def pause(conninfo: str) -> None:
    """
    Pause the feed until :func:`resume`, even if it is restarted.

    Returns when the current round has ended.
    """
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("UPDATE wal2delta_local.control SET is_paused = true")
        conn.execute(f"SELECT pg_advisory_lock({ROUND_LOCK}), pg_advisory_unlock({ROUND_LOCK})")


def resume(conninfo: str) -> None:
    """Resume a paused feed at once."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        conn.execute("UPDATE wal2delta_local.control SET is_paused = false")
        conn.execute(f"NOTIFY {CHANNEL}")


def feed_is_running(conninfo: str) -> bool:
    """Return whether a feed reads the database."""
    with psycopg.connect(conninfo, autocommit=True) as conn:
        slot = conn.execute(_SLOT, {"lsn": "0/0"}).fetchone()
    return slot is not None and bool(slot[1])


def wait_flushed(conninfo: str, timeout: float, check: Callable[[], None] = lambda: None) -> None:
    """
    Return once everything committed now is in Delta; the feed does not wait for its interval.

    :param timeout: Seconds to wait before :class:`FeedNotCaughtUpError`.
    :param check: Called repeatedly; raises an error if waiting is of no use.
    """
    deadline = time.monotonic() + timeout
    notified_at = -_NOTIFY_SECONDS
    with psycopg.connect(conninfo, autocommit=True) as conn:
        row = conn.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        target = row[0] if row else "0/0"
        while True:
            slot = conn.execute(_SLOT, {"lsn": target}).fetchone()
            if slot is not None and slot[2] and conn.execute(_UNREAD).fetchone() is None:
                return
            check()
            if time.monotonic() > deadline:
                raise FeedNotCaughtUpError(_explain(conn, timeout, target))
            if time.monotonic() - notified_at > _NOTIFY_SECONDS:
                conn.execute(f"NOTIFY {CHANNEL}")
                notified_at = time.monotonic()
            time.sleep(_POLL_SECONDS)


def _explain(conn: psycopg.Connection[tuple[object, ...]], timeout: float, target: str) -> str:
    slot = conn.execute(_SLOT, {"lsn": target}).fetchone()
    head = f"After {timeout:g} s the feed has not written everything up to {target} to Delta: "
    if slot is None:
        return head + "it has never run in this database. Start it."
    if not slot[1]:
        return head + "it is not running. Start it; its log says why it ended."
    paused = conn.execute("SELECT c.is_paused FROM wal2delta_local.control AS c").fetchone()
    if paused is not None and paused[0]:
        return head + "it is paused. Resume it."
    unread = ", ".join(str(row[0]) for row in conn.execute(_UNREAD).fetchall())
    return head + (
        f"the first rows of {unread} are not read yet; is somebody writing there?" if unread else "it lags."
    )
