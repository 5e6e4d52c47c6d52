"""One thing that needs attention."""

from __future__ import annotations

from dataclasses import dataclass

ORDER = {"fail": 0, "warn": 1, "info": 2}


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
