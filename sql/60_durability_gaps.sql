-- What a chunk still lacks to be durable, as text.

-- Return as text why no chunk of a table can be proved durable; null if it depends on the chunk.
CREATE OR REPLACE FUNCTION lakets._sync_gap(
    p_table  lakets._chronotable_registry,
    p_proven pg_snapshot
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_status text := lakets._cdf_status(p_table.shadow_table_name);
BEGIN
    IF NOT p_table.sync_enabled THEN
        RETURN 'the table is not synced to Unity Catalog';
    ELSIF p_table.cluster IS NULL THEN
        RETURN 'the table was restored, and its mirror may lack changes; the next partition job or lakets.enable_sync repairs it';
    ELSIF v_status <> 'STREAMING' THEN
        RETURN format('the change feed of %s is not streaming: %s', p_table.shadow_table_name, v_status);
    END IF;
    RETURN coalesce(
        lakets._mirror_problem(lakets._relation(p_table),
                               lakets._shadow_relation(p_table.shadow_table_name)),
        CASE WHEN p_proven IS NULL THEN 'the change feed has not yet passed a known position' END);
END;
$$;

-- Return as text why each of these chunks (ids) is not proved durable; chunks that are proved are
-- left out. The state of the table and the times not flushed are read once, however many chunks
-- there are.
CREATE OR REPLACE FUNCTION lakets._durability_gaps(
    p_table  lakets._chronotable_registry,
    p_chunks bigint[],
    p_proven pg_snapshot
) RETURNS TABLE (chunk_id bigint, gap text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_gap   text := lakets._sync_gap(p_table, p_proven);
    v_span  tstzrange;
    v_doubt tstzmultirange;
    v_open  tstzmultirange;
    v_bare  bigint[];  -- can be written directly
BEGIN
    IF v_gap IS NOT NULL THEN
        RETURN QUERY SELECT id, v_gap FROM unnest(p_chunks) AS id;
        RETURN;
    END IF;
    v_bare := lakets._unguarded_chunks(p_table, p_chunks);
    SELECT tstzrange(min(chunk.range_start), max(chunk.range_end)) INTO v_span
      FROM lakets._chunk_metadata AS chunk WHERE chunk.id = ANY (p_chunks);
    SELECT '{(,)}'::tstzmultirange - chk.compared INTO v_doubt FROM lakets._mirror_check AS chk WHERE chk.chronotable_id = p_table.id;
    SELECT range_agg(tstzrange(log.min_time, log.max_time, '[]')) INTO v_open
      FROM lakets._unproven_changes(p_table.id, p_proven) AS log
     WHERE log.min_time < upper(v_span) AND log.max_time >= lower(v_span);
    RETURN QUERY
        SELECT chunk.id::bigint,
               CASE WHEN cls.relkind <> 'r' THEN lakets._partition_problem(cls.relkind)
                    WHEN v_doubt && tstzrange(chunk.range_start, chunk.range_end) OR chunk.id = ANY (v_bare)
                    THEN 'it is not yet compared with its mirror; the next tiering run or lakets.enable_sync does so'
                    ELSE 'changes to it are not known to be flushed yet' END
          FROM lakets._chunk_metadata AS chunk
          LEFT JOIN pg_class AS cls ON cls.oid = chunk.relation AND chunk.status <> 'dropped'
         WHERE chunk.id = ANY (p_chunks)
           AND (coalesce(v_doubt, '{}') + coalesce(v_open, '{}') && tstzrange(chunk.range_start, chunk.range_end)
                OR chunk.id = ANY (v_bare) OR cls.relkind <> 'r');
END;
$$;

-- The same for one chunk; null if every change to it is flushed.
CREATE OR REPLACE FUNCTION lakets._durability_gap(
    p_table  lakets._chronotable_registry,
    p_chunk  lakets._chunk_metadata,
    p_proven pg_snapshot
) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT found.gap FROM lakets._durability_gaps(p_table, ARRAY[p_chunk.id::bigint], p_proven) AS found);
END;
$$;

-- Return whether the tracking triggers of a table exist and are ENABLE ALWAYS. DISABLE and ENABLE
-- TRIGGER leave them merely enabled: then changes between the two were missed.
CREATE OR REPLACE FUNCTION lakets._is_tracked(
    p_relation regclass
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT count(*) FILTER (WHERE trg.tgname <> 'lakets_moved') = 4 AND bool_and(trg.tgenabled = 'A')
          FROM pg_trigger AS trg
         WHERE trg.tgrelid = p_relation AND (trg.tgname LIKE 'lakets\_track\_%' OR trg.tgname = 'lakets_moved'));
END;
$$;

-- Return as text why tier_chunk would defer a chunk; null if it is proved durable. A dropped chunk
-- must have been proved before the drop. Changes nothing.
CREATE OR REPLACE FUNCTION lakets.explain_durability(
    p_chunk_name text
) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_chunk lakets._chunk_metadata;
    v_table lakets._chronotable_registry;
BEGIN
    SELECT chunk.* INTO v_chunk FROM lakets._chunk_metadata AS chunk WHERE chunk.chunk_name = p_chunk_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'Chunk % does not exist.', p_chunk_name
            USING HINT = 'lakets.show_chunks(table) lists the chunks.';
    END IF;
    IF v_chunk.status = 'dropped' AND v_chunk.tiered_at IS NULL THEN
        RETURN 'it was dropped from Lakebase before it was proved durable';
    END IF;
    v_table := lakets._chronotable(v_chunk.chronotable_id);
    RETURN lakets._durability_gap(v_table, v_chunk, lakets._proof_now(v_table));
END;
$$;
