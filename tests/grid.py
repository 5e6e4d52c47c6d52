"""The grid of chunks that job 1 must create, computed independently."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    Ranges = list[tuple[datetime, datetime]]

UTC = timezone.utc

# None: as long as the calendar says.
INTERVALS = {
    "1 hour": timedelta(hours=1),
    "5 hours": timedelta(hours=5),
    "6 hours": timedelta(hours=6),
    "1 day": timedelta(days=1),
    "2 days": timedelta(days=2),
    "7 days": timedelta(days=7),
    "1 month": None,
    "1 year": None,
}


def at(year: int, month: int = 1, day: int = 1, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


def between(ranges: Ranges, start: datetime, end: datetime) -> Ranges:
    return [found for found in ranges if found[1] > start and found[0] < end]


def gaps(ranges: Ranges, start: datetime, end: datetime) -> Ranges:
    """Return what of a span is in none of these ranges, which must not overlap."""
    missing = []
    reached = start
    for begins, ends in ranges:
        if begins > reached and reached < end:
            missing.append((reached, begins))
        reached = max(reached, ends)
    return missing + ([(reached, end)] if reached < end else [])


def cell(moment: datetime, interval: str) -> tuple[datetime, datetime]:
    """Return the cell of an interval's grid that holds a moment."""
    width = INTERVALS[interval]
    if width is not None:
        start = at(2000) + (moment - at(2000)) // width * width
        return start, start + width
    if interval == "1 month":
        return at(moment.year, moment.month), at(moment.year + moment.month // 12, moment.month % 12 + 1)
    return at(moment.year), at(moment.year + 1)


def due(
    covered: Ranges, interval: str, start: datetime, end: datetime, waiting: Iterable[datetime] = ()
) -> Ranges:
    """Return the due chunks of a range and of waiting rows: the grid without what is covered."""
    found: Ranges = []
    begins, ends = cell(start, interval)
    while begins < end:
        found += between(gaps(between(covered, begins, ends), begins, ends), start, end)
        begins, ends = cell(ends, interval)
    for row in waiting:
        if not between(covered, row, row + timedelta(microseconds=1)):
            found += [chunk for chunk in due(covered, interval, *cell(row, interval)) if chunk not in found]
    return found
