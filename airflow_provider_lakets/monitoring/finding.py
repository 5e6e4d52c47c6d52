"""A problem that needs attention and its severity, and summaries of similar problems."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_lakets.hooks.functions.rows import natural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ORDER = {"fail": 0, "warn": 1, "info": 2}
# The severity of each code, for the page, `status`, `doctor` and `metrics`.
SEVERITIES = {
    "feed-not-streaming": "fail",
    "table-changed": "fail",
    "job-failed": "fail",
    "rollup-refused": "fail",
    "feed-stands-still": "warn",
    "slot-lost": "warn",
    "slot-unread": "warn",
    "job-contended": "warn",
    "chunks-unproved": "warn",
    "chunks-left": "warn",
    "no-chunks-ahead": "warn",
    "rows-outside-chunks": "warn",
    "busy": "warn",
    "tiering-without-feed": "warn",
    "retention-before-tiering": "warn",
    "chunk-longer-than-policy": "warn",
    "rollup-late": "warn",
    "repair": "warn",
    "engine-older": "warn",
    "feed-starting": "info",
    "repairs-unknown": "info",
}
# Codes of problems of several kinds, such as the failures of different jobs.
VARIOUS = {"feed-not-streaming", "job-failed", "job-contended", "repair"}
KINDS = {
    "table": "table",
    "rollup": "RollUp",
    "function": "function",
    "engine": "engine",
    "slot": "replication slot",
}
PAGES = ("table", "rollup")  # kinds that have a page
NAMED = 5  # names shown of a group


@dataclass(frozen=True)
class Attention:
    """
    A problem: its severity, its subject, what was found, and what to do.

    :param code: The kind of problem, one of :data:`SEVERITIES`.
    :param kind: The kind of the subject, one of :data:`KINDS`.
    :param remedy: The statement that repairs it, if the engine names one.
    """

    severity: str = field(init=False)
    subject: str
    said: str
    advice: str
    code: str
    kind: str = "table"
    remedy: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "severity", SEVERITIES[self.code])


def named(kind: str, names: Sequence[str]) -> str:
    """Return ``table a``, or ``37 tables: a, b, c, d, e and 32 more``."""
    names = [*dict.fromkeys(names)]
    if len(names) == 1:
        return f"{kind} {names[0]}"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {kind}s: {', '.join(names[:NAMED])}{more}"


def worst(attention: Iterable[Attention]) -> str | None:
    """Return the highest severity; None if there are no problems."""
    return min((one.severity for one in attention), key=ORDER.__getitem__, default=None)


def grouped(attention: Iterable[Attention]) -> list[list[Attention]]:
    """Group similar problems, in the order of the first of each group; sort groups by subject."""
    groups: dict[tuple[str, str, str], list[Attention]] = {}
    for one in attention:
        groups.setdefault((one.code, one.kind, _shape(one)), []).append(one)
    return [sorted(group, key=lambda one: natural(one.subject)) for group in groups.values()]


def _shape(one: Attention) -> str:
    """Return what distinguishes problems of one code: the start of the text, without numbers."""
    if one.code not in VARIOUS:
        return ""
    return re.sub(r"lakets_cdf\.\S+|\d+", "#", re.split("[:,]", one.said, maxsplit=1)[0])


def in_words(group: Sequence[Attention]) -> str:
    """Return the subjects and what was found; if that differs, only that of the first."""
    return named(KINDS[group[0].kind], [one.subject for one in group]) + found_of(group)


def found_of(group: Sequence[Attention]) -> str:
    """Return what was found, in a form that follows the names of the group."""
    first = group[0].said
    return f": {first}" if all(one.said == first for one in group) else f"; the first of them: {first}"


def all_alike(group: Sequence[Attention]) -> bool:
    """Return whether a group has one text and one next step, except for the names."""
    return len({(one.said.replace(one.subject, ""), one.advice) for one in group}) == 1


def next_step(group: Sequence[Attention]) -> str:
    """Return the next step of a group; if the steps differ, only the first."""
    first = group[0].advice
    return first if all(one.advice == first for one in group) else f"For the first of them: {first}"
