-- Adopt everything that exists: tracking of every ChronoTable and RollUp, queries of older RollUps.
-- Tables that were dropped by hand, and queries that no longer run, are reported and left as they
-- are.
DO $$
DECLARE
    v_table  lakets._chronotable_registry;
    v_rollup lakets._rollup_registry;
BEGIN
    PERFORM pg_catalog.set_config('lakets.writers_mark', '', true);  -- as the functions are now
    -- Lock order: ChronoTables by id, each with its partitions and shadow, then RollUps by id.
    FOR v_table IN SELECT reg.* FROM lakets._chronotable_registry AS reg ORDER BY reg.id LOOP
        IF pg_catalog.to_regclass(pg_catalog.format('%I.%I', v_table.schema_name, v_table.table_name)) IS NULL
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_class AS cls WHERE cls.oid = lakets._known_relation(v_table)) THEN
            RAISE WARNING 'ChronoTable %.% is registered but does not exist.', v_table.schema_name, v_table.table_name
                USING HINT = 'lakets.drop_chronotable removes what is left of it.';
        ELSE
            PERFORM lakets._adopt_chronotable(v_table);
        END IF;
    END LOOP;
    FOR v_rollup IN SELECT reg.* FROM lakets._rollup_registry AS reg ORDER BY reg.id LOOP
        IF lakets._rollup_problem(v_rollup.name) IS NOT NULL THEN
            RAISE WARNING '%.', lakets._rollup_problem(v_rollup.name)
                USING HINT = 'lakets.drop_rollup removes what is left of it.';
        ELSE
            PERFORM lakets._adopt_rollup(v_rollup);
        END IF;
    END LOOP;
    INSERT INTO lakets._version (version)
    SELECT pg_catalog.current_setting('lakets.version')
     WHERE pg_catalog.current_setting('lakets.version') IS DISTINCT FROM
           (SELECT ver.version FROM lakets._version AS ver ORDER BY ver.installed_at DESC LIMIT 1);
END
$$;

-- Report what the install changed, and what is left to do. INFO reaches every client, whatever its
-- client_min_messages.
DO $$
DECLARE
    v_repair record;
BEGIN
    IF coalesce(pg_catalog.current_setting('lakets.others', true), '') <> '' THEN
        RAISE INFO 'LakeTS 0.1.x is replaced by %: % ChronoTables, % RollUps and % last value caches go on; its row triggers are dropped.',
            pg_catalog.current_setting('lakets.version'), (SELECT count(*) FROM lakets._chronotable_registry),
            (SELECT count(*) FROM lakets._rollup_registry), (SELECT count(*) FROM lakets._lvc_registry);
    END IF;
    FOR v_repair IN SELECT rep.* FROM lakets.pending_repairs() AS rep LOOP
        RAISE INFO '%: %. %', v_repair.object, v_repair.problem, v_repair.remedy;
    END LOOP;
END
$$;
