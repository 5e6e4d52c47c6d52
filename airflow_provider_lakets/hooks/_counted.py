"""Count what a job changed, for asset events and lineage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets import older
from airflow_provider_lakets.exceptions import LakeTSArgumentError

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from airflow_provider_lakets.hooks._contract import LakeTSContract

# The counters of the transaction include unreported changes of earlier transactions in the session,
# so they are read before and after. The argument of the function forces the order: the counters
# are read before the refresh.
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

SAME_TABLE = """
SELECT other.chunk_name FROM lakets._chunk_metadata AS one
  JOIN lakets._chunk_metadata AS other ON other.chronotable_id = one.chronotable_id
 WHERE one.chunk_name = %(chunk)s AND other.chunk_name = ANY (%(chunks)s)
"""

# The previous state of the chunk is read first: OFFSET keeps the order of the join.
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
    The effect of a refresh.

    :param refreshed: Whether the RollUp was refreshed.
    :param rows: How many rows of the RollUp were written; None if the server does not count.
    :param removed: How many rows were removed or replaced.
    :param is_exact: Whether the installed LakeTS writes only new rows; 0.1.x rewrites all of them.
    """

    refreshed: bool
    rows: int | None
    removed: int | None
    is_exact: bool

    @property
    def changed(self) -> bool:
        """Whether the content of the RollUp may have changed."""
        return self.refreshed and not (self.is_exact and self.rows == 0 and self.removed == 0)


def refresh(hook: LakeTSContract, name: str, *, force: bool = False) -> Refreshed:
    """
    Refresh a RollUp and count the rows written.

    :param name: The RollUp.
    :param force: Refresh even if its refresh_lag has not passed.
    """
    query = REFRESH.format(force=", p_force => true" if hook.forcing(name, force=force) else "")
    (row,) = hook.query(query, {"name": name}, doing=f"lakets.refresh_rollup(p_name => {name!r})")
    return Refreshed(bool(row["refreshed"]), row["written"], row["removed"], row["is_exact"])


def tier(hook: LakeTSContract, chunk: str, since: datetime | None = None) -> tuple[bool, bool]:
    """
    Flag a chunk that is proved durable; return whether it is tiered now, and whether it was before.

    A chunk that retention has proved durable and dropped after it was listed counts as tiered.

    :param chunk: The name of the chunk.
    :param since: A chunk that was flagged at this time or later counts as newly tiered.
    """
    arguments = {"chunk": chunk, "since": since}
    (row,) = hook.query(TIER, arguments, doing=f"lakets.tier_chunk(p_chunk_name => {chunk!r})")
    if not row["tiered"] and hook.is_older():
        # 0.1.x returns false for every chunk that is not active, for whatever reason.
        if row["status"] is None:
            raise LakeTSArgumentError(f"Chunk {chunk!r} does not exist.")
        if row["status"] == "dropped" and not _was_flushed(hook, chunk):
            raise LakeTSArgumentError(f"Chunk {chunk!r} is already dropped from Lakebase.")
        return row["status"] != "active", bool(row["was_tiered"])
    return bool(row["tiered"]), bool(row["was_tiered"])


def of_same_table(hook: LakeTSContract, chunks: Collection[str], chunk: str) -> list[str]:
    """Return which of these chunks are of the same table as one of them."""
    arguments = {"chunk": chunk, "chunks": list(chunks)}
    return [row["chunk_name"] for row in hook.query(SAME_TABLE, arguments, doing=f"Looking up chunk {chunk}")]


def _was_flushed(hook: LakeTSContract, chunk: str) -> bool:
    rows = hook.query(older.CHUNKS, {"chunks": [chunk]}, doing=f"Looking up chunk {chunk}")
    return any(row["caught_up"] for row in rows)


def tiered_by_table(hook: LakeTSContract, chunks: Collection[str]) -> list[dict[str, Any]]:
    """Return the number of these chunks by table, with estimated rows and bytes, and the starts."""
    return hook.query(TIERED, {"chunks": list(chunks)}, doing="Counting the tiered chunks")


def dropped(hook: LakeTSContract, chunks: Collection[str]) -> dict[str, Any]:
    """Return the bytes of dropped chunks, if LakeTS recorded them, and their range."""
    if not chunks:
        return {}
    (row,) = hook.query(DROPPED, {"chunks": list(chunks)}, doing="Counting the dropped chunks")
    return row
