-- Each RollUp is filled by its own function, which contains its query.
--
-- That function runs as the owner of the RollUp's table (SECURITY DEFINER), and only that owner and
-- its members may execute it. Functions that the query calls therefore have the rights of the
-- RollUp's owner, not of the role that refreshes it or installs LakeTS, and cannot gain others:
-- Postgres refuses SET ROLE there. The function also records what it was made from, so that a query
-- that somebody wrote into the registry is detected before it is used.

-- The function's signature: source times from and to, buckets to replace from and to, labels of all
-- rows read from and to. The parameters have no names, because a column of the query could have the
-- same.
CREATE OR REPLACE FUNCTION lakets._fill_function(
    p_name text
) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('lakets.%I(timestamptz, timestamptz, timestamptz, timestamptz, timestamptz, timestamptz)', '_fill_' || p_name);
$$;

-- Return the first line of the function, a digest of what it is made from.
CREATE OR REPLACE FUNCTION lakets._fill_origin(
    p_rollup lakets._rollup_registry
) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('-- made from %s', md5(concat_ws(';', p_rollup.query_text, p_rollup.window_query)));
$$;

-- Return whether the RollUp's function was made from the stored query. Null if the owner of the
-- RollUp's table has no such function; a function of another role proves nothing.
CREATE OR REPLACE FUNCTION lakets._has_own_query(
    p_rollup lakets._rollup_registry
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT starts_with(fn.prosrc, lakets._fill_origin(p_rollup))
          FROM pg_proc AS fn
         WHERE fn.oid = to_regproc(format('lakets.%I', '_fill_' || p_rollup.name))::oid
           AND fn.proowner = (SELECT cls.relowner FROM pg_class AS cls
                               WHERE cls.oid = to_regclass(format('public.%I', '_rollup_' || p_rollup.name))::oid));
END;
$$;

-- Its body: replace the buckets, and count the rows that are in no bucket of the source rows that
-- were read. More than the window may be read: rows in other buckets are incomplete, and are left
-- out.
--
-- A row is checked on its way into the table, since a second look at all rows costs a fifth of a
-- large load. The count is kept in a setting, because that needs no right on any function of
-- LakeTS. OFFSET 0 prevents checks of rows that the query filters out.
CREATE OR REPLACE FUNCTION lakets._fill_body(
    p_rollup lakets._rollup_registry
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._rollup_relation(p_rollup.name);
    v_type     regtype  := lakets._column_type(v_relation, p_rollup.bucket_column);
    v_from     text     := lakets._comparable('$3', v_type);
    v_to       text     := lakets._comparable('$4', v_type);
    v_others   text     := '';
BEGIN
    IF NOT lakets._is_exact(p_rollup) THEN
        v_others := format(' WHEN fresh.%1$I >= %2$s AND fresh.%1$I < %3$s THEN false', p_rollup.bucket_column,
                           lakets._comparable('$5', v_type), lakets._comparable('$6', v_type));
    END IF;
    RETURN format($body$%1$s
#variable_conflict use_column
BEGIN
    PERFORM set_config('lakets.strays', '0', true);
    DELETE FROM %2$s AS old WHERE old.%3$I >= %4$s AND old.%3$I < %5$s;
    INSERT INTO %2$s (%6$s)
    SELECT fresh.* FROM (SELECT query.* FROM (%7$s) AS query OFFSET 0) AS fresh
     WHERE CASE WHEN fresh.%3$I >= %4$s AND fresh.%3$I < %5$s THEN true%8$s
                ELSE set_config('lakets.strays', (current_setting('lakets.strays')::bigint + 1)::text, true) IS NULL END;
    RETURN current_setting('lakets.strays')::bigint;
END;$body$,
        lakets._fill_origin(p_rollup), v_relation, p_rollup.bucket_column, v_from, v_to,
        lakets._column_list(p_rollup.definition -> 'writes'), p_rollup.window_query, v_others);
END;
$$;

-- Create or replace the function, unless it is up to date, and give it to the owner of the RollUp's
-- table.
CREATE OR REPLACE FUNCTION lakets._write_fill(
    p_rollup lakets._rollup_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_function text := lakets._fill_function(p_rollup.name);
    v_body     text := lakets._fill_body(p_rollup);
    v_zones    text := lakets._zone_settings(p_rollup.query_text);
    v_owner    oid  := (SELECT cls.relowner FROM pg_class AS cls WHERE cls.oid = lakets._rollup_relation(p_rollup.name));
BEGIN
    IF NOT EXISTS (SELECT FROM pg_proc AS fn WHERE fn.oid = to_regprocedure(v_function) AND fn.prosrc = v_body
                     AND (fn.proconfig @> '{timezone_abbreviations=Default}') = (v_zones <> '')) THEN
        -- SECURITY DEFINER: see the top of this file. The rows must not depend on who refreshes,
        -- nor may a policy hide some (it is an error here); and each range of times has a plan of
        -- its own.
        EXECUTE format(
            $sql$CREATE OR REPLACE FUNCTION %s RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    %s SET row_security = off SET plan_cache_mode = force_custom_plan
AS %L$sql$, v_function, lakets._query_settings() || v_zones, v_body);
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', v_function);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_proc AS fn WHERE fn.oid = to_regprocedure(v_function) AND fn.proowner = v_owner) THEN
        EXECUTE format('ALTER FUNCTION %s OWNER TO %s', v_function, v_owner::regrole);
    END IF;
END;
$$;
