-- Job 3: drop expired chunks, after proving under locks that no data is lost.

-- Return how old a chunk must be to be dropped; null without an enabled retention policy.
CREATE OR REPLACE FUNCTION lakets._drop_after(
    p_chronotable_id integer
) RETURNS interval
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT max((pol.config ->> 'drop_after')::interval)
          FROM lakets._policy_registry AS pol
         WHERE pol.chronotable_id = p_chronotable_id AND pol.enabled AND pol.policy_type IN ('retention', 'tiered_retention'));
END;
$$;

-- Return whether a chunk must be durable before it is dropped: if the table is synced or its policy
-- is tiered_retention.
CREATE OR REPLACE FUNCTION lakets._is_gated(
    p_table lakets._chronotable_registry
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN p_table.sync_enabled OR EXISTS (
        SELECT FROM lakets._policy_registry AS pol
         WHERE pol.chronotable_id = p_table.id AND pol.enabled AND pol.policy_type = 'tiered_retention');
END;
$$;

-- Return as text why each of these chunks (ids) may not be dropped now; chunks whose drop loses
-- nothing are left out.
CREATE OR REPLACE FUNCTION lakets._retention_gaps(
    p_table  lakets._chronotable_registry,
    p_chunks bigint[],
    p_proven pg_snapshot
) RETURNS TABLE (chunk_id bigint, gap text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_undurable jsonb := '{}';
    v_problem   text  := lakets._subscription_problem(p_table.relation);
BEGIN
    IF p_chunks = '{}' THEN
        RETURN;
    END IF;
    IF lakets._is_gated(p_table) THEN
        SELECT coalesce(jsonb_object_agg(found.chunk_id, found.gap), '{}') INTO v_undurable
          FROM lakets._durability_gaps(p_table, p_chunks, p_proven) AS found;
    END IF;
    RETURN QUERY
        WITH waiting AS MATERIALIZED (
            SELECT reg.name, lakets._unabsorbed(reg) AS times FROM lakets._rollup_registry AS reg WHERE reg.source_chronotable_id = p_table.id
        ), judged AS (
            SELECT chunk.id::bigint AS id, coalesce(
                       'not durable: ' || (v_undurable ->> chunk.id::text),
                       CASE WHEN cls.relkind <> 'r' THEN lakets._partition_problem(cls.relkind) END,
                       CASE WHEN EXISTS (SELECT FROM waiting) THEN v_problem END,
                       'not absorbed by RollUp ' || (
                           SELECT string_agg(waiting.name, ', ' ORDER BY waiting.name) FROM waiting
                            WHERE waiting.times && tstzrange(chunk.range_start, chunk.range_end))) AS gap
              FROM lakets._chunk_metadata AS chunk
              LEFT JOIN pg_class AS cls ON cls.oid = chunk.relation AND p_table.cluster IS NOT NULL
             WHERE chunk.id = ANY (p_chunks)
        )
        SELECT judged.id, judged.gap FROM judged WHERE judged.gap IS NOT NULL;
END;
$$;

-- The given chunks (ids, oldest first) that may be dropped now, at most p_most.
CREATE OR REPLACE FUNCTION lakets._droppable(
    p_table  lakets._chronotable_registry,
    p_chunks bigint[],
    p_proven pg_snapshot,
    p_most   integer
) RETURNS bigint[]
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT chunk.id
          FROM unnest(p_chunks) WITH ORDINALITY AS chunk (id, position)
          LEFT JOIN lakets._retention_gaps(p_table, p_chunks, p_proven) AS found ON found.chunk_id = chunk.id
         WHERE found.gap IS NULL
         ORDER BY chunk.position LIMIT p_most);
END;
$$;

-- Return the instant by which a chunk must end to be past drop_after; -infinity without an enabled
-- retention policy.
CREATE OR REPLACE FUNCTION lakets._expired_by(
    p_table lakets._chronotable_registry
) RETURNS timestamptz
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN coalesce(lakets._ago(lakets._drop_after(p_table.id)), '-infinity');
END;
$$;

-- The existing chunks (ids) past drop_after, oldest first.
CREATE OR REPLACE FUNCTION lakets._expired_chunks(
    p_table lakets._chronotable_registry
) RETURNS bigint[]
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_horizon timestamptz := lakets._expired_by(p_table);
BEGIN
    RETURN ARRAY(
        SELECT chunk.id
          FROM lakets._chunk_metadata AS chunk
         WHERE chunk.chronotable_id = p_table.id AND chunk.status <> 'dropped' AND chunk.range_end <= v_horizon
         ORDER BY chunk.range_start);
END;
$$;

-- Compare the expired chunks that are in doubt, at most p_most, if retention requires the proof and
-- the feed streams. Returns how many were compared.
CREATE OR REPLACE FUNCTION lakets._compare_expired(
    p_table lakets._chronotable_registry,
    p_most  integer
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT lakets._is_gated(p_table) OR lakets._cdf_committed_lsn(p_table.shadow_table_name) IS NULL THEN
        RETURN 0;
    END IF;
    RETURN lakets._compare_unused(p_table, lakets._doubtful_chunks(p_table, lakets._expired_by(p_table)), p_most);
END;
$$;

-- Return the existing chunks past drop_after, oldest first. blocked_by is null if execute_retention
-- would drop the chunk now, else the reason why not. Changes nothing.
CREATE OR REPLACE FUNCTION lakets.retention_report(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS TABLE (chunk_name text, range_start timestamptz, range_end timestamptz, status text, blocked_by text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table   lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_expired bigint[] := lakets._expired_chunks(v_table);
BEGIN
    RETURN QUERY
        SELECT chunk.chunk_name, chunk.range_start, chunk.range_end, chunk.status, found.gap
          FROM lakets._chunk_metadata AS chunk
          LEFT JOIN lakets._retention_gaps(v_table, v_expired, lakets._proof_now(v_table)) AS found ON found.chunk_id = chunk.id
         WHERE chunk.id = ANY (v_expired)
         ORDER BY chunk.range_start;
END;
$$;

-- Job 3. Drop the chunks past drop_after, oldest first, at most p_max_chunks in this transaction,
-- and no more than the lock table has room for; returns how many. Locks first, then checks
-- everything committed before, then drops. A chunk that is not provably safe stays
-- (retention_report says why), and so does one that somebody reads by its own name. p_force skips
-- the checks. A lock not granted within 2 s fails as contended (55P03). Never touches Unity
-- Catalog.
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
    v_table    lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_relation regclass := v_table.relation;
    v_proven   pg_snapshot;
    v_expired  bigint[];
    v_chunks   bigint[];
    v_most     integer;
    v_in_doubt boolean;
    v_unguarded bigint[];
BEGIN
    PERFORM lakets._check_max_chunks(p_max_chunks);
    PERFORM lakets._require_read_committed();
    -- Lock order: (1) advisory (lakets, relation), (2) proof row, (3) policies, (4) chunk metadata,
    -- (5) parent, (6) partitions, without waiting.
    PERFORM lakets._lock_maintenance(v_relation);
    v_table := lakets._follow(v_table);  -- read again under the lock
    v_in_doubt := NOT p_force AND lakets._begin_mirror_check(v_table);
    v_proven := lakets._prove(v_table);
    UPDATE lakets._policy_registry AS pol SET last_run_at = now(), retained_at = now()
     WHERE pol.chronotable_id = v_table.id AND pol.policy_type IN ('retention', 'tiered_retention');
    -- Check without the lock first, so that chunks that must stay make nobody wait.
    v_expired := lakets._expired_chunks(v_table);
    v_most := least(p_max_chunks, cardinality(v_expired));
    IF v_in_doubt OR NOT p_force AND lakets._compare_expired(v_table, v_most) > 0 THEN
        RETURN 0;  -- a lock on the table now could deadlock with a session that holds it and waits for one of these partitions
    END IF;
    v_chunks := CASE WHEN p_force THEN v_expired[1:v_most] ELSE lakets._droppable(v_table, v_expired, v_proven, v_most) END;
    IF NOT p_force THEN
        v_unguarded := lakets._unguarded_chunks(v_table, v_chunks);
        IF lakets._guard_chunks(v_table, v_unguarded) > 0 THEN
            RETURN 0;  -- as above
        END IF;
        v_chunks := ARRAY(SELECT chunk.id FROM unnest(v_chunks) WITH ORDINALITY AS chunk (id, place)
                           WHERE chunk.id <> ALL (v_unguarded) ORDER BY chunk.place);
    END IF;
    IF v_chunks = '{}' THEN
        PERFORM lakets._prune_change_log(v_table);
        -- Only here, where nothing is left to lock: a session that waits for a fence may hold the
        -- parent.
        IF NOT p_force AND v_expired <> '{}' THEN
            PERFORM lakets._move_feed(v_table);
        END IF;
        RETURN 0;
    END IF;

    v_chunks := lakets._fitting_chunks(v_table, v_chunks, p_max_chunks IS NULL);
    PERFORM FROM lakets._chunk_metadata AS chunk WHERE chunk.id = ANY (v_chunks) ORDER BY chunk.range_start FOR UPDATE;
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', v_relation);
    -- No writer is active: all that they committed is visible to the statements below, which check
    -- again.
    IF NOT p_force THEN
        v_chunks := lakets._droppable(v_table, v_chunks, lakets._proof_now(v_table), v_most);
    END IF;
    RETURN lakets._drop_partitions(v_table, lakets._lock_partitions(v_table, v_chunks));
END;
$$;
