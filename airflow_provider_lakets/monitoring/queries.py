"""The queries of the page on Lakebase; their number does not depend on the number of tables."""

from __future__ import annotations

# A run is adjacent chunks of one state and similar length, so 40,000 chunks become a few thousand
# rows. This opens no partition. Some policies say "never" by an age of 10,000 years, so many years
# ago neither Postgres nor Python has times: ages of more than 1,000 years count as none.
RUNS = """
WITH policy AS (
    SELECT pol.chronotable_id,
           max(age.tier) FILTER (WHERE age.tier <= interval '1000 years') AS tier_after,
           max(age.drop) FILTER (WHERE age.drop <= interval '1000 years') AS drop_after,
           {times}
      FROM lakets._policy_registry AS pol
     CROSS JOIN LATERAL (
           SELECT coalesce(pol.config ->> 'tier_after', pol.config ->> 'after')::interval AS tier,
                  (pol.config ->> 'drop_after')::interval AS drop) AS age
     WHERE pol.enabled GROUP BY pol.chronotable_id
), {changed}, judged AS (
    SELECT chunk.chronotable_id, chunk.chunk_name, chunk.range_start, chunk.range_end, chunk.size_bytes,
           CASE WHEN chunk.status = 'dropped' THEN 'dropped'
                WHEN chunk.range_start > now() THEN 'planned'
                WHEN chunk.range_end + pol.drop_after <= pol.retained_at
                  OR chunk.status = 'active' AND chunk.range_end + pol.tier_after <= pol.tiered_at
                THEN 'deferred'
                WHEN chunk.status = 'tiered' AND {is_changed} THEN 'changed'
                WHEN chunk.range_end + pol.drop_after <= now()
                  OR chunk.status = 'active' AND chunk.range_end + pol.tier_after <= now()
                THEN 'due'
                WHEN chunk.status = 'tiered' THEN 'tiered'
                ELSE 'hot' END AS state
      FROM lakets._chunk_metadata AS chunk
      LEFT JOIN policy AS pol ON pol.chronotable_id = chunk.chronotable_id
      LEFT JOIN changed ON changed.chronotable_id = chunk.chronotable_id
     WHERE (%(table)s::integer IS NULL OR chunk.chronotable_id = %(table)s)
       AND isfinite(chunk.range_start) AND isfinite(chunk.range_end)
), marked AS (
    SELECT judged.*,
           lag(judged.state) OVER by_time IS DISTINCT FROM judged.state
           OR lag(judged.range_end) OVER by_time IS DISTINCT FROM judged.range_start
           OR (judged.range_end - judged.range_start) NOT BETWEEN
              0.8 * lag(judged.range_end - judged.range_start) OVER by_time
              AND 1.25 * lag(judged.range_end - judged.range_start) OVER by_time AS begins
      FROM judged WINDOW by_time AS (PARTITION BY judged.chronotable_id ORDER BY judged.range_start)
), numbered AS (
    SELECT marked.*, count(*) FILTER (WHERE marked.begins) OVER (PARTITION BY marked.chronotable_id
           ORDER BY marked.range_start) AS run FROM marked
)
SELECT numbered.chronotable_id AS table_id, min(numbered.state) AS state,
       min(numbered.range_start) AS range_start, max(numbered.range_end) AS range_end, count(*) AS chunks,
       (CASE WHEN sum(numbered.size_bytes) > 9223372036854775807 THEN 9223372036854775807
             ELSE sum(numbered.size_bytes) END)::bigint AS bytes,  -- least() would ignore an unknown size
       min(numbered.chunk_name) AS first_name
  FROM numbered GROUP BY numbered.chronotable_id, numbered.run ORDER BY 1, 3
"""

# When the jobs ran by these policies.
TIMES = "max(pol.tiered_at) AS tiered_at, max(pol.retained_at) AS retained_at"

