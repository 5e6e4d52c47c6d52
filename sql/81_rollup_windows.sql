-- The buckets of a RollUp as ranges of their labels: the buckets that a change touches, and the
-- source rows of a bucket.

-- The start of a range of times or labels, moved away from the ends of time: there the start or end
-- of its bucket could be out of the range of timestamps. The range gets longer, by few rows if any.
CREATE OR REPLACE FUNCTION lakets._reachable_from(
    p_from timestamptz
) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN p_from < '4000-01-01 00:00:00+00 BC' THEN '-infinity'
                WHEN p_from > '200000-01-01 00:00:00+00' THEN '200000-01-01 00:00:00+00' ELSE p_from END;
$$;

-- The source times that the buckets in a window of labels are made of, over all sources that the
-- query reads.
CREATE OR REPLACE FUNCTION lakets._window_times(
    p_rollup lakets._rollup_registry,
    p_window tstzrange
) RETURNS tstzrange
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_steps jsonb;
    v_all   tstzrange := 'empty';
BEGIN
    FOR v_position IN 0 .. jsonb_array_length(p_rollup.definition -> 'times') - 1 LOOP
        v_steps := p_rollup.definition -> 'times' -> v_position;
        IF jsonb_typeof(v_steps) <> 'array' THEN
            RETURN tstzrange('-infinity', 'infinity');
        END IF;
        v_all := range_merge(v_all, lakets._times_of(v_steps, p_window));
    END LOOP;
    RETURN v_all;
END;
$$;

-- The labels of source times, over all sources that the query reads.
CREATE OR REPLACE FUNCTION lakets._window_labels(
    p_rollup lakets._rollup_registry,
    p_times  tstzrange
) RETURNS tstzrange
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_steps jsonb;
    v_all   tstzrange := 'empty';
BEGIN
    FOR v_position IN 0 .. jsonb_array_length(p_rollup.definition -> 'times') - 1 LOOP
        v_steps := p_rollup.definition -> 'times' -> v_position;
        IF jsonb_typeof(v_steps) <> 'array' THEN
            RETURN tstzrange('-infinity', 'infinity');
        END IF;
        v_all := range_merge(v_all, lakets._labels_of(v_steps, p_times));
    END LOOP;
    RETURN v_all;
END;
$$;

-- Return whether the source times of a window are exactly those whose buckets are in it.
CREATE OR REPLACE FUNCTION lakets._is_exact(
    p_rollup lakets._rollup_registry
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (p_rollup.definition ->> 'limited')::boolean AND jsonb_array_length(p_rollup.definition -> 'times') = 1
       AND NOT lakets._has_margin(p_rollup.definition -> 'times' -> 0);
END;
$$;

-- The labels that a mark in the invalidation log covers: one interval from the label of its bucket,
-- or all if the mark is infinite.
CREATE OR REPLACE FUNCTION lakets._marked_labels(
    p_rollup lakets._rollup_registry,
    p_mark   timestamptz
) RETURNS tstzrange
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_last jsonb := p_rollup.definition -> 'steps' -> -1;
BEGIN
    IF NOT isfinite(p_mark) THEN
        RETURN tstzrange('-infinity', 'infinity');
    END IF;
    RETURN tstzrange(CASE WHEN v_last ->> 0 IN ('bin', 'months')
                          THEN lakets._step_start(v_last, p_mark AT TIME ZONE 'UTC', false) AT TIME ZONE 'UTC' ELSE p_mark END,
                     lakets._shift(p_mark, p_rollup.bucket_interval));
END;
$$;

-- The marks that cover the labels in [p_from, p_to); -infinity covers all labels.
CREATE OR REPLACE FUNCTION lakets._bucket_marks(
    p_rollup lakets._rollup_registry,
    p_labels tstzrange
) RETURNS SETOF timestamptz
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_at timestamptz := lower(p_labels);
BEGIN
    IF NOT isfinite(lower(p_labels)) OR NOT isfinite(upper(p_labels)) THEN
        RETURN NEXT '-infinity'::timestamptz;
        RETURN;
    END IF;
    WHILE v_at < upper(p_labels) LOOP
        RETURN NEXT v_at;
        v_at := lakets._shift(v_at, p_rollup.bucket_interval);
    END LOOP;
END;
$$;

-- Merge windows until few are left: keep the 63 widest gaps, and close the others.
CREATE OR REPLACE FUNCTION lakets._join_neighbours(
    p_dirty tstzmultirange
) RETURNS tstzmultirange
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (SELECT count(*) FROM unnest(p_dirty)) <= 64 THEN
        RETURN p_dirty;
    END IF;
    RETURN (
        WITH part AS (
            SELECT w, lower(w) - lag(upper(w)) OVER (ORDER BY w) AS gap FROM unnest(p_dirty) AS w
        ), ranked AS (
            SELECT part.w, row_number() OVER (ORDER BY part.gap DESC NULLS FIRST) <= 64 AS is_first FROM part
        ), grouped AS (
            SELECT ranked.w, count(*) FILTER (WHERE ranked.is_first) OVER (ORDER BY ranked.w) AS number FROM ranked
        ), joined AS (
            SELECT range_merge(range_agg(grouped.w)) AS w FROM grouped GROUP BY grouped.number
        )
        SELECT range_agg(joined.w) FROM joined);
END;
$$;

-- The buckets among p_dirty that must keep their value, because part of their source is dropped
-- from Lakebase, or was detached or dropped by hand since the last job.
CREATE OR REPLACE FUNCTION lakets._frozen_buckets(
    p_rollup lakets._rollup_registry,
    p_dirty  tstzmultirange
) RETURNS tstzmultirange
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_times   tstzrange := lakets._times_of(p_rollup.definition -> 'steps', range_merge(p_dirty));
    v_dropped tstzmultirange;
    v_is_odd  boolean;
BEGIN
    IF NOT (p_rollup.definition ->> 'source')::boolean THEN
        RETURN '{}';
    END IF;
    SELECT range_agg(tstzrange(chunk.range_start, chunk.range_end)) FILTER (WHERE chunk.status = 'dropped'),
           bool_or(chunk.status <> 'dropped' AND NOT EXISTS (
               SELECT FROM pg_inherits AS inh WHERE inh.inhrelid = chunk.relation AND inh.inhseqno = 1))
      INTO v_dropped, v_is_odd
      FROM lakets._chunk_metadata AS chunk
     WHERE chunk.chronotable_id = p_rollup.source_chronotable_id
       AND chunk.range_end > lower(v_times) AND chunk.range_start < upper(v_times);
    IF v_is_odd THEN
        v_dropped := coalesce(v_dropped, '{}') + coalesce(
            (SELECT range_agg(tstzrange(lost.range_start, lost.range_end))
               FROM lakets._chronotable_registry AS tab CROSS JOIN LATERAL lakets._lost_chunks(lakets._recognise(tab)) AS lost
              WHERE tab.id = p_rollup.source_chronotable_id), '{}');
    END IF;
    IF coalesce(isempty(v_dropped), true) THEN
        RETURN '{}';
    END IF;
    RETURN (SELECT range_agg(lakets._labels_of(p_rollup.definition -> 'steps', gone)) FROM unnest(v_dropped) AS gone);
END;
$$;
