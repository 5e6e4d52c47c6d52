-- What the jobs did, whoever ran them: for people, plots and monitors. No job reads it.
CREATE TABLE lakets._job_run (
    run_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job        text NOT NULL CHECK (job IN ('partitions', 'tier', 'retain', 'refresh')),
    relation   text,                        -- the ChronoTable (schema.table) or the RollUp; null: nothing was to be done
    started_at timestamptz NOT NULL,
    seconds    double precision NOT NULL,
    outcome    text NOT NULL,               -- the worst that became of its parts
    counts     jsonb NOT NULL DEFAULT '{}', -- such as {"dropped": 3, "deferred": 1}
    bytes      bigint,                      -- given back
    runner     text,                        -- application_name of the session: DAG, task and run
    detail     text                         -- why, where something went wrong
);
CREATE INDEX _job_run_by_job ON lakets._job_run (job, run_id);
CREATE INDEX _job_run_by_relation ON lakets._job_run (relation, run_id);
REVOKE ALL ON lakets._job_run FROM PUBLIC;

-- Roles that run jobs by now are to go on without a further GRANT.
DO $$
DECLARE
    v_right record;
BEGIN
    FOR v_right IN
        SELECT acl.grantee::regrole AS grantee, acl.privilege_type
          FROM pg_catalog.pg_class AS cls CROSS JOIN LATERAL pg_catalog.aclexplode(cls.relacl) AS acl
         WHERE cls.oid = 'lakets._policy_registry'::regclass AND acl.grantee NOT IN (0, cls.relowner)
           AND acl.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE pg_catalog.format('GRANT %s ON lakets._job_run TO %s', v_right.privilege_type, v_right.grantee);
    END LOOP;
END;
$$;
