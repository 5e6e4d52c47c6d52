"""`lakets status`: the state of ChronoTables, chunks, the feed and RollUps."""

from __future__ import annotations

import json
import sys
import textwrap
from dataclasses import asdict
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from airflow_provider_lakets.monitoring.finding import grouped, in_words, next_step
from airflow_provider_lakets.monitoring.words import ago, name, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_lakets.hooks.results import FeedStatus, Rollup, Status
    from airflow_provider_lakets.monitoring.finding import Attention

# A pipe has no width; names must not be broken there.
PIPE_WIDTH = 200
WIDE = 120
NARROW = 80
INDENT = " " * 5
MOST_SHOWN = 12
COLOURS = {"fail": "red", "warn": "yellow", "info": "cyan"}


def console() -> Console:
    """Return a console on standard output."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def show(status: Status, attention: Sequence[Attention], *, as_json: bool) -> None:
    """
    Print a status, with the problems first.

    :param status: The status.
    :param attention: The problems, as on the page in Airflow.
    :param as_json: Whether to print JSON.
    """
    out = console()
    if as_json:
        out.print_json(json.dumps({**status.as_dict(), "attention": [asdict(one) for one in attention]}))
        return
    out.print(f"LakeTS {status.version}", markup=False)
    _show_attention(attention, out)
    wide = out.width >= WIDE
    no_tables = "No ChronoTables. Make one: lakets.create_chronotable."
    out.print(_tables(status, wide=wide) if status.tables else no_tables)
    no_rollups = "No RollUps. Make one: lakets.create_rollup."
    out.print(_rollups(status.rollups, wide=wide) if status.rollups else no_rollups)


def _show_attention(attention: Sequence[Attention], out: Console) -> None:
    """Print each problem with its next step, and similar problems of many tables once."""
    if not attention:
        out.print("Nothing needs attention.")
        return
    out.print("Needs attention:")
    width = min(out.width, NARROW)
    groups = grouped(attention)
    for group in groups[:MOST_SHOWN]:
        one = group[0]
        # Names of tables may contain markup and invisible characters.
        said = in_words(group) if len(group) > 1 else f"{one.subject}: {one.said}"
        line = f"{one.severity:4} {name(said)}"
        for number, text in enumerate(textwrap.wrap(line, width, subsequent_indent=INDENT)):
            out.print(Text(text, style=COLOURS[one.severity] if not number else ""), soft_wrap=True)
        for text in textwrap.wrap(name(next_step(group)), width - len(INDENT)):
            out.print(Text(INDENT + text, style="dim"), soft_wrap=True)
    if groups[MOST_SHOWN:] or len(groups) < len(attention):
        out.print(f"All {len(attention)} one by one: lakets status --json")


def _tables(status: Status, *, wide: bool) -> Table:
    table = Table(_names("ChronoTable"), title="ChronoTables", title_justify="left")
    for column in ("chunk", "policies") if wide else ():
        table.add_column(column)
    for count in ("active", "tiered", "dropped", "due"):
        table.add_column(count, justify="right")
    for column in ("feed", *(("oldest active (UTC)", "tiering ran") if wide else ())):
        table.add_column(column)
    health = {one.chronotable: one for one in status.health}
    feeds = {one.table: one for one in status.feeds}
    for one in status.tables:
        chunks, feed = health.get(one.name), feeds.get(one.name)
        oldest, ran = (chunks.oldest_active if chunks else None), (feed.last_run_at if feed else None)
        table.add_row(
            Text(name(one.name)),
            *([one.chunk_interval, ", ".join(one.policies) or "-"] if wide else []),
            *([str(chunks.active), str(chunks.tiered), str(chunks.dropped)] if chunks else ["-"] * 3),
            str(feed.pending_chunks) if feed else "-",
            "busy: locked"
            if one.name in status.busy
            else _feed(feed)
            if feed and one.sync_enabled
            else "not synced",
            *([_instant(oldest), ago(ran)] if wide else []),
        )
    return table


def _rollups(rollups: list[Rollup], *, wide: bool) -> Table:
    table = Table(_names("RollUp"), _names("reads"), title="RollUps", title_justify="left")
    for column in (*(("bucket", "refresh lag") if wide else ()), "watermark (UTC)", "refreshed"):
        table.add_column(column)
    for one in rollups:
        table.add_row(
            Text(name(one.name)),
            Text(name(", ".join(filter(None, [one.source, *one.depends_on])) or "-")),
            *([one.bucket_interval, one.refresh_lag or "-"] if wide else []),
            _instant(one.watermark),
            ago(one.last_refreshed_at),
        )
    return table


def _names(header: str) -> Column:
    """Return a column that wraps long names and does not truncate them."""
    return Column(header, overflow="fold")


def _feed(feed: FeedStatus) -> str:
    if feed.cdf_status != "STREAMING":
        return feed.cdf_status
    if feed.caught_up:
        return "STREAMING, caught up"
    return "STREAMING" if feed.cdf_lag_bytes is None else f"STREAMING, {size(feed.cdf_lag_bytes)} behind"


def _instant(at: datetime | None) -> str:
    return at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M") if at else "-"
