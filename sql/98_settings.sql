-- Two settings of a session change how code is read and how names are written. What is called from
-- outside gets their usual values here, and what it calls then has them too.

DO $$
DECLARE
    v_function pg_catalog.regprocedure;
BEGIN
    FOR v_function IN
        SELECT fn.oid::pg_catalog.regprocedure
          FROM pg_catalog.pg_proc AS fn
         WHERE fn.pronamespace = 'lakets'::pg_catalog.regnamespace AND fn.prokind = 'f'
           -- The others are inlined, or pass the search_path of their caller on.
           AND EXISTS (SELECT FROM pg_catalog.unnest(fn.proconfig) AS setting WHERE setting LIKE 'search_path=%')
           AND (fn.proname NOT LIKE E'\\_%'
                OR fn.proname IN ('_create_rollup', '_create_rollup_view', '_alert_check', '_ensure_partitions',
                                  '_get_chunks_to_tier', '_cdf_status', '_cdf_committed_lsn', '_known_proof', '_unguarded_partitions',
                                  '_older_guards', '_older_triggers', '_identity_problem', '_drop_fits', '_note_job_run', '_shape',
                                  '_chronotable', '_lock_maintenance'))
         ORDER BY fn.oid
    LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION %s SET standard_conforming_strings = on SET quote_all_identifiers = off', v_function);
    END LOOP;
END
$$;
