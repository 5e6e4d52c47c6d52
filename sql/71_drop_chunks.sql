-- Drop partitions: lock them oldest first, as many as one transaction has room for.

-- Lock the default partition and those of chunks that are about to be dropped; returns the chunks
-- (ids) that nobody is using, and raises when there is none. The caller has locked the parent, so
-- this waits for nothing: other sessions queue behind the parent already, and a reader of a
-- partition by its own name may be about to join them.
CREATE OR REPLACE FUNCTION lakets._lock_partitions(
    p_table  lakets._chronotable_registry,
    p_chunks bigint[]
) RETURNS bigint[]
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_default regclass := lakets._default_partition(lakets._relation(p_table));
    v_is_free boolean  := v_default IS NULL;
    v_unused  bigint[] := '{}';
    v_chunk   record;
BEGIN
    IF p_chunks = '{}' THEN
        RETURN p_chunks;
    END IF;
    FOR v_try IN 1 .. 2 LOOP
        v_is_free := v_is_free OR lakets._lock_now(v_default, 'ACCESS EXCLUSIVE');
        FOR v_chunk IN
            SELECT chunk.id::bigint, lakets._chunk_relation(p_table, chunk) AS relation
              FROM lakets._chunk_metadata AS chunk
             WHERE chunk.id = ANY (p_chunks) AND chunk.id <> ALL (v_unused) ORDER BY chunk.range_start
        LOOP
            IF v_chunk.relation IS NULL OR lakets._lock_now(v_chunk.relation, 'ACCESS EXCLUSIVE') THEN
                v_unused := v_unused || v_chunk.id;
            END IF;
        END LOOP;
        EXIT WHEN v_is_free AND cardinality(v_unused) = cardinality(p_chunks);
        PERFORM pg_sleep(0.05 * (2 - v_try));  -- a session that has just released the parent is about to release its partition
    END LOOP;
    IF NOT v_is_free OR v_unused = '{}' THEN
        RAISE EXCEPTION '%', CASE WHEN v_is_free
            THEN format('Every chunk of %s.%s that could be dropped is being used by other sessions.', p_table.schema_name, p_table.table_name)
            ELSE format('The default partition of %s.%s is being used by other sessions.', p_table.schema_name, p_table.table_name) END
            USING ERRCODE = 'lock_not_available', HINT = 'Try again when they are done; pg_locks shows which sessions they are.';
    END IF;
    RETURN v_unused;
END;
$$;

