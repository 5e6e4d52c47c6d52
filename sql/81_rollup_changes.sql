-- Which buckets of a RollUp are out of date, by the change log and by marks, and the marks that a
-- refresh leaves for the RollUps that read this one.

-- The buckets to recompute: those touched by a change not yet absorbed, those marked in the
-- invalidation log (whose entries are deleted), or, without change tracking, those from the
-- watermark on.
CREATE OR REPLACE FUNCTION lakets._take_dirty_buckets(
    p_rollup lakets._rollup_registry
) RETURNS tstzmultirange
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_logged tstzmultirange;
    v_marked tstzmultirange;
    v_steps  jsonb := p_rollup.definition -> 'steps';
    v_width  interval;     -- of buckets that all have the same
    v_origin timestamptz;
BEGIN
    IF v_steps -> 0 ->> 0 = 'bin' AND jsonb_array_length(v_steps) = 1 THEN
        v_width := (v_steps -> 0 ->> 1)::float8 * interval '1 microsecond';
        v_origin := '2000-01-01 00:00:00+00'::timestamptz + (v_steps -> 0 ->> 2)::float8 * interval '1 microsecond';
    END IF;
    IF p_rollup.track_changes THEN
        -- As _labels_of, which the usual buckets need not call for each hour.
        SELECT range_agg(CASE WHEN v_width IS NULL
                              THEN lakets._labels_of(v_steps, tstzrange(touched.min_time, touched.max_time + interval '1 microsecond'))
                              ELSE tstzrange(date_bin(v_width, touched.min_time, v_origin),
                                             date_bin(v_width, touched.max_time, v_origin) + v_width) END)
          INTO v_logged
          -- One range per hour, so that there are few. Before 4000 BC and after the year 200000 the
          -- ends are those that _reachable_from gives.
          FROM (SELECT CASE WHEN min(log.min_time) < '4000-01-01 00:00:00+00 BC' THEN '-infinity'
                            ELSE least(min(log.min_time), '200000-01-01 00:00:00+00') END AS min_time,
                       CASE WHEN max(log.max_time) > '200000-01-01 00:00:00+00' THEN 'infinity'
                            ELSE greatest(max(log.max_time), '4000-01-01 00:00:00+00 BC') END AS max_time
                  FROM lakets._change_log AS log
                 WHERE log.chronotable_id = p_rollup.source_chronotable_id AND log.min_time IS NOT NULL
                   AND log.xid >= pg_snapshot_xmin(p_rollup.absorbed)
                   AND NOT pg_visible_in_snapshot(log.xid, p_rollup.absorbed)
                   AND NOT (log.min_time = log.max_time AND NOT isfinite(log.min_time))
                 GROUP BY date_bin('1 hour', log.min_time, '2000-01-01 00:00:00+00'::timestamptz),
                          date_bin('1 hour', log.max_time, '2000-01-01 00:00:00+00'::timestamptz)) AS touched;
    ELSE
        v_logged := tstzmultirange(tstzrange(coalesce(lakets._reachable_from(p_rollup.watermark), '-infinity'), 'infinity'));
    END IF;
    IF EXISTS (SELECT FROM lakets._rollup_invalidation_log AS log WHERE log.rollup_id = p_rollup.id) THEN
        WITH taken AS (
            DELETE FROM lakets._rollup_invalidation_log AS log WHERE log.rollup_id = p_rollup.id RETURNING log.bucket_start
        )
        SELECT range_agg(lakets._marked_labels(p_rollup, taken.bucket_start)) INTO v_marked
          FROM (SELECT DISTINCT entry.bucket_start FROM taken AS entry) AS taken;
    END IF;

    IF lakets._must_reload(p_rollup) THEN
        RETURN tstzmultirange(tstzrange('-infinity', 'infinity'));
    END IF;
    IF v_marked IS NULL THEN
        RETURN coalesce(v_logged, '{}');
    END IF;
    RETURN coalesce(v_logged, '{}') + v_marked;
END;
$$;

-- Return whether it is unknown which changes the RollUp has absorbed: after an upgrade, and after a
-- restore into another database, where the same numbers identify other transactions.
CREATE OR REPLACE FUNCTION lakets._must_reload(
    p_rollup lakets._rollup_registry
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN p_rollup.track_changes
       AND (p_rollup.absorbed IS NULL OR split_part(coalesce(p_rollup.cluster, ''), '/', 1) <> split_part(lakets._here(), '/', 1)
            OR pg_snapshot_xmax(p_rollup.absorbed) > pg_snapshot_xmax(pg_current_snapshot()));
END;
$$;

-- Mark the recomputed buckets dirty for the RollUps that read this one.
CREATE OR REPLACE FUNCTION lakets._invalidate_dependants(
    p_rollup  lakets._rollup_registry,
    p_windows tstzmultirange
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO lakets._rollup_invalidation_log (rollup_id, bucket_start)
    SELECT DISTINCT dep.id, mark.bucket_start
      FROM (SELECT reg.*
              FROM lakets._rollup_registry AS reg WHERE p_rollup.id = ANY (reg.depends_on)
             ORDER BY reg.id FOR KEY SHARE) AS dep  -- waits for one that is being dropped, then skips it
     CROSS JOIN unnest(p_windows) AS w
     CROSS JOIN LATERAL lakets._bucket_marks(dep, coalesce(
           lakets._labels_of(lakets._steps_between(p_rollup.definition -> 'steps', dep.definition -> 'steps'), w),
           tstzrange('-infinity', 'infinity'))) AS mark (bucket_start);
END;
$$;

-- The source times of which a RollUp may lack committed changes.
CREATE OR REPLACE FUNCTION lakets._unabsorbed(
    p_rollup lakets._rollup_registry
) RETURNS tstzmultirange
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_steps jsonb := p_rollup.definition -> 'steps';
BEGIN
    IF v_steps IS NULL OR lakets._must_reload(p_rollup) THEN
        RETURN '{(,)}';
    ELSIF NOT p_rollup.track_changes THEN
        RETURN tstzmultirange(lakets._times_of(v_steps, tstzrange(lakets._reachable_from(p_rollup.watermark), NULL)));
    END IF;
    RETURN (
        SELECT coalesce(range_agg(open.times), '{}')
          FROM (SELECT tstzrange(log.min_time, log.max_time, '[]')
                  FROM lakets._change_log AS log
                 WHERE log.chronotable_id = p_rollup.source_chronotable_id AND log.min_time IS NOT NULL
                   AND log.xid >= pg_snapshot_xmin(p_rollup.absorbed)
                   AND NOT pg_visible_in_snapshot(log.xid, p_rollup.absorbed)
                UNION ALL
                SELECT lakets._times_of(v_steps, marked.labels)
                  FROM (SELECT unnest(range_agg(lakets._marked_labels(p_rollup, mark.bucket_start)))
                          FROM lakets._rollup_invalidation_log AS mark WHERE mark.rollup_id = p_rollup.id) AS marked (labels)
               ) AS open (times));
END;
$$;
