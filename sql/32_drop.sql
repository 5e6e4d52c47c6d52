-- Drop ChronoTables, and clean up after those that were dropped by hand.

-- Remove a ChronoTable from the registries, with its change log and its trigger functions.
CREATE OR REPLACE FUNCTION lakets._unregister(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM lakets._change_log AS log WHERE log.chronotable_id = p_table.id;
    -- 0.1.x may lack the foreign keys that do this, and they do nothing when
    -- session_replication_role is replica.
    DELETE FROM lakets._feed_proof AS proof WHERE proof.chronotable_id = p_table.id;
    DELETE FROM lakets._mirror_check AS chk WHERE chk.chronotable_id = p_table.id;
    DELETE FROM lakets._chunk_metadata AS chunk WHERE chunk.chronotable_id = p_table.id;
    DELETE FROM lakets._policy_registry AS pol WHERE pol.chronotable_id = p_table.id;
    DELETE FROM lakets._chronotable_registry AS reg WHERE reg.id = p_table.id;
END;
$$;

-- Drop a ChronoTable with its RollUps, the RollUps that read those, its shadow, policies and
-- registry rows. Data in Unity Catalog stays there. Raises an error, and drops nothing, if the
-- table was dropped by hand and another has its name, or if it has more chunks than one transaction
-- has room to lock; drop_chronotable_chunks makes room.
CREATE OR REPLACE FUNCTION lakets.drop_chronotable(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_table    lakets._chronotable_registry := lakets._registered(p_table_name, p_schema_name);
    v_relation regclass;
    v_rollups  text[];
    v_rollup   text;
BEGIN
    IF v_table.id IS NULL OR lakets._find_relation(p_schema_name, p_table_name) IS NOT NULL OR lakets._still_stands(v_table) THEN
        v_table := lakets._chronotable(p_table_name, p_schema_name);
        v_relation := v_table.relation;
        IF NOT lakets._drop_fits(p_table_name, p_schema_name) THEN
            RAISE EXCEPTION 'ChronoTable %.% cannot be dropped in one transaction: that takes about % locks, and there is room for %.',
                p_schema_name, p_table_name, lakets._locks_to_drop(v_relation), lakets._lock_budget()
                USING HINT = format('Call lakets.drop_chronotable_chunks(%L, %L) until it returns 0, each time in a transaction of its own,'
                                    ' and then this again; or raise max_locks_per_transaction.', p_table_name, p_schema_name);
        END IF;
    END IF;
    v_rollups := lakets._rollups_of(v_table.id);
    -- Lock order: (1) advisory (lakets, relation), (2) advisory (lakets, RollUp's table) of each,
    -- (3) proof row, which tiering locks before it reads a partition, (4) parent, (5) RollUps,
    -- highest first, (6) partitions.
    IF v_relation IS NOT NULL THEN
        PERFORM lakets._lock_maintenance(v_relation);
        v_table := lakets._chronotable(v_table.id);  -- raises if it was dropped meanwhile
    END IF;
    FOREACH v_rollup IN ARRAY v_rollups LOOP
        IF lakets._rollup_problem(v_rollup) IS NULL THEN
            PERFORM lakets._lock_maintenance(lakets._rollup_relation(v_rollup));
        END IF;
    END LOOP;
    PERFORM FROM lakets._feed_proof AS proof WHERE proof.chronotable_id = v_table.id FOR UPDATE;
    IF v_relation IS NOT NULL THEN
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', v_relation);
    END IF;
    IF v_rollups <> lakets._rollups_of(v_table.id) THEN
        RAISE EXCEPTION 'A RollUp of %.% was made or dropped meanwhile.', p_schema_name, p_table_name
            USING ERRCODE = 'lock_not_available', HINT = 'Try again.';
    END IF;
    FOREACH v_rollup IN ARRAY v_rollups LOOP
        PERFORM lakets.drop_rollup(v_rollup);
    END LOOP;
    IF v_relation IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', v_relation);
    END IF;
    PERFORM lakets._drop_mirror('chronotable', v_table.id, v_table.shadow_table_name);
    PERFORM lakets._drop_lvc(v_table);
    PERFORM lakets._unregister(v_table);
END;
$$;

-- Return whether the lock table has room to drop a ChronoTable in one transaction. True for a table
-- with few chunks, whose number cannot be reduced.
CREATE OR REPLACE FUNCTION lakets._drop_fits(
    p_table_name  text,
    p_schema_name text
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation oid := lakets._known_relation(lakets._registered(p_table_name, p_schema_name));  -- null: dropped by hand
BEGIN
    RETURN v_relation IS NULL OR lakets._locks_to_drop(v_relation) <= lakets._lock_budget()
        OR (SELECT count(*) <= 10 FROM pg_inherits AS inh WHERE inh.inhparent = v_relation);
END;
$$;

-- Return as text what prevents the drop of a ChronoTable or one of its RollUps: views, foreign keys
-- and other objects that LakeTS did not create and that are not dropped with the table.
CREATE OR REPLACE FUNCTION lakets._dependants_of(
    p_table lakets._chronotable_registry
) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        WITH going (relation, row_type) AS (
            SELECT cls.oid, cls.reltype
              FROM pg_class AS cls
             WHERE cls.oid = p_table.relation
                OR cls.oid IN (SELECT lakets._find_relation('public', '_rollup_' || name) FROM unnest(lakets._rollups_of(p_table.id)) AS name)
        )
        SELECT string_agg(DISTINCT coalesce('view ' || rewrite.ev_class::regclass, pg_describe_object(dep.classid, dep.objid, 0)), ', ')
          FROM going
          JOIN pg_depend AS dep ON dep.deptype = 'n' AND (dep.refclassid, dep.refobjid)
                                   IN (('pg_class'::regclass, going.relation), ('pg_type'::regclass, going.row_type))
          LEFT JOIN pg_rewrite AS rewrite ON dep.classid = 'pg_rewrite'::regclass AND rewrite.oid = dep.objid
         WHERE NOT EXISTS (SELECT FROM lakets._rollup_registry AS reg
                            WHERE rewrite.ev_class = lakets._find_relation('public', '_rollup_rt_' || reg.name))
           AND NOT EXISTS (SELECT FROM pg_depend AS own JOIN going AS g ON own.refclassid = 'pg_class'::regclass AND own.refobjid = g.relation
                            WHERE own.classid = dep.classid AND own.objid = dep.objid AND own.deptype IN ('a', 'i')));
END;
$$;

-- Make room for drop_chronotable: drop the oldest chunks of a ChronoTable, whatever their state, at
-- most p_max_chunks. Returns how many were dropped. Drops nothing if the table could not be dropped
-- afterwards.
CREATE OR REPLACE FUNCTION lakets.drop_chronotable_chunks(
    p_table_name  text,
    p_schema_name text    DEFAULT 'public',
    p_max_chunks  integer DEFAULT 100
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table      lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_dependants text := lakets._dependants_of(v_table);
BEGIN
    IF v_dependants IS NOT NULL THEN
        RAISE EXCEPTION 'ChronoTable %.% cannot be dropped: other objects depend on it (%).', p_schema_name, p_table_name, v_dependants
            USING HINT = 'Drop these first. No chunk was dropped.';
    END IF;
    RETURN lakets._drop_standing(v_table, '{active,tiered}', 'infinity', p_max_chunks);
END;
$$;

-- Return whether the table of a registry row exists under any name.
CREATE OR REPLACE FUNCTION lakets._still_stands(
    p_table lakets._chronotable_registry
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN p_table.cluster IS NOT DISTINCT FROM lakets._here()
       AND EXISTS (SELECT FROM pg_class AS cls WHERE cls.oid = p_table.relation);
END;
$$;

-- Forget a ChronoTable whose table was dropped by hand, and keep the rest of its data: its shadow
-- and the tables of its RollUps stay as ordinary tables. A table that now has its name stays too.
CREATE OR REPLACE FUNCTION lakets.forget_chronotable(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_table  lakets._chronotable_registry := lakets._registered(p_table_name, p_schema_name);
    v_rollup text;
    v_kept   text;
BEGIN
    IF v_table.id IS NULL THEN
        PERFORM lakets._chronotable(p_table_name, p_schema_name);  -- raises
    ELSIF lakets._still_stands(v_table) OR (v_table.cluster IS DISTINCT FROM lakets._here()
          AND EXISTS (SELECT FROM pg_class AS cls WHERE cls.oid = lakets._find_relation(p_schema_name, p_table_name) AND cls.relkind = 'p')) THEN
        RAISE EXCEPTION 'ChronoTable %.% cannot be forgotten: its table is still there%.', p_schema_name, p_table_name,
            coalesce(', as ' || (SELECT cls.oid::regclass FROM pg_class AS cls WHERE cls.oid = v_table.relation), '')
            USING HINT = 'lakets.drop_chronotable drops it; lakets.adopt_chronotable accepts its new name.';
    END IF;
    -- Lock order: (1) proof row, (2) registry rows.
    PERFORM FROM lakets._feed_proof AS proof WHERE proof.chronotable_id = v_table.id FOR UPDATE;
    SELECT string_agg(left_over, ', ') INTO v_kept
      FROM (SELECT lakets._shadow_relation(v_table.shadow_table_name)::text
            UNION ALL
            SELECT format('public.%I', '_rollup_' || reg.name) FROM lakets._rollup_registry AS reg
             WHERE reg.name = ANY (lakets._rollups_of(v_table.id))
            UNION ALL
            SELECT lakets._lvc_relation(v_table, reg)::text FROM lakets._lvc_registry AS reg
             WHERE reg.chronotable_id = v_table.id) AS kept (left_over)
     WHERE left_over IS NOT NULL;
    DELETE FROM lakets._mirror_gap AS gap WHERE gap.shadow = lakets._shadow_relation(v_table.shadow_table_name);
    FOREACH v_rollup IN ARRAY lakets._rollups_of(v_table.id) LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS %s', lakets._fill_function(v_rollup));
        PERFORM lakets._unregister_rollup(v_rollup);
    END LOOP;
    PERFORM lakets._drop_mirror('chronotable', v_table.id, NULL);
    PERFORM lakets._untrack_lvc(v_table);
    PERFORM lakets._unregister(v_table);
    IF v_kept IS NOT NULL THEN
        RAISE NOTICE 'These stay as ordinary tables: %.', v_kept;
    END IF;
END;
$$;
