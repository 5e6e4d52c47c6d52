"""What the feed reads and writes in the database it follows."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from psycopg import sql

from airflow_provider_lakets.local.feed.pgoutput import Column
from airflow_provider_lakets.local.feed.replication import TEXT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator


log = logging.getLogger(__name__)

SCHEMA = "lakets_cdf"
PUBLICATION = "wal2delta"
CHANNEL = "wal2delta_local"

PENDING, SNAPSHOTTING, STREAMING, SKIPPED = "PENDING", "SNAPSHOTTING", "STREAMING", "SKIPPED"

# Types below it are Postgres' own: never domains that matter here.
_FIRST_USER_OID = 16384

# Held during each round: a session that gets it knows that no round is running.
ROUND_LOCK = "hashtext('wal2delta_local'), 0"
_INSTALL_LOCK = "hashtext('wal2delta_local'), 1"

_OPTIONS = {
    **TEXT_SETTINGS,
    "search_path": "pg_catalog",
    "synchronous_commit": "on",  # even if the server has it off: what the feed reports must survive a crash
    "lock_timeout": "2s",
    "row_security": "off",
}

_WATCHED = f"""
SELECT c.oid::bigint, c.relname, c.relreplident = 'f',
       EXISTS (SELECT FROM pg_publication_rel AS r JOIN pg_publication AS p ON p.oid = r.prpubid
                WHERE p.pubname = '{PUBLICATION}' AND r.prrelid = c.oid),
       md5(string_agg(a.attname || ':' || a.atttypid || ':' || a.atttypmod, ',' ORDER BY a.attnum))
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE n.nspname = '{SCHEMA}' AND c.relkind = 'r' AND c.relpersistence = 'p' AND NOT c.relispartition
 GROUP BY c.oid
 ORDER BY c.oid
"""  # noqa: S608 - constants only

# The transactions that may have written uncommitted rows, including prepared ones ("-1/...").
_WRITERS = """
SELECT DISTINCT l.virtualtransaction FROM pg_locks AS l
 WHERE l.locktype = 'relation' AND l.granted AND l.relation = %s
   AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
   AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
"""

_COLUMNS = """
SELECT a.attname, a.atttypid::bigint, a.atttypmod FROM pg_attribute AS a
 WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
 ORDER BY a.attnum
"""

_DOMAIN_BASE = """
WITH RECURSIVE chain (oid, typmod, depth) AS (
    SELECT %(oid)s::oid, %(typmod)s::integer, 0
    UNION ALL
    SELECT t.typbasetype, CASE WHEN c.typmod < 0 THEN t.typtypmod ELSE c.typmod END, c.depth + 1
      FROM chain AS c JOIN pg_type AS t ON t.oid = c.oid AND t.typtype = 'd'
)
SELECT chain.oid::bigint, chain.typmod FROM chain ORDER BY chain.depth DESC LIMIT 1
"""

_SET_STATUS = """
INSERT INTO wal2delta.tables AS t (table_oid, status, committed_lsn, last_write_time)
VALUES (%(oid)s, %(status)s, '0/0'::pg_lsn + %(committed_lsn)s::numeric,
        CASE WHEN %(wrote)s THEN clock_timestamp() END)
ON CONFLICT (table_oid) DO UPDATE SET
    status = excluded.status,
    committed_lsn = greatest(t.committed_lsn, excluded.committed_lsn),
    last_write_time = coalesce(excluded.last_write_time, t.last_write_time)
"""

_SYNCED = """
SELECT s.table_oid::bigint, s.shadow, (s.starts_at - '0/0')::bigint, (s.reading - '0/0')::bigint,
       s.first_rows::text, s.is_empty, s.skipped_for, s.definition,
       t.status, (t.committed_lsn - '0/0')::bigint
  FROM wal2delta_local.sync AS s LEFT JOIN wal2delta.tables AS t USING (table_oid)
"""

_SAVE_FIRST_ROWS = """
INSERT INTO wal2delta_local.sync (table_oid, shadow, starts_at, reading, first_rows, is_empty)
VALUES (%(oid)s, %(shadow)s, '0/0'::pg_lsn + %(starts_at)s::numeric, '0/0'::pg_lsn + %(reading)s::numeric,
        %(first_rows)s::pg_snapshot, %(is_empty)s)
ON CONFLICT (table_oid) DO UPDATE SET
    shadow = excluded.shadow, starts_at = excluded.starts_at, reading = excluded.reading,
    first_rows = excluded.first_rows, is_empty = excluded.is_empty, skipped_for = NULL, definition = NULL
"""

_SAVE_SKIPPED = """
INSERT INTO wal2delta_local.sync (table_oid, shadow, skipped_for, definition)
VALUES (%(oid)s, %(shadow)s, %(reason)s, %(definition)s)
ON CONFLICT (table_oid) DO UPDATE SET
    shadow = excluded.shadow, starts_at = NULL, reading = NULL, first_rows = NULL, is_empty = false,
    skipped_for = excluded.skipped_for, definition = excluded.definition
