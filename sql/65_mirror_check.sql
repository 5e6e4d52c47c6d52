-- Mirrors that are in doubt: those of LakeTS 0.1.x, which did not copy existing rows, and shadows
-- that are known to have missed a change. The jobs compare them with their tables, a few chunks at
-- a time, add the rows that the shadow lacks and remove those that the table lacks. Until then no
-- chunk counts as durable. lakets.compare_chunks does the same in batches without waiting for a
-- job; lakets.enable_sync does everything in one transaction, while writers wait.

-- Record a gap if rows written to a shadow can be discarded or changed; returns whether that is so.
CREATE OR REPLACE FUNCTION lakets._note_interference(
    p_shadow regclass
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF lakets._interference(p_shadow) IS NULL THEN
        RETURN false;
    END IF;
    INSERT INTO lakets._mirror_gap (shadow)
    SELECT p_shadow WHERE NOT EXISTS (SELECT FROM lakets._mirror_gap AS gap WHERE gap.shadow = p_shadow);
    RETURN true;
END;
$$;

-- Begin to compare a mirror that may lack changes. All existing chunks are in doubt; rows written
-- outside them from now on go into chunks that are created later. Returns false if the mirror is
-- not in doubt, if the table has subscriptions, if the shadow is not plain, or if this role may not
-- lock the table. Nobody writes while the lock is held, so every later writer sees that the earlier
-- gap is gone.
CREATE OR REPLACE FUNCTION lakets._begin_mirror_check(
    p_table lakets._chronotable_registry
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._relation(p_table);
    v_shadow   regclass := lakets._shadow_relation(p_table.shadow_table_name);
    v_default  regclass := lakets._default_partition(v_relation);
    v_in_doubt boolean  := false;
BEGIN
    PERFORM lakets._follow_rewrite(p_table);
    PERFORM lakets._note_subscriptions(p_table);
    IF lakets._subscriptions_of(v_relation) IS NOT NULL
       OR p_table.sync_enabled AND lakets._note_interference(v_shadow)
       OR NOT p_table.sync_enabled OR v_shadow IS NULL OR NOT lakets._shape(v_relation) <@ lakets._shape(v_shadow)
       OR NOT EXISTS (SELECT FROM lakets._mirror_gap AS gap WHERE gap.shadow = v_shadow)
       OR NOT (SELECT pg_has_role(cls.relowner, 'USAGE') FROM pg_class AS cls WHERE cls.oid = v_relation) THEN
        RETURN false;
    END IF;
    -- Lock order: (1) advisory (lakets, relation), (2) parent, (3) the check's row.
    PERFORM lakets._lock_maintenance(v_relation);
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', v_relation);
    IF row_security_active(v_default::oid) THEN
        v_in_doubt := true;  -- a policy may hide rows
    ELSIF v_default IS NOT NULL THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', v_default) INTO v_in_doubt;
    END IF;
    INSERT INTO lakets._mirror_check AS chk (chronotable_id, compared)
    SELECT p_table.id, CASE WHEN v_in_doubt THEN '{}'
                            ELSE '{(,)}'::tstzmultirange - coalesce(range_agg(tstzrange(chunk.range_start, chunk.range_end)), '{}') END
      FROM lakets._chunk_metadata AS chunk WHERE chunk.chronotable_id = p_table.id AND chunk.status <> 'dropped'
        ON CONFLICT (chronotable_id) DO UPDATE SET compared = excluded.compared;
    DELETE FROM lakets._mirror_gap AS gap WHERE gap.shadow = v_shadow;
    RETURN true;
END;
$$;

-- Return whether a chunk's part of the mirror must still be compared.
CREATE OR REPLACE FUNCTION lakets._is_in_doubt(
    p_chunk lakets._chunk_metadata
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM lakets._mirror_check AS chk
                    WHERE chk.chronotable_id = p_chunk.chronotable_id
                      AND NOT chk.compared @> tstzrange(p_chunk.range_start, p_chunk.range_end));
END;
$$;

-- Compare a chunk with its part of the shadow and correct the shadow, if the chunk is in doubt or
-- can be written directly. Returns false if it is neither, if the shadow lacks columns or is not
-- plain, if this role may not lock the chunk, or (without p_wait) if somebody is writing to it.
-- Changes to the shadow are logged as changes to the chunk, so they must be flushed too. The
-- chunk's writers wait until the transaction ends; the caller has locked the table's proof row, so
-- no two sessions do this at the same time.
CREATE OR REPLACE FUNCTION lakets._compare_chunk(
    p_table lakets._chronotable_registry,
    p_chunk lakets._chunk_metadata,
    p_wait  boolean
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_partition regclass := lakets._chunk_relation(p_table, p_chunk);
    v_shadow    regclass := lakets._shadow_relation(p_table.shadow_table_name);
BEGIN
    IF NOT p_table.sync_enabled OR v_shadow IS NULL OR v_partition IS NULL
       OR NOT lakets._is_in_doubt(p_chunk) AND lakets._is_guarded(v_partition)
       OR NOT lakets._shape(p_table.relation) <@ lakets._shape(v_shadow)
       OR NOT (SELECT pg_has_role(cls.relowner, 'USAGE') FROM pg_class AS cls WHERE cls.oid = v_partition) THEN
        RETURN false;
    END IF;
    -- Lock order: (1) the table's proof row, (2) the chunk's metadata row, both by the caller, (3)
    -- its partition, (4) the shadow: nobody can put a trigger on it from then on.
    IF p_wait THEN
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', v_partition);
    ELSIF NOT lakets._lock_now(v_partition, 'SHARE ROW EXCLUSIVE') THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE %s IN ROW EXCLUSIVE MODE', v_shadow);
    IF lakets._note_interference(v_shadow) THEN
        RETURN false;
    END IF;
    IF NOT lakets._is_guarded(v_partition) THEN
        PERFORM lakets._guard_partition(v_partition);
        PERFORM lakets._log_guarded(p_table, ARRAY[v_partition]);
    END IF;
    IF lakets._align_chunk(p_table, p_chunk, v_partition) > 0 THEN
        INSERT INTO lakets._change_log (chronotable_id, min_time, max_time)
        VALUES (p_table.id, p_chunk.range_start, p_chunk.range_end - interval '1 microsecond');
    END IF;
    UPDATE lakets._mirror_check AS chk
       SET compared = chk.compared + tstzmultirange(tstzrange(p_chunk.range_start, p_chunk.range_end))
     WHERE chk.chronotable_id = p_table.id;
    DELETE FROM lakets._mirror_check AS chk
     WHERE chk.chronotable_id = p_table.id AND chk.compared @> '(,)'::tstzrange;
    RETURN true;
END;
$$;

-- The same for the given chunks (ids) in doubt that nobody is writing to, oldest first:
-- at most p_most, and no more than the lock table has room for. Returns how many were compared.
CREATE OR REPLACE FUNCTION lakets._compare_unused(
    p_table  lakets._chronotable_registry,
    p_chunks bigint[],
    p_most   integer
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_budget   integer := lakets._lock_budget();
    v_chunk    lakets._chunk_metadata;
    v_compared integer := 0;
BEGIN
    FOR v_chunk IN
        SELECT chunk.* FROM lakets._chunk_metadata AS chunk WHERE chunk.id = ANY (p_chunks) ORDER BY chunk.range_start FOR UPDATE
    LOOP
        EXIT WHEN v_compared >= p_most OR v_budget < 0;
        IF lakets._compare_chunk(p_table, v_chunk, false) THEN
            v_compared := v_compared + 1;
            v_budget := v_budget - lakets._locks_to_drop(lakets._chunk_relation(p_table, v_chunk));
        END IF;
    END LOOP;
    RETURN v_compared;
END;
$$;

-- The existing chunks (ids) of a synced table that are in doubt or can be written directly, oldest
-- first; if p_until is given, only those that end by then.
CREATE OR REPLACE FUNCTION lakets._doubtful_chunks(
    p_table lakets._chronotable_registry,
    p_until timestamptz DEFAULT NULL
) RETURNS bigint[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_compared tstzmultirange := (SELECT chk.compared FROM lakets._mirror_check AS chk WHERE chk.chronotable_id = p_table.id);
    v_open     oid[]          := CASE WHEN p_table.sync_enabled THEN lakets._unguarded_partitions(p_table.relation)::oid[] END;
BEGIN
    RETURN ARRAY(
        SELECT chunk.id
          FROM lakets._chunk_metadata AS chunk
         WHERE chunk.chronotable_id = p_table.id AND chunk.status <> 'dropped' AND (chunk.range_end <= p_until OR p_until IS NULL)
           AND (NOT v_compared @> tstzrange(chunk.range_start, chunk.range_end) OR chunk.relation = ANY (v_open))
         ORDER BY chunk.range_start);
END;
$$;

-- Compare the chunks whose part of the mirror is in doubt, oldest first, at most p_max_chunks in
-- this transaction, and no more than the lock table has room for. Returns how many were compared;
-- call it until it returns 0. With p_only_expired, only chunks past retention. A chunk that
-- somebody is writing to is skipped until no other is left. Then this waits for its writers, at
-- most 2 s, and fails as contended (55P03).
CREATE OR REPLACE FUNCTION lakets.compare_chunks(
    p_table_name   text,
    p_schema_name  text    DEFAULT 'public',
    p_max_chunks   integer DEFAULT 20,
    p_only_expired boolean DEFAULT false
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_table    lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_chunks   bigint[];
    v_compared integer;
BEGIN
    PERFORM lakets._check_max_chunks(p_max_chunks);
    PERFORM lakets._require_read_committed();
    -- Lock order: (1) advisory (lakets, relation), and the parent where a check begins, (2) the
    -- table's proof row, (3) chunk metadata rows, (4) partitions, without waiting, or one alone.
    PERFORM lakets._begin_mirror_check(v_table);
    PERFORM FROM lakets._feed_proof AS proof WHERE proof.chronotable_id = v_table.id FOR UPDATE;
    v_chunks := lakets._doubtful_chunks(v_table, CASE WHEN p_only_expired THEN lakets._expired_by(v_table) END);
    v_compared := lakets._compare_unused(v_table, v_chunks, p_max_chunks);
    IF v_compared = 0 AND v_chunks <> '{}' THEN
        v_compared := lakets._compare_chunk(v_table, chunk, true)::integer FROM lakets._chunk_metadata AS chunk WHERE chunk.id = v_chunks[1];
    END IF;
    RETURN v_compared;
END;
$$;

-- Compare the mirror of a ChronoTable or a RollUp (by its name, or its table's) with it again,
-- although nothing is known to be wrong: the tiering and retention jobs, or compare_chunks, compare
-- each chunk, and the next refresh compares a RollUp. Until then nothing of the table counts as
-- durable. Rows of dropped chunks stay as they are: there is nothing to compare them with.
CREATE OR REPLACE FUNCTION lakets.recheck_mirror(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_shadow text := (lakets._rollup_of_table(p_table_name, p_schema_name)).shadow_table_name;
BEGIN
    IF (lakets._rollup_of_table(p_table_name, p_schema_name)).id IS NULL THEN
        v_shadow := (lakets._chronotable(p_table_name, p_schema_name)).shadow_table_name;
    END IF;
    IF lakets._shadow_relation(v_shadow) IS NULL THEN
        RAISE EXCEPTION '%.% has no mirror to compare.', p_schema_name, p_table_name
            USING HINT = 'lakets.enable_sync creates it.';
    END IF;
    INSERT INTO lakets._mirror_gap (shadow)
    SELECT lakets._shadow_relation(v_shadow)
     WHERE NOT EXISTS (SELECT FROM lakets._mirror_gap AS gap WHERE gap.shadow = lakets._shadow_relation(v_shadow));
END;
$$;

-- Make the shadow hold, in the time range of a chunk, exactly the rows of the partition, each as
-- often. Returns how many rows were added or removed.
CREATE OR REPLACE FUNCTION lakets._align_chunk(
    p_table     lakets._chronotable_registry,
    p_chunk     lakets._chunk_metadata,
    p_partition regclass
) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET extra_float_digits = 1
AS $$
DECLARE
    v_relation regclass := lakets._relation(p_table);
    v_shadow   regclass := lakets._shadow_relation(p_table.shadow_table_name);
    v_type     regtype  := lakets._column_type(v_relation, p_table.time_column);
    v_columns  name[]   := lakets._columns(v_relation);
    v_list     text     := (SELECT string_agg(quote_ident(col), ', ' ORDER BY n) FROM unnest(v_columns) WITH ORDINALITY AS u (col, n));
    v_within   text     := format('s.%1$I >= %2$s AND s.%1$I < %3$s', p_table.time_column,
                                  lakets._time_literal(p_chunk.range_start, v_type), lakets._time_literal(p_chunk.range_end, v_type));
    v_removed  bigint;
    v_added    bigint;
BEGIN
    EXECUTE format(
        'WITH held AS (SELECT %1$s::text AS image, count(*) AS copies FROM %2$s AS r GROUP BY 1)
         DELETE FROM ONLY %3$s AS old
          USING (SELECT s.ctid AS tid, %4$s::text AS image, row_number() OVER (PARTITION BY %4$s::text) AS copy
                   FROM ONLY %3$s AS s WHERE %5$s) AS s
           LEFT JOIN held ON held.image = s.image
          WHERE old.ctid = s.tid AND s.copy > coalesce(held.copies, 0)',
        lakets._row_image('r', v_columns), p_partition, v_shadow, lakets._row_image('s', v_columns), v_within);
    GET DIAGNOSTICS v_removed = ROW_COUNT;
    EXECUTE format(
        'WITH held AS (SELECT %1$s::text AS image, count(*) AS copies FROM ONLY %2$s AS s WHERE %3$s GROUP BY 1)
         INSERT INTO %2$s (%4$s)
         SELECT %7$s FROM (SELECT %7$s, %5$s::text AS %8$s, row_number() OVER (PARTITION BY %5$s::text) AS %9$s
                             FROM %6$s AS r) AS r
           LEFT JOIN held ON held.image = r.%8$s
          WHERE r.%9$s > coalesce(held.copies, 0)',
        lakets._row_image('s', v_columns), v_shadow, v_within, v_list, lakets._row_image('r', v_columns), p_partition,
        (SELECT string_agg(format('r.%I', col), ', ' ORDER BY n) FROM unnest(v_columns) WITH ORDINALITY AS u (col, n)),
        lakets._unlike('lakets_image', v_columns), lakets._unlike('lakets_copy', v_columns));
    GET DIAGNOSTICS v_added = ROW_COUNT;
    RETURN v_removed + v_added;
END;
$$;

-- Create an index that finds a shadow's rows by time while it is compared, unless an index of the
-- shadow begins with the time.
CREATE OR REPLACE FUNCTION lakets._index_mirror_check(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_shadow regclass := lakets._shadow_relation(p_table.shadow_table_name);
    v_index  text     := format('_compare_%s', v_shadow::oid);
BEGIN
    IF to_regclass(format('lakets_cdf.%I', v_index)) IS NULL AND NOT EXISTS (
        SELECT FROM pg_index AS idx
          JOIN pg_attribute AS att ON att.attrelid = idx.indrelid AND att.attnum = idx.indkey[0]
         WHERE idx.indrelid = v_shadow AND att.attname = p_table.time_column) THEN
        EXECUTE format('CREATE INDEX %I ON %s USING brin (%I)', v_index, v_shadow, p_table.time_column);
    END IF;
END;
$$;

-- Correct the mirror of a RollUp that may lack changes; part of its refresh. Readers are not
-- blocked.
CREATE OR REPLACE FUNCTION lakets._mend_rollup_mirror(
    p_rollup lakets._rollup_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._rollup_relation(p_rollup.name);
    v_shadow   regclass := lakets._shadow_relation(p_rollup.shadow_table_name);
BEGIN
    IF p_rollup.sync_enabled AND v_shadow IS NOT NULL
       AND (EXISTS (SELECT FROM lakets._mirror_gap AS gap WHERE gap.shadow = v_shadow) OR NOT lakets._is_tracked(v_relation)
            OR lakets._missing_grants(v_relation) <> '{}')
       AND (SELECT pg_has_role(cls.relowner, 'USAGE') FROM pg_class AS cls WHERE cls.oid = v_relation) THEN
        IF lakets._interference(v_shadow) IS NOT NULL THEN
            RAISE WARNING 'The mirror of RollUp % is not repaired: rows written to % can be discarded or changed by %.',
                p_rollup.name, v_shadow, lakets._interference(v_shadow)
                USING HINT = 'Remove that from the table; the next refresh then repairs the mirror.';
            RETURN;
        END IF;
        -- Lock order: (1) advisory (lakets, RollUp's table), by the caller, (2) the RollUp's table.
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', v_relation);
        PERFORM lakets._track_rollup(p_rollup.id);
        PERFORM lakets._repair_shadow(v_relation, v_shadow, p_rollup.bucket_column, 'false');
        PERFORM lakets._track_rollup(p_rollup.id);
    END IF;
END;
$$;