-- Drop the partitions of chunks (ids) and return how many there were; the caller holds the parent
-- in ACCESS EXCLUSIVE mode. The registry rows stay, so that RollUps know which buckets must keep
-- their value; tiered_at says which chunks were proved durable, whoever drops them. A partition on
-- which other objects depend stays, with a warning.
CREATE OR REPLACE FUNCTION lakets._drop_partitions(
    p_table  lakets._chronotable_registry,
    p_chunks bigint[]
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_unproved bigint[] := ARRAY(SELECT found.chunk_id FROM lakets._durability_gaps(p_table, p_chunks, lakets._proof_now(p_table)) AS found);
    v_names    text;
    v_chunk    bigint;
    v_dropped  integer;
    v_detail   text;
BEGIN
    WITH gone AS (
        UPDATE lakets._chunk_metadata AS chunk
           SET status = 'dropped',
               tiered_at = CASE WHEN chunk.id <> ALL (v_unproved) THEN coalesce(chunk.tiered_at, now()) END,
               row_count = coalesce(part.row_count, chunk.row_count),
               size_bytes = coalesce(pg_total_relation_size(part.relation), chunk.size_bytes)
          FROM (SELECT old.id, cls.oid::regclass AS relation, nullif(cls.reltuples, -1)::bigint AS row_count
                  FROM lakets._chunk_metadata AS old
                  LEFT JOIN pg_class AS cls ON cls.oid = lakets._chunk_relation(p_table, old)
                 WHERE old.id = ANY (p_chunks)) AS part
         WHERE chunk.id = part.id
        RETURNING part.relation, chunk.range_start
    )
    SELECT string_agg(gone.relation::text, ', ' ORDER BY gone.range_start), count(gone.relation) INTO v_names, v_dropped FROM gone;
    IF v_names IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', v_names);
    END IF;
    RETURN v_dropped;
EXCEPTION WHEN dependent_objects_still_exist THEN  -- drop one by one, to find which
    IF cardinality(p_chunks) = 1 THEN
        GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL;
        RAISE WARNING 'Chunk % stays: other objects depend on its partition.',
            (SELECT chunk.chunk_name FROM lakets._chunk_metadata AS chunk WHERE chunk.id = p_chunks[1])
            USING DETAIL = v_detail;
        RETURN 0;
    END IF;
    v_dropped := 0;
    FOREACH v_chunk IN ARRAY p_chunks LOOP
        v_dropped := v_dropped + lakets._drop_partitions(p_table, ARRAY[v_chunk]);
    END LOOP;
    RETURN v_dropped;
END;
$$;

-- The first of some chunks (ids, oldest first): as many as one transaction has room to drop (see
-- 23_lock_budget.sql), at least one. p_warn says what is left.
CREATE OR REPLACE FUNCTION lakets._fitting_chunks(
    p_table  lakets._chronotable_registry,
    p_chunks bigint[],
    p_warn   boolean
) RETURNS bigint[]
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_budget integer := lakets._lock_budget();
    v_chunk  lakets._chunk_metadata;
    v_fit    integer := 0;
BEGIN
    FOR v_chunk IN
        SELECT chunk.* FROM lakets._chunk_metadata AS chunk WHERE chunk.id = ANY (p_chunks) ORDER BY chunk.range_start
    LOOP
        v_budget := v_budget - lakets._locks_to_drop(lakets._chunk_relation(p_table, v_chunk));
        EXIT WHEN v_budget < 0 AND v_fit > 0;
        v_fit := v_fit + 1;
    END LOOP;
    IF p_warn AND v_fit < cardinality(p_chunks) THEN
        RAISE WARNING '% of the % chunks of %.% that can be dropped fit into one transaction; % are left.', v_fit,
            cardinality(p_chunks), p_table.schema_name, p_table.table_name, cardinality(p_chunks) - v_fit
            USING HINT = 'Call this again, each time in a transaction of its own, until it returns 0.';
    END IF;
    RETURN p_chunks[1:v_fit];
END;
$$;

-- Drop active chunks older than p_older_than, whether or not they are in Unity Catalog: an explicit
-- action of an administrator. Tiered chunks are left to execute_retention. At most p_max_chunks,
-- oldest first, and no more than the lock table has room for. Returns how many were dropped; 0
-- means that none is left.
CREATE OR REPLACE FUNCTION lakets.drop_chunks(
    p_table_name  text,
    p_older_than  interval,
    p_schema_name text    DEFAULT 'public',
    p_max_chunks  integer DEFAULT NULL
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
BEGIN
    PERFORM lakets._check_age('p_older_than', p_older_than);
    RETURN lakets._drop_standing(lakets._chronotable(p_table_name, p_schema_name), '{active}', lakets._ago(p_older_than), p_max_chunks);
END;
$$;

-- Drop the oldest chunks of a ChronoTable that are of some states and end by p_until.
CREATE OR REPLACE FUNCTION lakets._drop_standing(
    p_table      lakets._chronotable_registry,
    p_status     text[],
    p_until      timestamptz,
    p_max_chunks integer
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_table  lakets._chronotable_registry;
    v_chunks bigint[];
BEGIN
    PERFORM lakets._check_max_chunks(p_max_chunks);
    PERFORM lakets._require_read_committed();
    -- Lock order: (1) advisory (lakets, relation), (2) chunk metadata, (3) parent, (4) partitions,
    -- without waiting.
    PERFORM lakets._lock_maintenance(p_table.relation);
    v_table := lakets._follow(p_table);  -- read again under the lock
    v_chunks := ARRAY(
        SELECT chunk.id
          FROM lakets._chunk_metadata AS chunk
         WHERE chunk.chronotable_id = v_table.id AND chunk.status = ANY (p_status) AND chunk.range_end <= p_until
         ORDER BY chunk.range_start LIMIT p_max_chunks);
    IF v_chunks = '{}' THEN
        RETURN 0;
    END IF;
    v_chunks := lakets._fitting_chunks(v_table, v_chunks, p_max_chunks IS NULL);
    v_chunks := ARRAY(
        SELECT chunk.id FROM lakets._chunk_metadata AS chunk
         WHERE chunk.id = ANY (v_chunks) AND chunk.status = ANY (p_status) ORDER BY chunk.range_start FOR UPDATE);
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', v_table.relation::regclass);
    RETURN lakets._drop_partitions(v_table, lakets._lock_partitions(v_table, v_chunks));
END;
$$;
