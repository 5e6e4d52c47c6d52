"""
Facts that the functions of LakeTS 0.1.x do not return, read from its registries by its rules.

In 0.1.x, ``tier_chunk`` and ``execute_retention`` treat a chunk as durable when the feed has
reached the chunk's last write (``last_write_lsn``). ``show_tiering_status`` lists only policies of
type ``tiering``.
"""

from __future__ import annotations

FEED = """
SELECT tab.schema_name || '.' || tab.table_name AS "table", pol.after,
       due.active_chunks, due.tiered_chunks, due.pending_chunks, due.reclaimable_bytes, due.reclaimed_bytes,
       CASE WHEN feed.lsn IS NOT NULL THEN 'STREAMING' WHEN tab.shadow_table_name IS NULL THEN 'NONE'
            ELSE 'SKIPPED' END AS cdf_status,
       greatest(0, pg_catalog.pg_wal_lsn_diff(due.last_lsn, feed.lsn))::bigint AS cdf_lag_bytes,
       feed.lsn IS NOT NULL AND NOT due.is_unknown AND coalesce(feed.lsn >= due.last_lsn, true) AS caught_up,
       pol.last_run_at
  FROM lakets._chronotable_registry AS tab
  LEFT JOIN LATERAL (
       SELECT coalesce(one.config ->> 'after', one.config ->> 'tier_after') AS after, one.last_run_at
         FROM lakets._policy_registry AS one
        WHERE one.chronotable_id = tab.id AND one.policy_type IN ('tiering', 'tiered_retention')
        ORDER BY one.enabled DESC, one.policy_type DESC LIMIT 1) AS pol ON true
 CROSS JOIN LATERAL (SELECT lakets._cdf_committed_lsn(tab.shadow_table_name) AS lsn) AS feed
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE chunk.status = 'active')::int AS active_chunks,
              count(*) FILTER (WHERE chunk.status = 'tiered')::int AS tiered_chunks,
              count(*) FILTER (WHERE chunk.is_due)::int AS pending_chunks,
              coalesce(sum(chunk.size_bytes) FILTER (WHERE chunk.status = 'tiered'), 0)::bigint
                  AS reclaimable_bytes,
              coalesce(sum(chunk.size_bytes) FILTER (WHERE chunk.status = 'dropped'), 0)::bigint
                  AS reclaimed_bytes,
              max(chunk.last_write_lsn) FILTER (WHERE chunk.is_due) AS last_lsn,
              coalesce(bool_or(chunk.is_due AND chunk.last_write_lsn IS NULL), false) AS is_unknown
         FROM (SELECT each.*, each.status = 'active'
                      AND each.range_end <= now() - least(coalesce(pol.after, '0')::interval,
                                                          interval '1000 years') AS is_due
                 FROM lakets._chunk_metadata AS each WHERE each.chronotable_id = tab.id) AS chunk) AS due
 WHERE tab.schema_name = %(schema_name)s AND tab.table_name = %(table_name)s
"""

CHUNKS = """
SELECT wanted.chunk_name, chunk.status,
       CASE WHEN feed.lsn IS NOT NULL THEN 'STREAMING' WHEN tab.shadow_table_name IS NULL THEN 'NONE'
            ELSE 'SKIPPED' END AS cdf_status,
       greatest(0, pg_catalog.pg_wal_lsn_diff(chunk.last_write_lsn, feed.lsn))::bigint AS cdf_lag_bytes,
       coalesce(feed.lsn >= chunk.last_write_lsn, false) AS caught_up
  FROM unnest(%(chunks)s::text[]) AS wanted (chunk_name)
  LEFT JOIN lakets._chunk_metadata AS chunk ON chunk.chunk_name = wanted.chunk_name
  LEFT JOIN lakets._chronotable_registry AS tab ON tab.id = chunk.chronotable_id
  LEFT JOIN LATERAL (SELECT lakets._cdf_committed_lsn(tab.shadow_table_name) AS lsn) AS feed ON true
"""

PAST_RETENTION = """
SELECT chunk.chunk_name,
       (tab.sync_enabled OR pol.policy_type = 'tiered_retention')
           AND NOT coalesce(feed.lsn >= chunk.last_write_lsn, false) AS is_blocked
  FROM lakets._chronotable_registry AS tab
 CROSS JOIN LATERAL (SELECT lakets._cdf_committed_lsn(tab.shadow_table_name) AS lsn) AS feed
  JOIN lakets._policy_registry AS pol ON pol.chronotable_id = tab.id
  JOIN lakets._chunk_metadata AS chunk ON chunk.chronotable_id = tab.id
 WHERE tab.id = %(id)s AND chunk.status <> 'dropped' AND pol.enabled
   AND pol.policy_type IN ('retention', 'tiered_retention')
   AND chunk.range_end <= now() - least((pol.config ->> 'drop_after')::interval, interval '1000 years')
 ORDER BY chunk.range_start
"""

NOT_DURABLE = "not proved durable in Unity Catalog: the feed has not reached its last write"


def not_flushed(cdf_status: str, lag_bytes: int | None) -> str:
    """
    Return why writes are not durable, from what the change feed reports.

    :param cdf_status: The status of the feed.
    :param lag_bytes: The lag of the feed, if known.
    """
    behind = f", {lag_bytes} bytes behind" if lag_bytes else ""
    return f"its writes are not proved flushed to Unity Catalog; the feed is {cdf_status}{behind}"
