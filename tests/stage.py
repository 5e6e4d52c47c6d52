"""The fixture of the engine's tests: a ChronoTable with old chunks, and a feed moved by hand."""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import psycopg
import pytest

from tests.copies import Copyable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.copies import Copies

    Raises = Callable[..., Any]

    Position = Literal["start", "end"]

FEED = """
CREATE SCHEMA IF NOT EXISTS wal2delta;
GRANT USAGE ON SCHEMA wal2delta TO PUBLIC;
CREATE TABLE IF NOT EXISTS wal2delta.tables (
    table_oid oid PRIMARY KEY, status text NOT NULL, committed_lsn pg_lsn, last_write_time timestamptz
);
GRANT SELECT ON wal2delta.tables TO PUBLIC;
"""

_slots = itertools.count()


class Commit(NamedTuple):
    """A transaction that changed the shadow: where its commit record starts, and where it ends."""

    xid: int
    start: int
    end: int


class HandFeed:
    """
    The change feed of one shadow, moved by hand.

    It reads the WAL, so it knows every commit exactly; a test decides when each one is flushed.

    :param conninfo: The database.
    :param shadow: The shadow's name, without its schema.
    :param position: What ``committed_lsn`` shows of a commit: the start of its record, which is the
        lowest value a feed may show, or the end, the highest.
    """

    def __init__(self, conninfo: str, shadow: str, position: Position = "start") -> None:
        self.conn = psycopg.connect(conninfo, autocommit=True)
        self.shadow = shadow
        self.position: Position = position
        self.slot = f"hand_{self.conn.info.dbname}_{next(_slots)}".lower()
        self.publication = self.slot
        self._read: list[Commit] = []
        self.flushed = 0
        self.conn.execute(FEED)
        # The WAL can be read only as far as it is flushed, so this session flushes it.
        self.conn.execute("SET synchronous_commit = local")
        self.conn.execute(f'CREATE PUBLICATION "{self.publication}" FOR TABLE lakets_cdf."{shadow}"'.encode())
        self.conn.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [self.slot])
        self.report()

    @property
    def _oid(self) -> int:
        row = self.conn.execute(
            "SELECT to_regclass('lakets_cdf.' || quote_ident(%s))::oid::bigint", [self.shadow]
        ).fetchone()
        assert row is not None
        return int(row[0])

    def commits(self) -> list[Commit]:
        """Return every transaction that changed the shadow since the feed began, in order."""
        self.conn.execute("SELECT pg_logical_emit_message(true, 'hand', '')")
        rows = self.conn.execute(
            "SELECT data FROM pg_logical_slot_get_binary_changes("
            "%s, NULL, NULL, 'proto_version', '1', 'publication_names', %s)",
            [self.slot, self.publication],
        )
        xid = 0
        for (data,) in rows:
            if data[:1] == b"B":
                _, _, xid = struct.unpack(">QqI", data[1:21])
            elif data[:1] == b"C":
                _, start, end = struct.unpack(">bQQ", data[1:18])
                self._read.append(Commit(xid, start, end))
        return list(self._read)

    def unflushed(self) -> list[Commit]:
        return self.commits()[self.flushed :]

    def flush(self, count: int | None = None) -> list[Commit]:
        """Flush the next commits (None: all there are) to Unity Catalog, and return them."""
        done = self.unflushed()[:count]
        if done:
            self.flushed += len(done)
            self.move(getattr(done[-1], self.position))
        return done

    def flush_through(self, xid: int) -> None:
        """Flush up to and with the commit of one transaction."""
        xids = [commit.xid for commit in self.unflushed()]
        self.flush(xids.index(xid) + 1)

    def move(self, lsn: int | None) -> None:
        """Set the position that the feed reports."""
        self.conn.execute(
            "UPDATE wal2delta.tables SET committed_lsn = '0/0'::pg_lsn + %s::numeric WHERE table_oid = %s",
            [lsn, self._oid],
        )

    def report(self, status: str = "STREAMING") -> None:
        """Set the status that the feed reports."""
        self.conn.execute(
            "INSERT INTO wal2delta.tables (table_oid, status, committed_lsn) VALUES (%s, %s, '0/0')"
            " ON CONFLICT (table_oid) DO UPDATE SET status = excluded.status",
            [self._oid, status],
        )

    def close(self) -> None:
        self.conn.execute("SELECT pg_drop_replication_slot(%s)", [self.slot])
        self.conn.close()


