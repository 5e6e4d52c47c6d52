-- Partitions that somebody created or attached by hand. LakeTS does not own them: no job touches,
-- counts or drops one, and new chunks are created around them. adopt_partitions makes them chunks.

-- The range of a partition; null for a default partition. Time literals are read as they are
-- written, in UTC.
CREATE OR REPLACE FUNCTION lakets._partition_range(
    p_partition regclass
) RETURNS tstzrange
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'
    SET datestyle = 'ISO, YMD'
AS $$
DECLARE
    v_bounds text[] := (
        SELECT regexp_match(pg_get_expr(cls.relpartbound, cls.oid), '^FOR VALUES FROM \(''?(.*?)''?\) TO \(''?(.*?)''?\)$')
          FROM pg_class AS cls WHERE cls.oid = p_partition);
BEGIN
    RETURN CASE WHEN v_bounds IS NOT NULL THEN tstzrange(
        CASE v_bounds[1] WHEN 'MINVALUE' THEN '-infinity' ELSE v_bounds[1]::timestamptz END,
        CASE v_bounds[2] WHEN 'MAXVALUE' THEN 'infinity' ELSE v_bounds[2]::timestamptz END) END;
END;
$$;

-- The manual partitions of a table, with their ranges; none while its oids are not known. EXCEPT
-- costs the same for each chunk, whatever the planner knows of the tables; NOT EXISTS may compare
-- every partition with every chunk.
CREATE OR REPLACE FUNCTION lakets._foreign_partitions(
    p_table lakets._chronotable_registry
) RETURNS TABLE (relation regclass, range tstzrange)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
AS $$
DECLARE
    v_default oid := lakets._default_partition(p_table.relation);
BEGIN
    IF p_table.cluster IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
        SELECT hand.relation::regclass, lakets._partition_range(hand.relation)
          FROM (SELECT inh.inhrelid AS relation FROM pg_inherits AS inh
                 WHERE inh.inhparent = p_table.relation AND inh.inhrelid IS DISTINCT FROM v_default
                EXCEPT
                SELECT chunk.relation FROM lakets._chunk_metadata AS chunk
                 WHERE chunk.chronotable_id = p_table.id AND chunk.relation IS NOT NULL AND chunk.status <> 'dropped') AS hand
         ORDER BY hand.relation;
END;
$$;

-- Return as text why a partition cannot be guarded against writes that bypass tracking; null if it
-- can. It is then no chunk, and one that an older version adopted is not durable.
CREATE OR REPLACE FUNCTION lakets._partition_problem(
    p_kind "char"
) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE p_kind WHEN 'r' THEN NULL WHEN 'p' THEN 'it is partitioned itself, and rows written to its own partitions are not tracked'
                       ELSE 'it is not an ordinary table, and its rows can change without being tracked' END
           || '; detach it, copy its rows into an ordinary table, attach that, and call lakets.adopt_partitions';
$$;

