"""What a job really changed: for asset events, and for lineage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets import older
from airflow_provider_lakets.exceptions import LakeTSArgumentError

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from airflow_provider_lakets.hooks._contract import LakeTSContract

# The counters of the transaction include what earlier transactions of the session have not reported
# yet, so they are read before and after. The argument forces the order of the join: the first
# reading comes first.
REFRESH = """
SELECT ran.refreshed, to_regprocedure('lakets.refresh_rollup(text,boolean)') IS NOT NULL AS is_exact,
       pg_stat_get_xact_tuples_inserted(tab.oid) + pg_stat_get_xact_tuples_updated(tab.oid) - tab.written
           AS written,
       pg_stat_get_xact_tuples_deleted(tab.oid) - tab.removed AS removed
  FROM (SELECT rel.name, rel.oid, pg_stat_get_xact_tuples_deleted(rel.oid) AS removed,
               pg_stat_get_xact_tuples_inserted(rel.oid) + pg_stat_get_xact_tuples_updated(rel.oid) AS written
          FROM (SELECT %(name)s::text AS name,
                       CASE WHEN current_setting('track_counts')::boolean
                            THEN to_regclass(format('public.%%I', '_rollup_' || %(name)s)) END AS oid) AS rel
        OFFSET 0) AS tab
 CROSS JOIN LATERAL lakets.refresh_rollup(p_name => tab.name{force}) AS ran (refreshed)
"""

TIERED = """
SELECT tab.schema_name || '.' || tab.table_name AS table_name, count(*) AS chunks,
       sum(chunk.row_count)::bigint AS rows, sum(chunk.size_bytes)::bigint AS bytes,
       min(chunk.range_start) AS range_start, max(chunk.range_end) AS range_end,
       array_agg(chunk.range_start ORDER BY chunk.range_start) AS starts
  FROM lakets._chunk_metadata AS chunk
  JOIN lakets._chronotable_registry AS tab ON tab.id = chunk.chronotable_id
 WHERE chunk.chunk_name = ANY (%(chunks)s)
 GROUP BY 1 ORDER BY 1
"""

DROPPED = """
SELECT sum(chunk.size_bytes)::bigint AS bytes, min(chunk.range_start) AS range_start,
       max(chunk.range_end) AS range_end
  FROM lakets._chunk_metadata AS chunk WHERE chunk.chunk_name = ANY (%(chunks)s)
"""

# What the chunk was before is read first: OFFSET keeps the order of the join.
TIER = """
SELECT ran.tiered, chunk.status,
       coalesce(chunk.status <> 'active' AND chunk.tiered_at < coalesce(%(since)s, 'infinity'::timestamptz),
                false) AS was_tiered
  FROM (SELECT wanted.name, one.status, one.tiered_at
          FROM (SELECT %(chunk)s::text AS name) AS wanted
          LEFT JOIN lakets._chunk_metadata AS one ON one.chunk_name = wanted.name
        OFFSET 0) AS chunk
 CROSS JOIN LATERAL lakets.tier_chunk(p_chunk_name => chunk.name) AS ran (tiered)
"""


@dataclass(frozen=True)
class Refreshed:
    """
    What a refresh did.

    :param refreshed: Whether it took place.
    :param rows: How many rows of the RollUp were written; None where the server does not count.
    :param removed: How many were taken out or replaced.
    :param is_exact: Whether the installed LakeTS writes only what is new; 0.1.x writes all, each
        time.
    """

    refreshed: bool
    rows: int | None
    removed: int | None
    is_exact: bool

    @property
    def changed(self) -> bool:
        """Whether the RollUp may hold something else than before."""
        return self.refreshed and not (self.is_exact and self.rows == 0 and self.removed == 0)


def refresh(hook: LakeTSContract, name: str, *, force: bool = False) -> Refreshed:
    """
    Refresh a RollUp and count its rows that were written.

    :param name: The RollUp.
    :param force: Refresh although its refresh_lag has not passed.
    """
    query = REFRESH.format(force=", p_force => true" if hook.forcing(name, force=force) else "")
    (row,) = hook.query(query, {"name": name}, doing=f"lakets.refresh_rollup(p_name => {name!r})")
    return Refreshed(bool(row["refreshed"]), row["written"], row["removed"], row["is_exact"])


def tier(hook: LakeTSContract, chunk: str, since: datetime | None = None) -> tuple[bool, bool]:
    """
    Flag a chunk that is proved durable; return whether it is tiered now, and whether it was before.

    A chunk that retention proved durable and dropped since it was listed counts as tiered.

    :param chunk: Its name.
    :param since: What was flagged from this instant on does not count as before.
    """
    arguments = {"chunk": chunk, "since": since}
    (row,) = hook.query(TIER, arguments, doing=f"lakets.tier_chunk(p_chunk_name => {chunk!r})")
    if not row["tiered"] and hook.is_older():
        # It says false of what is not active, whatever the reason.
        if row["status"] is None:
            raise LakeTSArgumentError(f"Chunk {chunk!r} does not exist.")
        if row["status"] == "dropped" and not _was_flushed(hook, chunk):
            raise LakeTSArgumentError(f"Chunk {chunk!r} is already dropped from Lakebase.")
        return row["status"] != "active", bool(row["was_tiered"])
    return bool(row["tiered"]), bool(row["was_tiered"])


def _was_flushed(hook: LakeTSContract, chunk: str) -> bool:
    rows = hook.query(older.CHUNKS, {"chunks": [chunk]}, doing=f"Looking up chunk {chunk}")
    return any(row["caught_up"] for row in rows)


def tiered_by_table(hook: LakeTSContract, chunks: Collection[str]) -> list[dict[str, Any]]:
    """Return the number of these chunks by table, their estimated rows and bytes, their start."""
    return hook.query(TIERED, {"chunks": list(chunks)}, doing="Counting what was tiered")


def dropped(hook: LakeTSContract, chunks: Collection[str]) -> dict[str, Any]:
    """Return the bytes of dropped chunks, as far as LakeTS recorded them, and their range."""
    if not chunks:
        return {}
    (row,) = hook.query(DROPPED, {"chunks": list(chunks)}, doing="Counting what was dropped")
    return row
