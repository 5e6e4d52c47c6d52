"""Read the rows that a table holds when the feed begins to follow it."""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
from psycopg import sql

from airflow_provider_lakets.local.feed import catalog
from airflow_provider_lakets.local.feed.buffer import BATCH_BYTES, BATCH_ROWS, record_batch
from airflow_provider_lakets.local.feed.catalog import Visibility
from airflow_provider_lakets.local.feed.delta import INSERT, METADATA_FIELDS
from airflow_provider_lakets.local.feed.pgoutput import Begin
from airflow_provider_lakets.local.feed.values import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.feed.catalog import Catalog
    from airflow_provider_lakets.local.feed.shadow import Shadow

log = logging.getLogger(__name__)


def read_first_rows(conninfo: str, feed: Catalog, shadow: Shadow, *, starts_at: int) -> int | None:
    """
    Store the existing rows of a table as inserts, and record which changes come after them.

    The rows are those that one snapshot sees, and the snapshot is stored too. Changes of the
    transactions that it sees are among the rows; changes of all others come from the stream. Each
    transaction is on exactly one side, whatever the position in the WAL.

    :param starts_at: A position after all earlier changes of any table with this name, and before
        all later changes: these rows are sorted in between.
    :return: The number of rows, or None if it is too early and the caller must try again.
    """
    reading = feed.insert_lsn()
    claim = feed.quiet_lsn(shadow.oid)
    with catalog.connect(conninfo) as reader:
        reader.autocommit = False
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.read_only = True
        # The lock comes before the snapshot: a table rewritten in between would look empty.
        reader.execute(
            sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(catalog.table_name(shadow.name))
        )
        row = reader.execute(
            "SELECT pg_current_snapshot()::text, to_regclass(%s)::oid::bigint",
            [catalog.table_name(shadow.name).as_string(reader)],
        ).fetchone()
        assert row is not None  # noqa: S101
        first_rows = Visibility.parse(str(row[0]))
        if row[1] != shadow.oid or not all(first_rows.sees(xid) for xid in shadow.streamed):
            return None
        count = _copy(reader, feed, shadow, first_rows=str(row[0]), reading=reading, starts_at=starts_at)
    shadow.begin(first_rows, starts_at=starts_at, claim=claim)
    shadow.status = catalog.SNAPSHOTTING if count else catalog.PENDING
    shadow.has_written = count > 0
    return count


def _copy(
    reader: psycopg.Connection[tuple[object, ...]],
    feed: Catalog,
    shadow: Shadow,
    *,
    first_rows: str,
    reading: int,
    starts_at: int,
) -> int:
    columns = catalog.read_columns(reader, shadow.oid)
    if not columns:
        raise ConversionError("has no column")
    fields = shadow.fields(columns, feed)
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in columns)
    query = sql.SQL("COPY {} ({}) TO STDOUT").format(catalog.table_name(shadow.name), names)
    with reader.cursor().copy(query) as copy:
        rows = copy.rows()
        head = next(rows, None)
        feed.save_first_rows(
            shadow.oid,
            shadow=shadow.name,
            starts_at=starts_at,
            reading=reading,
            first_rows=first_rows,
            is_empty=head is None,
        )
        if head is None:
            return 0
        batches = _Batches(
            fields, itertools.chain([head], rows), Begin(starts_at - 1, time.time_ns() // 1000, 0)
        )
        try:
            shadow.history.append(batches, pa.schema([*fields, *METADATA_FIELDS]), {"first_rows": reading})
        except Exception:
            # The Delta writer hides an error of its input behind its own.
            if batches.error is not None:
                raise batches.error from None
            raise
    return batches.count


class _Batches:
    """The rows in batches, and the error that ended them, if any."""

    def __init__(self, fields: list[pa.Field], rows: Iterator[tuple[str | None, ...]], begin: Begin) -> None:
        self.count = 0
        self.error: Exception | None = None
        self._fields = fields
        self._rows = rows
        self._begin = begin

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            while rows := self._next_rows():
                run = (self._begin, self.count, len(rows))
                yield record_batch(self._fields, rows, [INSERT] * len(rows), [run])
                self.count += len(rows)
        except Exception as err:
            self.error = err
            raise

    def _next_rows(self) -> list[tuple[str | None, ...]]:
        rows = []
        size = 0
        for row in itertools.islice(self._rows, BATCH_ROWS):
            rows.append(row)
            size += sum(len(value) for value in row if value is not None)
            if size >= BATCH_BYTES:
                break
        return rows
