-- Over LakeTS 0.1.x: its triggers count rows one by one and its functions may differ from ours in a
-- parameter's name or a result's type, which CREATE OR REPLACE refuses. Triggers go (99_finish.sql puts
-- ours in their place), and so does every function; one that a view uses is set aside.
DO $$
DECLARE
    v_trigger  record;
    v_function record;
    v_found    boolean := true;
BEGIN
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
