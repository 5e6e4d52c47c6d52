-- Status reports for people and for metrics.

-- Tiering of one ChronoTable, or of each that has a policy or is synced. cdf_lag_bytes: how far the
-- feed is behind the last change to the table; 0 if it has caught up, null if the feed cannot be
-- read.
CREATE OR REPLACE FUNCTION lakets.show_tiering_status(
    p_table_name  text DEFAULT NULL,
    p_schema_name text DEFAULT 'public'
) RETURNS TABLE (schema_name text, table_name text, after text, active_chunks integer, tiered_chunks integer, pending_chunks integer,
                 reclaimable_bytes bigint, reclaimed_bytes bigint, cdf_status text, cdf_lag_bytes bigint, caught_up boolean,
                 last_run_at timestamptz)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table  lakets._chronotable_registry;
    v_proven pg_snapshot;
    v_last   pg_lsn;
    v_problem text;
BEGIN
    IF p_table_name IS NOT NULL THEN
        PERFORM lakets._chronotable(p_table_name, p_schema_name);  -- raises if it is none
    END IF;
    FOR v_table IN
        SELECT reg.* FROM lakets._chronotable_registry AS reg
         WHERE CASE WHEN p_table_name IS NULL THEN reg.sync_enabled OR reg.tiering_enabled
                    ELSE reg.table_name = p_table_name AND reg.schema_name = p_schema_name END
         ORDER BY reg.schema_name, reg.table_name
    LOOP
        v_problem := lakets._identity_problem(v_table);
        IF v_problem IS NOT NULL THEN
            RAISE WARNING '%', v_problem;  -- the others are still reported
            CONTINUE;
        END IF;
        v_table := lakets._recognise(v_table);
        schema_name := v_table.schema_name;
        table_name := v_table.table_name;
        SELECT pol.after, pol.last_run_at INTO after, last_run_at
          FROM lakets.show_tiering_policy(v_table.table_name, v_table.schema_name) AS pol ORDER BY pol.after::interval LIMIT 1;
        SELECT count(*) FILTER (WHERE chunk.status = 'active'), count(*) FILTER (WHERE chunk.status = 'tiered'),
               count(*) FILTER (WHERE chunk.status = 'active' AND chunk.range_end <= lakets._ago(after::interval)),
               coalesce(sum(pg_total_relation_size(lakets._chunk_relation(v_table, chunk))) FILTER (WHERE chunk.status = 'tiered'), 0),
               least(coalesce(sum(chunk.size_bytes) FILTER (WHERE chunk.status = 'dropped'), 0), 9223372036854775807)
          INTO active_chunks, tiered_chunks, pending_chunks, reclaimable_bytes, reclaimed_bytes
          FROM lakets._chunk_metadata AS chunk WHERE chunk.chronotable_id = v_table.id;
        cdf_status := CASE lakets._cdf_status(v_table.shadow_table_name)
                          WHEN 'STREAMING' THEN 'STREAMING' WHEN 'SKIPPED' THEN 'SKIPPED' ELSE 'NONE' END;
        v_proven := lakets._proof_now(v_table);
        SELECT max(log.lsn) INTO v_last FROM lakets._unproven_changes(v_table.id, v_proven) AS log;
        caught_up := v_proven IS NOT NULL AND v_last IS NULL;
        cdf_lag_bytes := CASE WHEN cdf_status = 'STREAMING' THEN
            greatest(coalesce(v_last - lakets._cdf_committed_lsn(v_table.shadow_table_name), 0), 0) END;
        RETURN NEXT;
    END LOOP;
END;
$$;

