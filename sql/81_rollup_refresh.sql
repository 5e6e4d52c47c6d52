-- Job 4: re-aggregate the buckets whose source changed.
--
-- Writers append to the change log, whatever the watermark is. A RollUp stores a snapshot of the
-- changes that it has absorbed. A refresh first reads the changes that this snapshot does not see,
-- and then, in a later statement, the source. Every change that it found is therefore in the rows
-- that it reads. A change that commits in between is not in the new snapshot, so the next refresh
-- finds it. Nobody waits for anybody.

-- Raise an error if rows written to the RollUp's table can be discarded or changed, or if a foreign
-- key would change rows of another table when a refresh deletes buckets. Any other kind of key
-- fails by itself, or is checked at the commit, when the buckets are there again.
CREATE OR REPLACE FUNCTION lakets._check_replaceable(
    p_rollup lakets._rollup_registry
) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._rollup_relation(p_rollup.name);
BEGIN
    PERFORM lakets._check_plain(v_relation);
    IF EXISTS (SELECT FROM pg_trigger AS trg JOIN pg_constraint AS con ON con.oid = trg.tgconstraint
                WHERE trg.tgrelid = v_relation AND con.confrelid = v_relation AND con.confdeltype IN ('c', 'n', 'd')) THEN
        RAISE EXCEPTION 'RollUp % cannot be refreshed while foreign keys with an ON DELETE action point at its table: %.',
            p_rollup.name, lakets._foreign_keys_to(v_relation)
            USING HINT = 'Nothing was changed. A refresh deletes buckets and inserts them again, which would delete or change the rows'
                         ' that reference them: drop the foreign key, or make it DEFERRABLE INITIALLY DEFERRED without an ON DELETE action.';
    END IF;
END;
$$;