class Stage(Copyable):
    """
    One database, seen by its administrator.

    Times are in January 2024, so every chunk is long past. Days are numbered: day 3 is January 3.
    """

    def __init__(self, conninfo: str, copies: Copies | None = None, *made: str) -> None:
        super().__init__(conninfo, copies, *made)
        self._feeds: list[HandFeed] = []

    def _open(self) -> psycopg.Connection:
        if self._session is None:
            super()._open().execute("SET client_min_messages = error")
        return super()._open()

    def run(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = self.conn.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, query: str, *parameters: Any) -> Any:
        rows = self.run(query, *parameters)
        return rows[0][0] if rows else None

    def column(self, query: str, *parameters: Any) -> list[Any]:
        return [row[0] for row in self.run(query, *parameters)]

    # ChronoTables

    def table(
        self,
        name: str = "metrics",
        *,
        days: Sequence[int] = range(1, 5),
        keyed: bool = True,
        rows: bool = True,
    ) -> int:
        """Create a ChronoTable with a chunk and a row at noon for each day; return its id."""
        self.once(Stage.make_table, name, days=tuple(days), keyed=keyed, rows=rows)
        row = (
            self._open()
            .execute("SELECT id FROM lakets._chronotable_registry WHERE table_name = %s", [name])
            .fetchone()
        )
        assert row is not None
        return int(row[0])

    def make_table(
        self,
        name: str = "metrics",
        *,
        days: Sequence[int] = range(1, 5),
        keyed: bool = True,
        rows: bool = True,
    ) -> None:
        """Do what :meth:`table` does."""
        key = ", PRIMARY KEY (id, at)" if keyed else ""
        self.run(f'CREATE TABLE "{name}" (id integer, at timestamptz, value integer{key})')
        table_id = self.value("SELECT lakets.create_chronotable(%s, 'at', '1 day')", name)
        for day in days:
            self.value(
                "SELECT lakets._ensure_partitions(%s, p_range_start => %s, p_range_end => %s)",
                table_id,
                self.at(day),
                self.at(day + 1),
            )
            if rows:
                self.run(f'INSERT INTO "{name}" VALUES (%s, %s, %s)', day, self.at(day, 12), day)

    def synced(self, name: str = "metrics", **arguments: Any) -> HandFeed:
        """Create a mirrored, flushed ChronoTable with a tiered retention policy."""
        self.once(Stage.make_synced, name, **arguments)
        return self.follow(name)

    def make_synced(self, name: str = "metrics", **arguments: Any) -> None:
        """Do what :meth:`synced` does, without a feed."""
        self.make_table(name, **arguments)
        self.run("SELECT lakets.enable_sync(%s)", name)
        self.run("SELECT lakets.add_tiered_retention_policy(%s, '1 day', '2 days')", name)

    def sync(self, name: str = "metrics", position: Position = "start") -> HandFeed:
        """Mirror a ChronoTable or RollUp, follow its shadow, and flush what it holds."""
        self.run("SELECT lakets.enable_sync(%s)", name)
        return self.follow(name, position)

    def follow(self, name: str = "metrics", position: Position = "start") -> HandFeed:
        """Follow the shadow of a ChronoTable or RollUp, and flush what it holds."""
        shadow = self.value(
            "SELECT shadow_table_name FROM lakets._chronotable_registry WHERE table_name = %s UNION ALL"
            " SELECT shadow_table_name FROM lakets._rollup_registry WHERE name = %s",
            name,
            name,
        )
        feed = HandFeed(self.conninfo, shadow, position)
        self._feeds.append(feed)
        # The first copy is part of the first reading, as with every feed.
        feed.move(self.position())
        return feed

    @staticmethod
    def at(day: int, hour: int = 0, minute: int = 0) -> str:
        """Return an instant of January 2024."""
        return f"2024-01-{day:02} {hour:02}:{minute:02}:00+00"

    def chunk(self, day: int, name: str = "metrics") -> str:
        """Return the name of a day's chunk."""
        return f"public.{name}_202401{day:02}_000000"

    def position(self) -> int:
        """Return where the WAL ends now."""
        return int(self.value("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"))

    def set_lock_timeout(self, duration: str, functions: str = "%") -> None:
        """Let functions of LakeTS that wait for locks wait as long as this, instead of 2 s."""
        for function in self.column(
            "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'lakets'::regnamespace"
            " AND proname LIKE %s AND proconfig::text LIKE '%%lock_timeout=%%'",
            functions,
        ):
            self.run(f"ALTER FUNCTION {function} SET lock_timeout = '{duration}'")

    # The jobs

    def tier(self, day: int, name: str = "metrics") -> bool:
        return bool(self.value("SELECT lakets.tier_chunk(%s)", self.chunk(day, name)))

    def statuses(self, name: str = "metrics") -> dict[int, str]:
        """Return the status of the chunks of January 2024, by day."""
        rows = self.run(
            "SELECT extract(day FROM range_start AT TIME ZONE 'UTC')::integer, status"
            " FROM lakets._chunk_metadata WHERE range_start < '2024-02-01' AND chunk_name LIKE %s ORDER BY 1",
            f"public.{name}\\_2024%",
        )
        return dict(rows)

    def rollup(
        self,
        name: str,
        *,
        reads: str = "metrics",
        every: str = "1 hour",
        query: str | None = None,
        lag: str = "0",
    ) -> int:
        """Create a RollUp of a ChronoTable or of another RollUp, without a refresh lag."""
        if query is None:
            is_rollup = self.value("SELECT count(*) FROM lakets._rollup_registry WHERE name = %s", reads)
            source, at, total, rows = (
                (f"_rollup_{reads}", "bucket", "sum(total)", "sum(n)")
                if is_rollup
                else (reads, "at", "sum(value)", "count(*)")
            )
            query = (
                f"SELECT lakets.time_bucket('{every}', {at}) AS bucket, {total}::bigint AS total,"
                f' {rows}::bigint AS n FROM public."{source}" GROUP BY 1'
            )
        rollup_id = self.value("SELECT lakets.create_rollup(%s, %s, %s::interval)", name, query, every)
        self.run("SELECT lakets.set_refresh_lag(%s, %s::interval)", name, lag)
        return int(rollup_id)

    def refresh(self, name: str) -> bool:
        return bool(self.value("SELECT lakets.refresh_rollup(%s, true)", name))

    def cascade(self, name: str | None = None) -> dict[str, bool]:
        rows = self.run("SELECT rollup_name, refreshed FROM lakets.refresh_rollup_cascade(%s)", name)
        return dict(rows)

    def difference(self, name: str) -> list[tuple[Any, ...]]:
        """Return how a RollUp differs from its query: the rows of only one, marked - and +."""
        query, bucket = self.run(
            "SELECT query_text, bucket_column FROM lakets._rollup_registry WHERE name = %s", name
        )[0]
        fresh = f'SELECT * FROM ({query}) AS q WHERE isfinite(q."{bucket}")'
        kept = f'TABLE public."_rollup_{name}"'
        return self.run(
            f"SELECT '-', * FROM (({fresh}) EXCEPT ALL ({kept})) AS missing"
            f" UNION ALL SELECT '+', * FROM (({kept}) EXCEPT ALL ({fresh})) AS surplus"
        )

    def totals(self, name: str) -> dict[str, int]:
        """Return the totals of a RollUp of :meth:`rollup`, by bucket as ``day hour``."""
        rows = self.run(
            "SELECT to_char(bucket AT TIME ZONE 'UTC', 'FMDD FMHH24'), total"
            f' FROM public."_rollup_{name}" ORDER BY bucket'
        )
        return dict(rows)

    def close(self) -> None:
        for feed in self._feeds:
            feed.close()
        super().close()


@pytest.fixture
def stage(database: str, copies: Copies) -> Iterator[Stage]:
    """Yield the stage of a fresh database."""
    stage = Stage(database, copies)
    yield stage
    stage.close()


@pytest.fixture
def raises() -> Raises:
    """Return ``pytest.raises`` for a Postgres condition, matched by its code."""
    return lambda code, **arguments: pytest.raises(psycopg.errors.lookup(code), **arguments)
