-- Adopt the objects of an older version; called by the install for each of them.

-- Track a ChronoTable, guard as many of its chunks as possible, and prepare its shadow.
CREATE OR REPLACE FUNCTION lakets._adopt_chronotable(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._relation(p_table);
    v_shadow   regclass := lakets._shadow_relation(p_table.shadow_table_name);
    v_open     regclass[] := CASE WHEN p_table.cluster IS NOT NULL THEN lakets._unguarded_partitions(v_relation) END;  -- not of 0.1.x
BEGIN
    PERFORM lakets._guard_in_install(v_relation);
    p_table := lakets._follow(p_table);
    PERFORM lakets._log_guarded(p_table, ARRAY(SELECT one FROM unnest(v_open) AS one WHERE lakets._is_guarded(one)));
    IF p_table.sync_enabled AND v_shadow IS NOT NULL AND EXISTS (
        SELECT FROM lakets._chronotable_registry AS other
         WHERE other.id < p_table.id AND other.sync_enabled AND lakets._shadow_relation(other.shadow_table_name) = v_shadow) THEN
        -- A proof for a shadow must hold for exactly one table.
        RAISE WARNING 'ChronoTable %.% shares the shadow % with another; it is no longer mirrored.', p_table.schema_name, p_table.table_name, v_shadow
            USING HINT = 'Call lakets.enable_sync for both: this one gets a shadow of its own. Until then none of its chunks is dropped.';
        INSERT INTO lakets._mirror_gap (shadow) VALUES (v_shadow);
        UPDATE lakets._chronotable_registry AS reg SET shadow_table_name = NULL WHERE reg.id = p_table.id;
        v_shadow := NULL;
    END IF;
    IF p_table.sync_enabled AND v_shadow IS NOT NULL AND lakets._shape(v_relation) <@ lakets._shape(v_shadow) THEN
        PERFORM lakets._dress_shadow(v_relation, v_shadow, p_table.time_column);
    END IF;
    IF lakets._begin_mirror_check(p_table) THEN
        PERFORM lakets._index_mirror_check(p_table);
    END IF;
    INSERT INTO lakets._feed_proof AS proof (chronotable_id) SELECT p_table.id WHERE p_table.sync_enabled ON CONFLICT DO NOTHING;
    PERFORM lakets._track_chronotable(p_table.id);
END;
$$;

-- Mirror a RollUp's table if it is synced, and fill the columns of its registry row that 0.1.x left
-- empty.
CREATE OR REPLACE FUNCTION lakets._adopt_rollup(
    p_rollup lakets._rollup_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._rollup_relation(p_rollup.name);
    v_shadow   regclass := lakets._shadow_relation(p_rollup.shadow_table_name);
    -- Queries in the registry are accepted as they are only when 0.1.x is replaced: see
    -- 81_rollup_fill.sql.
    v_is_upgrade boolean := coalesce(current_setting('lakets.others', true), '') <> '';
BEGIN
    IF p_rollup.definition IS NULL AND v_is_upgrade THEN
        PERFORM lakets._adopt_query(p_rollup);
        p_rollup := lakets._rollup(p_rollup.name);
    ELSIF lakets._has_own_query(p_rollup) IS NOT TRUE THEN
        RAISE WARNING 'RollUp % is not refreshed: its stored query was not confirmed by its owner.', p_rollup.name
            USING HINT = 'Refresh it once as the owner of its table, or drop it and create it again.';
    ELSIF p_rollup.definition IS NOT NULL THEN
        PERFORM lakets._write_fill(p_rollup);  -- as this version writes it
    END IF;
    IF p_rollup.sync_enabled AND v_shadow IS NOT NULL AND lakets._shape(v_relation) <@ lakets._shape(v_shadow) THEN
        PERFORM lakets._dress_shadow(v_relation, v_shadow, p_rollup.bucket_column);
    END IF;
    IF EXISTS (SELECT FROM pg_class AS cls WHERE cls.oid = v_relation AND cls.relreplident = 'd') AND lakets._key_index(v_relation) IS NULL THEN
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', v_relation);  -- as for RollUps of this version
    END IF;
    PERFORM lakets._track_rollup(p_rollup.id);
END;
$$;

-- Analyse the query of an older RollUp, under the default search_path. A query that cannot be kept
-- right is reported with a warning. An error would prevent the rest of the install; the refresh
-- raises it.
CREATE OR REPLACE FUNCTION lakets._adopt_query(
    p_rollup lakets._rollup_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_owner text := (SELECT pg_get_userbyid(cls.relowner) FROM pg_class AS cls WHERE cls.oid = lakets._rollup_relation(p_rollup.name));
BEGIN
    -- As its owner: see 81_rollup_fill.sql.
    EXECUTE format('CREATE FUNCTION lakets._ask_as_owner() RETURNS void LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER'
                   ' SET search_path = pg_catalog, pg_temp AS %L',
                   format('SELECT lakets._check_one_query(%L, %L, %L)', p_rollup.name, p_rollup.query_text, 'public, lakets'));
    IF v_owner <> current_user THEN
        EXECUTE format('ALTER FUNCTION lakets._ask_as_owner() OWNER TO %I', v_owner);
    END IF;
    BEGIN
        PERFORM lakets._ask_as_owner();
        RAISE SQLSTATE 'LTOK0';  -- to release the locks on all partitions, which planning the query takes
    EXCEPTION WHEN SQLSTATE 'LTOK0' THEN
        NULL;
    END;
    DROP FUNCTION lakets._ask_as_owner();
    PERFORM lakets._redefine_rollup(p_rollup, 'public, lakets');
EXCEPTION WHEN OTHERS THEN  -- a user's query can fail in any way; it must not stop the others
    RAISE WARNING 'RollUp % can no longer be refreshed: %', p_rollup.name, SQLERRM
        USING ERRCODE = SQLSTATE, HINT = 'Drop the RollUp and create it again with a query that can be kept right.';
END;
$$;
