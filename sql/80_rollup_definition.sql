-- What a RollUp is: its query, the column that holds the bucket, the grid its buckets lie on, and the same
-- query limited to a range of source times, so that a refresh costs what changed and not what there is.

-- A query with every name qualified, so that it means the same under any search_path. Checks that it parses.
CREATE OR REPLACE FUNCTION lakets._qualified_query(
    p_query       text,
    p_search_path text,
    OUT query     text,
    OUT relations oid[],  -- each as often as the query names it
    OUT columns   name[],
    OUT types     oid[]
)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_view  text := format('lakets.%I', '_definition_' || pg_current_xact_id());
    v_query text := regexp_replace(p_query, '[\s;]+$', '');
BEGIN
    PERFORM set_config('search_path', p_search_path, true);
    EXECUTE format('CREATE VIEW %s AS %s', v_view, v_query);
    PERFORM set_config('search_path', 'pg_catalog, pg_temp', true);
    query := regexp_replace(pg_get_viewdef(v_view::regclass, false), ';\s*$', '');
    SELECT array_agg(named.found[1]::oid) INTO relations
      FROM pg_rewrite AS rule
     CROSS JOIN LATERAL regexp_matches(rule.ev_action::text, ':rtekind 0 :relid (\d+)', 'g') AS named (found)
     WHERE rule.ev_class = v_view::regclass;
    SELECT array_agg(att.attname ORDER BY att.attnum), array_agg(att.atttypid ORDER BY att.attnum) INTO columns, types
      FROM pg_attribute AS att WHERE att.attrelid = v_view::regclass AND att.attnum > 0;
    EXECUTE format('DROP VIEW %s', v_view);
END;
$$;

-- The output column that holds the bucket: "bucket", or else the first of a time type.
CREATE OR REPLACE FUNCTION lakets._bucket_column(
    p_name    text,
    p_columns name[],
    p_types   oid[]
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_column text := (
        SELECT col FROM unnest(p_columns, p_types) WITH ORDINALITY AS u (col, type, position)
         WHERE type IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype)
         ORDER BY col <> 'bucket', position LIMIT 1);
BEGIN
    IF v_column IS NULL THEN
        RAISE EXCEPTION 'The query of RollUp % returns no bucket: none of its columns (%) is a timestamptz, timestamp or date.',
            p_name, array_to_string(p_columns, ', ')
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Select lakets.time_bucket(interval, time_column) AS bucket and group by it.';
    END IF;
    RETURN v_column;
END;
$$;