# LakeTS 0.1.x records one time for both jobs of a policy.
TIMES_OLDER = """max(pol.last_run_at) FILTER (WHERE pol.policy_type <> 'retention') AS tiered_at,
           max(pol.last_run_at) FILTER (WHERE pol.policy_type <> 'tiering') AS retained_at"""

# The time ranges of changes that are not known to be flushed.
CHANGED = """changed AS (
    SELECT log.chronotable_id, range_agg(tstzrange(log.min_time, log.max_time, '[]')) AS times
      FROM lakets._chronotable_registry AS reg
     CROSS JOIN LATERAL lakets._known_proof(reg.id) AS proof
      JOIN lakets._change_log AS log ON log.chronotable_id = reg.id
       AND log.xid >= coalesce(pg_catalog.pg_snapshot_xmin(proof.proven), '0'::xid8)
       AND NOT coalesce(pg_catalog.pg_visible_in_snapshot(log.xid, proof.proven), false)
     WHERE log.min_time IS NOT NULL
     GROUP BY log.chronotable_id)"""
IS_CHANGED = "coalesce(changed.times && tstzrange(chunk.range_start, chunk.range_end), false)"

# LakeTS 0.1.x records when a chunk was last changed.
CHANGED_OLDER = "changed AS (SELECT NULL::integer AS chronotable_id)"
IS_CHANGED_OLDER = "coalesce(chunk.last_modified_at > chunk.tiered_at, false)"

TABLES = """
SELECT reg.id, reg.schema_name || '.' || reg.table_name AS name, reg.schema_name, reg.table_name,
       reg.chunk_interval::text AS chunk_interval, reg.sync_enabled, reg.shadow_table_name,
       extract(epoch FROM reg.chunk_interval)::float8 AS chunk_seconds,
       extract(epoch FROM pol.tier_after)::float8 AS tier_seconds,
       extract(epoch FROM pol.drop_after)::float8 AS drop_seconds,
       CASE WHEN pol.tier_after <= interval '1000 years' THEN now() - pol.tier_after END AS tier_before,
       CASE WHEN pol.drop_after <= interval '1000 years' THEN now() - pol.drop_after END AS drop_before,
       pol.tier_after::text AS tier_after, pol.drop_after::text AS drop_after, pol.tiered_at, pol.retained_at
  FROM lakets._chronotable_registry AS reg
  LEFT JOIN LATERAL (
       SELECT max(coalesce(pol.config ->> 'tier_after', pol.config ->> 'after')::interval) AS tier_after,
              max((pol.config ->> 'drop_after')::interval) AS drop_after,
              {times}
         FROM lakets._policy_registry AS pol WHERE pol.chronotable_id = reg.id AND pol.enabled) AS pol ON true
"""

# Whether the mirror has rows, by the size of its file. Also true if there is no mirror, or if it is
# locked: reading its size would then have to wait.
HAS_ROWS = """coalesce((SELECT
           CASE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_locks AS lck
                                  WHERE lck.relation = mirror.oid AND lck.mode = 'AccessExclusiveLock')
                THEN pg_catalog.pg_relation_size(mirror.oid) > 0 END
      FROM pg_catalog.pg_class AS mirror JOIN pg_catalog.pg_namespace AS nsp ON nsp.oid = mirror.relnamespace
     WHERE nsp.nspname = 'lakets_cdf' AND mirror.relname = reg.shadow_table_name), true)"""

FEEDS = """
SELECT reg.id, lakets._cdf_status(reg.shadow_table_name) AS status,
       lakets._cdf_committed_lsn(reg.shadow_table_name)::text AS committed_lsn, {has_rows} AS has_rows,
       greatest(last.lsn - lakets._cdf_committed_lsn(reg.shadow_table_name), 0)::bigint AS lag_bytes
  FROM lakets._chronotable_registry AS reg
  LEFT JOIN LATERAL (
       SELECT max(log.lsn) AS lsn FROM lakets._known_proof(reg.id) AS proof
         JOIN lakets._change_log AS log ON log.chronotable_id = reg.id
          AND log.xid >= coalesce(pg_catalog.pg_snapshot_xmin(proof.proven), '0'::xid8)
          AND NOT coalesce(pg_catalog.pg_visible_in_snapshot(log.xid, proof.proven), false)) AS last ON true
 WHERE reg.sync_enabled
"""

