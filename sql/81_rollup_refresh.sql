-- Job 4: re-aggregate the buckets whose source changed.
--
-- Writers append to the change log whatever the watermark says; a RollUp keeps, as a snapshot, which of
-- those changes it has absorbed. A refresh reads what that snapshot does not see, and only then, in a later
-- statement, the source: a change it reads of is in the rows it reads, and one that commits in between is
-- still unseen by the stored snapshot, so it is found by the next refresh. Nobody waits for anybody.

-- Replace the buckets in a window by what the query says now. Raises LT001 when a bucket turns out not to lie on
-- the RollUp's grid; the caller then takes the RollUp for uneven.
CREATE OR REPLACE FUNCTION lakets._recompute(
    p_rollup lakets._rollup_registry,
    p_window tstzrange
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'  -- buckets must not depend on who refreshes
    SET row_security = off  -- nor must their rows: a policy that hides some is an error here
AS $$
DECLARE
    v_relation regclass    := lakets._rollup_relation(p_rollup.name);
    v_type     regtype     := lakets._column_type(v_relation, p_rollup.bucket_column);
    v_bucket   text        := lakets._as_instant(format('fresh.%I', p_rollup.bucket_column), v_type);
    -- The earliest instant there is: infinite times belong to no bucket.
    v_from     timestamptz := greatest(lower(p_window), '4714-11-24 00:00:00+00 BC');
    v_to       timestamptz := upper(p_window);
    v_grid     text;
    v_off_grid boolean;
BEGIN
    EXECUTE format('DELETE FROM %1$s AS old WHERE old.%2$I >= %3$s AND old.%2$I < %4$s', v_relation, p_rollup.bucket_column,
                   lakets._comparable('$1', v_type), lakets._comparable('$2', v_type)) USING v_from, v_to;
    IF NOT p_rollup.on_grid OR p_rollup.bucket_origin IS NULL OR lower(p_window) = '-infinity' THEN
        -- Read beyond the window, so that its last buckets are whole, and keep the window's buckets only.
        EXECUTE format('INSERT INTO %1$s SELECT fresh.* FROM (%2$s) AS fresh WHERE %3$s >= $3 AND %3$s < $4',
                       v_relation, p_rollup.window_query, v_bucket)
          USING v_from, CASE WHEN p_rollup.on_grid THEN v_to ELSE lakets._bucket_end(p_rollup, v_to) END, v_from, v_to;
        IF NOT p_rollup.on_grid AND isfinite(lower(p_window)) AND isfinite(v_to) THEN
            PERFORM lakets._check_bucket_length(p_rollup, v_from, 1);
            PERFORM lakets._check_bucket_length(p_rollup, v_to, 1);
        END IF;
        RETURN;
    END IF;
    -- What time_bucket comes to but for months, without the half a millisecond that it takes to plan.
    v_grid := CASE WHEN lakets._months(p_rollup.bucket_interval) = 0 THEN 'date_bin' ELSE 'lakets.time_bucket' END;
    EXECUTE format('WITH fresh AS (INSERT INTO %1$s SELECT fresh.* FROM (%2$s) AS fresh RETURNING %4$I) '
                   'SELECT bool_or(%3$s < $1 OR %3$s >= $2 OR %5$s($3, %3$s, $4) <> %3$s) FROM fresh',
                   v_relation, p_rollup.window_query, v_bucket, p_rollup.bucket_column, v_grid)
       INTO v_off_grid USING v_from, v_to, p_rollup.bucket_interval, p_rollup.bucket_origin;
    IF v_off_grid THEN
        RAISE EXCEPTION 'The buckets of RollUp % do not lie on a grid of %.', p_rollup.name, p_rollup.bucket_interval
            USING ERRCODE = 'LT001';
    END IF;
END;
$$;

-- The buckets to recompute: touched by a change not yet absorbed, or marked in the invalidation log (whose
-- entries are taken out), or, without change tracking, from the watermark on.
CREATE OR REPLACE FUNCTION lakets._take_dirty_buckets(
    p_rollup lakets._rollup_registry
) RETURNS tstzmultirange
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_logged tstzmultirange;
    v_marked tstzmultirange;
BEGIN
    IF p_rollup.track_changes THEN
        SELECT range_agg(lakets._buckets_of(p_rollup, touched.min_time, touched.max_time)) INTO v_logged
          FROM (SELECT min(log.min_time) AS min_time, max(log.max_time) AS max_time  -- by hour, to be few
                  FROM lakets._change_log AS log
                 WHERE log.chronotable_id = p_rollup.source_chronotable_id AND log.min_time IS NOT NULL
                   AND log.xid >= pg_snapshot_xmin(p_rollup.absorbed)
                   AND NOT pg_visible_in_snapshot(log.xid, p_rollup.absorbed)
                   AND NOT (log.min_time = log.max_time AND NOT isfinite(log.min_time))
                 GROUP BY date_bin('1 hour', log.min_time, '2000-01-01 00:00:00+00'::timestamptz),
                          date_bin('1 hour', log.max_time, '2000-01-01 00:00:00+00'::timestamptz)) AS touched;
    ELSE
        v_logged := tstzmultirange(tstzrange(coalesce(p_rollup.watermark, '-infinity'), 'infinity'));
    END IF;
    WITH taken AS (
        DELETE FROM lakets._rollup_invalidation_log AS log WHERE log.rollup_id = p_rollup.id RETURNING log.bucket_start
    )
    SELECT range_agg(CASE WHEN isfinite(taken.bucket_start)
               THEN lakets._buckets_of(p_rollup, taken.bucket_start,
                        lakets._shift(taken.bucket_start, p_rollup.bucket_interval) - interval '1 microsecond')
               ELSE tstzrange('-infinity', 'infinity') END) INTO v_marked
      FROM (SELECT DISTINCT entry.bucket_start FROM taken AS entry) AS taken;

    IF p_rollup.bucket_origin IS NULL AND (v_logged IS NOT NULL OR v_marked IS NOT NULL) OR lakets._must_reload(p_rollup) THEN
        RETURN tstzmultirange(tstzrange('-infinity', 'infinity'));
    END IF;
    RETURN coalesce(v_logged, '{}') + coalesce(v_marked, '{}');
END;
$$;

-- Is it unknown what the RollUp has absorbed? So it is after an upgrade, and after a restore into another
-- cluster, whose transaction ids have not come as far.
CREATE OR REPLACE FUNCTION lakets._must_reload(
    p_rollup lakets._rollup_registry
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN p_rollup.track_changes
       AND (p_rollup.absorbed IS NULL OR pg_snapshot_xmax(p_rollup.absorbed) > pg_snapshot_xmax(pg_current_snapshot()));
END;
$$;

-- Few windows rather than many: keep the 63 widest gaps, and close the others.
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

-- The starts of the buckets that have a part in [p_from, p_to), as a range. Where buckets are uneven, the
-- one that is in course at p_from is looked up.
CREATE OR REPLACE FUNCTION lakets._buckets_within(
    p_rollup lakets._rollup_registry,
    p_from   timestamptz,
    p_to     timestamptz
) RETURNS tstzrange
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass  := lakets._rollup_relation(p_rollup.name);
    v_type     regtype   := lakets._column_type(v_relation, p_rollup.bucket_column);
    v_buckets  tstzrange := lakets._buckets_of(p_rollup, p_from, p_to - interval '1 microsecond');
    v_first    timestamptz;
BEGIN
    IF p_rollup.on_grid THEN
        RETURN v_buckets;
    END IF;
    EXECUTE format('SELECT %s FROM %s WHERE %I <= %s', lakets._as_instant(format('max(%I)', p_rollup.bucket_column), v_type),
                   v_relation, p_rollup.bucket_column, lakets._comparable('$1', v_type)) INTO v_first USING p_from;
    RETURN tstzrange(greatest(v_first, lower(v_buckets)), upper(v_buckets));
END;
$$;

-- The buckets among p_dirty that must keep their value, since part of their source is dropped from Lakebase.
CREATE OR REPLACE FUNCTION lakets._frozen_buckets(
    p_rollup lakets._rollup_registry,
    p_dirty  tstzmultirange
) RETURNS tstzmultirange
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_to timestamptz := lakets._bucket_end(p_rollup, upper(p_dirty));
BEGIN
    RETURN (
        SELECT coalesce(range_agg(lakets._buckets_within(p_rollup, lower(gone), upper(gone))), '{}')
          FROM (SELECT range_agg(tstzrange(chunk.range_start, chunk.range_end)) AS ranges
                  FROM lakets._chunk_metadata AS chunk
                 WHERE chunk.chronotable_id = p_rollup.source_chronotable_id AND chunk.status = 'dropped'
                   AND chunk.range_end > lower(p_dirty) AND chunk.range_start < v_to) AS dropped,
               unnest(dropped.ranges) AS gone);
END;
$$;

-- Instants one bucket apart that cover [p_from, p_to); -infinity stands for all there is.
CREATE OR REPLACE FUNCTION lakets._bucket_starts(
    p_rollup lakets._rollup_registry,
    p_from   timestamptz,
    p_to     timestamptz
) RETURNS SETOF timestamptz
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_at timestamptz := CASE WHEN p_rollup.on_grid THEN lakets._bucket_of(p_rollup, p_from) ELSE p_from END;
BEGIN
    IF NOT isfinite(p_from) OR NOT isfinite(p_to) THEN
        RETURN NEXT '-infinity'::timestamptz;
        RETURN;
    END IF;
    WHILE v_at < p_to LOOP
        RETURN NEXT v_at;
        v_at := CASE WHEN p_rollup.on_grid THEN lakets._bucket_end(p_rollup, v_at) ELSE lakets._shift(v_at, p_rollup.bucket_interval) END;
    END LOOP;
END;
$$;

-- What was recomputed here is dirty for the RollUps that read this one.
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
             ORDER BY reg.id FOR KEY SHARE) AS dep  -- one that is being dropped is waited for, and then passed over
     CROSS JOIN unnest(p_windows) AS w
     CROSS JOIN LATERAL lakets._bucket_starts(dep, lower(w), upper(w)) AS mark (bucket_start);
END;
$$;

-- Recompute windows; should the grid turn out uneven, note that and recompute everything that may be.
CREATE OR REPLACE FUNCTION lakets._recompute_all(
    p_rollup lakets._rollup_registry,
    p_dirty  tstzmultirange
) RETURNS tstzmultirange
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_windows tstzmultirange := lakets._join_neighbours(p_dirty);
    v_window  tstzrange;
BEGIN
    v_windows := v_windows - lakets._frozen_buckets(p_rollup, v_windows);
    FOR v_window IN SELECT unnest(v_windows) LOOP
        PERFORM lakets._recompute(p_rollup, v_window);
    END LOOP;
    RETURN v_windows;
EXCEPTION WHEN SQLSTATE 'LT001' THEN
    p_rollup.on_grid := false;
    UPDATE lakets._rollup_registry AS reg SET on_grid = false WHERE reg.id = p_rollup.id;
    PERFORM lakets._check_newest_buckets(p_rollup);
    RETURN lakets._recompute_all(p_rollup, tstzmultirange(tstzrange('-infinity', 'infinity')));
END;
$$;

-- Refresh one RollUp. False: skipped, because refresh_lag has not passed since the last refresh (unless
-- p_force), or because another session is refreshing it.
CREATE OR REPLACE FUNCTION lakets.refresh_rollup(
    p_name  text,
    p_force boolean DEFAULT false
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_rollup  lakets._rollup_registry := lakets._rollup(p_name);
    v_now     pg_snapshot;
    v_windows tstzmultirange;
BEGIN
    PERFORM lakets._require_read_committed();
    -- Lock order: (1) advisory (lakets, RollUp's table), (2) sources, in ACCESS SHARE mode: writers pass, and a chunk
    -- cannot be dropped between the look at what is dropped and the reading of what is there.
    IF NOT pg_try_advisory_xact_lock(hashtext('lakets'), (lakets._rollup_relation(p_name)::oid::bigint - 2147483648)::integer) THEN
        RETURN false;
    END IF;
    v_rollup := lakets._rollup(p_name);
    IF NOT p_force AND v_rollup.last_refreshed_at + v_rollup.refresh_lag > clock_timestamp() THEN
        RETURN false;
    END IF;
    PERFORM lakets._lock_sources(v_rollup.source_chronotable_id, v_rollup.depends_on);

    v_now := lakets._ended_now();
    v_windows := lakets._take_dirty_buckets(v_rollup);
    IF NOT isempty(v_windows) THEN
        v_windows := lakets._recompute_all(v_rollup, v_windows);
        IF v_rollup.bucket_origin IS NULL THEN
            PERFORM lakets._learn_grid(v_rollup);
        END IF;
        PERFORM lakets._invalidate_dependants(v_rollup, v_windows);
    END IF;
    PERFORM lakets._note_refresh(v_rollup, v_now);
    RETURN true;
END;
$$;

-- Record how far a refresh came, and let go of the changes that nobody needs any more.
CREATE OR REPLACE FUNCTION lakets._note_refresh(
    p_rollup   lakets._rollup_registry,
    p_absorbed pg_snapshot
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation  regclass := lakets._rollup_relation(p_rollup.name);
    v_bucket    text := lakets._as_instant(format('max(%I)', p_rollup.bucket_column),
                                           lakets._column_type(v_relation, p_rollup.bucket_column));
    v_watermark timestamptz;
BEGIN
    EXECUTE format('SELECT %s FROM %s', v_bucket, v_relation) INTO v_watermark;
    UPDATE lakets._rollup_registry AS reg
       SET absorbed = p_absorbed, watermark = v_watermark, last_refreshed_at = clock_timestamp()
     WHERE reg.id = p_rollup.id;
    PERFORM lakets._prune_change_log(tab, 100)  -- a few cost readers nothing, but letting go of them costs a millisecond
       FROM lakets._chronotable_registry AS tab WHERE tab.id = p_rollup.source_chronotable_id;
END;
$$;

-- Does a RollUp hold every committed change to source times in [p_from, p_to)?
CREATE OR REPLACE FUNCTION lakets._has_absorbed(
    p_rollup lakets._rollup_registry,
    p_from   timestamptz,
    p_to     timestamptz
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT p_rollup.track_changes THEN
        RETURN coalesce(p_rollup.watermark >= p_to, false);
    END IF;
    RETURN NOT lakets._must_reload(p_rollup)
       AND NOT EXISTS (
           SELECT FROM lakets._change_log AS log
            WHERE log.chronotable_id = p_rollup.source_chronotable_id
              AND log.xid >= pg_snapshot_xmin(p_rollup.absorbed)
              AND NOT pg_visible_in_snapshot(log.xid, p_rollup.absorbed)
              AND log.min_time < p_to AND log.max_time >= p_from)
       AND NOT EXISTS (
           SELECT FROM lakets._rollup_invalidation_log AS mark
            WHERE mark.rollup_id = p_rollup.id AND mark.bucket_start < p_to
              AND (NOT isfinite(mark.bucket_start) OR lakets._bucket_end(p_rollup, mark.bucket_start) > p_from));
END;
$$;

-- The RollUps that follow from p_root_ids (those, and all that depend on them; null: every RollUp), in the order
-- in which they are refreshed. Those of one refresh_order do not depend on each other. Raises on a cycle.
CREATE OR REPLACE FUNCTION lakets._build_rollup_dag(
    p_root_ids integer[] DEFAULT NULL
) RETURNS TABLE (rollup_id integer, rollup_name text, depends_on_names text[], refresh_order integer,
                 bucket_interval interval, last_refreshed timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_waiting integer[] := ARRAY(
        WITH RECURSIVE reached (id) AS (
            SELECT reg.id FROM lakets._rollup_registry AS reg WHERE p_root_ids IS NULL OR reg.id = ANY (p_root_ids)
            UNION
            SELECT reg.id FROM lakets._rollup_registry AS reg JOIN reached ON reached.id = ANY (reg.depends_on)
        ) SELECT reached.id FROM reached);
    v_ready   integer[];
    v_order   integer := 0;
BEGIN
    WHILE v_waiting <> '{}' LOOP
        v_ready := ARRAY(SELECT reg.id FROM lakets._rollup_registry AS reg
                          WHERE reg.id = ANY (v_waiting) AND NOT reg.depends_on && v_waiting);
        IF v_ready = '{}' THEN
            RAISE EXCEPTION 'These RollUps depend on each other in a circle: %.',
                (SELECT string_agg(reg.name, ', ' ORDER BY reg.name) FROM lakets._rollup_registry AS reg WHERE reg.id = ANY (v_waiting))
                USING ERRCODE = 'invalid_recursion', HINT = 'Correct depends_on in lakets._rollup_registry.';
        END IF;
        v_order := v_order + 1;
        RETURN QUERY
            SELECT reg.id, reg.name, ARRAY(SELECT up.name FROM lakets._rollup_registry AS up WHERE up.id = ANY (reg.depends_on) ORDER BY up.name),
                   v_order, reg.bucket_interval, reg.last_refreshed_at
              FROM lakets._rollup_registry AS reg WHERE reg.id = ANY (v_ready) ORDER BY reg.name;
        v_waiting := ARRAY(SELECT id FROM unnest(v_waiting) AS id WHERE id <> ALL (v_ready));
    END LOOP;
END;
$$;

-- Job 4. Refresh a RollUp with all it is built on and all that is built on it (null: every RollUp), dependencies
-- first. One that fails is reported with a warning and refreshed = false, and so is what depends on it; the
-- others are refreshed. All in one transaction: a caller that can should refresh each in its own.
CREATE OR REPLACE FUNCTION lakets.refresh_rollup_cascade(
    p_name text DEFAULT NULL
) RETURNS TABLE (rollup_name text, refreshed boolean, refresh_ms double precision)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_root    lakets._rollup_registry;
    v_wanted  integer[];
    v_failed  text[] := '{}';
    v_next    record;
    v_started timestamptz;
BEGIN
    IF p_name IS NOT NULL THEN
        v_root := lakets._rollup(p_name);
        v_wanted := ARRAY(
            WITH RECURSIVE upstream (id) AS (
                SELECT unnest(v_root.depends_on)
                UNION
                SELECT unnest(reg.depends_on) FROM lakets._rollup_registry AS reg JOIN upstream ON upstream.id = reg.id
            )
            SELECT upstream.id FROM upstream
            UNION
            SELECT dag.rollup_id FROM lakets._build_rollup_dag(ARRAY[v_root.id]) AS dag);
    END IF;
    FOR v_next IN
        SELECT dag.* FROM lakets._build_rollup_dag() AS dag WHERE v_wanted IS NULL OR dag.rollup_id = ANY (v_wanted)
    LOOP
        rollup_name := v_next.rollup_name;
        refreshed := false;
        v_started := clock_timestamp();
        IF v_next.depends_on_names && v_failed THEN
            RAISE WARNING 'RollUp % is skipped: it depends on one that failed.', v_next.rollup_name;
            v_failed := v_failed || v_next.rollup_name;
        ELSE
            BEGIN
                refreshed := lakets.refresh_rollup(v_next.rollup_name);
            EXCEPTION WHEN OTHERS THEN  -- a RollUp's query is the user's own and can fail in any way; it must not take the others down
                RAISE WARNING 'RollUp % failed: %', v_next.rollup_name, SQLERRM USING ERRCODE = SQLSTATE;
                v_failed := v_failed || v_next.rollup_name;
            END;
        END IF;
        refresh_ms := extract(epoch FROM clock_timestamp() - v_started) * 1000;
        RETURN NEXT;
    END LOOP;
END;
$$;
