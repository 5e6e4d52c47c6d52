"""The graph of RollUps in refresh order: each to the right of what it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from airflow_provider_lakets.hooks.functions.rows import natural
from airflow_provider_lakets.monitoring.words import ago, duration, name
from airflow_provider_lakets.plugin.html import MARKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from airflow_provider_lakets.monitoring.data import Rollup

WIDTH, HEIGHT = 224, 58
GAP_X, GAP_Y = 56, 14
LONGEST = 26  # characters of a name that fit in a box
MARKED = 8  # characters that a mark takes from the name
MOST = 60  # boxes; a larger graph is harder to read than the list


@dataclass(frozen=True)
class Box:
    """A node: its content and its position."""

    label: str
    title: str
    lines: tuple[str, ...]
    kind: str
    href: str
    x: int
    y: int


def levels(rollups: Sequence[Rollup]) -> dict[str, int]:
    """Return the depth of each RollUp above the tables; cycles are cut."""
    known = {one.name: one for one in rollups}
    found: dict[str, int] = {}

    def level(one: str, above: frozenset[str]) -> int:
        if one not in found:
            reads = [dep for dep in known[one].depends_on if dep in known and dep not in above]
            found[one] = 1 + max((level(dep, above | {one}) for dep in reads), default=0)
        return found[one]

    for one in known:
        level(one, frozenset({one}))
    return found


def in_order(rollups: Sequence[Rollup]) -> list[Rollup]:
    """Return the RollUps in the order of a refresh: each after those it reads."""
    order = levels(rollups)
    return sorted(rollups, key=lambda one: (order[one.name], natural(one.name)))


def short(text: str, kind: str) -> str:
    """Return a name that fits in a box."""
    text = name(text)
    room = LONGEST - MARKED if kind in MARKS else LONGEST
    return text if len(text) <= room else f"{text[: room - 1]}…"


def graph_svg(
    rollups: Sequence[Rollup], hrefs: Mapping[str, str], now: datetime, severities: Mapping[str, str]
) -> Markup | None:
    """
    Return the graph; None if there are no RollUps, or too many.

    :param rollups: All RollUps.
    :param hrefs: The address of each table's and RollUp's page, by ``table:<name>`` and
        ``rollup:<name>``.
    :param now: The time of the snapshot.
    :param severities: The severity for each RollUp that needs attention.
    """
    boxes = _boxes(rollups, hrefs, now, severities)
    if not rollups or len(boxes) > MOST:
        return None
    edges = [
        _edge(boxes[source], boxes[f"rollup:{one.name}"])
        for one in rollups
        for source in _reads(one)
        if source in boxes
    ]
    width = max(box.x for box in boxes.values()) + WIDTH + 2
    height = max(box.y for box in boxes.values()) + HEIGHT + 2
    return Markup(
        '<svg class="graph" role="group" aria-label="RollUps in the order of their refresh" width="{w}"'
        ' height="{h}" viewBox="0 0 {w} {h}">{}{}</svg>'
    ).format(Markup("").join(edges), Markup("").join(_node(box) for box in boxes.values()), w=width, h=height)


def _reads(one: Rollup) -> list[str]:
    return [*([f"table:{one.source}"] if one.source else []), *(f"rollup:{dep}" for dep in one.depends_on)]


def _boxes(
    rollups: Sequence[Rollup], hrefs: Mapping[str, str], now: datetime, severities: Mapping[str, str]
) -> dict[str, Box]:
    order = levels(rollups)
    filled: dict[int, int] = {}
    boxes: dict[str, Box] = {}

    def add(key: str, label: str, lines: tuple[str, ...], kind: str, column: int) -> None:
        row = filled.get(column, 0)
        filled[column] = row + 1
        x, y = 1 + column * (WIDTH + GAP_X), 1 + row * (HEIGHT + GAP_Y)
        boxes[key] = Box(short(label, kind), name(label), lines, kind, hrefs.get(key, ""), x, y)

    for source in sorted({one.source for one in rollups if one.source}, key=natural):
        add(f"table:{source}", source, ("ChronoTable",), "source", 0)
    for one in in_order(rollups):
        kind = kind_of(one, severities.get(one.name))
        add(f"rollup:{one.name}", one.name, lines_of(one, now), kind, order[one.name])
    return boxes


def kind_of(one: Rollup, severity: str | None) -> str:
    """Return the state of a RollUp in one word: its severity, or whether it is up to date."""
    if severity in ("fail", "warn"):
        return severity
    return "dirty" if one.marks else "fresh"


def lines_of(one: Rollup, now: datetime) -> tuple[str, ...]:
    """Return the lines in the box of a RollUp."""
    behind = duration((now - one.watermark).total_seconds()) if one.watermark else None
    return (
        f"up to {behind} before now" if behind else "empty",
        (f"refreshed {ago(one.last_refreshed_at, now)}" if one.last_refreshed_at else "never refreshed")
        + (f" · {one.marks} dirty" if one.marks else ""),
    )


def _edge(start: Box, end: Box) -> Markup:
    x1, y1 = start.x + WIDTH, start.y + HEIGHT // 2
    x2, y2 = end.x, end.y + HEIGHT // 2
    bend = (x2 - x1) // 2
    return Markup('<path class="edge" d="M{} {} C{} {} {} {} {} {}"/>').format(
        x1, y1, x1 + bend, y1, x2 - bend, y2, x2, y2
    )


def _node(box: Box) -> Markup:
    lines = Markup("").join(
        Markup('<text x="{}" y="{}" class="sub">{}</text>').format(box.x + 12, box.y + 36 + 14 * number, line)
        for number, line in enumerate(box.lines)
    )
    if box.kind in MARKS:
        lines += Markup('<text x="{}" y="{}" class="mark {}">{}</text>').format(
            box.x + WIDTH - 12, box.y + 20, box.kind, MARKS[box.kind]
        )
    return Markup(
        '<a href="{}"><title>{}: {}</title><rect class="box {}" x="{}" y="{}" width="{}" height="{}" rx="6"/>'
        '<text x="{}" y="{}">{}</text>{}</a>'
    ).format(
        box.href, box.title, "; ".join(box.lines), box.kind, box.x, box.y, WIDTH, HEIGHT,
        box.x + 12, box.y + 20, box.label, lines,
    )  # fmt: skip
