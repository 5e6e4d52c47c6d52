"""Decode ``pgoutput``, the messages of Postgres' logical replication (protocol version 1)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Postgres counts microseconds from 2000-01-01; everybody else from 1970-01-01.
EPOCH_OFFSET_US = 946_684_800_000_000

# What a column of a row holds: its text, NULL, or "as in the old row" (a large value that did not
# change).
UNCHANGED = b"\x00unchanged"
Row: TypeAlias = "list[bytes | None]"

_BEGIN = struct.Struct("!QqI")
_COMMIT = struct.Struct("!BQQq")
_INT16 = struct.Struct("!H").unpack_from
_INT32 = struct.Struct("!I").unpack_from
_COLUMN_TYPE = struct.Struct("!Ii").unpack_from
_TRUNCATE = struct.Struct("!IB").unpack_from

_NULL, _TEXT, _TOAST = b"n"[0], b"t"[0], b"u"[0]
_NEW, _OLD = b"N"[0], b"O"[0]


@dataclass(frozen=True)
class Column:
    """A column as it was when the change was made."""

    name: str
    type_oid: int
    typmod: int


@dataclass(frozen=True)
class Relation:
    """A table as it was when the changes that follow were made."""

    oid: int
    schema: str
    name: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, eq=False)
class Begin:
    """The start of a transaction. It is sent after the commit, so it has the commit's position."""

    commit_lsn: int
    committed_at_us: int
    xid: int


class Commit(NamedTuple):
    """The end of a transaction; what comes next starts at ``end_lsn`` or later."""

    commit_lsn: int
    end_lsn: int


class Change(NamedTuple):
    """
    One row inserted, updated or deleted.

    ``old`` is None where the server did not log the whole old row: the replica identity is not
    FULL.
    """

    relation_oid: int
    kind: str
    old: Row | None
    new: Row | None


class Truncate(NamedTuple):
    """Tables emptied by TRUNCATE."""

    relation_oids: tuple[int, ...]


Message: TypeAlias = "Relation | Begin | Commit | Change | Truncate"


def decode(data: bytes) -> Message | None:
    """Return the message, or None if it carries no change (origin, type, logical message)."""
    decoder = _DECODERS.get(data[0])
    return decoder(data) if decoder else None


def _begin(data: bytes) -> Begin:
    commit_lsn, committed_at, xid = _BEGIN.unpack_from(data, 1)
    return Begin(commit_lsn, committed_at + EPOCH_OFFSET_US, xid)


def _commit(data: bytes) -> Commit:
    _flags, commit_lsn, end_lsn, _at = _COMMIT.unpack_from(data, 1)
    return Commit(commit_lsn, end_lsn)


def _relation(data: bytes) -> Relation:
    (oid,) = _INT32(data, 1)
    schema, at = _name(data, 5)
    name, at = _name(data, at)
    (count,) = _INT16(data, at + 1)  # after the replica identity, which each change shows
    at += 3
    columns = []
    for _ in range(count):
        column, at = _name(data, at + 1)  # after the flag "part of the key"
        type_oid, typmod = _COLUMN_TYPE(data, at)
        columns.append(Column(column, type_oid, typmod))
        at += 8
    return Relation(oid, schema, name, tuple(columns))


def _insert(data: bytes) -> Change:
    new, _at = _row(data, 6)
    return Change(_INT32(data, 1)[0], "insert", None, new)


def _update(data: bytes) -> Change:
    (oid,) = _INT32(data, 1)
    tag, at, old = data[5], 6, None
    if tag != _NEW:
        before, at = _row(data, at)
        at += 1
        old = before if tag == _OLD else None
    new, _at = _row(data, at)
    if old is not None and UNCHANGED in new:
        new = [was if now is UNCHANGED else now for was, now in zip(old, new, strict=True)]
    return Change(oid, "update", old, new)


def _delete(data: bytes) -> Change:
    old, _at = _row(data, 6)
    return Change(_INT32(data, 1)[0], "delete", old if data[5] == _OLD else None, None)


def _truncate(data: bytes) -> Truncate:
    count, _options = _TRUNCATE(data, 1)
    return Truncate(struct.unpack_from(f"!{count}I", data, 6))


def _name(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1


def _row(data: bytes, at: int) -> tuple[Row, int]:
    # The hot loop of the feed: a column costs a few hundred nanoseconds here.
    (count,) = _INT16(data, at)
    at += 2
    row: Row = []
    for _ in range(count):
        tag = data[at]
        at += 1
        if tag == _TEXT:
            start = at + 4
            at = start + _INT32(data, at)[0]
            row.append(data[start:at])
        elif tag == _NULL:
            row.append(None)
        elif tag == _TOAST:
            row.append(UNCHANGED)
        else:
            raise ValueError(f"pgoutput sent a column of unknown form {tag!r}; the feed asks for text.")
    return row, at


_DECODERS: Mapping[int, Callable[[bytes], Message]] = {
    b"B"[0]: _begin,
    b"C"[0]: _commit,
    b"R"[0]: _relation,
    b"I"[0]: _insert,
    b"U"[0]: _update,
    b"D"[0]: _delete,
    b"T"[0]: _truncate,
}
