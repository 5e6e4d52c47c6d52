"""One thing that needs attention, and many of one kind in a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ORDER = {"fail": 0, "warn": 1, "info": 2}
KINDS = {"table": "table", "rollup": "RollUp"}
NAMED = 5  # of a whole fleet


@dataclass(frozen=True)
class Attention:
    """
    One thing: how bad it is, what it is about, what was found, and what to do.

    :param code: What kind of thing, for programs.
    :param kind: What the subject is: ``table`` or ``rollup``.
    """

    severity: str
    subject: str
    said: str
    advice: str
    kind: str = "table"
    code: str = ""


def named(kind: str, names: Sequence[str]) -> str:
    """Return ``table a``, or ``37 tables: a, b, c, d, e and 32 more``."""
    if len(names) == 1:
        return f"{kind} {names[0]}"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {kind}s: {', '.join(names[:NAMED])}{more}"


def grouped(attention: Iterable[Attention]) -> list[list[Attention]]:
    """Return what is of one kind and equally bad together, in the order of the first of each."""
    groups: dict[tuple[str, str, str], list[Attention]] = {}
    for one in attention:
        groups.setdefault((one.severity, one.code, one.kind), []).append(one)
    return list(groups.values())


def in_words(group: Sequence[Attention]) -> str:
    """Return whom it is about and what was found; of several that differ, what of the first."""
    first = group[0]
    who = named(KINDS[first.kind], [one.subject for one in group])
    if all(one.said == first.said for one in group):
        return f"{who}: {first.said}"
    return f"{who}; the first of them: {first.said}"