-- Warn if a table has manual partitions.
CREATE OR REPLACE FUNCTION lakets._warn_of_foreign_partitions(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_names text := (SELECT string_agg(hand.relation::text, ', ') FROM lakets._foreign_partitions(p_table) AS hand);
BEGIN
    IF v_names IS NOT NULL THEN
        RAISE WARNING 'These partitions of % were made or attached by hand, and are no chunks: %.', p_table.relation::regclass, v_names
            USING HINT = 'They are neither tiered nor dropped, and their rows are missing from RollUps and the shadow. '
                         'lakets.adopt_partitions makes chunks of them.';
    END IF;
END;
$$;

-- Make the manual partitions of a table chunks, as many as one transaction has room to lock, and
-- return how many. Their rows count as changed, so RollUps absorb them. A synced table then needs
-- lakets.enable_sync, which copies the rows to the shadow. A partition without a start or an end,
-- across the edge of a dropped range, or partitioned itself stays as it is, with a warning.
CREATE OR REPLACE FUNCTION lakets.adopt_partitions(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_table   lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_most    integer := greatest(lakets._lock_budget() / 4, 10);  -- limit for those adopted, and for those only guarded
    v_guarded integer := 0;
    v_default regclass;
    v_new     record;
    v_adopted integer := 0;
BEGIN
    -- Lock order: (1) advisory (lakets, relation), (2) parent, (3) partitions.
    PERFORM lakets._lock_maintenance(v_table.relation);
    v_table := lakets._follow(v_table);
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', v_table.relation::regclass);
    v_default := lakets._default_partition(v_table.relation);
    IF v_default IS NOT NULL AND NOT lakets._is_guarded(v_default) THEN
        PERFORM lakets._guard_partition(v_default);
        PERFORM lakets._log_guarded(v_table, ARRAY[v_default]);
    END IF;
    FOR v_new IN
        SELECT hand.relation, hand.range, coalesce(lakets._partition_problem(hand.relkind), lakets._adoption_problem(v_table, hand.range)) AS problem
          FROM (SELECT part.*, cls.relkind FROM lakets._foreign_partitions(v_table) AS part
                  JOIN pg_class AS cls ON cls.oid = part.relation ORDER BY part.range) AS hand
    LOOP
        IF v_new.problem IS NULL THEN
            EXIT WHEN v_adopted = v_most;
            PERFORM lakets._adopt_partition(v_table, v_new.relation, v_new.range);
            PERFORM lakets._guard_partition(v_new.relation);
            v_adopted := v_adopted + 1;
        ELSE
            RAISE WARNING 'Partition % cannot be a chunk: %.', v_new.relation, v_new.problem;
            IF v_guarded < v_most AND NOT lakets._is_guarded(v_new.relation) THEN
                PERFORM lakets._guard_partition(v_new.relation);
                v_guarded := v_guarded + 1;
            END IF;
        END IF;
    END LOOP;
    IF v_adopted = v_most AND EXISTS (
        SELECT FROM lakets._foreign_partitions(v_table) AS hand JOIN pg_class AS cls ON cls.oid = hand.relation
         WHERE coalesce(lakets._partition_problem(cls.relkind), lakets._adoption_problem(v_table, hand.range)) IS NULL) THEN
        RAISE WARNING '% partitions of %.% are chunks now; more do not fit into one transaction.', v_adopted, v_table.schema_name, v_table.table_name
            USING HINT = 'Call this again, each time in a transaction of its own, until it returns 0.';
    END IF;
    INSERT INTO lakets._mirror_gap (shadow)
    SELECT shadow FROM lakets._shadow_relation(v_table.shadow_table_name) AS shadow
     WHERE v_adopted > 0 AND v_table.sync_enabled AND shadow IS NOT NULL;
    RETURN v_adopted;
END;
$$;

-- Return why a partition with this range cannot be a chunk, in words; null when it can.
CREATE OR REPLACE FUNCTION lakets._adoption_problem(
    p_table lakets._chronotable_registry,
    p_range tstzrange
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT isfinite(lower(p_range)) OR NOT isfinite(upper(p_range)) THEN
        RETURN 'its range has no start or no end';
    ELSIF EXISTS (SELECT FROM lakets._chunk_metadata AS chunk
                   WHERE chunk.chronotable_id = p_table.id AND chunk.range_start < upper(p_range) AND chunk.range_end > lower(p_range)
                     AND tstzrange(chunk.range_start, chunk.range_end) <> p_range) THEN
        RETURN 'part of its range was dropped';
    END IF;
    RETURN NULL;
END;
$$;

-- Make a partition a chunk. A dropped chunk with the same range becomes active again. All of its
-- range counts as changed, and its rows are taken into the last value cache.
CREATE OR REPLACE FUNCTION lakets._adopt_partition(
    p_table     lakets._chronotable_registry,
    p_partition regclass,
    p_range     tstzrange
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE lakets._chunk_metadata AS chunk
       SET status = 'active', tiered_at = NULL, trimmed_at = NULL, relation = p_partition,
           relation_name = (SELECT cls.relname FROM pg_class AS cls WHERE cls.oid = p_partition)
     WHERE chunk.chronotable_id = p_table.id AND chunk.range_start = lower(p_range) AND chunk.range_end = upper(p_range);
    IF NOT FOUND THEN
        PERFORM lakets._register_chunks(p_table, ARRAY[p_partition], ARRAY[p_range]);
    END IF;
    PERFORM lakets._match_identity(p_table.relation, p_partition);
    PERFORM lakets._show_generated(p_table.relation, p_partition);
    PERFORM lakets._cache_partition(p_table, p_partition);
    INSERT INTO lakets._change_log (chronotable_id, min_time, max_time)
    VALUES (p_table.id, lower(p_range), upper(p_range) - interval '1 microsecond');
END;
$$;
