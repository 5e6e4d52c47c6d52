-- Job 3: give the space of expired chunks back, after proving under lock that nothing is lost by it.

-- How old a chunk must be to be dropped; null without an enabled retention policy.
CREATE OR REPLACE FUNCTION lakets._drop_after(
    p_chronotable_id integer
) RETURNS interval
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT max((pol.config ->> 'drop_after')::interval)
      FROM lakets._policy_registry AS pol
     WHERE pol.chronotable_id = p_chronotable_id AND pol.enabled AND pol.policy_type IN ('retention', 'tiered_retention');
$$;

-- Must a chunk be durable before it goes? Yes when the table is synced or its policy says tiered.
CREATE OR REPLACE FUNCTION lakets._is_gated(
    p_table lakets._chronotable_registry
) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (p_table).sync_enabled OR EXISTS (
        SELECT FROM lakets._policy_registry AS pol
         WHERE pol.chronotable_id = (p_table).id AND pol.enabled AND pol.policy_type = 'tiered_retention');
$$;

-- Why a chunk may not be dropped now, in words; null when nothing is lost by dropping it.
CREATE OR REPLACE FUNCTION lakets._retention_gap(
    p_table  lakets._chronotable_registry,
    p_chunk  lakets._chunk_metadata,
    p_proven pg_snapshot
) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_gap     text;
    v_rollups text;
BEGIN
    IF lakets._is_gated(p_table) THEN
        v_gap := lakets._durability_gap(p_table, p_chunk, p_proven);
        IF v_gap IS NOT NULL THEN
            RETURN 'not durable: ' || v_gap;
        END IF;
    END IF;
    SELECT string_agg(reg.name, ', ' ORDER BY reg.name) INTO v_rollups
      FROM lakets._rollup_registry AS reg
     WHERE reg.source_chronotable_id = p_table.id
       AND NOT lakets._has_absorbed(reg, p_chunk.range_start, p_chunk.range_end);
    RETURN 'not absorbed by RollUp ' || v_rollups;
END;
$$;

