"""`lakets status`: how ChronoTables, chunks, the feed and RollUps stand."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from airflow_provider_lakets.hooks.results import FeedStatus, Rollup, Status

# A pipe has no width of its own; names should not break there.
PIPE_WIDTH = 200


def console() -> Console:
    """Return a console on standard output."""
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def show(status: Status, *, as_json: bool) -> None:
    """
    Print a status.

    :param status: What the hook found.
    :param as_json: As JSON, for programs.
    """
    out = console()
    if as_json:
        out.print_json(json.dumps(status.as_dict()))
        return
    out.print(f"LakeTS {status.version}", markup=False)
    out.print(_tables(status) if status.tables else "No ChronoTables. Make one: lakets.create_chronotable.")
    out.print(_rollups(status.rollups) if status.rollups else "No RollUps. Make one: lakets.create_rollup.")


def _tables(status: Status) -> Table:
    table = Table("ChronoTable", "chunk", "policies", title="ChronoTables", title_justify="left")
    for count in ("active", "tiered", "dropped", "to tier"):
        table.add_column(count, justify="right")
    for column in ("oldest active", "feed", "tiering ran"):
        table.add_column(column)
    health = {one.chronotable: one for one in status.health}
    feeds = {one.table: one for one in status.feeds}
    for one in status.tables:
        chunks, feed = health.get(one.name), feeds.get(one.name)
        table.add_row(
            one.name,
            one.chunk_interval,
            ", ".join(one.policies) or "-",
            *([str(chunks.active), str(chunks.tiered), str(chunks.dropped)] if chunks else ["-"] * 3),
            str(feed.pending_chunks) if feed else "-",
            _instant(chunks.oldest_active if chunks else None),
            "busy: locked"
            if one.name in status.busy
            else _feed(feed)
            if feed and one.sync_enabled
            else "not synced",
            _ago(feed.last_run_at if feed else None),
        )
    return table


def _rollups(rollups: list[Rollup]) -> Table:
    columns = ("RollUp", "reads", "bucket", "refresh lag", "watermark", "refreshed")
    table = Table(*columns, title="RollUps", title_justify="left")
    for one in rollups:
        table.add_row(
            one.name,
            ", ".join(filter(None, [one.source, *one.depends_on])) or "-",
            one.bucket_interval,
            one.refresh_lag or "-",
            _instant(one.watermark),
            _ago(one.last_refreshed_at),
        )
    return table


def _feed(feed: FeedStatus) -> str:
    if feed.cdf_status != "STREAMING":
        return feed.cdf_status
    if feed.caught_up:
        return "STREAMING, caught up"
    return "STREAMING" if feed.cdf_lag_bytes is None else f"STREAMING, {feed.cdf_lag_bytes} bytes behind"


def _instant(at: datetime | None) -> str:
    return at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M") if at else "-"


def _ago(at: datetime | None) -> str:
    """Return how long ago something happened, in its largest unit."""
    if at is None:
        return "never"
    seconds = max(0, round((datetime.now(timezone.utc) - at).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
