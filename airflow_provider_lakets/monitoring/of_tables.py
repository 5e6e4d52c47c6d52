"""Find problems of one ChronoTable: its feed, its chunks, its locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakets.monitoring.finding import Attention
from airflow_provider_lakets.monitoring.words import duration, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.monitoring.data import Snapshot, Table

STILL_SECONDS = 60  # a working feed flushes about every 15 s
NOT_STREAMING = "feed-not-streaming"
DOCTOR = "`lakets doctor` says more."


def of_table(table: Table, snapshot: Snapshot) -> Iterator[Attention]:
    """Yield the problems of a table."""
    problem = snapshot.troubles.problems.get(table.id)
    if problem:
        said = f"the jobs skip it: {problem}"
        yield Attention(table.name, said, "Correct the cause.", "table-changed")
        return
    yield from _of_feed(table, snapshot)
    yield from _of_chunks(table, snapshot)
    if holder := snapshot.troubles.holders.get(table.id):
        name = f" ({holder.name})" if holder.name else ""
        said = f"busy: session {holder.pid}{name} has a lock on it for {duration(holder.seconds)}"
        advice = "Chunks can be created, tiered or dropped once that session ends its transaction."
        yield Attention(table.name, said, advice, "busy")


def _of_feed(table: Table, snapshot: Snapshot) -> Iterator[Attention]:
    if not table.sync_enabled:
        return
    if table.feed != "STREAMING":
        why = _why_not_streaming(table, snapshot)
        if why is not None:
            code, reason, advice = why
            said = f"the change feed is not streaming ({table.feed}): {reason}"
            yield Attention(table.name, said, advice, code)
    elif table.still_since and (still := (snapshot.at - table.still_since).total_seconds()) >= STILL_SECONDS:
        said = f"the change feed is {size(table.lag_bytes)} behind, and has not moved for {duration(still)}"
        advice = f"Until it moves, nothing new is tiered or dropped. {DOCTOR}"
        yield Attention(table.name, said, advice, "feed-stands-still")


def _why_not_streaming(table: Table, snapshot: Snapshot) -> tuple[str, str, str] | None:
    """Return code, reason and advice; None for an empty table, which needs no feed yet."""
    if table.feed == "SKIPPED":
        mirror = (table.shadow_table_name or "").replace('"', '""')
        advice = f'Run ALTER TABLE lakets_cdf."{mirror}" REPLICA IDENTITY FULL. {DOCTOR}'
        reason = "the replica identity of its mirror is not FULL, so nothing is proved durable"
        return NOT_STREAMING, reason, advice
    if table.feed in ("PENDING", "SNAPSHOTTING"):
        return "feed-starting", "the feed reads its first rows", f"Wait until it is done. {DOCTOR}"
    if snapshot.troubles.feed == "unreadable":
        advice = "Let the role of the jobs read it: GRANT USAGE ON SCHEMA wal2delta and GRANT SELECT ON "
        advice += f"wal2delta.tables. {DOCTOR}"
        return NOT_STREAMING, "the role may not read wal2delta.tables, so nothing is proved durable", advice
    if snapshot.troubles.feed == "hidden":
        advice = f"Run GRANT USAGE ON SCHEMA lakets_cdf for the role of this connection. {DOCTOR}"
        return NOT_STREAMING, "the role may not use schema lakets_cdf, so it cannot see the feed", advice
    if not table.mirror_has_rows:
        return None
    advice = f"Start a change data feed for schema lakets_cdf. {DOCTOR}"
    return NOT_STREAMING, "no feed reads its mirror, so nothing is proved durable", advice


def _of_chunks(table: Table, snapshot: Snapshot) -> Iterator[Attention]:
    if (deferred := table.count("deferred")) and not (table.sync_enabled and table.feed != "STREAMING"):
        lag = f"; the feed is {size(table.lag_bytes)} behind" if table.lag_bytes else ""
        many = f"{deferred} chunk{'s' * (deferred > 1)}"
        said = f"{many} due but deferred by the last run: {table.why or 'nothing prevents it any more'}{lag}"
        advice = "The next run takes those proved by then." if table.why else "The next run takes them."
        yield Attention(table.name, said, advice, "chunks-left")
    if not table.count("planned"):
        said = "no chunk is created ahead; rows after the last chunk go to the default partition"
        advice = "Run the partition manager, or `lakets run partitions`."
        yield Attention(table.name, said, advice, "no-chunks-ahead")
    if rows := snapshot.troubles.strays.get(table.id):
        said = f"{rows} outside all chunks, where nothing is tiered or dropped"
        advice = (
            "Such rows are too early, too late or in a dropped range. The partition manager creates chunks "
            "for rows near the present; move or delete the others in the default partition."
        )
        yield Attention(table.name, said, advice, "rows-outside-chunks")
