"""Print the findings of `lakets doctor` as text or as JSON."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from airflow_provider_lakets.commands.status import console
from airflow_provider_lakets.exceptions import WIDTH
from airflow_provider_lakets.monitoring.words import name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STATEMENTS = 10
INDENT = " " * 16
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "dim"}


@dataclass(frozen=True)
class Finding:
    """
    The result of one check.

    :param check: The name of the check.
    :param verdict: ok, warn (it works with a problem), fail, or skip (not checked).
    :param said: What was found; large groups are summarized.
    :param advice: What to do, as text.
    :param statements: What to do, as SQL.
    :param details: Each item that ``said`` summarizes.
    """

    check: str
    verdict: str
    said: str
    advice: str = ""
    statements: Sequence[str] = ()
    details: Sequence[str] = ()


def show(findings: Iterable[Finding], *, as_json: bool = False) -> set[str]:
    """Print the findings, as text one by one or as JSON at the end; return their verdicts."""
    verdicts = set()
    printed = []
    for found in findings:
        verdicts.add(found.verdict)
        printed.append(asdict(found))
        if not as_json:
            _print(found)
    if as_json:
        typer.echo(json.dumps(printed, indent=2))
    return verdicts


def _print(found: Finding) -> None:
    out = console()
    # Names of tables and hosts may contain markup and invisible characters. Lines fit the terminal.
    first, *rest = _lines(found.said, out.width) or [""]
    line = Text(f"{found.verdict:4} ", style=COLOURS[found.verdict])
    out.print(line.append(f"{found.check:10} {first}", style="default"), soft_wrap=True)
    for text in rest:
        out.print(Text(INDENT + text), soft_wrap=True)
    statements = [*found.statements[:STATEMENTS]]
    if len(found.statements) > STATEMENTS:
        statements.append(f"-- and {len(found.statements) - STATEMENTS} more: lakets doctor --json")
    # Statements are not wrapped, because a quoted name may contain spaces.
    for text in [*_lines(found.advice, out.width), *map(name, statements)]:
        out.print(Text(INDENT + text, style="dim"), soft_wrap=True)


def _lines(text: str, width: int) -> list[str]:
    longest = min(width, WIDTH) - len(INDENT)
    return textwrap.wrap(name(text), longest, break_long_words=False, break_on_hyphens=False)