-- The first and last time in each source of a RollUp, with its name, where these are far from
-- today; null if none is, or if this role may not read the source.
CREATE OR REPLACE FUNCTION lakets._far_times(
    p_rollup lakets._rollup_registry
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_source record;
    v_far    text;
    v_all    text[] := '{}';
BEGIN
    FOR v_source IN SELECT src.* FROM lakets._rollup_sources(p_rollup.source_chronotable_id, p_rollup.depends_on) AS src LOOP
        IF has_table_privilege(v_source.relation, 'SELECT') THEN
            EXECUTE format(
                'SELECT string_agg(format(''%%s of %%s'', far.at, %1$L), '' and '' ORDER BY far.at)
                   FROM (SELECT min(r.%2$I) FROM %1$s AS r WHERE r.%2$I > ''-infinity'' AND r.%2$I < %3$s
                         UNION ALL
                         SELECT max(r.%2$I) FROM %1$s AS r WHERE r.%2$I < ''infinity'' AND r.%2$I > %4$s) AS far (at)
                  WHERE far.at IS NOT NULL',
                v_source.relation, v_source.time_column,
                quote_literal('4000-01-01 00:00:00+00 BC'), quote_literal('200000-01-01 00:00:00+00')) INTO v_far;
            v_all := v_all || v_far;
        END IF;
    END LOOP;
    RETURN nullif(array_to_string(v_all, ' and '), '');
END;
$$;

-- Replace the buckets in a window of labels by the current result of the query. Raises an error for
-- a row without a bucket, or in a bucket to which its source rows do not belong: then the analysis
-- of the query does not hold.
CREATE OR REPLACE FUNCTION lakets._recompute(
    p_rollup lakets._rollup_registry,
    p_window tstzrange
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- The earliest instant there is: infinite times belong to no bucket.
    v_earliest constant timestamptz := '4714-11-24 00:00:00+00 BC';
    v_times    tstzrange := lakets._window_times(p_rollup, p_window);
    v_labels   tstzrange;  -- of all that is read
    v_strays   bigint;
    v_far      text;
BEGIN
    IF NOT lakets._is_exact(p_rollup) THEN
        v_labels := lakets._window_labels(p_rollup, v_times);
    END IF;
    BEGIN
        EXECUTE format('SELECT lakets.%I($1, $2, $3, $4, $5, $6)', '_fill_' || p_rollup.name) INTO v_strays
          USING greatest(lower(v_times), v_earliest), upper(v_times), greatest(lower(p_window), v_earliest), upper(p_window),
                lower(v_labels), upper(v_labels);
    EXCEPTION WHEN datetime_field_overflow THEN
        v_far := lakets._far_times(p_rollup);
        IF v_far IS NULL THEN
            RAISE;
        END IF;
        RAISE EXCEPTION 'The query of RollUp % fails (%): there are rows at %.', p_rollup.name, SQLERRM, v_far
            USING HINT = 'Their bucket starts or ends where Postgres has no timestamps. Correct their times or delete them.';
    END;
    IF v_strays > 0 AND (p_rollup.definition ->> 'limited')::boolean THEN
        RAISE EXCEPTION 'The query of RollUp % gives % rows that are in no bucket of the source rows from % to %.',
            p_rollup.name, v_strays, lower(v_times), upper(v_times)
            USING HINT = 'Nothing was changed. Each row must be in the bucket of its source rows: correct the query, and create the RollUp again.';
    END IF;
END;
$$;

-- Mark buckets again that keep their value only because a chunk was detached or dropped by hand
-- since the last job: if it is attached before the next one, it was a chunk all the time.
CREATE OR REPLACE FUNCTION lakets._keep_dirty(
    p_rollup lakets._rollup_registry,
    p_frozen tstzmultirange
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT isempty(p_frozen) AND (p_rollup.definition ->> 'source')::boolean THEN
        INSERT INTO lakets._rollup_invalidation_log (rollup_id, bucket_start)
        SELECT DISTINCT p_rollup.id, mark.bucket_start
          FROM lakets._chronotable_registry AS tab
         CROSS JOIN LATERAL lakets._lost_chunks(lakets._recognise(tab)) AS lost
         CROSS JOIN LATERAL unnest(p_frozen * tstzmultirange(
               lakets._labels_of(p_rollup.definition -> 'steps', tstzrange(lost.range_start, lost.range_end)))) AS w
         CROSS JOIN LATERAL lakets._bucket_marks(p_rollup, w) AS mark (bucket_start)
         WHERE tab.id = p_rollup.source_chronotable_id;
    END IF;
END;
$$;

-- Recompute the dirty buckets whose source is wholly resident, and return them.
CREATE OR REPLACE FUNCTION lakets._recompute_all(
    p_rollup lakets._rollup_registry,
    p_dirty  tstzmultirange
) RETURNS tstzmultirange
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_windows tstzmultirange := CASE WHEN p_dirty = tstzmultirange(range_merge(p_dirty)) THEN p_dirty ELSE lakets._join_neighbours(p_dirty) END;
    v_frozen  tstzmultirange := lakets._frozen_buckets(p_rollup, v_windows);
    v_window  tstzrange;
BEGIN
    IF NOT isempty(v_frozen) THEN
        v_windows := v_windows - v_frozen;
        PERFORM lakets._keep_dirty(p_rollup, p_dirty * v_frozen);
    END IF;
    -- Nobody adds a trigger, a rule or a foreign key (which is enforced by triggers) while this
    -- lock is held.
    EXECUTE format('LOCK TABLE ONLY public.%I IN ROW EXCLUSIVE MODE', '_rollup_' || p_rollup.name);
    IF (SELECT cls.relhastriggers OR cls.relhasrules OR cls.relforcerowsecurity OR cls.relpersistence = 'u' FROM pg_class AS cls
         WHERE cls.oid = to_regclass(format('public.%I', '_rollup_' || p_rollup.name))::oid) THEN
        PERFORM lakets._check_replaceable(p_rollup);
    END IF;
    FOR v_window IN SELECT unnest(v_windows) LOOP
        PERFORM lakets._recompute(p_rollup, v_window);
    END LOOP;
    RETURN v_windows;
END;
$$;

-- Return true if a refresh has nothing to do, and what it relies on is as recorded: the database,
-- the source, the RollUps and columns that it reads, and the columns that it writes. This is the
-- usual case; the check costs a few milliseconds less than a refresh.
CREATE OR REPLACE FUNCTION lakets._is_idle(
    p_rollup lakets._rollup_registry
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- First and alone, since nothing else is then looked up for a RollUp that has something to do.
    IF EXISTS (SELECT FROM lakets._change_log AS log
                WHERE log.chronotable_id = p_rollup.source_chronotable_id AND log.xid >= pg_snapshot_xmin(p_rollup.absorbed)
                  AND NOT pg_visible_in_snapshot(log.xid, p_rollup.absorbed)) THEN
        RETURN false;
    ELSIF NOT coalesce(p_rollup.track_changes AND p_rollup.cluster = lakets._here() AND p_rollup.definition IS NOT NULL
            AND pg_snapshot_xmax(p_rollup.absorbed) <= pg_snapshot_xmax(pg_current_snapshot()), false)
       -- A few changes in the log cost readers nothing, but pruning them costs a millisecond.
       OR EXISTS (SELECT FROM lakets._change_log AS log
                   WHERE log.chronotable_id = p_rollup.source_chronotable_id AND log.xid < pg_snapshot_xmin(pg_current_snapshot()) OFFSET 99)
       OR EXISTS (SELECT FROM lakets._rollup_invalidation_log AS log WHERE log.rollup_id = p_rollup.id) THEN
        RETURN false;
    END IF;
    -- Apart, since the whole of a condition is planned, also what is then not evaluated.
    IF cardinality(p_rollup.depends_on) > 0 THEN
        IF (SELECT bool_or(up.relation IS DISTINCT FROM to_regclass(format('public.%I', '_rollup_' || up.name)))
              FROM lakets._rollup_registry AS up WHERE up.id = ANY (p_rollup.depends_on)) THEN
            RETURN false;
        END IF;
    END IF;
    RETURN (p_rollup.source_chronotable_id IS NULL
            OR EXISTS (SELECT FROM lakets._chronotable_registry AS tab
                        WHERE tab.id = p_rollup.source_chronotable_id
                          AND tab.relation::oid = to_regclass(format('%I.%I', tab.schema_name, tab.table_name))::oid))
       AND (lakets._changed_column(p_rollup)).was_number IS NULL;
END;
$$;

-- Aggregate again what changed, and note that everything up to p_now is absorbed.
CREATE OR REPLACE FUNCTION lakets._absorb_changes(
    p_rollup lakets._rollup_registry,
    p_now    pg_snapshot
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_windows tstzmultirange;
BEGIN
    PERFORM lakets._lock_sources(p_rollup.source_chronotable_id, p_rollup.depends_on);
    p_rollup := lakets._current_definition(p_rollup);
    v_windows := lakets._take_dirty_buckets(p_rollup);
    IF NOT isempty(v_windows) THEN
        v_windows := lakets._recompute_all(p_rollup, v_windows);
        IF EXISTS (SELECT FROM lakets._rollup_registry AS dep WHERE p_rollup.id = ANY (dep.depends_on)) THEN
            PERFORM lakets._invalidate_dependants(p_rollup, v_windows);
        END IF;
    END IF;
    PERFORM lakets._note_refresh(p_rollup, p_now);
    -- This RollUp has absorbed at least as many changes as all RollUps have. A stamp from the
    -- future is another cluster's.
    IF EXISTS (SELECT FROM lakets._change_log AS log
                WHERE log.chronotable_id = p_rollup.source_chronotable_id AND log.xid < pg_snapshot_xmin(p_now) OFFSET 99)
       OR EXISTS (SELECT FROM lakets._change_log AS log
                   WHERE log.chronotable_id = p_rollup.source_chronotable_id AND log.xid >= pg_snapshot_xmax(pg_current_snapshot())) THEN
        PERFORM lakets._prune_change_log(tab, 100)
           FROM lakets._chronotable_registry AS tab WHERE tab.id = p_rollup.source_chronotable_id;
    END IF;
END;
$$;

-- Refresh one RollUp. Returns false if it was skipped, because refresh_lag has not passed since the
-- last refresh (unless p_force), or because another session is refreshing it.
CREATE OR REPLACE FUNCTION lakets.refresh_rollup(
    p_name  text,
    p_force boolean DEFAULT false
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_rollup   lakets._rollup_registry;
    v_relation regclass := to_regclass(format('public.%I', '_rollup_' || coalesce(p_name, '')));
    v_now      pg_snapshot;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM lakets._require_read_committed();
    END IF;
    -- Lock order: (1) advisory (lakets, RollUp's table), (2) that table, where its mirror is in
    -- doubt, (3) sources, in ACCESS SHARE mode: writers pass, and a chunk cannot be dropped between
    -- reading which chunks are dropped and reading the rows.
    IF NOT pg_try_advisory_xact_lock(hashtext('lakets'), (v_relation::oid::bigint - 2147483648)::integer) THEN
        RETURN false;
    END IF;
    SELECT reg.* INTO v_rollup FROM lakets._rollup_registry AS reg WHERE reg.name = p_name;
    IF NOT FOUND THEN
        PERFORM lakets._rollup(p_name);  -- raises
    END IF;
    -- As oids: regclass has no operators of its own, so all of that name would be looked up.
    IF v_relation::oid IS DISTINCT FROM v_rollup.relation::oid THEN
        PERFORM lakets._rollup_relation(p_name);  -- raises, except after a restore
    END IF;
    -- In UTC, as in lakets._shift.
    IF NOT p_force AND (v_rollup.last_refreshed_at AT TIME ZONE 'UTC' + v_rollup.refresh_lag) AT TIME ZONE 'UTC' > clock_timestamp() THEN
        RETURN false;
    END IF;
    -- Apart, since the whole of a condition is planned, also what is then not evaluated.
    IF v_rollup.sync_enabled THEN
        IF EXISTS (SELECT FROM lakets._mirror_gap) OR NOT lakets._is_tracked(v_relation) OR lakets._missing_grants(v_relation) <> '{}' THEN
            PERFORM lakets._mend_rollup_mirror(v_rollup);
        END IF;
    END IF;
    IF pg_current_xact_id_if_assigned() IS NULL THEN
        v_now := pg_current_snapshot();  -- as _ended_now, where this transaction has not written
    ELSE
        v_now := lakets._ended_now();
    END IF;
    IF lakets._is_idle(v_rollup) THEN
        UPDATE lakets._rollup_registry AS reg
           SET absorbed = v_now, last_refreshed_at = clock_timestamp() WHERE reg.id = v_rollup.id;
    ELSE
        PERFORM lakets._absorb_changes(v_rollup, v_now);
    END IF;
    RETURN true;
END;
$$;

-- Record how far a refresh came: the newest bucket that is not in the future. The zone is for
-- labels without one, which are read as UTC.
CREATE OR REPLACE FUNCTION lakets._note_refresh(
    p_rollup   lakets._rollup_registry,
    p_absorbed pg_snapshot
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'
AS $$
DECLARE
    v_relation  regclass := to_regclass(format('public.%I', '_rollup_' || p_rollup.name));
    v_watermark timestamptz;
BEGIN
    EXECUTE format('SELECT max(%I) FROM %s', p_rollup.bucket_column, v_relation) INTO v_watermark;
    IF v_watermark > clock_timestamp() THEN
        -- Otherwise one row with a wrong clock would make all rows until then count as old ones.
        EXECUTE format('SELECT max(%1$I) FROM %2$s WHERE %1$I <= %3$s', p_rollup.bucket_column, v_relation,
                       lakets._comparable('$1', lakets._column_type(v_relation, p_rollup.bucket_column)))
           INTO v_watermark USING clock_timestamp();
    END IF;
    UPDATE lakets._rollup_registry AS reg
       SET absorbed = p_absorbed, watermark = v_watermark, last_refreshed_at = clock_timestamp(),
           relation = v_relation, cluster = lakets._here()
     WHERE reg.id = p_rollup.id;
END;
$$;