-- What is past drop_after and still stands, oldest first. blocked_by: null when execute_retention would drop
-- it now, else why not. Changes nothing.
CREATE OR REPLACE FUNCTION lakets.retention_report(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS TABLE (chunk_name text, range_start timestamptz, range_end timestamptz, status text, blocked_by text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table  lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_proven pg_snapshot := lakets._proof_now(v_table);
BEGIN
    RETURN QUERY
        SELECT chunk.chunk_name, chunk.range_start, chunk.range_end, chunk.status,
               lakets._retention_gap(v_table, chunk, v_proven)
          FROM lakets._chunk_metadata AS chunk
         WHERE chunk.chronotable_id = v_table.id AND chunk.status <> 'dropped'
           AND chunk.range_end <= now() - lakets._drop_after(v_table.id)
         ORDER BY chunk.range_start;
END;
$$;

-- Drop one chunk's partition; the caller holds the parent in ACCESS EXCLUSIVE mode. Its registry row stays,
-- so that RollUps know which buckets must keep their value.
CREATE OR REPLACE FUNCTION lakets._drop_chunk(
    p_table lakets._chronotable_registry,
    p_chunk lakets._chunk_metadata
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._chunk_relation(p_table, p_chunk);
BEGIN
    UPDATE lakets._chunk_metadata AS chunk
       SET status = 'dropped',
           row_count = coalesce((SELECT nullif(cls.reltuples, -1)::bigint FROM pg_class AS cls WHERE cls.oid = v_relation), chunk.row_count),
           size_bytes = coalesce(pg_total_relation_size(v_relation), chunk.size_bytes)
     WHERE chunk.id = p_chunk.id;
    IF v_relation IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', v_relation);
    END IF;
END;
$$;

-- Job 3. Drop the chunks past drop_after, oldest first, at most p_max_chunks in this transaction; returns how
-- many. Locks first, then checks what was committed by then, then drops; what is not provably safe stays
-- (retention_report says why). p_force skips the checks. A lock not granted within 2 s fails as contended
-- (55P03). Never touches Unity Catalog.
CREATE OR REPLACE FUNCTION lakets.execute_retention(
    p_table_name  text,
    p_schema_name text    DEFAULT 'public',
    p_force       boolean DEFAULT false,
    p_max_chunks  integer DEFAULT NULL
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_relation regclass := lakets._relation(p_schema_name, p_table_name);
    v_table    lakets._chronotable_registry;
    v_proven   pg_snapshot;
    v_expired  bigint[];
    v_chunk    lakets._chunk_metadata;
    v_dropped  integer := 0;
BEGIN
    PERFORM lakets._require_read_committed();
    -- Lock order: (1) advisory (lakets, relation), (2) proof row, (3) policies, (4) chunk metadata, (5) parent,
    -- (6) partitions oldest first, as DROP takes them.
    PERFORM lakets._lock_maintenance(v_relation);
    v_table := lakets._chronotable(p_table_name, p_schema_name);  -- as it is under the lock
    v_proven := lakets._prove(v_table);
    UPDATE lakets._policy_registry AS pol SET last_run_at = now()
     WHERE pol.chronotable_id = v_table.id AND pol.policy_type IN ('retention', 'tiered_retention');
    -- A first look without the lock, so that chunks that must stay cost nobody a wait.
    v_expired := ARRAY(
        SELECT chunk.id
          FROM lakets._chunk_metadata AS chunk
         WHERE chunk.chronotable_id = v_table.id AND chunk.status <> 'dropped'
           AND chunk.range_end <= now() - lakets._drop_after(v_table.id)
           AND (p_force OR lakets._retention_gap(v_table, chunk, v_proven) IS NULL)
         ORDER BY chunk.range_start LIMIT p_max_chunks);
    IF v_expired = '{}' THEN
        -- Only now that there is nothing to lock: whoever waits for a fence may hold the parent.
        IF NOT p_force AND EXISTS (SELECT FROM lakets.retention_report(p_table_name, p_schema_name)) THEN
            PERFORM lakets._move_feed(v_table);
        END IF;
        RETURN 0;
    END IF;

    PERFORM FROM lakets._chunk_metadata AS chunk WHERE chunk.id = ANY (v_expired) ORDER BY chunk.range_start FOR UPDATE;
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', v_relation);
    -- No writer is left: what they committed is visible to the statements below, and judged anew.
    v_proven := lakets._proof_now(v_table);
    FOR v_chunk IN
        SELECT chunk.* FROM lakets._chunk_metadata AS chunk WHERE chunk.id = ANY (v_expired) ORDER BY chunk.range_start
    LOOP
        IF p_force OR lakets._retention_gap(v_table, v_chunk, v_proven) IS NULL THEN
            PERFORM lakets._drop_chunk(v_table, v_chunk);
            v_dropped := v_dropped + 1;
        END IF;
    END LOOP;
    RETURN v_dropped;
END;
$$;

-- Drop active chunks older than p_older_than, whether or not they are in Unity Catalog: an explicit act of an
-- administrator. Tiered chunks are left to execute_retention. Returns how many went.
CREATE OR REPLACE FUNCTION lakets.drop_chunks(
    p_table_name  text,
    p_older_than  interval,
    p_schema_name text DEFAULT 'public'
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_table    lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_relation regclass := lakets._relation(p_schema_name, p_table_name);
    v_chunk    lakets._chunk_metadata;
    v_dropped  integer := 0;
BEGIN
    PERFORM lakets._check_age('p_older_than', p_older_than);
    PERFORM lakets._require_read_committed();
    -- Lock order: (1) advisory (lakets, relation), (2) chunk metadata, (3) parent, (4) partitions oldest first.
    PERFORM lakets._lock_maintenance(v_relation);
    FOR v_chunk IN
        SELECT chunk.*
          FROM lakets._chunk_metadata AS chunk
         WHERE chunk.chronotable_id = v_table.id AND chunk.status = 'active' AND chunk.range_end <= now() - p_older_than
         ORDER BY chunk.range_start FOR UPDATE
    LOOP
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', v_relation);
        PERFORM lakets._drop_chunk(v_table, v_chunk);
        v_dropped := v_dropped + 1;
    END LOOP;
    RETURN v_dropped;
END;
$$;
