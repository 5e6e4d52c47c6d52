"""The Delta table with the history of one shadow, and the rows that result from it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from airflow_provider_lakets.local.feed.values import ConversionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

log = logging.getLogger(__name__)

INSERT, DELETE = "insert", "delete"
UPDATE_PREIMAGE, UPDATE_POSTIMAGE = "update_preimage", "update_postimage"

# _pg_lsn is the commit position of the change's transaction, as a number. _sort_by orders the
# changes of a table as they happened: that position in hexadecimal, then the number of the change
# in its transaction.
METADATA_FIELDS = (
    pa.field("_pg_change_type", pa.string()),
    pa.field("_pg_lsn", pa.int64()),
    pa.field("_pg_xid", pa.int64()),
    pa.field("_timestamp", pa.timestamp("us", tz="UTC")),
    pa.field("_sort_by", pa.string()),
)

# A smaller target bounds the memory of a large write: files are encoded in parallel.
_TARGET_FILE_BYTES = 32 * 1024 * 1024


def history_path(folder: Path, shadow: str) -> Path:
    """Return the path of the history of a shadow; special characters in its name are escaped."""
    plain = re.sub(r"[^A-Za-z0-9_$-]", lambda match: f"~{ord(match[0]):x}~", shadow)
    return folder / f"lb_{plain}_history"


class History:
    """
    An append-only Delta table that also stores how far the feed has come.

    A mark is a named number, stored in the same Delta commit as the rows it describes: after a
    crash, marks show which changes are already stored.

    :param path: The folder of the Delta table; created by the first append.
    :param owner: What the marks belong to: a table that is dropped and created again has new ones.
    """

    def __init__(self, path: Path, owner: str) -> None:
        self.path = path
        self.owner = owner
        self._table: DeltaTable | None = None
        self.reload()
        self._synced = self._table.version() if self._table else -1

    def reload(self) -> None:
        """Read the table as it is on disk."""
        self._table = DeltaTable(self.path) if DeltaTable.is_deltatable(str(self.path)) else None

    def mark(self, name: str) -> int | None:
        """Return the number last stored under a name."""
        return self._table.transaction_version(f"{self.owner}/{name}") if self._table else None

    def fields(self) -> dict[str, pa.Field]:
        """Return the columns of the Delta table by lower-case name: Delta ignores case."""
        if self._table is None:
            return {}
        return {field.name.lower(): field for field in pa.schema(self._table.schema())}

    def append(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema, marks: Mapping[str, int]) -> None:
        """
        Add rows and marks in one commit, and return once it would survive a power cut.

        If the marks are stored already, so are the rows: the last attempt failed after its commit.
        """
        if not self._has(marks):
            self._write(batches, schema, marks)
        self._sync()

    def _has(self, marks: Mapping[str, int]) -> bool:
        return all(self.mark(name) == value for name, value in marks.items())

    def _write(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema, marks: Mapping[str, int]) -> None:
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        try:
            write_deltalake(
                self._table or self.path,
                reader,
                mode="append",
                schema_mode="merge",
                target_file_size=_TARGET_FILE_BYTES,
                commit_properties=CommitProperties(
                    app_transactions=[
                        Transaction(f"{self.owner}/{name}", value) for name, value in marks.items()
                    ]
                ),
            )
        except Exception:
            # A step after the commit, such as a checkpoint, may fail although the commit was made.
            self.reload()
            if not self._has(marks):
                raise
            log.warning("Writing to %s failed after its commit was made", self.path, exc_info=True)
        if self._table is None:
            self.reload()

    def _sync(self) -> None:
        """Flush the files of our commits to the disk, the log last."""
        assert self._table is not None  # noqa: S101 - it has just been written
        before = self._synced
        log_folder = self.path / "_delta_log"
        commits = [
            log_folder / f"{version:020}.json" for version in range(before + 1, self._table.version() + 1)
        ]
        for commit in commits:
            actions = [json.loads(line) for line in commit.read_text(encoding="utf-8").split("\n") if line]
            for file in [self.path / action["add"]["path"] for action in actions if "add" in action]:
                with contextlib.suppress(FileNotFoundError):  # somebody has compacted the table since
                    _fsync(file)
        for file in (self.path, *commits, log_folder, self.path.parent):
            _fsync(file)
        self._synced = self._table.version()


def merged_fields(
    wanted: Iterable[tuple[str, pa.DataType]], present: Mapping[str, pa.Field]
) -> list[pa.Field]:
    """
    Return the fields under which columns are stored: as the Delta table has them, else as wanted.

    :param present: The columns of the Delta table by lower-case name.
    """
    known = dict(present)
    fields = []
    for name, kind in wanted:
        field = _merged_field(name, kind, known)
        known[name.lower()] = field
        fields.append(field)
    return fields


def _merged_field(name: str, wanted: pa.DataType, present: Mapping[str, pa.Field]) -> pa.Field:
    if any(name.lower() == field.name for field in METADATA_FIELDS):
        raise ConversionError("has a name that the feed itself needs in the Delta table")
    found = present.get(name.lower())
    if found is None:
        return pa.field(name, wanted)
    if found.name != name:
        raise ConversionError(f"differs from column {found.name!r} in case only, which Delta ignores")
    return pa.field(name, found.type)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def present_rows(history: pa.Table, columns: Sequence[str]) -> pa.Table:
    """
    Return the rows that result from all changes of a history, as a multiset in no order.

    :param history: Rows of a Delta history table.
    :param columns: The table's columns to compare rows by.
    :raises ValueError: if a row was deleted more often than it was inserted.
    """
    if not columns:
        raise ValueError("A history is replayed by its columns, but none were given.")
    takes_away = pc.is_in(history["_pg_change_type"], pa.array([DELETE, UPDATE_PREIMAGE]))
    sign = pc.if_else(takes_away, pa.scalar(-1, pa.int64()), pa.scalar(1, pa.int64()))
    counted = (
        history.select(list(columns))
        .append_column("_count", sign)
        .group_by(list(columns), use_threads=False)
        .aggregate([("_count", "sum")])
    )
    if len(counted) and pc.min(counted["_count_sum"]).as_py() < 0:
        wrong = counted.filter(pc.less(counted["_count_sum"], 0))
        raise ValueError(
            f"The history deletes {len(wrong)} row(s) that it never inserted, such as "
            f"{wrong.slice(0, 1).to_pylist()[0]}: changes are missing from it."
        )
    positions = [
        position for position, count in enumerate(counted["_count_sum"].to_pylist()) for _ in range(count)
    ]
    return counted.select(list(columns)).take(pa.array(positions, pa.int64()))
