-- The two schemas, and the record of which migrations a database has seen.
--
-- Rights (docs/permissions.md). A role that writes to a ChronoTable needs rights on the table only,
-- because its triggers run as the table's owner. PUBLIC needs none. The owning role needs these,
-- and the jobs' role has them as its member:
--     GRANT CREATE ON SCHEMA <the tables' schemas> TO <owning role>;
--     GRANT USAGE, CREATE ON SCHEMA lakets, lakets_cdf TO <owning role>;
--     GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO <owning role>;
--     GRANT SELECT, INSERT ON lakets_cdf._trim_log TO <owning role>;  -- where shadows are trimmed
-- The installing role needs CREATE on the database and, over an existing install, membership in the
-- owning roles.

-- When a table is in use, fail rather than let readers and writers queue behind the install.
SET LOCAL lock_timeout = '2s';
SET LOCAL standard_conforming_strings = on;
SET LOCAL quote_all_identifiers = off;

-- Refuse the install unless the database has no LakeTS, LakeTS 0.1.x, or an earlier version of this
-- engine.
DO $$
DECLARE
    v_ours      text := pg_catalog.current_setting('lakets.version');
    v_is_engine boolean := pg_catalog.to_regclass('lakets.migration') IS NOT NULL;
    v_found     text;
    v_missing   text;
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_class AS cls WHERE cls.relnamespace = pg_catalog.to_regnamespace('lakets')
        UNION ALL SELECT FROM pg_catalog.pg_proc AS fn WHERE fn.pronamespace = pg_catalog.to_regnamespace('lakets')) THEN
        RETURN;
    END IF;
    IF (SELECT count(*) FROM pg_catalog.pg_attribute AS att
         WHERE att.attrelid = pg_catalog.to_regclass('lakets._version') AND att.attname IN ('version', 'installed_at', 'modules')
           AND NOT att.attisdropped) < 3
       OR pg_catalog.to_regclass('lakets._chronotable_registry') IS NULL AND NOT v_is_engine THEN
        RAISE EXCEPTION 'Schema lakets exists and was not created by LakeTS: it has no lakets._version with the registries of LakeTS.'
            USING HINT = 'Rename it (ALTER SCHEMA lakets RENAME TO ...), or install in another database. If an install of LakeTS '
                         'was interrupted there, run that again first.';
    END IF;
    EXECUTE 'SELECT ver.version FROM lakets._version AS ver ORDER BY ver.installed_at DESC LIMIT 1' INTO v_found;
    IF v_found IS NULL OR v_found !~ '^[0-9]+[.][0-9]+[.][0-9]+$' THEN
        RAISE EXCEPTION 'lakets._version contains %, which is not a version of LakeTS.', coalesce(pg_catalog.quote_literal(v_found), 'nothing')
            USING HINT = 'Run the whole install of the LakeTS version that is installed again, then this one.';
    ELSIF pg_catalog.string_to_array(v_found, '.')::integer[] > pg_catalog.string_to_array(
              CASE WHEN v_is_engine THEN v_ours ELSE '0.1.3' END, '.')::integer[] THEN
        RAISE EXCEPTION 'LakeTS % is installed, which is newer than what version % knows.', v_found, v_ours
            USING HINT = 'LakeTS cannot be downgraded: install airflow-provider-lakets version '
                         || v_found || ' or newer, or leave LakeTS as it is.';
    ELSIF pg_catalog.string_to_array(v_found, '.')::integer[] < '{0,1,0}' THEN
        RAISE EXCEPTION 'LakeTS % is installed, which is older than 0.1.0, the first release that can be upgraded.', v_found
            USING HINT = 'Upgrade it to LakeTS 0.1.3 first.';
    END IF;
    SELECT pg_catalog.string_agg(wanted.name, ', ' ORDER BY wanted.name) INTO v_missing
      FROM (VALUES ('_chronotable_registry', 'sync_enabled'), ('_chunk_metadata', 'last_modified_at'),
                   ('_policy_registry', 'config'), ('_rollup_registry', 'depends_on'), ('_rollup_registry', 'sync_enabled'),
                   ('_rollup_invalidation_log', 'bucket_start')) AS need (relation, attribute)
     CROSS JOIN LATERAL (SELECT 'lakets.' || need.relation || '.' || need.attribute) AS wanted (name)
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS att
                        WHERE att.attrelid = pg_catalog.to_regclass('lakets.' || need.relation) AND att.attname = need.attribute);
    IF v_missing IS NOT NULL THEN
        RAISE EXCEPTION 'LakeTS % is installed, but incomplete: % is missing.', v_found, v_missing
            USING HINT = 'An install was interrupted. Run the whole install of that version again, then this one.';
    END IF;
END
$$;

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
