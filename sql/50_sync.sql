-- Sync: the unpartitioned mirror that the change feed streams into Unity Catalog.

-- Make the shadow of a relation, empty. It has no constraints: it also keeps rows that the table no longer has.
CREATE OR REPLACE FUNCTION lakets._create_shadow(
    p_relation    regclass,
    p_shadow_name text,
    p_time_column text
) RETURNS regclass
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_keys  text := (SELECT string_agg(quote_ident(key.key_column), ', ') FROM lakets._key_columns(p_relation) AS key);
    v_owner name := (SELECT pg_get_userbyid(cls.relowner) FROM pg_class AS cls WHERE cls.oid = p_relation);
    v_grant text;
BEGIN
    EXECUTE format('CREATE TABLE lakets_cdf.%I AS SELECT * FROM %s WITH NO DATA', p_shadow_name, p_relation);
    EXECUTE format('ALTER TABLE lakets_cdf.%I REPLICA IDENTITY FULL', p_shadow_name);
    -- By key to find the old rows of an UPDATE or DELETE, else by time.
    EXECUTE format('CREATE INDEX ON lakets_cdf.%I (%s)', p_shadow_name, coalesce(v_keys, quote_ident(p_time_column)));
    IF v_owner <> current_user THEN
        EXECUTE format('ALTER TABLE lakets_cdf.%I OWNER TO %I', p_shadow_name, v_owner);
    END IF;
    -- Whoever may write the table writes the shadow too, through the trigger.
    FOR v_grant IN
        SELECT DISTINCT format('GRANT SELECT, INSERT, UPDATE, DELETE ON lakets_cdf.%I TO %s', p_shadow_name,
                               CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END)
          FROM pg_class AS cls, aclexplode(cls.relacl) AS acl
         WHERE cls.oid = p_relation AND acl.privilege_type IN ('INSERT', 'UPDATE', 'DELETE') AND acl.grantee <> cls.relowner
    LOOP
        EXECUTE v_grant;
    END LOOP;
    RETURN lakets._shadow_relation(p_shadow_name);
END;
$$;

