-- Mark buckets of a RollUp as dirty: by change tracking, and by hand.

-- Track changes of the source for a RollUp. If tracking was off, the next refresh aggregates all
-- resident data again.
CREATE OR REPLACE FUNCTION lakets.enable_rollup_invalidation(
    p_rollup_name text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_rollup lakets._rollup_registry := lakets._rollup(p_rollup_name);
BEGIN
    -- Lock order: (1) advisory (lakets, RollUp's table): a running refresh would record changes as
    -- absorbed that it did not read, (2) for the trigger functions, the source.
    PERFORM lakets._lock_maintenance(lakets._rollup_relation(p_rollup_name));
    UPDATE lakets._rollup_registry AS reg SET track_changes = true, absorbed = NULL
     WHERE reg.id = v_rollup.id AND NOT reg.track_changes;
    PERFORM lakets._track_chronotable(v_rollup.source_chronotable_id) WHERE v_rollup.source_chronotable_id IS NOT NULL;
END;
$$;

-- Stop tracking changes for a RollUp: it is refreshed from its watermark on only, and corrections
-- of older rows need invalidate_rollup_range.
CREATE OR REPLACE FUNCTION lakets.disable_rollup_invalidation(
    p_rollup_name text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_rollup lakets._rollup_registry := lakets._rollup(p_rollup_name);
BEGIN
    PERFORM lakets._lock_maintenance(lakets._rollup_relation(p_rollup_name));
    UPDATE lakets._rollup_registry AS reg SET track_changes = false WHERE reg.id = v_rollup.id;
END;
$$;

-- The times of which a RollUp can have rows: from the first to the last existing chunk of all
-- ChronoTables that it depends on. Chunks created ahead, to which nobody has written yet, are left
-- out. has_strays: rows may lie outside all chunks.
CREATE OR REPLACE FUNCTION lakets._rollup_extent(
    p_rollup lakets._rollup_registry,
    OUT times      tstzrange,
    OUT has_strays boolean
)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_reached timestamptz := upper(lakets._times_of(p_rollup.definition -> 'steps', tstzrange(
        lakets._reachable_from(p_rollup.watermark), lakets._shift(lakets._reachable_from(p_rollup.watermark), p_rollup.bucket_interval), '[]')));
BEGIN
    WITH RECURSIVE up (chronotable_id, depends_on) AS (
        SELECT p_rollup.source_chronotable_id, p_rollup.depends_on
        UNION
        SELECT reg.source_chronotable_id, reg.depends_on FROM up JOIN lakets._rollup_registry AS reg ON reg.id = ANY (up.depends_on)
    ), source AS (
        SELECT DISTINCT now.* FROM up JOIN lakets._chronotable_registry AS tab ON tab.id = up.chronotable_id CROSS JOIN LATERAL lakets._recognise(tab) AS now
    ), part AS (
        SELECT tstzrange(chunk.range_start, chunk.range_end) AS range
          FROM source JOIN lakets._chunk_metadata AS chunk ON chunk.chronotable_id = source.id AND chunk.status <> 'dropped'
         WHERE (p_rollup.watermark IS NOT NULL AND chunk.range_start < v_reached)
            OR pg_relation_size(lakets._chunk_relation(source, chunk)) > 0
        UNION ALL
        SELECT hand.range FROM source CROSS JOIN LATERAL lakets._foreign_partitions(source) AS hand
    )
    SELECT coalesce(range_merge(range_agg(part.range)), 'empty'),
           (SELECT bool_or(pg_relation_size(lakets._default_partition(source.relation)) > 0) FROM source)
      INTO times, has_strays FROM part;
END;
$$;

-- The labels of a RollUp's rows in a range, as marks, except those in p_known. Rows that were
-- inserted by hand, or whose source was deleted, may have labels before or after the source's data.
CREATE OR REPLACE FUNCTION lakets._own_labels(
    p_rollup lakets._rollup_registry,
    p_range  tstzmultirange,
    p_known  tstzmultirange
) RETURNS timestamptz[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'  -- for labels without a zone
AS $$
DECLARE
    v_labels timestamptz[];
BEGIN
    EXECUTE format('SELECT array_agg(DISTINCT r.%1$I::timestamptz) FROM %2$s AS r WHERE r.%1$I::timestamptz <@ $1 AND NOT r.%1$I::timestamptz <@ $2',
                   p_rollup.bucket_column, lakets._rollup_relation(p_rollup.name)) INTO v_labels USING p_range, p_known;
    RETURN coalesce(v_labels, '{}');
END;
$$;

-- Mark the buckets of source times in [p_from, p_to) dirty and return how many. Buckets whose
-- source is dropped are skipped, because they must keep their value. Those of a chunk that was
-- detached by hand are marked, for when it is attached again. In a range of more than 10,000
-- buckets, those without rows before or after all data are skipped too; if source rows may lie
-- outside all chunks, one mark then covers everything. A second call marks nothing more, and
-- returns the same number.
CREATE OR REPLACE FUNCTION lakets.invalidate_rollup_range(
    p_name text,
    p_from timestamptz,
    p_to   timestamptz
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_rollup  lakets._rollup_registry := lakets._rollup(p_name);
    v_steps   jsonb := v_rollup.definition -> 'steps';
    v_extent  record;
    v_asked   tstzmultirange;
    v_dirty   tstzmultirange;
    v_frozen  tstzmultirange;
    v_marks   timestamptz[];
BEGIN
    IF p_from IS NULL OR p_to IS NULL OR NOT isfinite(p_from) OR NOT isfinite(p_to) OR p_from >= p_to THEN
        RAISE EXCEPTION 'The range from % to % marks no bucket.', coalesce(p_from::text, 'null'), coalesce(p_to::text, 'null')
            USING HINT = 'Give a finite start and a later finite end.';
    END IF;
    SELECT * INTO v_extent FROM lakets._rollup_extent(v_rollup);
    v_asked := tstzmultirange(lakets._labels_of(v_steps, tstzrange(p_from, p_to)));
    v_dirty := v_asked;
    IF extract(epoch FROM p_to) - extract(epoch FROM p_from) > 10000 * extract(epoch FROM v_rollup.bucket_interval) THEN
        v_dirty := v_asked * tstzmultirange(lakets._labels_of(v_steps, v_extent.times));
    END IF;
    v_frozen := lakets._frozen_buckets(v_rollup, v_asked) - coalesce(
        (SELECT range_agg(lakets._labels_of(v_steps, tstzrange(lost.range_start, lost.range_end)))
           FROM lakets._chronotable_registry AS tab CROSS JOIN LATERAL lakets._lost_chunks(lakets._recognise(tab)) AS lost
          WHERE tab.id = v_rollup.source_chronotable_id), '{}');
    v_marks := ARRAY(SELECT mark FROM unnest(v_dirty - v_frozen) AS w, lakets._bucket_marks(v_rollup, w) AS mark);
    IF v_dirty <> v_asked THEN
        v_marks := v_marks || CASE WHEN v_extent.has_strays THEN ARRAY['-infinity'::timestamptz]
                                   ELSE lakets._own_labels(v_rollup, v_asked, v_dirty + v_frozen) END;
    END IF;
    INSERT INTO lakets._rollup_invalidation_log (rollup_id, bucket_start)
    SELECT v_rollup.id, new.mark
      FROM unnest(v_marks) AS new (mark)
     WHERE NOT EXISTS (SELECT FROM lakets._rollup_invalidation_log AS log WHERE log.rollup_id = v_rollup.id AND log.bucket_start = new.mark);
    RETURN cardinality(v_marks);
END;
$$;

-- Mark the buckets of rows that were moved to another chunk. Their values are the same, but a query
-- that reads the whole source may read tableoid.
CREATE OR REPLACE FUNCTION lakets._mark_moved(
    p_table lakets._chronotable_registry,
    p_times tstzrange
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO lakets._rollup_invalidation_log (rollup_id, bucket_start)
    SELECT reg.id, new.mark
      FROM lakets._rollup_registry AS reg
     CROSS JOIN LATERAL lakets._bucket_marks(reg, lakets._labels_of(reg.definition -> 'steps', p_times)) AS new (mark)
     WHERE reg.source_chronotable_id = p_table.id AND NOT (reg.definition ->> 'limited')::boolean;
END;
$$;
