-- The two schemas, and the record of which migrations a database has seen.
--
-- Who needs what. Whoever writes a ChronoTable: just the table; tracking runs with the writer's own rights, and
-- what it needs of a shadow is granted by enable_sync (after a later GRANT on the table call it again). Whoever
-- owns tables, and thereby the jobs' role, which is a member of the owning role:
--     GRANT CREATE ON SCHEMA <the tables' schemas> TO <owning role>;
--     GRANT USAGE, CREATE ON SCHEMA lakets, lakets_cdf TO <owning role>;
--     GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO <owning role>;
--     GRANT SELECT, INSERT ON lakets_cdf._trim_log TO <owning role>;  -- where shadows are trimmed
-- Whoever installs: CREATE on the database, and over an existing install membership in the owning roles.

-- Locks on tables that are in use: step back rather than let readers and writers queue behind the install.
SET LOCAL lock_timeout = '2s';

DO $$
BEGIN
    -- IF NOT EXISTS would still ask for CREATE on the database, which a reinstalling role may lack.
    IF pg_catalog.to_regnamespace('lakets') IS NULL THEN
        CREATE SCHEMA lakets;
    END IF;
    IF pg_catalog.to_regnamespace('lakets_cdf') IS NULL THEN
        CREATE SCHEMA lakets_cdf;
    END IF;
    IF pg_catalog.to_regclass('lakets.migration') IS NULL THEN
        CREATE TABLE lakets.migration (
            name       text PRIMARY KEY,
            applied_at timestamptz NOT NULL DEFAULT pg_catalog.now()
        );
    END IF;
END
$$;
