-- The two schemas, and the record of which migrations a database has seen.
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
