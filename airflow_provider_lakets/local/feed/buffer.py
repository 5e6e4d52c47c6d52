"""Collect the changes of one shadow until they are written, in bounded memory."""

from __future__ import annotations

import io
import tempfile
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from airflow_provider_lakets.local.feed.delta import METADATA_FIELDS
from airflow_provider_lakets.local.feed.values import ConversionError, to_array

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from airflow_provider_lakets.local.feed.pgoutput import Begin

# A batch is converted when it is full: rows are held as Python objects until then.
BATCH_ROWS = 20_000
BATCH_BYTES = 16 * 1024 * 1024
_MEMORY_BYTES = 16 * 1024 * 1024


def record_batch(
    fields: Sequence[pa.Field],
    rows: Sequence[Sequence[bytes | str | None]],
    change_types: Sequence[str],
    runs: Iterable[tuple[Begin, int, int]],
) -> pa.RecordBatch:
    """
    Return rows in the form in which they are stored.

    :param fields: The table's columns, in the order of the values in a row.
    :param runs: Whose changes these are: (transaction, number of its first change, how many).
    """
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in fields]
    if len(columns) != len(fields):
        raise ConversionError(f"has {len(fields)} columns, but its rows hold {len(columns)} values")
    arrays = [_column(field, values) for field, values in zip(fields, columns, strict=True)]
    lsns: list[int] = []
    xids: list[int | None] = []
    times: list[int] = []
    order: list[str] = []
    for begin, first, count in runs:
        lsns += [begin.commit_lsn] * count
        xids += [begin.xid or None] * count
        times += [begin.committed_at_us] * count
        head = f"{begin.commit_lsn:016x}-"
        order += [f"{head}{number:010x}" for number in range(first, first + count)]
    metadata = zip((change_types, lsns, xids, times, order), METADATA_FIELDS, strict=True)
    arrays += [pa.array(values, field.type) for values, field in metadata]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([*fields, *METADATA_FIELDS]))


def _column(field: pa.Field, values: Sequence[bytes | str | None]) -> pa.Array:
    try:
        return to_array(values, field.type)
    except ConversionError as err:
        raise ConversionError(f"column {field.name!r} {err}") from err


class ChangeBuffer:
    """
    Changes in order of arrival; columns may be added or dropped in between.

    :param folder: The folder for batches that do not fit into memory.
    """

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self._folder = folder
        self._stores: list[_Store] = []
        self._fields: tuple[pa.Field, ...] = ()
        self._rows: list[Sequence[bytes | str | None]] = []
        self._change_types: list[str] = []
        self._runs: list[tuple[Begin, int, int]] = []
        self._transaction: Begin | None = None
        self._number = 0  # of the next change in its transaction
        self._run_start = 0
        self._size = 0

    def fields(self) -> dict[str, pa.Field]:
        """Return the columns of all changes so far by lower-case name."""
        sealed = [field for store in self._stores for field in store.schema]
        return {field.name.lower(): field for field in (*sealed, *self._fields)}

    def set_fields(self, fields: Sequence[pa.Field]) -> None:
        """Set the columns of the rows that follow."""
        if tuple(fields) != self._fields:
            self.seal()
            self._fields = tuple(fields)

    def add(self, transaction: Begin, change_type: str, row: Sequence[bytes | str | None], size: int) -> None:
        """
        Add one change; raise :class:`ConversionError` when a batch of them cannot be stored.

        :param size: The approximate size of its values in bytes.
        """
        if transaction is not self._transaction:
            self._end_run()
            self._transaction, self._number, self._run_start = transaction, 0, 0
        self._rows.append(row)
        self._change_types.append(change_type)
        self._number += 1
        self.count += 1
        self._size += size
        if len(self._rows) >= BATCH_ROWS or self._size >= BATCH_BYTES:
            self.seal()

    def _end_run(self) -> None:
        if self._transaction is not None and self._number > self._run_start:
            self._runs.append((self._transaction, self._run_start, self._number - self._run_start))
        self._run_start = self._number

    def seal(self) -> None:
        """Convert what has been added so far."""
        self._end_run()
        if not self._rows:
            return
        batch = record_batch(self._fields, self._rows, self._change_types, self._runs)
        if not self._stores or self._stores[-1].schema != batch.schema:
            self._stores.append(_Store(batch.schema, self._folder))
        self._stores[-1].put(batch)
        self._rows, self._change_types, self._runs, self._size = [], [], [], 0

    def schema(self) -> pa.Schema:
        """Return the columns of all changes together."""
        return pa.unify_schemas([store.schema for store in self._stores])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the sealed changes with the columns of :meth:`schema`, NULL for missing columns."""
        schema = self.schema()
        for store in self._stores:
            for batch in store:
                yield batch if batch.schema == schema else _widen(batch, schema)

    def close(self) -> None:
        """Free the disk space."""
        for store in self._stores:
            store.close()
        self._stores = []


def _widen(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    arrays = [
        batch.column(field.name) if field.name in batch.schema.names else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class _Store:
    """Batches of one schema: in memory while they are few, then in an unnamed file."""

    def __init__(self, schema: pa.Schema, folder: Path) -> None:
        self.schema = schema
        self._folder = folder
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._file: Any = None
        self._writer: Any = None

    def put(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes <= _MEMORY_BYTES:
            return
        if self._writer is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by close()
            self._writer = pa.ipc.new_stream(self._file, self.schema)
        self._file.seek(0, io.SEEK_END)
        for waiting in self._batches:
            self._writer.write_batch(waiting)
        self._batches, self._bytes = [], 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        if self._file is not None:
            self._file.seek(0)
            yield from pa.ipc.open_stream(self._file)
        yield from self._batches

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