"""


class Watched(NamedTuple):
    """A table of the schema that is followed."""

    oid: int
    name: str
    is_full: bool
    is_published: bool
    definition: str | None


class Synced(NamedTuple):
    """What an earlier round recorded about a table."""

    oid: int
    shadow: str
    starts_at: int | None
    reading: int | None
    first_rows: str | None
    is_empty: bool
    skipped_for: str | None
    definition: str | None
    status: str | None
    committed_lsn: int | None


@dataclass(frozen=True)
class Visibility:
    """Which transactions a snapshot sees."""

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Visibility:
        """Read the text of a ``pg_snapshot``."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(int(xid) for xid in running.split(",") if xid))

    def sees(self, xid: int) -> bool:
        """Return whether the snapshot sees a transaction that is committed now."""
        return xid < self.xmin or (xid < self.xmax and xid not in self.running)


def connect(conninfo: str) -> psycopg.Connection[tuple[object, ...]]:
    """Open an autocommit session in which values print as they do in the stream."""
    options = " ".join(f"-c {name}={value}" for name, value in _OPTIONS.items())
    return psycopg.connect(conninfo, autocommit=True, application_name="lakets-feed", options=options)


def table_name(shadow: str) -> sql.Identifier:
    """Return the quoted name of a shadow."""
    return sql.Identifier(SCHEMA, shadow)


def read_columns(conn: psycopg.Connection[tuple[object, ...]], oid: int) -> list[Column]:
    """Return the columns in the feed: generated ones are not streamed, so they are not read."""
    return [
        Column(str(name), int(str(kind)), int(str(mod))) for name, kind, mod in conn.execute(_COLUMNS, [oid])
    ]


