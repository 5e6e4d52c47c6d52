"""One table that the feed follows, and its state."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakets.local.feed.buffer import ChangeBuffer
from airflow_provider_lakets.local.feed.catalog import PENDING, SKIPPED, STREAMING, Visibility
from airflow_provider_lakets.local.feed.delta import UPDATE_POSTIMAGE, UPDATE_PREIMAGE, History, merged_fields
from airflow_provider_lakets.local.feed.values import ConversionError, arrow_type

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pyarrow as pa

    from airflow_provider_lakets.local.feed.catalog import Catalog, Synced
    from airflow_provider_lakets.local.feed.pgoutput import Begin, Change, Column


class Shadow:
    """
    A table of the followed schema.

    :param oid: Its oid; a table that is dropped and created again has another.
    :param name: Its name, from which the Delta table has its name.
    :param history: Its Delta table.
    :param spool: The folder for changes that do not fit into memory.
    """

    def __init__(self, oid: int, name: str, history: History, spool: Path) -> None:
        self.oid = oid
        self.name = name
        self.history = history
        self.status = PENDING
        self.skipped_for: str | None = None
        self.definition: str | None = None
        # Set once the first rows are read:
        self.first_rows: Visibility | None = None
        self.starts_at = 0
        # A position before all writes of transactions that had not committed when it was read. It
        # may be reported once the stream has been read beyond it.
        self.claim: int | None = None
        self.has_passed_claim = False
        self.reported: tuple[str, int | None] | None = None
        self.position = history.mark("position") or 0  # commit position of the last change in Delta
        # Until then: the transactions to wait for, and those whose streamed changes were ignored.
        self.waiting_for: frozenset[str] | None = None
        self.waiting_since = (
            0  # after all changes ever streamed for a table with this name, also before a crash
        )
        self.streamed: set[int] = set()
        # Of the batch that is being read:
        self.changes = ChangeBuffer(spool)
        self.last_commit = 0
        self.failure: Exception | None = None
        self.has_written = False
        self._spool = spool

    def resume(self, synced: Synced) -> bool:
        """Continue where an earlier round stopped; return False if that is not possible."""
        if synced.skipped_for is not None:
            self.status, self.skipped_for, self.definition = SKIPPED, synced.skipped_for, synced.definition
            return True
        starts_at = synced.starts_at or 0
        has_changes = self.position >= starts_at
        if synced.is_empty:
            is_there = has_changes or synced.status != STREAMING  # else somebody removed the Delta table
        else:
            is_there = self.history.mark("first_rows") == synced.reading
        if synced.first_rows is None or not is_there:
            return False
        self.begin(Visibility.parse(synced.first_rows), starts_at=starts_at, claim=synced.committed_lsn)
        self.has_passed_claim = True
        if not synced.is_empty or has_changes:
            self.status = STREAMING
        return True

    def begin(self, first_rows: Visibility, *, starts_at: int, claim: int | None) -> None:
        """Store changes from now on."""
        self.first_rows = first_rows
        self.starts_at, self.claim = starts_at, claim
        self.waiting_for = None
        self.streamed.clear()

    def fields(self, columns: Iterable[Column], catalog: Catalog) -> list[pa.Field]:
        """Return the fields in which columns of the table are stored."""
        wanted = [(column.name, arrow_type(*catalog.base_type(column))) for column in columns]
        return merged_fields(wanted, {**self.history.fields(), **self.changes.fields()})

    def wants(self, transaction: Begin, xid: int) -> bool:
        """Return whether the changes of a transaction are still to be stored."""
        if self.first_rows is None:
            self.streamed.add(xid)
            return False
        return (
            self.failure is None and transaction.commit_lsn > self.position and not self.first_rows.sees(xid)
        )

    def add(self, transaction: Begin, change: Change, size: int) -> None:
        """Add a change of this size; raise :class:`ConversionError` if it cannot be stored."""
        if change.kind == "update":
            if change.old is None or change.new is None:
                raise ConversionError("an UPDATE came without the old row: replica identity is not FULL")
            self.changes.add(transaction, UPDATE_PREIMAGE, change.old, size)
            self.changes.add(transaction, UPDATE_POSTIMAGE, change.new, 0)
            return
        row = change.new if change.kind == "insert" else change.old
        if row is None:
            raise ConversionError("a DELETE came without the old row: replica identity is not FULL")
        self.changes.add(transaction, change.kind, row, size)

    @property
    def committed_lsn(self) -> int | None:
        """
        Return the commit position of the last change in Delta.

        The first rows have none. Until a change follows them, it is a position that separates the
        transactions whose changes are in Delta from those that have not begun to write; None if no
        such position is known.
        """
        if self.first_rows is None or self.status != STREAMING:
            return None
        known = [self.position] if self.position >= self.starts_at else []
        if self.claim is not None and self.has_passed_claim:
            known.append(self.claim)
        return max(known, default=None)

    def write(self) -> int:
        """Append the collected changes to the Delta table, and return their number."""
        self.changes.seal()
        marks = {"position": self.last_commit}
        self.history.append(self.changes.batches(), self.changes.schema(), marks)
        self.has_written = True
        count = self.changes.count
        self.position = self.last_commit
        self.discard()
        return count

    def discard(self) -> None:
        """Drop the collected changes."""
        self.changes.close()
        self.changes = ChangeBuffer(self._spool)
