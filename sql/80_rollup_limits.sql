-- Limit the query of a RollUp to a range of source times.

-- Replace each mention of a relation in a qualified query by its rows in a range of times. Names in
-- such a query are quoted where necessary, so a lower-case word after the relation is its alias and
-- an upper-case word is a keyword. Null if something else looks like a mention, such as a literal
-- or a type: then there are more than in p_named, the relations that the query names.
CREATE OR REPLACE FUNCTION lakets._limit_relation(
    p_query     text,
    p_relation  regclass,
    p_named     oid[],
    p_condition text
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET quote_all_identifiers = off
AS $$
DECLARE
    v_schema text := (SELECT nsp.nspname FROM pg_class AS cls JOIN pg_namespace AS nsp ON nsp.oid = cls.relnamespace WHERE cls.oid = p_relation);
    v_table  text := (SELECT cls.relname FROM pg_class AS cls WHERE cls.oid = p_relation);
    v_name   text := format('%I.%I', v_schema, v_table);
    v_match  text := '(?<![\w.$"''])' || regexp_replace(v_name, '([^\w])', '\\\1', 'g') || '(?![\w.$"''])';
    -- chr(1) stands for the relation until all mentions are replaced, so that none is replaced
    -- twice.
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

-- Return whether the rows of this query, which has parameters $1 and $2, fit into a table with
-- these columns.
CREATE OR REPLACE FUNCTION lakets._fits_table(
    p_query    text,
    p_relation regclass,
    p_columns  text
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_query IS NULL THEN
        RETURN false;
    END IF;
    -- Parse the query, but do not plan it: planning would call functions of the query with the
    -- rights of the current role.
    EXECUTE format('PREPARE lakets_fits_table (timestamptz, timestamptz) AS INSERT INTO %s (%s) %s', p_relation, p_columns, p_query);
    DEALLOCATE lakets_fits_table;
    RETURN true;
EXCEPTION WHEN syntax_error_or_access_rule_violation THEN  -- a rewritten name, a row of the table's own type, a system column
    IF SQLSTATE = '42501' THEN
        RAISE;
    END IF;
    RETURN false;
END;
$$;

-- A query limited to source times in [$1, $2); null if its text cannot be limited. Then each
-- refresh reads the whole source: the result is right, but the cost grows with the table, so a
-- warning reports it.
CREATE OR REPLACE FUNCTION lakets._window_query(
    p_name           text,
    p_query          text,
    p_relations      oid[],
    p_returns        jsonb,
    p_chronotable_id integer,
    p_depends_on     integer[]
) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_query  text := p_query;
    v_source record;
BEGIN
    FOR v_source IN
        SELECT src.relation, src.time_column, lakets._column_type(src.relation, src.time_column) AS time_type
          FROM lakets._rollup_sources(p_chronotable_id, p_depends_on) AS src
         WHERE src.relation::oid = ANY (p_relations)
    LOOP
        v_query := lakets._limit_relation(v_query, v_source.relation, p_relations, format(
            'lakets_source.%1$I >= %2$s AND lakets_source.%1$I < %3$s', v_source.time_column,
            lakets._comparable('$1', v_source.time_type), lakets._comparable('$2', v_source.time_type)));
    END LOOP;
    IF lakets._fits_table(v_query, lakets._rollup_relation(p_name), lakets._column_list(p_returns)) THEN
        RETURN v_query;
    END IF;
    RAISE WARNING 'The query of RollUp % cannot be limited to a range of times: each refresh will read all of its source.', p_name
        USING HINT = 'Name the source directly in FROM or JOIN, and its columns rather than its whole row.';
    RETURN NULL;
END;
$$;