FEEDS_OLDER = """
SELECT reg.id, NULL::bigint AS lag_bytes, lakets._cdf_committed_lsn(reg.shadow_table_name)::text
       AS committed_lsn, {has_rows} AS has_rows,
       CASE WHEN lakets._cdf_committed_lsn(reg.shadow_table_name) IS NULL THEN 'NONE'
            ELSE 'STREAMING' END AS status
  FROM lakets._chronotable_registry AS reg
 WHERE reg.sync_enabled
"""

ROLLUPS = """
SELECT rol.name, rol.watermark, rol.last_refreshed_at, rol.bucket_interval::text AS bucket_interval,
       rol.refresh_lag::text AS refresh_lag, tab.schema_name || '.' || tab.table_name AS source,
       extract(epoch FROM rol.bucket_interval)::float8 AS bucket_seconds,
       now() - coalesce(nullif(nullif(rol.last_refreshed_at, 'infinity'), '-infinity'), rol.created_at)
           > greatest(3 * rol.refresh_lag, interval '1 hour') AS is_late,
       coalesce(to_jsonb(rol) -> 'definition' = 'null', false) AS is_refused,  -- 0.1.x has no definitions
       ARRAY(SELECT dep.name FROM lakets._rollup_registry AS dep
              WHERE dep.id = ANY (rol.depends_on) ORDER BY dep.name) AS depends_on,
       (SELECT count(*) FROM lakets._rollup_invalidation_log AS mark WHERE mark.rollup_id = rol.id) AS marks
  FROM lakets._rollup_registry AS rol
  LEFT JOIN lakets._chronotable_registry AS tab ON tab.id = rol.source_chronotable_id
"""

# A role cannot look up a name in a schema that it may not use: to_regclass fails, so the catalog is
# read instead.

# Tables, indexes and TOAST as of the last ANALYZE or VACUUM, without reading the size of any file.
SPACE = """
SELECT reg.id, sum(part.relpages + coalesce(toast.relpages, 0) + coalesce(idx.pages, 0))::bigint
       * current_setting('block_size')::bigint AS bytes
  FROM lakets._chronotable_registry AS reg
  JOIN pg_catalog.pg_namespace AS nsp ON nsp.nspname = reg.schema_name
  JOIN pg_catalog.pg_class AS tab ON tab.relnamespace = nsp.oid AND tab.relname = reg.table_name
  JOIN pg_catalog.pg_inherits AS inh ON inh.inhparent = tab.oid
  JOIN pg_catalog.pg_class AS part ON part.oid = inh.inhrelid
  LEFT JOIN pg_catalog.pg_class AS toast ON toast.oid = part.reltoastrelid
  LEFT JOIN LATERAL (
       SELECT sum(cls.relpages) AS pages FROM pg_catalog.pg_index AS ind
         JOIN pg_catalog.pg_class AS cls ON cls.oid = ind.indexrelid
        WHERE ind.indrelid = part.oid) AS idx ON true
 GROUP BY reg.id
"""

CHUNKS = """
SELECT chunk.chunk_name, chunk.range_start, chunk.range_end, chunk.status, chunk.row_count, chunk.size_bytes,
       chunk.tiered_at
  FROM lakets._chunk_metadata AS chunk
  JOIN lakets._chronotable_registry AS reg ON reg.id = chunk.chronotable_id
 WHERE reg.schema_name || '.' || reg.table_name = %(name)s
 ORDER BY chunk.range_start DESC LIMIT %(limit)s OFFSET %(offset)s
"""
