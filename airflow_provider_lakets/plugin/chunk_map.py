"""The chunk map: one row per table over time, as SVG with lengths in percent of the row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from markupsafe import Markup

from airflow_provider_lakets.monitoring.data import STATES
from airflow_provider_lakets.monitoring.words import day, name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_lakets.monitoring.data import Run, Table

SPANS = {"1d": 1, "7d": 7, "30d": 30, "90d": 90, "1y": 366, "5y": 1827, "all": None}
NARROWEST = 0.8  # percent of the row; narrower chunks are merged
FEW = 40  # cells; in rows with more, cells have no titles, to keep the page small
GAP = 0.11  # percent of the row between two chunks of one state, about a pixel
# Merged chunks have the colour of the first of these states that occurs in them.
URGENCY = ("deferred", "due", "changed", "hot", "tiered", "planned", "dropped")
COVERED = 0.9  # the default span shows the resident chunks of this share of the tables
_STEPS = [
    timedelta(hours=1), timedelta(hours=3), timedelta(hours=6), timedelta(days=1), timedelta(days=2),
    timedelta(days=7), timedelta(days=14), timedelta(days=30), timedelta(days=91), timedelta(days=365),
    timedelta(days=1826),
]  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """The time axis of all rows."""

    start: datetime
    end: datetime
    now: datetime
    span: str

    def at(self, instant: datetime) -> float:
        """Return the position of an instant in percent; outside the axis, below 0 or above 100."""
        return 100 * ((instant - self.start) / (self.end - self.start))

    def ticks(self) -> list[tuple[float, str]]:
        """Return about six positions with their labels."""
        whole = self.end - self.start
        step = next((one for one in _STEPS if whole / one <= 8), _STEPS[-1])
        epoch = datetime(2000, 1, 3, tzinfo=timezone.utc)
        tick = epoch + step * -((epoch - self.start) // step)
        found = []
        while tick < self.end:
            if tick >= self.start:
                found.append((self.at(tick), _label(tick, step)))
            tick += step
        return [(x, label) for x, label in found if x <= 90]


def _label(tick: datetime, step: timedelta) -> str:
    if step >= timedelta(days=365):
        return f"{tick:%Y}"
    if step >= timedelta(days=30):
        return f"{tick:%b %Y}"
    return f"{tick:%H:%M}" if step < timedelta(days=1) and tick.hour else f"{tick.day} {tick:%b}"


def choose_axis(tables: Sequence[Table], now: datetime, asked: str | None = None) -> Axis:
    """
    Return the axis for some tables.

    :param tables: The tables that are shown.
    :param now: The time of the snapshot.
    :param asked: One of :data:`SPANS`; the default is the shortest that shows what most tables have
        in Lakebase.
    """
    starts = sorted(
        min((run.range_start for run in table.runs if run.state != "dropped"), default=now)
        for table in tables
    )
    ends = [run.range_end for table in tables for run in table.runs]
    oldest = min((run.range_start for table in tables for run in table.runs), default=now)
    if asked in SPANS:
        span = asked
    else:
        needed = now - starts[int(len(starts) * (1 - COVERED))] if starts else timedelta(days=7)
        span = next(
            (key for key, days in SPANS.items() if days and timedelta(days=days) >= needed * 1.05), "all"
        )
    days = SPANS[span]
    # There is nothing to see before the oldest chunk and the ages of the policies.
    marks = [mark for table in tables for mark in (table.tier_before, table.drop_before) if mark]
    start = min(oldest, now - timedelta(days=1))
    if days is not None:
        reach = now - timedelta(days=days)
        first = min([start, *(mark for mark in marks if mark >= reach)])
        start = max(reach, first - (now - first) / 50)
    end = min(max([*ends, now]), now + (now - start) / 4)
    return Axis(start, max(end, now + (now - start) / 50), now, span)


def axis_svg(axis: Axis) -> Markup:
    """Return the scale above the rows."""
    tick = Markup(
        '<line x1="{x:.2f}%" x2="{x:.2f}%" y1="16" y2="22" class="tick"/>'
        '<text x="{x:.2f}%" y="12" dx="3">{label}</text>'
    )
    now = Markup('<line x1="{x:.2f}%" x2="{x:.2f}%" y1="4" y2="22" class="now"/>').format(x=axis.at(axis.now))
    # The labels come last: with their outline they cover the line of now.
    parts = [now, *(tick.format(x=x, label=label) for x, label in axis.ticks())]
    # The numbers are in the text of each row, too.
    return Markup('<svg class="axis" aria-hidden="true" width="100%" height="22">{}</svg>').format(
        Markup("").join(parts)
    )


def row_svg(table: Table, axis: Axis, *, alone: bool = False) -> Markup:
    """
    Return the row of a table.

    :param table: The table.
    :param axis: The axis of all rows.
    :param alone: Whether it is the only row; then it is higher, and each of its cells has a title.
    """
    height = 44 if alone else 22
    groups = _groups(table.runs, axis)
    cells: dict[str, list[Markup]] = {}
    for group in groups:
        state, cell = _cell(group, axis, has_title=alone or len(groups) <= FEW)
        if cell:
            cells.setdefault(state, []).append(cell)
    drawn = [
        Markup('<g class="s-{}" fill="url(#s-{})">{}</g>').format(state, state, Markup("").join(found))
        for state, found in cells.items()
    ]
    drawn += [
        Markup('<line class="{}" x1="{x}%" x2="{x}%" y1="0" y2="{}"><title>{}</title></line>').format(
            kind, height, title, x=f"{axis.at(at):.2f}"
        )
        for kind, at, title in _horizons(table, axis)
        if at and 0 <= axis.at(at) <= 100
    ]
    return Markup('<svg class="row" role="img" width="100%" height="{}" aria-label="{}">{}</svg>').format(
        height, in_words(table), Markup("").join(drawn)
    )


def _groups(runs: Sequence[Run], axis: Axis) -> list[list[Run]]:
    """Group runs that are too narrow to be distinguished, which limits the number of cells."""
    found: list[list[Run]] = []
    for run in runs:
        if found and axis.at(run.range_end) - axis.at(found[-1][0].range_start) < NARROWEST:
            found[-1].append(run)
        else:
            found.append([run])
    return found


def _cell(group: Sequence[Run], axis: Axis, *, has_title: bool) -> tuple[str, Markup]:
    """Return the state that a group shows, and its cell, which is empty outside the axis."""
    worst = min(group, key=lambda run: URGENCY.index(run.state))
    left, right = axis.at(group[0].range_start), axis.at(group[-1].range_end)
    first, last = max(left, 0), min(right, 100)
    if last <= first:
        return worst.state, Markup("")
    place = f"{first:.2f}", f"{max(last - first, 0.12):.2f}"
    if has_title:
        cell = Markup('<rect x="{}%" width="{}%"><title>{}</title></rect>').format(*place, describe(group))
    else:
        cell = Markup('<rect x="{}%" width="{}%"/>').format(*place)
    if len(group) == 1 and group[0].chunks > 1:
        cell += _gaps(left, right, group[0].chunks)
    return worst.state, cell


def _gaps(left: float, right: float, chunks: int) -> Markup:
    """Return the gaps between chunks of a run, as dashes of a line with length 1 per chunk."""
    one = (right - left) / chunks
    if one < NARROWEST:
        return Markup("")
    before, after = max(0, int(-left / one)), max(0, int((right - 100) / one))  # outside the axis
    return Markup(
        '<line class="gaps" x1="{}%" x2="{}%" y1="50%" y2="50%" pathLength="{}"'
        ' stroke-dasharray="{} {}" stroke-dashoffset="{}"/>'
    ).format(
        f"{left + before * one:.2f}", f"{right - after * one:.2f}", chunks - before - after,
        f"{GAP / one:.3f}", f"{1 - GAP / one:.3f}", f"{GAP / one / 2:.3f}",
    )  # fmt: skip


def _horizons(table: Table, axis: Axis) -> list[tuple[str, datetime | None, str]]:
    return [
        ("drop", table.drop_before, f"dropped when older than {table.drop_after}"),
        ("tier", table.tier_before, f"tiered when older than {table.tier_after}"),
        ("now", axis.now, "now"),
    ]


def describe(group: Sequence[Run]) -> str:
    """Return adjacent runs of chunks as text."""
    counts = {state: sum(run.chunks for run in group if run.state == state) for state in URGENCY}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    start, end = day(group[0].range_start), day(group[-1].range_end)
    only = f", chunk {name(group[0].first_name)}" if sum(counts.values()) == 1 else ""
    return f"{said}: {start} to {end} UTC{only}"


def in_words(table: Table) -> str:
    """Return the row of a table as text."""
    counts = [f"{count} {state}" for state in STATES if (count := table.count(state))]
    return f"{name(table.name)}: {', '.join(counts) or 'no chunks'}"


def runs_outside(table: Table, axis: Axis) -> int:
    """Return how many chunks are older than the axis shows."""
    return sum(run.chunks for run in table.runs if run.range_end <= axis.start)
