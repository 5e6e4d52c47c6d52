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

-- The manual partitions of a table, with their ranges; none while its oids are not known. Uses an
-- index, as _lost_chunks does.
CREATE OR REPLACE FUNCTION lakets._foreign_partitions(
    p_table lakets._chronotable_registry
) RETURNS TABLE (relation regclass, range tstzrange)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
BEGIN
    IF p_table.cluster IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
        SELECT inh.inhrelid::regclass, lakets._partition_range(inh.inhrelid)
          FROM pg_inherits AS inh
         WHERE inh.inhparent = p_table.relation AND inh.inhrelid IS DISTINCT FROM lakets._default_partition(p_table.relation)
           AND NOT EXISTS (SELECT FROM lakets._chunk_metadata AS chunk
                            WHERE chunk.chronotable_id = p_table.id AND chunk.relation = inh.inhrelid AND chunk.status <> 'dropped')
         ORDER BY inh.inhrelid;
END;
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

-- Make the manual partitions of a table chunks, and return how many. Their rows count as changed,
-- so RollUps absorb them. A synced table then needs lakets.enable_sync, which copies the rows to
-- the shadow. A partition without a start or an end, or across the edge of a dropped range, stays
-- as it is, with a warning.
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
    v_shadow  regclass;
    v_new     record;
    v_adopted integer := 0;
BEGIN
    -- Lock order: (1) advisory (lakets, relation), (2) parent, (3) partitions.
    PERFORM lakets._lock_maintenance(v_table.relation);
    v_table := lakets._follow(v_table);
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', v_table.relation::regclass);
    v_shadow := CASE WHEN v_table.sync_enabled THEN lakets._shadow_relation(v_table.shadow_table_name) END;
    FOR v_new IN
        SELECT hand.relation, hand.range,
               (SELECT chunk.id FROM lakets._chunk_metadata AS chunk
                 WHERE chunk.chronotable_id = v_table.id AND tstzrange(chunk.range_start, chunk.range_end) = hand.range) AS was,
               EXISTS (SELECT FROM lakets._chunk_metadata AS chunk
                        WHERE chunk.chronotable_id = v_table.id AND tstzrange(chunk.range_start, chunk.range_end) && hand.range
                          AND tstzrange(chunk.range_start, chunk.range_end) <> hand.range) AS is_across
          FROM lakets._foreign_partitions(v_table) AS hand
    LOOP
        IF NOT isfinite(lower(v_new.range)) OR NOT isfinite(upper(v_new.range)) OR v_new.is_across THEN
            RAISE WARNING 'Partition % cannot be a chunk: %.', v_new.relation,
                CASE WHEN v_new.is_across THEN 'part of its range was dropped' ELSE 'its range has no start or no end' END;
            CONTINUE;
        END IF;
        IF v_new.was IS NOT NULL THEN
            UPDATE lakets._chunk_metadata AS chunk
               SET status = 'active', tiered_at = NULL, trimmed_at = NULL, relation = v_new.relation,
                   relation_name = (SELECT cls.relname FROM pg_class AS cls WHERE cls.oid = v_new.relation)
             WHERE chunk.id = v_new.was;
        ELSE
            PERFORM lakets._register_chunks(v_table, ARRAY[v_new.relation], ARRAY[v_new.range]);
        END IF;
        PERFORM lakets._match_identity(v_table.relation, v_new.relation);
        INSERT INTO lakets._change_log (chronotable_id, min_time, max_time)
        VALUES (v_table.id, lower(v_new.range), upper(v_new.range) - interval '1 microsecond');
        v_adopted := v_adopted + 1;
    END LOOP;
    PERFORM lakets._guard_partitions(v_table.relation);
    INSERT INTO lakets._mirror_gap (shadow) SELECT v_shadow WHERE v_adopted > 0 AND v_shadow IS NOT NULL;
    RETURN v_adopted;
END;
$$;
