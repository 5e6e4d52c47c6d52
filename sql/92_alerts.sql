-- Alerts: rows that need attention. Nothing is stored; the caller decides what to do with them.

-- alert_check with the search_path under which the caller meant the query.
CREATE OR REPLACE FUNCTION lakets._alert_check(
    p_name        text,
    p_query       text,
    p_severity    text,
    p_search_path text
) RETURNS TABLE (alert_name text, severity text, fired_at timestamptz, alert_data jsonb)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres' SET extra_float_digits = 1
AS $$
DECLARE
    -- A newline, since the query may end in a comment.
    v_form    constant text := E'SELECT pg_catalog.to_jsonb(alert) FROM (%s\n) AS alert';
    v_nothing constant text := '(?:[\s;]|--[^\n]*(?:\n|$)|/\*(?:[^*]|\*(?!/))*\*/)*$';
    v_query   text := format(v_form, rtrim(p_query, E' \t\r\n;'));
    v_shorter text := format(v_form, regexp_replace(p_query, ';' || v_nothing, ''));
    v_cursor  refcursor;
BEGIN
    IF coalesce(p_query, '') ~ ('^' || v_nothing) THEN
        RAISE EXCEPTION 'Alert % has no query.', coalesce(p_name, 'NULL')
            USING HINT = 'Pass one SELECT; each of its rows is an alert.';
    END IF;
    alert_name := p_name;
    severity := coalesce(p_severity, 'warning');
    fired_at := now();
    PERFORM set_config('search_path', p_search_path, true);  -- from here on names are resolved as for the caller
    IF v_shorter <> v_query THEN
        -- A semicolon and comments end the query, or a literal or comment looks like that.
        BEGIN
            OPEN v_cursor FOR EXECUTE v_query;
            CLOSE v_cursor;
        EXCEPTION WHEN syntax_error THEN
            v_query := v_shorter;
        END;
    END IF;
    -- A loop opens a cursor, and Postgres refuses a cursor for several queries.
    FOR alert_data IN EXECUTE v_query LOOP
        RETURN NEXT;
    END LOOP;
END;
$$;

-- A row for each row of a query, with that row as JSON. The query runs with the rights and the
-- search_path of the caller, and, like those of RollUps, in time zone UTC with DateStyle ISO, MDY:
-- days and texts do not depend on the session.
CREATE OR REPLACE FUNCTION lakets.alert_check(
    p_name     text,
    p_query    text,
    p_severity text DEFAULT 'warning'
) RETURNS TABLE (alert_name text, severity text, fired_at timestamptz, alert_data jsonb)
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
    SELECT found.alert_name, found.severity, found.fired_at, found.alert_data
      FROM lakets._alert_check(p_name, p_query, p_severity, pg_catalog.current_setting('search_path')) AS found;
$$;

-- One row for each value of a column whose newest row is older than p_timeout, such as a device
-- that stopped sending. Rows in the future do not count: one with a wrong clock would hide the
-- device until then. Neither do infinite times.
CREATE OR REPLACE FUNCTION lakets.alert_deadman(
    p_name        text,
    p_table_name  text,
    p_group_by    text,
    p_timeout     interval,
    p_schema_name text DEFAULT 'public'
) RETURNS TABLE (alert_name text, severity text, fired_at timestamptz, dead_key text, last_seen timestamptz, silent_for interval)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres' SET extra_float_digits = 1  -- the form of dead_key
AS $$
DECLARE
    v_table    lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_relation regclass := v_table.relation;
    v_type     regtype  := lakets._column_type(v_relation, v_table.time_column);
BEGIN
    IF (p_group_by = ANY (lakets._columns(v_relation))) IS NOT TRUE THEN
        RAISE EXCEPTION 'Table % has no column %.', v_relation, coalesce(p_group_by, 'NULL')
            USING HINT = 'Pass p_group_by as the name of one column, as it is written.';
    END IF;
    PERFORM lakets._check_age('p_timeout', p_timeout);
    RETURN QUERY EXECUTE format(
        'SELECT $1, ''critical''::text, now(), seen.key::text, seen.last_seen, now() - seen.last_seen'
        ' FROM (SELECT rows.%1$I AS key, max(%2$s) AS last_seen FROM %3$s AS rows'
        '        WHERE rows.%4$I > ''-infinity'' AND rows.%4$I <= %5$s GROUP BY 1) AS seen'
        ' WHERE seen.last_seen < lakets._ago($2) ORDER BY seen.last_seen, seen.key::text',
        p_group_by, lakets._as_instant(format('rows.%I', v_table.time_column), v_type), v_relation,
        v_table.time_column, lakets._comparable('now()', v_type))
        USING p_name, p_timeout;
END;
$$;

-- The statements of this database that mention LakeTS, by total time. No rows where
-- pg_stat_statements is not installed.
CREATE OR REPLACE FUNCTION lakets.query_stats(
    p_limit integer DEFAULT 20
) RETURNS TABLE (query text, calls bigint, total_time_ms double precision, mean_time_ms double precision, rows_returned bigint)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_schema name := (SELECT nsp.nspname FROM pg_extension AS ext JOIN pg_namespace AS nsp ON nsp.oid = ext.extnamespace
                       WHERE ext.extname = 'pg_stat_statements');
BEGIN
    PERFORM lakets._check_count('p_limit', p_limit, 1, 2147483647);
    IF v_schema IS NOT NULL THEN
        RETURN QUERY EXECUTE format(
            'SELECT stat.query, stat.calls, stat.total_exec_time, stat.mean_exec_time, stat.rows FROM %I.pg_stat_statements AS stat'
            ' WHERE stat.dbid = (SELECT db.oid FROM pg_database AS db WHERE db.datname = current_database())'
            ' AND (stat.query ILIKE ''%%lakets%%'' OR stat.query ILIKE ''%%time\_bucket%%'')'
            ' ORDER BY stat.total_exec_time DESC LIMIT $1', v_schema) USING p_limit;
    END IF;
END;
$$;