-- A name for a shadow that no other table has: two schemas may have a table of one name.
CREATE OR REPLACE FUNCTION lakets._shadow_name(
    p_stem   text,
    p_schema text
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN octet_length('_shadow_' || p_stem) <= 63
             AND to_regclass(format('lakets_cdf.%I', '_shadow_' || p_stem)) IS NULL THEN '_shadow_' || p_stem
        ELSE lakets._free_relation_name('lakets_cdf', '_shadow_' || p_stem, '_' || left(md5(p_schema), 8)) END;
$$;

-- Drop a shadow and the generated trigger functions of one relation (whose triggers are gone already).
CREATE OR REPLACE FUNCTION lakets._drop_mirror(
    p_kind        text,
    p_id          integer,
    p_shadow_name text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_shadow regclass := lakets._shadow_relation(p_shadow_name);
    v_event  text;
BEGIN
    IF v_shadow IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', v_shadow);
    END IF;
    FOREACH v_event IN ARRAY '{insert,update,delete,truncate}'::text[] LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS lakets.%I()',
                       format('%s_%s_%s', CASE p_kind WHEN 'rollup' THEN '_track_rollup' ELSE '_track' END, p_id, v_event));
    END LOOP;
END;
$$;

-- Say so when there is no feed to stream a shadow; it is still filled, and picked up when there is one.
CREATE OR REPLACE FUNCTION lakets._warn_without_feed() RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF to_regclass('wal2delta.tables') IS NULL THEN
        RAISE WARNING 'Lakebase Change Data Feed is not set up in this database: nothing reaches Unity Catalog yet.'
            USING HINT = 'Create a feed for schema lakets_cdf. Until then tiering and gated retention defer every chunk.';
    END IF;
END;
$$;

-- Mirror a ChronoTable from now on, after copying what it holds. Writers wait for the copy.
CREATE OR REPLACE FUNCTION lakets._sync_chronotable(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._relation(p_table.schema_name, p_table.table_name);
    v_name     text;
    v_shadow   regclass;
BEGIN
    -- Lock order: (1) advisory (lakets, relation), (2) parent. No writer is in flight while the trigger
    -- functions change, so none misses the shadow.
    PERFORM lakets._lock_maintenance(v_relation);
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', v_relation);
    v_name := lakets._shadow_name(p_table.table_name, p_table.schema_name);
    v_shadow := lakets._create_shadow(v_relation, v_name, p_table.time_column);
    UPDATE lakets._chronotable_registry AS reg
       SET sync_enabled = true, shadow_table_name = v_name WHERE reg.id = p_table.id;
    -- Nothing visible now has written to the shadow, so all of it is flushed; the copy below is not.
    INSERT INTO lakets._feed_proof AS proof (chronotable_id, proven) VALUES (p_table.id, pg_current_snapshot())
        ON CONFLICT (chronotable_id) DO UPDATE
           SET proven = excluded.proven, observed = NULL, observed_lsn = NULL, fenced = false;
    PERFORM lakets._track_chronotable(p_table.id);
    EXECUTE format('INSERT INTO %s SELECT * FROM %s', v_shadow, v_relation);
    INSERT INTO lakets._change_log (chronotable_id, min_time, max_time) VALUES (p_table.id, '-infinity', 'infinity');
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
    v_name     text;
    v_shadow   regclass;
BEGIN
    -- Lock order: (1) advisory (lakets, relation), (2) the RollUp's table.
    PERFORM lakets._lock_maintenance(v_relation);
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', v_relation);
    v_name := lakets._shadow_name('rollup_' || p_rollup.name, 'public');
    v_shadow := lakets._create_shadow(v_relation, v_name, p_rollup.bucket_column);
    UPDATE lakets._rollup_registry AS reg
       SET sync_enabled = true, shadow_table_name = v_name WHERE reg.id = p_rollup.id;
    PERFORM lakets._write_trackers(v_relation, format('_track_rollup_%s', p_rollup.id), p_rollup.bucket_column, v_shadow, NULL);
    EXECUTE format('INSERT INTO %s SELECT * FROM %s', v_shadow, v_relation);
END;
$$;

-- Stream a ChronoTable or a RollUp (by its name, or its table's) into Unity Catalog. Again: nothing happens.
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
    v_table  lakets._chronotable_registry;
BEGIN
    PERFORM lakets._warn_without_feed();
    IF v_rollup.id IS NOT NULL THEN
        IF lakets._shadow_relation(v_rollup.shadow_table_name) IS NULL OR NOT v_rollup.sync_enabled THEN
            PERFORM lakets._sync_rollup(v_rollup);
        END IF;
        RETURN;
    END IF;
    v_table := lakets._chronotable(p_table_name, p_schema_name);
    IF lakets._shadow_relation(v_table.shadow_table_name) IS NULL OR NOT v_table.sync_enabled THEN
        PERFORM lakets._sync_chronotable(v_table);
    END IF;
END;
$$;

-- The RollUp meant by a name in enable_sync; all null when it is not one, or is a ChronoTable's name.
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
    v_event    text;
BEGIN
    -- Lock order: (1) advisory (lakets, relation), (2) parent, (3) shadow.
    IF v_rollup.id IS NOT NULL THEN
        v_relation := lakets._rollup_relation(v_rollup.name);
        PERFORM lakets._lock_maintenance(v_relation);
        FOREACH v_event IN ARRAY '{insert,update,delete,truncate}'::text[] LOOP
            EXECUTE format('DROP TRIGGER IF EXISTS lakets_track_%s ON %s', v_event, v_relation);
        END LOOP;
        PERFORM lakets._drop_mirror('rollup', v_rollup.id, v_rollup.shadow_table_name);
        UPDATE lakets._rollup_registry AS reg SET sync_enabled = false, shadow_table_name = NULL WHERE reg.id = v_rollup.id;
        RETURN;
    END IF;
    v_table := lakets._chronotable(p_table_name, p_schema_name);
    v_relation := lakets._relation(p_schema_name, p_table_name);
    PERFORM lakets._lock_maintenance(v_relation);
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', v_relation);
    UPDATE lakets._chronotable_registry AS reg SET sync_enabled = false, shadow_table_name = NULL WHERE reg.id = v_table.id;
    PERFORM lakets._track_chronotable(v_table.id);
    IF lakets._shadow_relation(v_table.shadow_table_name) IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', lakets._shadow_relation(v_table.shadow_table_name));
    END IF;
    DELETE FROM lakets._feed_proof AS proof WHERE proof.chronotable_id = v_table.id;
END;
$$;
