-- Sync: the change feed streams an unpartitioned mirror of a table, its shadow, into Unity
-- Catalog.

-- Warn when there is no feed to stream a shadow, or this role cannot see it: the shadow is still
-- filled, and streamed when there is one. Looked up in the catalog, since a name in a schema
-- without USAGE is an error.
CREATE OR REPLACE FUNCTION lakets._warn_without_feed() RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_feed oid := (SELECT cls.oid FROM pg_class AS cls
                     JOIN pg_namespace AS nsp ON nsp.oid = cls.relnamespace AND nsp.nspname = 'wal2delta'
                    WHERE cls.relname = 'tables');
BEGIN
    IF v_feed IS NULL THEN
        RAISE WARNING 'Lakebase Change Data Feed is not set up in this database: nothing reaches Unity Catalog yet.'
            USING HINT = 'Create a feed for schema lakets_cdf. Until then tiering and gated retention defer every chunk.';
    ELSIF NOT has_schema_privilege('wal2delta', 'USAGE') OR NOT has_table_privilege(v_feed, 'SELECT') THEN
        RAISE WARNING 'Role % may not read wal2delta.tables: it cannot see how far the change feed has come.', current_user
            USING HINT = 'Grant it USAGE on schema wal2delta and SELECT on wal2delta.tables. Until then tiering and gated retention '
                         'that run as this role defer every chunk.';
    END IF;
END;
$$;