class Catalog:
    """
    The feed's session in the database.

    :param conninfo: The connection string of a superuser.
    """

    def __init__(self, conninfo: str) -> None:
        self._conn = connect(conninfo)
        self._domains: dict[tuple[int, int], tuple[int, int]] = {}

    def close(self) -> None:
        """Close the session."""
        self._conn.close()

    @property
    def is_lost(self) -> bool:
        """Return whether the connection is lost."""
        return self._conn.broken

    def _row(self, query: str, **parameters: object) -> tuple[object, ...]:
        row = self._conn.execute(query, parameters).fetchone()
        assert row is not None  # noqa: S101 - each of our single-row queries has one
        return row

    def _number(self, query: str, **parameters: object) -> int:
        return int(str(self._row(query, **parameters)[0]))

    def install(self) -> None:
        """Create ``wal2delta.tables`` and the feed's own tables."""
        script = (Path(__file__).parent / "wal2delta.sql").read_text(encoding="utf-8")
        with self._conn.transaction():
            self._conn.execute(f"SELECT pg_advisory_xact_lock({_INSTALL_LOCK})")
            self._conn.execute(script)
        self._conn.execute(f"LISTEN {CHANNEL}")

    @contextlib.contextmanager
    def round(self) -> Iterator[bool]:
        """Hold the round lock; yield False when the feed is paused."""
        with self._without_lock_timeout():
            self._conn.execute(f"SELECT pg_advisory_lock({ROUND_LOCK})")
        try:
            yield not self._row("SELECT bool_or(c.is_paused) FROM wal2delta_local.control AS c")[0]
        finally:
            if not self._conn.broken:
                self._conn.execute(f"SELECT pg_advisory_unlock({ROUND_LOCK})")

    @contextlib.contextmanager
    def _without_lock_timeout(self) -> Iterator[None]:
        self._conn.execute("SET lock_timeout = 0")
        yield
        self._conn.execute("RESET lock_timeout")

    def identity(self) -> tuple[str, str]:
        """Return a unique name for this database, and the name of its slot."""
        system, database = self._row(
            "SELECT s.system_identifier, d.oid FROM pg_control_system() AS s, pg_database AS d"
            " WHERE d.datname = current_database()"
        )
        return f"wal2delta/{system}/{database}", f"wal2delta_{database}"

    def ensure_slot(self, slot: str) -> None:
        """Create the replication slot unless it exists and has all its WAL."""
        found = self._conn.execute(
            "SELECT s.wal_status FROM pg_replication_slots AS s WHERE s.slot_name = %s", [slot]
        ).fetchone()
        if found is not None and found[0] != "lost":
            return
        # Changes made without a slot are unknown: each table starts again with the rows it has.
        self._conn.execute("DELETE FROM wal2delta_local.sync")
        if found is not None:
            self._conn.execute("SELECT pg_drop_replication_slot(%s)", [slot])
        log.info("Creating slot %s: Postgres waits for all running transactions on the server", slot)
        with self._without_lock_timeout():
            self._conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])

    def slot_position(self, slot: str) -> int:
        """Return the confirmed position of the slot."""
        return self._number(
            "SELECT (s.confirmed_flush_lsn - '0/0')::bigint FROM pg_replication_slots AS s"
            " WHERE s.slot_name = %(slot)s",
            slot=slot,
        )

    def slot_is_active(self, slot: str) -> bool:
        """Return whether a process reads the slot."""
        return bool(
            self._row(
                "SELECT bool_or(s.active) FROM pg_replication_slots AS s WHERE s.slot_name = %(slot)s",
                slot=slot,
            )[0]
        )

    def insert_lsn(self) -> int:
        """Return the end of the WAL, flushed or not."""
        return self._number("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")

    def next_xid(self) -> int:
        """Return the next transaction id, with its epoch."""
        return self._number("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")

    def flushed_lsn(self) -> int:
        """Return a flushed position that lies after the commits of all transactions so far."""
        is_behind = self._row("SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()")[0]
        if is_behind:
            # Sessions with synchronous_commit = off leave their commits in memory; the commit of
            # this message flushes them.
            self._conn.execute("SELECT pg_logical_emit_message(true, 'lakets-feed', '')")
        return self._number("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")

    def watched(self) -> list[Watched]:
        """Return the ordinary tables of the schema."""
        return [Watched(*row) for row in self._conn.execute(_WATCHED).fetchall()]  # type: ignore[arg-type]

    def synced(self) -> list[Synced]:
        """Return what earlier rounds recorded."""
        return [Synced(*row) for row in self._conn.execute(_SYNCED).fetchall()]  # type: ignore[arg-type]

    def writers(self, oid: int) -> frozenset[str]:
        """Return the transactions that may have written to a table and have not ended."""
        return frozenset(str(row[0]) for row in self._conn.execute(_WRITERS, [oid]))

    def quiet_lsn(self, oid: int) -> int | None:
        """
        Return a position before all writes to a table by transactions that have not committed.

        :return: None if a transaction is writing, because it may have begun earlier.
        """
        lsn = self.insert_lsn()
        return None if self.writers(oid) else lsn

    def publish(self, shadow: str) -> None:
        """Stream the changes of a table from now on."""
        name = table_name(shadow)
        with contextlib.suppress(psycopg.errors.DuplicateObject):
            self._conn.execute(sql.SQL(f"ALTER PUBLICATION {PUBLICATION} ADD TABLE ONLY {{}}").format(name))

    def unpublish(self, oid: int) -> None:
        """Stop streaming a table, even if it was dropped, renamed or moved to another schema."""
        found = self._conn.execute(
            "SELECT r.prrelid::regclass::text FROM pg_publication_rel AS r"
            " JOIN pg_publication AS p ON p.oid = r.prpubid WHERE p.pubname = %s AND r.prrelid = %s",
            [PUBLICATION, oid],
        ).fetchone()
        if found is not None:  # regclass text is already quoted
            self._conn.execute(f"ALTER PUBLICATION {PUBLICATION} DROP TABLE ONLY {found[0]}".encode())

    def base_type(self, column: Column) -> tuple[int, int]:
        """Return the type that a column is stored as: its own, or the base type of its domain."""
        kind = (column.type_oid, column.typmod)
        if column.type_oid < _FIRST_USER_OID:
            return kind
        if kind not in self._domains:
            oid, typmod = self._row(_DOMAIN_BASE, oid=column.type_oid, typmod=column.typmod)
            self._domains[kind] = int(str(oid)), int(str(typmod))
        return self._domains[kind]

    def save_first_rows(
        self, oid: int, *, shadow: str, starts_at: int, reading: int, first_rows: str, is_empty: bool
    ) -> None:
        """Record where the stream of a table begins, and that its rows are being written."""
        parameters = {
            "oid": oid,
            "shadow": shadow,
            "starts_at": starts_at,
            "reading": reading,
            "first_rows": first_rows,
            "is_empty": is_empty,
        }
        # Both at once: whoever waits for a table must not take it for one that is up to date.
        with self._conn.transaction():
            self._conn.execute(_SAVE_FIRST_ROWS, parameters)
            if not is_empty:
                self.set_status(oid, SNAPSHOTTING, None, wrote=False)

    def save_skipped(self, oid: int, *, shadow: str, reason: str, definition: str | None) -> None:
        """Record why a table is skipped."""
        parameters = {"oid": oid, "shadow": shadow, "reason": reason, "definition": definition}
        self._conn.execute(_SAVE_SKIPPED, parameters)

    def forget(self, oid: int, *, is_gone: bool) -> None:
        """Make a table start again; a dropped table is no longer reported either."""
        with self._conn.transaction():
            self._conn.execute("DELETE FROM wal2delta_local.sync WHERE table_oid = %s", [oid])
            if is_gone:
                self._conn.execute("DELETE FROM wal2delta.tables WHERE table_oid = %s", [oid])

    def forget_skipped(self) -> None:
        """Make all skipped tables start again."""
        self._conn.execute("DELETE FROM wal2delta_local.sync WHERE skipped_for IS NOT NULL")

    def set_status(self, oid: int, status: str, committed_lsn: int | None, *, wrote: bool) -> None:
        """Set the reported status of a table; its position never decreases."""
        self._conn.execute(
            _SET_STATUS, {"oid": oid, "status": status, "committed_lsn": committed_lsn, "wrote": wrote}
        )

    def wait(self, seconds: float) -> bool:
        """Wait for a request for a round; return False if none came."""
        return any(True for _ in self._conn.notifies(timeout=seconds, stop_after=1))
