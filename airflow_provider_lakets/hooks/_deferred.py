"""Why a job changed nothing, in the words of the engine if it has a reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakets import older
from airflow_provider_lakets.hooks.results import DeferredChunk, PastChunk

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow_provider_lakets.hooks._contract import LakeTSContract
    from airflow_provider_lakets.hooks.results import ChronoTable

STANDING = """
SELECT chunk.chunk_name FROM lakets._chunk_metadata AS chunk
 WHERE chunk.chronotable_id = %(id)s AND chunk.status <> 'dropped' ORDER BY chunk.range_start
"""

TABLE_OF = """
SELECT tab.schema_name, tab.table_name
  FROM lakets._chunk_metadata AS chunk
  JOIN lakets._chronotable_registry AS tab ON tab.id = chunk.chronotable_id
 WHERE chunk.chunk_name = %(chunk)s
"""


def why_not_tiered(hook: LakeTSContract, chunk: str) -> str:
    """Return why ``tier_chunk`` deferred a chunk."""
    if hook.supports("explain_durability"):
        return hook.explain_durability(chunk) or "it has become durable since; the next run will flag it"
    rows = hook.query(TABLE_OF, {"chunk": chunk}, doing=f"Looking up chunk {chunk}")
    for row in rows:
        for feed in hook.show_tiering_status(row["table_name"], schema_name=row["schema_name"]):
            return older.not_flushed(feed.cdf_status, feed.cdf_lag_bytes)
    return "its writes are not proved flushed to Unity Catalog"


def standing(hook: LakeTSContract, table: ChronoTable) -> list[str]:
    """
    Return the names of the chunks in Lakebase, oldest first.

    The names come from the registry: ``show_chunks`` opens each partition for its size, which waits
    for locks and adds an entry for each partition to the session's caches.
    """
    rows = hook.query(STANDING, {"id": table.id}, doing=f"Listing the chunks of {table.name}")
    return [row["chunk_name"] for row in rows]


def why_not_dropped(
    hook: LakeTSContract, table: ChronoTable, approved: Collection[str] | None = None
) -> list[DeferredChunk]:
    """
    Return the chunks of a table that are past retention but still exist, with the reasons.

    :param approved: The chunks that could be dropped by force.
    """
    late = "due now; not reached by this run"
    if not hook.supports("retention_report"):
        late = "its partition could not be dropped, for example because somebody is reading it"
    return [
        DeferredChunk(
            chunk.chunk,
            f"{chunk.reason or late}; no force is approved for it"
            if approved is not None and chunk.chunk not in approved
            else chunk.reason or late,
        )
        for chunk in past_retention(hook, table)
    ]


def past_retention(hook: LakeTSContract, table: ChronoTable) -> list[PastChunk]:
    """Return the chunks of a table that are past retention but still exist, with the reasons."""
    if hook.supports("retention_report"):
        rows = hook.retention_report(table.table_name, schema_name=table.schema_name)
        return [PastChunk(row["chunk_name"], row["blocked_by"]) for row in rows]
    doing = f"Listing the chunks of {table.name} past retention"
    rows = hook.query(older.PAST_RETENTION, {"id": table.id}, doing=doing)
    return [PastChunk(row["chunk_name"], older.NOT_DURABLE if row["is_blocked"] else None) for row in rows]


def why_not_refreshed(hook: LakeTSContract, name: str) -> tuple[str, str]:
    """Return the outcome, and why ``refresh_rollup`` did not refresh a RollUp."""
    rows = hook.query(
        "SELECT refresh_lag, last_refreshed_at + refresh_lag > now() AS too_soon"
        "  FROM lakets._rollup_registry WHERE name = %(name)s",
        {"name": name},
        doing=f"Looking up RollUp {name}",
    )
    if rows and rows[0]["too_soon"]:
        return "unchanged", f"refreshed less than {rows[0]['refresh_lag']} ago (its refresh_lag)"
    # That refresh may not see the latest changes. Its worker may also have been killed, so that it
    # is rolled back.
    return "contended", "another session is refreshing it"
