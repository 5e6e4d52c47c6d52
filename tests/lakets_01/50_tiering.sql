CREATE FUNCTION lakets._cdf_committed_lsn(p_shadow_name text) RETURNS pg_lsn LANGUAGE plpgsql AS $$
DECLARE
    v_lsn pg_lsn;
BEGIN
    SELECT committed_lsn INTO v_lsn FROM wal2delta.tables
     WHERE table_oid = to_regclass('lakets_cdf.' || quote_ident(p_shadow_name)) AND status = 'STREAMING';
    RETURN v_lsn;
EXCEPTION WHEN insufficient_privilege OR undefined_table OR invalid_schema_name THEN
    RETURN NULL;
END $$;

CREATE FUNCTION lakets._get_chunks_to_tier(p_table_name text, p_schema_name text DEFAULT 'public')
    RETURNS TABLE (chunk_id int, chunk_name text, range_start timestamptz, range_end timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    SELECT c.id, c.chunk_name, c.range_start, c.range_end
      FROM lakets._chronotable_registry t
      JOIN lakets._policy_registry p ON p.chronotable_id = t.id AND p.enabled AND p.policy_type IN ('tiering', 'tiered_retention')
      JOIN lakets._chunk_metadata c ON c.chronotable_id = t.id AND c.status = 'active'
     WHERE t.schema_name = p_schema_name AND t.table_name = p_table_name
       AND lakets._cdf_committed_lsn(t.shadow_table_name) IS NOT NULL
       AND c.range_end <= now() - coalesce(p.config ->> 'after', p.config ->> 'tier_after')::interval
     ORDER BY c.range_start;
END $$;

-- What is unknown or not active is reported as false, with a notice.
CREATE FUNCTION lakets.tier_chunk(p_chunk_name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_chunk lakets._chunk_metadata;
    v_lsn pg_lsn;
BEGIN
    SELECT * INTO v_chunk FROM lakets._chunk_metadata WHERE chunk_name = p_chunk_name AND status = 'active';
    IF v_chunk.id IS NULL THEN
        RAISE NOTICE 'tier_chunk: % not found or not active', p_chunk_name;
        RETURN false;
    END IF;
    SELECT lakets._cdf_committed_lsn(shadow_table_name) INTO v_lsn
      FROM lakets._chronotable_registry WHERE id = v_chunk.chronotable_id;
    IF v_lsn >= v_chunk.last_write_lsn THEN
        UPDATE lakets._chunk_metadata SET status = 'tiered', tiered_at = now() WHERE id = v_chunk.id;
        RETURN true;
    END IF;
    RAISE NOTICE 'tier_chunk: % deferred', p_chunk_name;
    RETURN false;
END $$;

CREATE FUNCTION lakets.untier_chunk(p_chunk_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE lakets._chunk_metadata SET status = 'active', tiered_at = NULL
     WHERE chunk_name = p_chunk_name AND status = 'tiered';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'Chunk % not found or not tiered', p_chunk_name;
    END IF;
END $$;

-- Lists the policies of type tiering only.
CREATE FUNCTION lakets.show_tiering_status(p_table_name text DEFAULT NULL, p_schema_name text DEFAULT 'public')
    RETURNS TABLE (schema_name text, table_name text, after text, active_chunks int, tiered_chunks int,
                   pending_chunks int, reclaimable_bytes bigint, reclaimed_bytes bigint, cdf_status text,
                   cdf_lag_bytes bigint, caught_up boolean, last_run_at timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    SELECT t.schema_name, t.table_name, p.config ->> 'after', c.active, c.tiered, c.pending, c.reclaimable, c.reclaimed,
           CASE WHEN feed.lsn IS NOT NULL THEN 'STREAMING' WHEN t.shadow_table_name IS NULL THEN 'NONE' ELSE 'SKIPPED' END,
           CASE WHEN feed.lsn IS NOT NULL THEN greatest(0, coalesce(c.last_lsn - feed.lsn, 0))::bigint END,
           feed.lsn IS NOT NULL AND c.unstamped = 0 AND coalesce(feed.lsn >= c.last_lsn, true), p.last_run_at
      FROM lakets._chronotable_registry t
      JOIN lakets._policy_registry p ON p.chronotable_id = t.id AND p.policy_type = 'tiering'
     CROSS JOIN LATERAL (SELECT lakets._cdf_committed_lsn(t.shadow_table_name) AS lsn) feed
     CROSS JOIN LATERAL (
           SELECT count(*) FILTER (WHERE d.status = 'active')::int AS active,
                  count(*) FILTER (WHERE d.status = 'tiered')::int AS tiered,
                  count(*) FILTER (WHERE d.due)::int AS pending,
                  coalesce(sum(d.size_bytes) FILTER (WHERE d.status = 'tiered'), 0)::bigint AS reclaimable,
                  coalesce(sum(d.size_bytes) FILTER (WHERE d.status = 'dropped'), 0)::bigint AS reclaimed,
                  max(d.last_write_lsn) FILTER (WHERE d.due) AS last_lsn,
                  count(*) FILTER (WHERE d.due AND d.last_write_lsn IS NULL) AS unstamped
             FROM (SELECT m.*, m.status = 'active' AND m.range_end <= now() - (p.config ->> 'after')::interval AS due
                     FROM lakets._chunk_metadata m WHERE m.chronotable_id = t.id) d) c
     WHERE p_table_name IS NULL OR (t.table_name = p_table_name AND t.schema_name = p_schema_name);
END $$;

-- Asks the feed again and does not look at the flag; a policy that is missing is no error.
CREATE FUNCTION lakets.execute_retention(p_table_name text, p_schema_name text DEFAULT 'public',
    p_force boolean DEFAULT false) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_table lakets._chronotable_registry;
    v_policy lakets._policy_registry;
    v_lsn pg_lsn;
    v_chunk lakets._chunk_metadata;
    v_dropped int := 0;
BEGIN
    SELECT * INTO v_table FROM lakets._chronotable_registry WHERE schema_name = p_schema_name AND table_name = p_table_name;
    SELECT * INTO v_policy FROM lakets._policy_registry
     WHERE chronotable_id = v_table.id AND enabled AND policy_type IN ('retention', 'tiered_retention');
    IF v_policy.id IS NULL THEN RETURN 0; END IF;
    v_lsn := lakets._cdf_committed_lsn(v_table.shadow_table_name);
    FOR v_chunk IN SELECT * FROM lakets._chunk_metadata
                    WHERE chronotable_id = v_table.id AND status <> 'dropped'
                      AND range_end <= now() - (v_policy.config ->> 'drop_after')::interval
                    ORDER BY range_start
    LOOP
        IF NOT p_force AND (v_table.sync_enabled OR v_policy.policy_type = 'tiered_retention')
           AND NOT coalesce(v_lsn >= v_chunk.last_write_lsn, false) THEN
            RAISE NOTICE 'execute_retention: % deferred', v_chunk.chunk_name;
            CONTINUE;
        END IF;
        BEGIN
            PERFORM lakets._drop_chunk(v_chunk);
            v_dropped := v_dropped + 1;
        EXCEPTION WHEN OTHERS THEN  -- as 0.1.3 does: the next chunk has its turn
            RAISE WARNING 'Failed to drop chunk %: %', v_chunk.chunk_name, SQLERRM;
        END;
    END LOOP;
    UPDATE lakets._policy_registry SET last_run_at = now()
     WHERE chronotable_id = v_table.id AND policy_type IN ('retention', 'tiered_retention');
    RETURN v_dropped;
END $$;