-- The chunks of a table that are in Lakebase, oldest first. row_count is the planner's estimate,
-- null until the first ANALYZE.
CREATE OR REPLACE FUNCTION lakets.show_chunks(
    p_table_name  text,
    p_older_than  interval DEFAULT NULL,
    p_newer_than  interval DEFAULT NULL,
    p_schema_name text     DEFAULT 'public'
) RETURNS TABLE (chunk_name text, range_start timestamptz, range_end timestamptz, status text,
                 row_count bigint, size_bytes bigint, created_at timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT chunk.chunk_name, chunk.range_start, chunk.range_end, chunk.status,
           (SELECT nullif(cls.reltuples, -1)::bigint FROM pg_class AS cls WHERE cls.oid = rel),
           pg_total_relation_size(rel), chunk.created_at
      FROM lakets._chronotable(p_table_name, p_schema_name) AS reg
      JOIN lakets._chunk_metadata AS chunk ON chunk.chronotable_id = reg.id AND chunk.status <> 'dropped'
     CROSS JOIN LATERAL lakets._chunk_relation(reg, chunk) AS rel
     WHERE (p_older_than IS NULL OR chunk.range_end <= lakets._ago(p_older_than))
       AND (p_newer_than IS NULL OR chunk.range_start >= lakets._ago(p_newer_than))
     ORDER BY chunk.range_start;
$$;

-- Chunks of each ChronoTable by status.
CREATE OR REPLACE FUNCTION lakets.chunk_health()
    RETURNS TABLE (chronotable text, total_chunks bigint, active_chunks bigint, tiered_chunks bigint, dropped_chunks bigint,
                   oldest_active timestamptz, newest_active timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT reg.schema_name || '.' || reg.table_name, count(chunk.id), count(*) FILTER (WHERE chunk.status = 'active'),
           count(*) FILTER (WHERE chunk.status = 'tiered'), count(*) FILTER (WHERE chunk.status = 'dropped'),
           min(chunk.range_start) FILTER (WHERE chunk.status = 'active'), max(chunk.range_end) FILTER (WHERE chunk.status = 'active')
      FROM lakets._chronotable_registry AS reg
      LEFT JOIN lakets._chunk_metadata AS chunk ON chunk.chronotable_id = reg.id
     GROUP BY reg.id ORDER BY 1;
$$;

-- Rows kept outside every chunk: too early or late, of a range already dropped, infinite, or
-- without a time. They are never tiered or dropped. Null if somebody has locked the table for long,
-- or if this role may not read it.
-- The parent is locked first, as every reader does: a session that drops a chunk locks the parent
-- and then partitions, and the reverse order could deadlock with it.
CREATE OR REPLACE FUNCTION lakets._stray_rows(
    p_table lakets._chronotable_registry
) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_relation regclass := CASE WHEN lakets._identity_problem(p_table) IS NULL THEN lakets._relation(p_table) END;
    v_default  regclass := lakets._default_partition(v_relation);
    v_rows     bigint := 0;
BEGIN
    IF v_default IS NOT NULL THEN
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS SHARE MODE', v_relation);
        EXECUTE format('SELECT count(*) FROM %s', v_default) INTO v_rows;
    END IF;
    RETURN v_rows;
EXCEPTION WHEN lock_not_available OR insufficient_privilege THEN
    RETURN NULL;
END;
$$;

-- Return how many rows the chunks of a ChronoTable hold, as estimated by ANALYZE and VACUUM.
CREATE OR REPLACE FUNCTION lakets._estimated_rows(
    p_table lakets._chronotable_registry
) RETURNS bigint
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT coalesce(sum(greatest(cls.reltuples, 0)), 0)::bigint
          FROM pg_inherits AS inh JOIN pg_class AS cls ON cls.oid = inh.inhrelid
         WHERE inh.inhparent = lakets._known_relation(p_table));
END;
$$;

-- The metrics, as name, value, labels; times in seconds. {table}: one row per ChronoTable, and so
-- on.
CREATE OR REPLACE FUNCTION lakets.lakets_metrics()
    RETURNS TABLE (metric_name text, metric_value double precision, labels jsonb)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT 'lakets_chronotables_total', count(*)::double precision, '{}'::jsonb FROM lakets._chronotable_registry;
    RETURN QUERY
        SELECT 'lakets_chunks_total', count(chunk.id)::double precision, jsonb_build_object('status', state.status)
          FROM unnest('{active,tiered,dropped}'::text[]) AS state (status)
          LEFT JOIN lakets._chunk_metadata AS chunk ON chunk.status = state.status
         GROUP BY state.status;
    RETURN QUERY
        SELECT 'lakets_policies_total', count(*)::double precision, jsonb_build_object('type', pol.policy_type)
          FROM lakets._policy_registry AS pol WHERE pol.enabled GROUP BY pol.policy_type;
    RETURN QUERY
        SELECT 'lakets_database_size_bytes', pg_database_size(current_database())::double precision, '{}'::jsonb;
    RETURN QUERY
        SELECT m.name, m.value, jsonb_build_object('table', reg.schema_name || '.' || reg.table_name)
          FROM lakets._chronotable_registry AS reg,
               LATERAL (VALUES ('lakets_estimated_rows', lakets._estimated_rows(reg)::double precision),
                               ('lakets_rows_outside_chunks', lakets._stray_rows(reg)::double precision),
                               ('lakets_sync_enabled', reg.sync_enabled::integer::double precision)) AS m (name, value)
         ORDER BY reg.id;
    RETURN QUERY
        SELECT m.name, m.value::double precision, jsonb_build_object('table', status.schema_name || '.' || status.table_name)
          FROM lakets.show_tiering_status() AS status,
               LATERAL (VALUES ('lakets_tiering_pending_chunks', status.pending_chunks::bigint),
                               ('lakets_tiering_tiered_chunks_total', status.tiered_chunks),
                               ('lakets_tiering_caught_up', status.caught_up::integer),
                               ('lakets_tiering_reclaimable_bytes', status.reclaimable_bytes),
                               ('lakets_tiering_reclaimed_bytes', status.reclaimed_bytes),
                               ('lakets_feed_streaming', (status.cdf_status = 'STREAMING')::integer),
                               ('lakets_feed_lag_bytes', status.cdf_lag_bytes)) AS m (name, value)
         WHERE m.value IS NOT NULL;
    RETURN QUERY
        SELECT m.name, m.value::double precision, jsonb_build_object('rollup', reg.name)
          FROM lakets._rollup_registry AS reg,
               LATERAL (VALUES ('lakets_rollup_watermark_lag_seconds', extract(epoch FROM now() - nullif(nullif(reg.watermark, 'infinity'), '-infinity'))),
                               ('lakets_rollup_refresh_lag_seconds', extract(epoch FROM now() - nullif(nullif(reg.last_refreshed_at, 'infinity'), '-infinity'))),
                               ('lakets_rollup_invalidation_log_depth',
                                (SELECT count(*) FROM lakets._rollup_invalidation_log AS mark WHERE mark.rollup_id = reg.id))) AS m (name, value)
         WHERE m.value IS NOT NULL
         ORDER BY reg.id;
    RETURN QUERY SELECT job.metric_name, job.metric_value, job.labels FROM lakets._job_metrics() AS job;
END;
$$;
