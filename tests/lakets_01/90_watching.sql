-- Always fails: the log has no such column.
CREATE FUNCTION lakets.lakets_metrics() RETURNS TABLE (metric_name text, metric_value float8, labels jsonb)
    LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT 'lakets_chronotables_total', count(*)::float8, '{}'::jsonb FROM lakets._chronotable_registry;
    RETURN QUERY SELECT 'lakets_chunks_total', count(*)::float8, jsonb_build_object('status', c.status)
                   FROM lakets._chunk_metadata c GROUP BY c.status;
    RETURN QUERY SELECT 'lakets_rollup_invalidation_log_depth', count(*)::float8, jsonb_build_object('rollup', r.name, 'tier', il.tier)
                   FROM lakets._rollup_invalidation_log il JOIN lakets._rollup_registry r ON r.id = il.rollup_id GROUP BY r.name, il.tier;
END $$;

CREATE FUNCTION lakets.chunk_health() RETURNS TABLE (chronotable text, total_chunks bigint, active_chunks bigint,
    tiered_chunks bigint, dropped_chunks bigint, oldest_active timestamptz, newest_active timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    SELECT t.schema_name || '.' || t.table_name, count(*), count(*) FILTER (WHERE c.status = 'active'),
           count(*) FILTER (WHERE c.status = 'tiered'), count(*) FILTER (WHERE c.status = 'dropped'),
           min(c.range_start) FILTER (WHERE c.status = 'active'), max(c.range_end) FILTER (WHERE c.status = 'active')
      FROM lakets._chronotable_registry t JOIN lakets._chunk_metadata c ON c.chronotable_id = t.id GROUP BY t.id ORDER BY 1;
END $$;

CREATE FUNCTION lakets.query_stats(p_limit int DEFAULT 20) RETURNS TABLE (query text, calls bigint,
    total_time_ms float8, mean_time_ms float8, rows_returned bigint) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE 'SELECT left(query, 200), calls, total_exec_time, mean_exec_time, rows FROM pg_stat_statements
        WHERE query LIKE ''%lakets%'' OR query LIKE ''%time_bucket%'' ORDER BY total_exec_time DESC LIMIT $1' USING p_limit;
EXCEPTION WHEN undefined_table THEN
    RETURN;
END $$;

CREATE FUNCTION lakets.cardinality_stats(p_table_name text, p_schema_name text DEFAULT 'public')
    RETURNS TABLE (column_name text, distinct_values bigint, total_rows bigint, pct_of_rows numeric) LANGUAGE plpgsql AS $$
BEGIN
    FOR column_name IN SELECT c.column_name FROM information_schema.columns c
                        WHERE c.table_schema = p_schema_name AND c.table_name = p_table_name AND c.data_type = 'text'
                        ORDER BY c.ordinal_position LOOP
        EXECUTE format('SELECT count(DISTINCT %I), count(*) FROM %I.%I', column_name, p_schema_name, p_table_name)
           INTO distinct_values, total_rows;
        pct_of_rows := round(100.0 * distinct_values / nullif(total_rows, 0), 3);
        RETURN NEXT;
    END LOOP;
END $$;
CREATE FUNCTION lakets.cardinality_check(p_table_name text, p_max_series bigint DEFAULT 100000, p_schema_name text DEFAULT 'public')
    RETURNS TABLE (status text, combined_cardinality bigint, max_allowed bigint, tag_columns text) LANGUAGE plpgsql AS $$
BEGIN
    SELECT string_agg(quote_ident(c.column_name), ', ' ORDER BY c.ordinal_position) INTO tag_columns
      FROM information_schema.columns c
     WHERE c.table_schema = p_schema_name AND c.table_name = p_table_name AND c.data_type = 'text';
    EXECUTE format('SELECT count(*) FROM (SELECT DISTINCT %s FROM %I.%I) d', tag_columns, p_schema_name, p_table_name)
       INTO combined_cardinality;
    max_allowed := p_max_series;
    status := CASE WHEN combined_cardinality > p_max_series THEN 'CRITICAL'
                   WHEN combined_cardinality > p_max_series * 0.8 THEN 'WARNING' ELSE 'OK' END;
    RETURN NEXT;
END $$;

CREATE FUNCTION lakets.alert_check(p_name text, p_query text, p_severity text DEFAULT 'warning')
    RETURNS TABLE (alert_name text, severity text, fired_at timestamptz, alert_data jsonb) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE format('SELECT %L, %L, now(), to_jsonb(q) FROM (%s) q', p_name, p_severity, p_query);
END $$;
CREATE FUNCTION lakets.alert_deadman(p_name text, p_table_name text, p_group_by text, p_timeout interval, p_schema_name text DEFAULT 'public')
    RETURNS TABLE (alert_name text, severity text, fired_at timestamptz, dead_key text, last_seen timestamptz, silent_for interval)
    LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT %L, ''critical'', now(), %I::text, max(%I), now() - max(%3$I) FROM %I.%I GROUP BY 4 HAVING max(%3$I) < now() - $1',
        p_name, p_group_by, (SELECT time_column FROM lakets._chronotable_registry WHERE id = lakets._table_id(p_table_name, p_schema_name)),
        p_schema_name, p_table_name) USING p_timeout;
END $$;

-- One statement of its own for each object, written out as text key by key.
CREATE FUNCTION lakets.ingest_batch(p_table_name text, p_data jsonb, p_schema_name text DEFAULT 'public') RETURNS int
    LANGUAGE plpgsql AS $$
DECLARE
    v_item jsonb;
    v_key text;
    v_columns text;
    v_values text;
    v_is_first boolean;
    v_count int := 0;
BEGIN
    IF jsonb_typeof(p_data) <> 'array' THEN
        RAISE EXCEPTION 'p_data is not a JSONB array';
    END IF;
    FOR v_item IN SELECT jsonb_array_elements(p_data) LOOP
        v_columns := '';
        v_values := '';
        v_is_first := true;
        FOR v_key IN SELECT jsonb_object_keys(v_item) LOOP
            IF NOT v_is_first THEN
                v_columns := v_columns || ', ';
                v_values := v_values || ', ';
            END IF;
            v_columns := v_columns || quote_ident(v_key);
            IF jsonb_typeof(v_item -> v_key) = 'null' THEN
                v_values := v_values || 'NULL';
            ELSE
                v_values := v_values || quote_literal(v_item ->> v_key);
            END IF;
            v_is_first := false;
        END LOOP;
        EXECUTE format('INSERT INTO %I.%I (%s) VALUES (%s)', p_schema_name, p_table_name, v_columns, v_values);
        v_count := v_count + 1;
    END LOOP;
    RETURN v_count;
END $$;
CREATE FUNCTION lakets.ingest_prometheus(p_table_name text, p_metric_name text, p_labels jsonb, p_value float8,
    p_timestamp timestamptz DEFAULT now(), p_schema_name text DEFAULT 'public') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO %I.%I (time, metric_name, labels, value) VALUES ($1, $2, $3, $4)', p_schema_name, p_table_name)
      USING p_timestamp, p_metric_name, p_labels, p_value;
END $$;
