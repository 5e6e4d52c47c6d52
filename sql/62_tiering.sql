-- Job 2: flag cold chunks that are proved durable in Unity Catalog. Nothing is dropped here.

-- The candidates, oldest first: active, wholly older than the policy's horizon, and the shadow is
-- streaming. No rows mean no policy, no cold chunk, or no feed. A tiered chunk that was written to
-- becomes active again, and thus a candidate.
CREATE OR REPLACE FUNCTION lakets._get_chunks_to_tier(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS TABLE (chunk_id integer, chunk_name text, range_start timestamptz, range_end timestamptz)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_table  lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_after  interval;
    v_proven pg_snapshot;
    v_bare   bigint[];  -- can be written directly
BEGIN
    SELECT pol.after::interval INTO v_after
      FROM lakets.show_tiering_policy(p_table_name, p_schema_name) AS pol WHERE pol.enabled ORDER BY 1 LIMIT 1;
    IF v_after IS NULL OR NOT v_table.sync_enabled OR lakets._cdf_status(v_table.shadow_table_name) <> 'STREAMING' THEN
        PERFORM lakets._prune_change_log(v_table);
        RETURN;
    END IF;
    -- Lock order: (1) advisory, parent and check, where the mirror is in doubt, (2) the table's
    -- proof row, (3) its policies, (4) chunk metadata rows.
    PERFORM lakets._begin_mirror_check(v_table);
    v_proven := lakets._prove(v_table);
    v_bare := lakets._unguarded_chunks(v_table, ARRAY(
        SELECT chunk.id FROM lakets._chunk_metadata AS chunk WHERE chunk.chronotable_id = v_table.id AND chunk.status = 'tiered'));
    UPDATE lakets._policy_registry AS pol SET last_run_at = now(), tiered_at = now()
     WHERE pol.chronotable_id = v_table.id AND pol.policy_type IN ('tiering', 'tiered_retention');
    UPDATE lakets._chunk_metadata AS chunk
       SET status = 'active', tiered_at = NULL
     WHERE chunk.chronotable_id = v_table.id AND chunk.status = 'tiered'
       AND (lakets._is_in_doubt(chunk) OR chunk.id = ANY (v_bare) OR EXISTS (
                SELECT FROM lakets._unproven_changes(v_table.id, v_proven) AS log
                 WHERE log.min_time < chunk.range_end AND log.max_time >= chunk.range_start));
    PERFORM lakets._prune_change_log(v_table);
    RETURN QUERY
        SELECT chunk.id, chunk.chunk_name, chunk.range_start, chunk.range_end
          FROM lakets._chunk_metadata AS chunk
         WHERE chunk.chronotable_id = v_table.id AND chunk.status = 'active' AND chunk.range_end <= lakets._ago(v_after)
         ORDER BY chunk.range_start;
END;
$$;

-- Flag a chunk tiered if every committed change to it is flushed. False means deferred: everything
-- that helps the proof was done, so call again after the feed's next flush. The same for a chunk
-- that was dropped after it was proved durable (retention may come first) and stays dropped; a row
-- that came for it since then must be flushed too.
CREATE OR REPLACE FUNCTION lakets.tier_chunk(
    p_chunk_name text
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_chunk  lakets._chunk_metadata;
    v_table  lakets._chronotable_registry;
    v_proven pg_snapshot;
    v_gap    text;
BEGIN
    PERFORM lakets._require_read_committed();
    SELECT tab.* INTO v_table
      FROM lakets._chunk_metadata AS chunk
     CROSS JOIN LATERAL lakets._chronotable(chunk.chronotable_id) AS tab
     WHERE chunk.chunk_name = p_chunk_name;
    -- Lock order: (1) the table's proof row, (2) the chunk's metadata row, (3) its partition, where
    -- its mirror is in doubt, (4) for a fence only, the shadow.
    v_proven := lakets._prove(v_table);
    v_chunk := lakets._lock_chunk(p_chunk_name);
    IF v_chunk.status = 'dropped' AND v_chunk.tiered_at IS NULL THEN
        RAISE EXCEPTION 'Chunk % is already dropped from Lakebase, before it was proved durable.', p_chunk_name
            USING HINT = 'There is nothing left to flag.';
    END IF;
    IF lakets._cdf_committed_lsn(v_table.shadow_table_name) IS NOT NULL THEN
        PERFORM lakets._compare_chunk(v_table, v_chunk, true);
    END IF;
    v_gap := lakets._durability_gap(v_table, v_chunk, v_proven);
    IF v_gap IS NOT NULL THEN
        UPDATE lakets._chunk_metadata AS chunk SET status = 'active', tiered_at = NULL
         WHERE chunk.id = v_chunk.id AND chunk.status = 'tiered';
        PERFORM lakets._move_feed(v_table);
        RAISE NOTICE 'Chunk % is deferred: %.', p_chunk_name, v_gap;
        RETURN false;
    END IF;
    UPDATE lakets._chunk_metadata AS chunk
       SET status = 'tiered', tiered_at = coalesce(chunk.tiered_at, now()),
           row_count = (SELECT nullif(cls.reltuples, -1)::bigint
                          FROM pg_class AS cls WHERE cls.oid = lakets._chunk_relation(v_table, v_chunk)),
           size_bytes = pg_total_relation_size(lakets._chunk_relation(v_table, v_chunk))
     WHERE chunk.id = v_chunk.id AND chunk.status <> 'dropped';
    RETURN true;
END;
$$;

-- Remove the flag. The next tiering run decides again.
CREATE OR REPLACE FUNCTION lakets.untier_chunk(
    p_chunk_name text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_chunk lakets._chunk_metadata := lakets._lock_chunk(p_chunk_name);
BEGIN
    IF v_chunk.status = 'dropped' THEN
        RAISE EXCEPTION 'Chunk % is already dropped from Lakebase.', p_chunk_name
            USING HINT = 'There is no flag left to remove; lakets.show_chunks(table) lists the chunks.';
    END IF;
    UPDATE lakets._chunk_metadata AS chunk SET status = 'active', tiered_at = NULL WHERE chunk.id = v_chunk.id;
END;
$$;
