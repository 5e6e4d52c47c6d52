"""A Python model of what LakeTS keeps: rows, chunks, shadow, RollUps, and changes unseen."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from tests import grid

HOUR, DAY = 60, 24 * 60
# Times are minutes since the first of January 2024; this is how long after the origin of
# time_bucket.
SINCE_2000 = 8766 * DAY
START = 1704067200
EPOCH = grid.at(2024)

Values = dict[float, tuple[int, int, int]]


class Chunk(NamedTuple):
    start: float
    end: float
    status: str

    @property
    def is_dropped(self) -> bool:
        return self.status == "dropped"


class Row(NamedTuple):
    at: float
    value: int
    chunk: float | None  # the start of its chunk; None: kept outside every chunk


class Kind(NamedTuple):
    """One RollUp: the length of its buckets, where they are counted from, and the SQL of that."""

    length: int
    origin: int
    bucket: str
    interval: str


# Each reads the table; "daily" reads "hourly" and is dealt with apart.
KINDS = {
    "hourly": Kind(HOUR, 0, "lakets.time_bucket('1 hour', at)", "1 hour"),
    "wide": Kind(3 * DAY, -SINCE_2000, "lakets.time_bucket('3 days', at)", "3 days"),
    "local": Kind(DAY, 5 * HOUR, "date_trunc('day', at, 'Etc/GMT+5')", "1 day"),
}


class Touched(NamedTuple):
    """What a transaction changed: rows of these times, or all there is."""

    times: frozenset[float]
    everything: bool = False

    def meets(self, chunk: Chunk) -> bool:
        return self.everything or any(chunk.start <= at < chunk.end for at in self.times)


EVERYTHING = Touched(frozenset(), everything=True)


def moment(minute: float) -> datetime:
    return EPOCH + timedelta(minutes=minute)


def minute(moment: datetime) -> float:
    return (moment - EPOCH) / timedelta(minutes=1)


def summed(rows: list[Row], kind: Kind) -> Values:
    """Aggregate rows as the RollUp's query does."""
    found = defaultdict(list)
    for row in rows:
        if math.isfinite(row.at):
            found[(row.at - kind.origin) // kind.length * kind.length + kind.origin].append(row.value)
    return {bucket: (sum(v), len(v), max(v)) for bucket, v in found.items()}


@dataclass
class Writer:
    """An open transaction: what it changed, and no one else sees yet."""

    is_open: bool = False
    rows: dict[int, Row | None] = field(default_factory=dict)
    times: set[float] = field(default_factory=set)


@dataclass
class Model:
    """What is committed. Each RollUp is what it was when it was last refreshed."""

    is_tracking: bool = True
    interval: str = "1 day"
    chunks: list[Chunk] = field(default_factory=list)
    rows: dict[int, Row] = field(default_factory=dict)
    evicted: list[tuple[int, Row]] = field(default_factory=list)  # in the shadow, not in the table
    rollups: dict[str, Values] = field(default_factory=lambda: {kind: {} for kind in (*KINDS, "daily")})
    # What each RollUp of the table has not absorbed: times; for some, all may have changed.
    unabsorbed: dict[str, set[float]] = field(default_factory=lambda: {kind: set() for kind in KINDS})
    all_changed: set[str] = field(default_factory=set)
    had_rows: set[str] = field(default_factory=set)

    def place(self, at: float) -> float | None:
        """Return the start of the chunk that a row belongs to."""
        return next((c.start for c in self.chunks if c.start <= at < c.end and not c.is_dropped), None)

    def commit(self, writer: Writer) -> Touched:
        """Make the changes of a writer visible."""
        for number, row in writer.rows.items():
            if row is None:
                self.rows.pop(number, None)
            else:
                self.rows[number] = row
        touched = Touched(frozenset(at for at in writer.times if math.isfinite(at)))
        for pending in self.unabsorbed.values():
            pending.update(touched.times)
        return touched

    def truncate(self) -> None:
        self.rows.clear()
        self.all_changed.update(KINDS)

    # Jobs

    def refresh(self, kind: str) -> None:
        """Set a RollUp to its query; buckets with a dropped chunk keep their value."""
        definition, old = KINDS[kind], self.rollups[kind]
        fresh = summed(list(self.rows.values()), definition)
        self.rollups[kind] = {
            bucket: value
            for bucket in fresh.keys() | old.keys()
            if (value := (old if self.is_frozen(bucket, definition.length) else fresh).get(bucket))
        }
        self.unabsorbed[kind].clear()
        self.all_changed.discard(kind)
        if self.rollups[kind]:
            self.had_rows.add(kind)

    def refresh_daily(self) -> None:
        found = defaultdict(list)
        for bucket, sums in self.rollups["hourly"].items():
            found[bucket // DAY * DAY].append(sums)
        self.rollups["daily"] = {
            day: (sum(s[0] for s in v), sum(s[1] for s in v), max(s[2] for s in v))
            for day, v in found.items()
        }

    def is_frozen(self, bucket: float, length: int) -> bool:
        return any(c.is_dropped and c.start < bucket + length and c.end > bucket for c in self.chunks)

    def invalidate(self, kind: str, start: float, end: float) -> None:
        """Mark times in the buckets of a range as changed, except buckets that keep theirs."""
        definition = KINDS[kind]
        bucket = (start - definition.origin) // definition.length * definition.length + definition.origin
        while bucket < end:
            if not self.is_frozen(bucket, definition.length):
                self.unabsorbed[kind].update(bucket + at for at in range(0, definition.length, HOUR))
            bucket += definition.length

    def is_absorbed(self, chunk: Chunk) -> bool:
        return not self.all_changed and not any(
            chunk.start <= at < chunk.end for pending in self.unabsorbed.values() for at in pending
        )

    def standing(self) -> list[Chunk]:
        return [chunk for chunk in self.chunks if not chunk.is_dropped]

    def flag(self, start: float, status: str) -> None:
        self.chunks = [c._replace(status=status) if c.start == start else c for c in self.chunks]

    def drop(self, starts: set[float]) -> None:
        """Take chunks out of the table; their rows stay in the shadow."""
        for start in starts:
            self.flag(start, "dropped")
        gone = {number: row for number, row in self.rows.items() if row.chunk in starts}
        self.evicted += gone.items()
        self.rows = {number: row for number, row in self.rows.items() if number not in gone}

    def ensure(self, start: float, end: float) -> int:
        """Create the due chunks and move the waiting rows into them; return how many."""
        waiting = [row.at for row in self.rows.values() if row.chunk is None and math.isfinite(row.at)]
        made = grid.due(
            [(moment(chunk.start), moment(chunk.end)) for chunk in self.chunks],
            self.interval,
            moment(start),
            moment(end),
            map(moment, waiting),
        )
        self.chunks = sorted([*self.chunks, *(Chunk(minute(a), minute(b), "active") for a, b in made)])
        self.rows = {
            number: row._replace(chunk=self.place(row.at)) if row.chunk is None else row
            for number, row in self.rows.items()
        }
        return len(made)
