-- Over LakeTS 0.1.x: its triggers count rows one by one and its functions may differ from ours in a
-- parameter's name or a result's type, which CREATE OR REPLACE refuses. Triggers go (99_finish.sql puts
-- ours in their place), and so does every function; one that a view uses is set aside.
DO $$
DECLARE
    v_timeout  text := pg_catalog.current_setting('lock_timeout');
    v_patience interval := v_timeout::interval;
    v_began    timestamptz;
    v_tables   text[] := '{}';
    v_table    text;
    v_trigger  record;
    v_function record;
    v_found    boolean := true;
BEGIN
    -- Every table is locked at once or none, and an attempt is over before deadlock_timeout: a writer of two tables who
    -- meets the install halfway would wait longest, and so be the one whom Postgres ends.
    IF pg_catalog.to_regclass('lakets._rollup_registry') IS NOT NULL THEN
        EXECUTE $query$
            SELECT coalesce(pg_catalog.array_agg(used.relation::text), '{}')
              FROM (SELECT pg_catalog.to_regclass(pg_catalog.format('%I.%I', tab.schema_name, tab.table_name)) AS relation
                      FROM lakets._chronotable_registry AS tab
                    UNION
                    SELECT pg_catalog.to_regclass(pg_catalog.format('public.%I', '_rollup_' || up.name))
                      FROM lakets._rollup_registry AS up) AS used
             WHERE used.relation IS NOT NULL $query$ INTO v_tables;
    END IF;
    v_patience := v_patience + (pg_catalog.clock_timestamp() - pg_catalog.now());
    PERFORM pg_catalog.set_config('lock_timeout', '100ms', true);
    LOOP
        BEGIN
            v_began := pg_catalog.clock_timestamp();
            FOREACH v_table IN ARRAY v_tables LOOP
                EXECUTE pg_catalog.format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', v_table);
                IF pg_catalog.clock_timestamp() - v_began > interval '400 milliseconds' THEN
                    RAISE lock_not_available;
                END IF;
            END LOOP;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF pg_catalog.clock_timestamp() - pg_catalog.now() > v_patience THEN
                RAISE;
            END IF;
            PERFORM pg_catalog.pg_sleep(0.1);
        END;
    END LOOP;
    PERFORM pg_catalog.set_config('lock_timeout', v_timeout, true);

    FOR v_trigger IN
        SELECT trg.tgname, trg.tgrelid::pg_catalog.regclass AS relation
          FROM pg_catalog.pg_trigger AS trg
          JOIN pg_catalog.pg_proc AS fn ON fn.oid = trg.tgfoid
         WHERE fn.pronamespace = 'lakets'::pg_catalog.regnamespace
           AND NOT trg.tgisinternal AND trg.tgparentid = 0
    LOOP
        EXECUTE pg_catalog.format('DROP TRIGGER %I ON %s', v_trigger.tgname, v_trigger.relation);
    END LOOP;

    WHILE v_found LOOP  -- again, since an aggregate's own functions are free only after it is gone
        v_found := false;
        FOR v_function IN
            SELECT fn.oid::pg_catalog.regprocedure AS signature
              FROM pg_catalog.pg_proc AS fn
             WHERE fn.pronamespace = 'lakets'::pg_catalog.regnamespace
               AND NOT EXISTS (
                   SELECT FROM pg_catalog.pg_depend AS dep
                    WHERE dep.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                      AND dep.refobjid = fn.oid AND dep.deptype = 'n')
        LOOP
            EXECUTE pg_catalog.format('DROP ROUTINE %s', v_function.signature);
            v_found := true;
        END LOOP;
    END LOOP;

    FOR v_function IN  -- what is left serves a view: it goes on doing so under another name
        SELECT fn.oid::pg_catalog.regprocedure AS signature, fn.proname
          FROM pg_catalog.pg_proc AS fn WHERE fn.pronamespace = 'lakets'::pg_catalog.regnamespace
    LOOP
        EXECUTE pg_catalog.format('ALTER ROUTINE %s RENAME TO %I', v_function.signature, '_0_1_' || v_function.proname);
    END LOOP;
END
$$;