-- Repair a shadow, whatever happened to it or to its table; the caller has locked the table against
-- writers. Compares every row, but only if there is a reason to. Returns whether anything was
-- wrong.
CREATE OR REPLACE FUNCTION lakets._repair_shadow(
    p_relation    regclass,
    p_shadow      regclass,
    p_time_column text,
    p_evicted     text
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_problem text := lakets._mirror_problem(p_relation, p_shadow);
BEGIN
    PERFORM lakets._check_plain(p_shadow);
    IF v_problem IS NOT NULL THEN
        PERFORM lakets._reshape_shadow(p_relation, p_shadow);
    END IF;
    PERFORM lakets._dress_shadow(p_relation, p_shadow, p_time_column);
    IF v_problem IS NOT NULL THEN
        PERFORM lakets._realign_shadow(p_relation, p_shadow, p_evicted);
        PERFORM lakets._check_plain(p_shadow);
        DELETE FROM lakets._mirror_gap AS gap WHERE gap.shadow = p_shadow;
    END IF;
    RETURN v_problem IS NOT NULL;
END;
$$;

-- Mirror a ChronoTable from now on, after copying its rows; or repair its mirror. Writers wait.
CREATE OR REPLACE FUNCTION lakets._sync_chronotable(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off  -- fail if a policy hides rows, which would not be mirrored
AS $$
DECLARE
    v_relation regclass := lakets._relation(p_table);
    v_evicted  text;
    v_list     text;
    v_shadow   regclass;
    v_copied   boolean  := true;
    v_guarded  integer;
BEGIN
    -- Lock order: (1) advisory (lakets, relation), (2) parent, (3) partitions that can be written
    -- directly, (4) advisory on the shadow's name. No writer is active while the trigger functions
    -- change, so none misses the shadow.
    PERFORM lakets._lock_maintenance(v_relation);
    PERFORM lakets._check_subscriptions(v_relation);
    p_table := lakets._follow(p_table);  -- read again under the lock
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', v_relation);
    v_guarded := lakets._guard_partitions(v_relation);  -- before they are read
    v_evicted := lakets._is_evicted(p_table.id, lakets._as_instant(
        format('s.%I', p_table.time_column), lakets._column_type(v_relation, p_table.time_column)));
    v_list := (SELECT string_agg(quote_ident(col), ', ') FROM unnest(lakets._columns(v_relation)) AS col);
    v_shadow := lakets._shadow_relation(p_table.shadow_table_name);
    IF p_table.sync_enabled AND v_shadow IS NOT NULL THEN
        WITH doubted AS (DELETE FROM lakets._mirror_check AS chk WHERE chk.chronotable_id = p_table.id RETURNING chk.compared)
        INSERT INTO lakets._mirror_gap (shadow) SELECT v_shadow FROM doubted UNION ALL SELECT v_shadow WHERE v_guarded > 0;
        v_copied := lakets._repair_shadow(v_relation, v_shadow, p_table.time_column, v_evicted);
        PERFORM lakets._track_chronotable(p_table.id);
    ELSE
        p_table.shadow_table_name := lakets._shadow_name(p_table.table_name, p_table.schema_name);
        v_shadow := lakets._create_shadow(v_relation, p_table.shadow_table_name, p_table.time_column);
        UPDATE lakets._chronotable_registry AS reg
           SET sync_enabled = true, shadow_table_name = p_table.shadow_table_name WHERE reg.id = p_table.id;
        -- No transaction that is visible now has written to the shadow, so all of them count as
        -- flushed. The copy below does not.
        INSERT INTO lakets._feed_proof AS proof (chronotable_id, proven, cluster) VALUES (p_table.id, lakets._ended_now(), lakets._lineage())
            ON CONFLICT (chronotable_id) DO UPDATE
               SET proven = excluded.proven, observed = NULL, observed_lsn = NULL, fenced = false, cluster = excluded.cluster, baseline = NULL;
        PERFORM lakets._track_chronotable(p_table.id);
        EXECUTE format('INSERT INTO %1$s (%2$s) SELECT %2$s FROM %3$s', v_shadow, v_list, v_relation);
        PERFORM lakets._check_plain(v_shadow);  -- a tool may add a trigger to every new table
    END IF;
    DELETE FROM lakets._mirror_gap AS gap WHERE gap.shadow = v_shadow;  -- one noted when the triggers were written: it is complete now
    INSERT INTO lakets._change_log (chronotable_id, min_time, max_time) SELECT p_table.id, '-infinity', 'infinity' WHERE v_copied OR v_guarded > 0;
    PERFORM lakets._prepare_trimming(p_table);
END;
$$;

-- The same for a RollUp's table.
CREATE OR REPLACE FUNCTION lakets._sync_rollup(
    p_rollup lakets._rollup_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._rollup_relation(p_rollup.name);
    v_shadow   regclass;
BEGIN
    -- Lock order: (1) advisory (lakets, relation), (2) the RollUp's table, (3) advisory on the
    -- shadow's name.
    PERFORM lakets._lock_maintenance(v_relation);
    PERFORM lakets._check_subscriptions(v_relation);
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', v_relation);
    p_rollup := lakets._rollup(p_rollup.name);  -- read again under the lock
    v_shadow := lakets._shadow_relation(p_rollup.shadow_table_name);
    IF p_rollup.sync_enabled AND v_shadow IS NOT NULL THEN
        PERFORM lakets._track_rollup(p_rollup.id);  -- first, since it records a gap if triggers were off
        PERFORM lakets._repair_shadow(v_relation, v_shadow, p_rollup.bucket_column, 'false');
    ELSE
        p_rollup.shadow_table_name := lakets._shadow_name('rollup_' || p_rollup.name, 'public');
        v_shadow := lakets._create_shadow(v_relation, p_rollup.shadow_table_name, p_rollup.bucket_column);
        UPDATE lakets._rollup_registry AS reg
           SET sync_enabled = true, shadow_table_name = p_rollup.shadow_table_name WHERE reg.id = p_rollup.id;
        EXECUTE format('INSERT INTO %s SELECT * FROM %s', v_shadow, v_relation);
        PERFORM lakets._check_plain(v_shadow);
    END IF;
    PERFORM lakets._track_rollup(p_rollup.id);
END;
$$;

-- (Re)write the mirroring of a RollUp's own table as its registry row says.
CREATE OR REPLACE FUNCTION lakets._track_rollup(
    p_rollup_id integer
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_rollup lakets._rollup_registry;
BEGIN
    SELECT reg.* INTO STRICT v_rollup FROM lakets._rollup_registry AS reg WHERE reg.id = p_rollup_id;
    IF v_rollup.sync_enabled AND lakets._shadow_relation(v_rollup.shadow_table_name) IS NOT NULL THEN
        PERFORM lakets._write_trackers(lakets._rollup_relation(v_rollup.name), format('_track_rollup_%s', v_rollup.id),
                                       v_rollup.bucket_column, lakets._shadow_relation(v_rollup.shadow_table_name), NULL);
    END IF;
END;
$$;

-- Drop the triggers of a RollUp's table.
CREATE OR REPLACE FUNCTION lakets._untrack_rollup(
    p_relation regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_trigger text;
BEGIN
    FOREACH v_trigger IN ARRAY '{lakets_track_insert,lakets_track_update,lakets_track_delete,lakets_track_truncate,lakets_truncated}'::text[] LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', v_trigger, p_relation);
    END LOOP;
END;
$$;

-- Stream a ChronoTable or a RollUp (by its name, or its table's) into Unity Catalog. A second call
-- repairs a shadow that lacks changes, whose table has other columns now, or on which other roles
-- have rights.
CREATE OR REPLACE FUNCTION lakets.enable_sync(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_rollup lakets._rollup_registry := lakets._rollup_of_table(p_table_name, p_schema_name);
BEGIN
    PERFORM lakets._require_read_committed();  -- an older snapshot would miss rows to copy
    PERFORM lakets._warn_without_feed();
    IF v_rollup.id IS NOT NULL THEN
        PERFORM lakets._sync_rollup(v_rollup);
    ELSE
        PERFORM lakets._sync_chronotable(lakets._chronotable(p_table_name, p_schema_name));
    END IF;
END;
$$;

-- The RollUp that a name in enable_sync means; all null if there is none, or if a ChronoTable has
-- that name.
CREATE OR REPLACE FUNCTION lakets._rollup_of_table(
    p_table_name  text,
    p_schema_name text
) RETURNS lakets._rollup_registry
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT reg.*
      FROM lakets._rollup_registry AS reg
     WHERE p_schema_name = 'public' AND p_table_name IN (reg.name, '_rollup_' || reg.name)
       AND NOT EXISTS (SELECT FROM lakets._chronotable_registry AS tab
                        WHERE tab.schema_name = p_schema_name AND tab.table_name = p_table_name);
$$;

-- Stop mirroring and drop the shadow. The history in Unity Catalog stays.
CREATE OR REPLACE FUNCTION lakets.disable_sync(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_rollup   lakets._rollup_registry := lakets._rollup_of_table(p_table_name, p_schema_name);
    v_table    lakets._chronotable_registry;
    v_relation regclass;
BEGIN
    -- Lock order: (1) advisory (lakets, relation), (2) parent, (3) shadow.
    IF v_rollup.id IS NOT NULL THEN
        v_relation := lakets._rollup_relation(v_rollup.name);
        PERFORM lakets._lock_maintenance(v_relation);
        v_rollup := lakets._rollup(v_rollup.name);
        PERFORM lakets._untrack_rollup(v_relation);
        PERFORM lakets._drop_mirror('rollup', v_rollup.id, v_rollup.shadow_table_name);
        UPDATE lakets._rollup_registry AS reg SET sync_enabled = false, shadow_table_name = NULL WHERE reg.id = v_rollup.id;
        RETURN;
    END IF;
    v_table := lakets._chronotable(p_table_name, p_schema_name);
    v_relation := v_table.relation;
    PERFORM lakets._lock_maintenance(v_relation);
    v_table := lakets._follow(v_table);
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', v_relation);
    UPDATE lakets._chronotable_registry AS reg SET sync_enabled = false, shadow_table_name = NULL WHERE reg.id = v_table.id;
    PERFORM lakets._track_chronotable(v_table.id);
    PERFORM lakets._drop_shadow(v_table.shadow_table_name);
    DELETE FROM lakets._feed_proof AS proof WHERE proof.chronotable_id = v_table.id;
END;
$$;