-- Replace each mention of a relation in a qualified query by its rows in a range of times. In such a query
-- names are quoted where need be, so a lower-case word behind the relation is its alias, an upper-case one
-- a keyword. Null: something else looks like a mention (a literal may, or a type), since there are not just as
-- many as in p_named, the relations that the query names.
CREATE OR REPLACE FUNCTION lakets._limit_relation(
    p_query     text,
    p_relation  regclass,
    p_named     oid[],
    p_condition text
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_schema text := (SELECT nsp.nspname FROM pg_class AS cls JOIN pg_namespace AS nsp ON nsp.oid = cls.relnamespace WHERE cls.oid = p_relation);
    v_table  text := (SELECT cls.relname FROM pg_class AS cls WHERE cls.oid = p_relation);
    v_name   text := format('%I.%I', v_schema, v_table);
    v_match  text := '(?<![\w.$"''])' || regexp_replace(v_name, '([^\w])', '\\\1', 'g') || '(?![\w.$"''])';
    -- chr(1) stands for the relation until all is replaced, so that nothing is replaced twice.
    v_subquery text := format('(SELECT lakets_source.* FROM %s AS lakets_source WHERE %s) AS ', chr(1), p_condition);
    v_result text;
BEGIN
    IF (SELECT count(*) FROM regexp_matches(p_query, v_match, 'g'))
       <> (SELECT count(*) FROM unnest(p_named) AS named WHERE named = p_relation) THEN
        RETURN NULL;
    END IF;
    v_result := regexp_replace(p_query, v_match || ' ("(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)', replace(v_subquery, '\', '\\') || '\1', 'g');
    v_result := regexp_replace(v_result, v_match, replace(v_subquery || quote_ident(v_table), '\', '\\'), 'g');
    RETURN replace(v_result, chr(1), v_name);
END;
$$;

-- The relations whose rows make up a RollUp, with the column that holds their time.
CREATE OR REPLACE FUNCTION lakets._rollup_sources(
    p_chronotable_id integer,
    p_depends_on     integer[]
) RETURNS TABLE (relation regclass, time_column text)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT lakets._relation(tab.schema_name, tab.table_name), tab.time_column
          FROM lakets._chronotable_registry AS tab WHERE tab.id = p_chronotable_id
        UNION ALL
        SELECT lakets._rollup_relation(up.name), up.bucket_column
          FROM lakets._rollup_registry AS up WHERE up.id = ANY (p_depends_on);
END;
$$;

-- Is it a query of $1 and $2 that Postgres can read?
CREATE OR REPLACE FUNCTION lakets._is_syntax(
    p_query text
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_query IS NULL THEN
        RETURN false;
    END IF;
    EXECUTE 'EXPLAIN ' || p_query USING '-infinity'::timestamptz, 'infinity'::timestamptz;
    RETURN true;
EXCEPTION WHEN syntax_error THEN
    RETURN false;
END;
$$;

-- A query limited to source times in [$1, $2). Where its text defies that, the whole query with its buckets
-- filtered: right, but each refresh then costs as much as the table is large, so it is said aloud.
CREATE OR REPLACE FUNCTION lakets._window_query(
    p_name           text,
    p_query          text,
    p_bucket_column  text,
    p_chronotable_id integer,
    p_depends_on     integer[]
) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_query     text  := p_query;
    v_relations oid[] := (SELECT qualified.relations FROM lakets._qualified_query(p_query, 'pg_catalog, pg_temp') AS qualified);
    v_source    record;
BEGIN
    FOR v_source IN
        SELECT src.relation, src.time_column, lakets._column_type(src.relation, src.time_column) AS time_type
          FROM lakets._rollup_sources(p_chronotable_id, p_depends_on) AS src
         WHERE src.relation::oid = ANY (v_relations)
    LOOP
        v_query := lakets._limit_relation(v_query, v_source.relation, v_relations, format(
            'lakets_source.%1$I >= %2$s AND lakets_source.%1$I < %3$s', v_source.time_column,
            lakets._comparable('$1', v_source.time_type), lakets._comparable('$2', v_source.time_type)));
    END LOOP;
    IF NOT lakets._is_syntax(v_query) THEN
        RAISE WARNING 'The query of RollUp % cannot be limited to a range of times: each refresh will read all of its source.', p_name
            USING HINT = 'Name the source directly in FROM or JOIN.';
        v_query := format('SELECT whole.* FROM (%1$s) AS whole WHERE whole.%2$I >= $1 AND whole.%2$I < $2', p_query, p_bucket_column);
    END IF;
    RETURN v_query;
END;
$$;

-- The start of the bucket that an instant falls into, on the RollUp's own grid. In plpgsql, as what follows: called
-- for row after row, it plans time_bucket once a session, where an SQL function would plan it at each call.
CREATE OR REPLACE FUNCTION lakets._bucket_of(
    p_rollup lakets._rollup_registry,
    p_at     timestamptz
) RETURNS timestamptz
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN lakets.time_bucket(p_rollup.bucket_interval, p_at, coalesce(p_rollup.bucket_origin, '2000-01-01 00:00:00+00'));
END;
$$;

-- How much longer than its interval a bucket can be when buckets are uneven: a local day may have 25 hours, and a
-- local month may begin on another day in UTC.
CREATE OR REPLACE FUNCTION lakets._longest_bucket(
    p_rollup lakets._rollup_registry
) RETURNS interval
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN p_rollup.bucket_interval
        + CASE WHEN lakets._months(p_rollup.bucket_interval) > 0 THEN interval '4 days' ELSE interval '2 hours' END;
END;
$$;

-- The end of the bucket that starts at p_start; where buckets are uneven, an instant by which it is surely over.
CREATE OR REPLACE FUNCTION lakets._bucket_end(
    p_rollup lakets._rollup_registry,
    p_start  timestamptz
) RETURNS timestamptz
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT p_rollup.on_grid THEN
        RETURN lakets._shift(p_start, lakets._longest_bucket(p_rollup));
    ELSIF lakets._months(p_rollup.bucket_interval) > 0 THEN
        -- Months counted from a 31st start on the last day of shorter ones: one interval on may be too early.
        RETURN lakets._bucket_of(p_rollup, lakets._shift(p_start, lakets._longest_bucket(p_rollup)));
    END IF;
    RETURN lakets._shift(p_start, p_rollup.bucket_interval);
END;
$$;

-- The starts of the buckets that source times in [p_from, p_to] may fall into, as a range.
CREATE OR REPLACE FUNCTION lakets._buckets_of(
    p_rollup lakets._rollup_registry,
    p_from   timestamptz,
    p_to     timestamptz
) RETURNS tstzrange
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_rollup.on_grid THEN
        RETURN tstzrange(lakets._bucket_of(p_rollup, p_from), lakets._bucket_end(p_rollup, lakets._bucket_of(p_rollup, p_to)));
    END IF;
    RETURN tstzrange(lakets._shift(p_from, lakets._longest_bucket(p_rollup), -1), p_to + interval '1 microsecond');
END;
$$;

-- Note where the grid lies: counted from the first bucket there is. A RollUp still empty is looked at again
-- when it has rows.
CREATE OR REPLACE FUNCTION lakets._learn_grid(
    p_rollup lakets._rollup_registry
) RETURNS lakets._rollup_registry
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._rollup_relation(p_rollup.name);
    v_bucket   text := lakets._as_instant(quote_ident(p_rollup.bucket_column),
                                          lakets._column_type(v_relation, p_rollup.bucket_column));
BEGIN
    EXECUTE format('SELECT min(%1$s) FROM %2$s WHERE isfinite(%1$s)', v_bucket, v_relation) INTO p_rollup.bucket_origin;
    EXECUTE format('SELECT NOT EXISTS (SELECT FROM %1$s WHERE lakets.time_bucket($1, %2$s, $2) <> %2$s)', v_relation, v_bucket)
       INTO p_rollup.on_grid USING p_rollup.bucket_interval, p_rollup.bucket_origin;
    UPDATE lakets._rollup_registry AS reg
       SET bucket_origin = p_rollup.bucket_origin, on_grid = p_rollup.on_grid WHERE reg.id = p_rollup.id;
    PERFORM lakets._check_newest_buckets(p_rollup);
    RETURN p_rollup;
END;
$$;

-- Refuse a bucket that is longer than it was said to be: recomputing it from so short a stretch of source would
-- lose the rest. Tells by the rows of so many buckets after that of p_at.
CREATE OR REPLACE FUNCTION lakets._check_bucket_length(
    p_rollup lakets._rollup_registry,
    p_at     timestamptz,
    p_count  integer
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'
AS $$
DECLARE
    v_type   regtype := lakets._column_type(lakets._rollup_relation(p_rollup.name), p_rollup.bucket_column);
    v_from   timestamptz := lakets._bucket_end(p_rollup, p_at);
    v_bucket timestamptz;
BEGIN
    EXECUTE format('SELECT min(%s) FROM (%s) AS fresh', lakets._as_instant(format('fresh.%I', p_rollup.bucket_column), v_type),
                   p_rollup.window_query)
       INTO v_bucket USING v_from, lakets._shift(v_from, p_rollup.bucket_interval, p_count);
    IF v_bucket <= p_at THEN
        RAISE EXCEPTION 'The buckets of RollUp % are longer than %: the one of % goes on after %.',
            p_rollup.name, p_rollup.bucket_interval, v_bucket, v_from
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Create it with p_bucket_interval as long as the buckets of its query.';
    END IF;
END;
$$;

-- The same for the newest buckets that there are.
CREATE OR REPLACE FUNCTION lakets._check_newest_buckets(
    p_rollup lakets._rollup_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._rollup_relation(p_rollup.name);
    v_type     regtype  := lakets._column_type(v_relation, p_rollup.bucket_column);
    v_bucket   timestamptz := 'infinity';
BEGIN
    FOR i IN 1 .. 3 LOOP
        EXECUTE format('SELECT %s FROM %s WHERE %I < %s', lakets._as_instant(format('max(%I)', p_rollup.bucket_column), v_type),
                       v_relation, p_rollup.bucket_column, lakets._comparable('$1', v_type)) INTO v_bucket USING v_bucket;
        EXIT WHEN v_bucket IS NULL;
        PERFORM lakets._check_bucket_length(p_rollup, v_bucket, 25);  -- a day's rows tell when hours were said
    END LOOP;
END;
$$;
