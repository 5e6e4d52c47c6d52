-- Find which output columns of a query are labels of buckets. A column is a label if each row
-- depends only on the source rows whose time has that row's label. This is proved from the tree,
-- from the inside out:
--
--  - a source's time column is the label of its own row, and a step (78_bucket_steps.sql) of a
--    label is a label;
--  - grouping, a window or DISTINCT ON keep the labels that some grouping expression determines;
--  - a join of two sources keeps those that an equality of labels determines;
--  - LIMIT keeps none, and neither does a part that reads the source without such an equality.
--
-- A label is {steps, units, nullable}: units are the sources in FROM that its rows belong to (0: a
-- row of the query around this one), and nullable says that an outer join may leave it out. A scope
-- describes one query during the analysis: {query, relations: the columns of each entry of FROM,
-- ctes, outer: the scope around it, bases: the sources}.

-- Return the label of an expression; null if it is not a label.
CREATE OR REPLACE FUNCTION lakets._label(
    p_node  jsonb,
    p_scope jsonb
) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_call  jsonb;
    v_label jsonb;
    v_steps jsonb;
    v_other jsonb;
    v_arg   jsonb;
BEGIN
    CASE p_node ->> '_'
        WHEN 'VAR' THEN
            RETURN lakets._column_label(p_node, p_scope);
        WHEN 'RELABELTYPE' THEN
            RETURN lakets._label(p_node -> 'arg', p_scope);
        WHEN 'FUNCEXPR', 'OPEXPR' THEN
            v_call := lakets._call_step(coalesce(p_node ->> 'funcid', p_node ->> 'opfuncid')::oid, lakets._arguments(p_node -> 'args'));
            v_label := lakets._label(v_call -> 'argument', p_scope);
            IF v_label IS NULL THEN
                RETURN NULL;
            END IF;
            v_steps := lakets._simple_steps((v_label -> 'steps') || (v_call -> 'steps'));
            -- Adding months keeps the order of times only for starts of months, and reading a
            -- zone's clock as UTC only for starts of buckets.
            IF v_call #>> '{steps,0,0}' = 'shift' AND v_call #>> '{steps,0,1}' <> '0'
                   AND (v_label #>> '{steps,-1,0}', v_label #>> '{steps,-1,2}') IS DISTINCT FROM ('months', '0')
               OR v_call #>> '{steps,0,0}' = 'unzone' AND NOT jsonb_path_exists(v_label, 'strict $.steps[*] ? (@[0] == "bin" || @[0] == "months")') THEN
                RETURN NULL;
            END IF;
            RETURN jsonb_set(v_label, '{steps}', v_steps);
        WHEN 'COALESCEEXPR' THEN
            -- The two sides of a full join: at least one is not null.
            FOR v_arg IN SELECT jsonb_array_elements(p_node -> 'args') LOOP
                v_other := lakets._label(v_arg, p_scope);
                IF v_other IS NULL OR v_label -> 'steps' <> v_other -> 'steps' THEN
                    RETURN NULL;
                ELSIF v_label IS NULL THEN
                    v_label := v_other;
                ELSE
                    v_label := v_label || jsonb_build_object(
                        'units', (v_label -> 'units') || (v_other -> 'units'),
                        'nullable', v_label -> 'nullable' <> 'false' AND v_other -> 'nullable' <> 'false'
                                    AND NOT lakets._is_full_join(v_label, v_other, p_scope));
                END IF;
            END LOOP;
            RETURN v_label;
        ELSE
            RETURN NULL;
    END CASE;
END;
$$;

-- Return whether the same full join, and no other, makes both labels null.
CREATE OR REPLACE FUNCTION lakets._is_full_join(
    p_one   jsonb,
    p_other jsonb,
    p_scope jsonb
) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF jsonb_typeof(p_one -> 'nullable') <> 'array' THEN  -- nullable is true, which stands for a join in a subquery
        RETURN false;
    END IF;
    RETURN p_one -> 'nullable' = p_other -> 'nullable' AND p_one -> 'units' <> p_other -> 'units' AND jsonb_array_length(p_one -> 'nullable') = 1
       AND p_scope #>> ARRAY['query', 'rtable', ((p_one -> 'nullable' ->> 0)::integer - 1)::text, 'jointype'] = '2';
END;
$$;

-- Return the label of a column of an entry of FROM; null if it is not a label.
CREATE OR REPLACE FUNCTION lakets._column_label(
    p_var   jsonb,
    p_scope jsonb
) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_position integer := (p_var ->> 'varattno')::integer - 1;
    v_entry    jsonb;
    v_label    jsonb;
    v_nulled   jsonb   := (p_var -> 'varnullingrels') - 0;
BEGIN
    IF p_var ->> 'varlevelsup' = '1' AND p_scope -> 'outer' <> 'null' THEN
        v_label := lakets._column_label(p_var || '{"varlevelsup": "0"}', p_scope -> 'outer');
        RETURN v_label || jsonb_build_object('units', jsonb_build_array(0), 'outer', v_label -> 'units');
    ELSIF p_var ->> 'varlevelsup' <> '0' OR v_position < 0 THEN
        RETURN NULL;
    END IF;
    v_entry := p_scope -> 'query' -> 'rtable' -> ((p_var ->> 'varno')::integer - 1);
    IF v_entry ->> 'rtekind' = '2' THEN
        v_label := lakets._label(v_entry -> 'joinaliasvars' -> v_position, p_scope);
    ELSIF v_entry ? 'groupexprs' THEN
        v_label := lakets._label(v_entry -> 'groupexprs' -> v_position, p_scope);
    ELSE
        v_label := p_scope -> 'relations' -> (p_var ->> 'varno') -> 'columns' -> v_position;
        v_label := CASE WHEN v_label ? 'steps'
                        THEN v_label || jsonb_build_object('units', jsonb_build_array((p_var ->> 'varno')::integer)) END;
    END IF;
    IF v_nulled <> '[]' AND v_label IS NOT NULL THEN
        v_label := jsonb_set(v_label, '{nullable}', CASE WHEN v_label -> 'nullable' = 'false' THEN v_nulled ELSE 'true' END);
    END IF;
    RETURN v_label;
END;
$$;

-- The same for this query's own rows: labels of an outer query do not apply to them.
CREATE OR REPLACE FUNCTION lakets._own_label(
    p_node  jsonb,
    p_scope jsonb
) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_label jsonb := lakets._label(p_node, p_scope);
BEGIN
    RETURN CASE WHEN NOT (v_label -> 'units' @> '0') THEN v_label END;
END;
$$;

-- The scope of a query: a description of each entry of its FROM.
CREATE OR REPLACE FUNCTION lakets._query_scope(
    p_query jsonb,
    p_bases jsonb,
    p_ctes  jsonb,
    p_outer jsonb
) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_ctes  jsonb := '{}';
    v_scope jsonb;
    v_cte   jsonb;
    v_entry jsonb;
    v_found jsonb;
    v_index integer;
BEGIN
    FOR v_cte IN SELECT jsonb_path_query(p_query, '$.cteList[*]') LOOP
        v_found := lakets._query_labels(v_cte -> 'ctequery', p_bases, p_ctes || jsonb_build_array(v_ctes), 'null');
        IF v_cte ->> 'cterecursive' = 'true' THEN
            v_found := v_found || '{"columns": [{"why": "it is computed by a recursive query"}]}';
        END IF;
        v_ctes := v_ctes || jsonb_build_object(v_cte ->> 'ctename', v_found);
    END LOOP;
    v_scope := jsonb_build_object('query', p_query, 'bases', p_bases, 'ctes', p_ctes || jsonb_build_array(v_ctes),
                                  'outer', p_outer, 'relations', '{}'::jsonb);
    FOR v_entry, v_index IN SELECT e, position FROM jsonb_array_elements(p_query -> 'rtable') WITH ORDINALITY AS r (e, position) LOOP
        v_found := CASE v_entry ->> 'rtekind'
            WHEN '0' THEN p_bases -> (v_entry ->> 'relid')
            WHEN '1' THEN lakets._query_labels(v_entry -> 'subquery', p_bases, v_scope -> 'ctes',
                                               CASE WHEN v_entry ->> 'lateral' = 'true' THEN v_scope ELSE 'null' END)
            WHEN '6' THEN v_scope -> 'ctes' -> (-1 - (v_entry ->> 'ctelevelsup')::integer) -> (v_entry ->> 'ctename') END;
        IF (v_found ->> 'tracked')::boolean THEN
            v_scope := jsonb_set(v_scope, ARRAY['relations', v_index::text], v_found);
        END IF;
    END LOOP;
    RETURN v_scope;
END;
$$;

-- Return what a query reads and which of its columns are labels: {tracked: whether it reads a
-- source, columns: for each column its label, or {why} it is not a label}.
CREATE OR REPLACE FUNCTION lakets._query_labels(
    p_query jsonb,
    p_bases jsonb,
    p_ctes  jsonb DEFAULT '[]',
    p_outer jsonb DEFAULT 'null'
) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_none    constant jsonb := '{"none": "it is no bucket of a source''s time column"}';
    v_scope   jsonb := lakets._query_scope(p_query, p_bases, p_ctes, p_outer);
    v_columns jsonb := '[]';
    v_tracked boolean;
    v_target  jsonb;
    v_label   jsonb;
    v_why     text;
BEGIN
    IF p_query ? 'setOperations' THEN
        RETURN lakets._union_labels(p_query -> 'setOperations', v_scope);
    END IF;
    v_tracked := v_scope -> 'relations' <> '{}' OR EXISTS (
        SELECT FROM lakets._sublinks(v_scope) AS link
         WHERE (lakets._query_labels(link -> 'subselect', p_bases, v_scope -> 'ctes', v_scope) ->> 'tracked')::boolean);
    IF v_tracked THEN
        FOR v_target IN SELECT jsonb_path_query(p_query, '$.targetList[*] ? (@.resjunk == "false")') LOOP
            v_label := lakets._own_label(v_target -> 'expr', v_scope);
            v_why := CASE WHEN v_label IS NULL THEN coalesce(jsonb_path_query_first(v_scope, '$.relations.*.columns[*].why ? (@ != $none)', v_none) #>> '{}', v_none ->> 'none')
                          ELSE lakets._label_objection(v_scope, v_label -> 'steps') END;
            v_columns := v_columns || jsonb_build_array(
                CASE WHEN v_why IS NOT NULL THEN jsonb_build_object('why', v_why)
                     ELSE jsonb_build_object('steps', v_label -> 'steps', 'nullable', v_label -> 'nullable' <> 'false') END);
        END LOOP;
    END IF;
    RETURN jsonb_build_object('tracked', v_tracked, 'columns', v_columns, 'query', p_query);
END;
$$;

-- The same for UNION, INTERSECT and EXCEPT: each part must have the same labels.
CREATE OR REPLACE FUNCTION lakets._union_labels(
    p_node  jsonb,
    p_scope jsonb
) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_left  jsonb;
    v_right jsonb;
BEGIN
    IF p_node ->> '_' = 'RANGETBLREF' THEN
        RETURN coalesce(p_scope -> 'relations' -> (p_node ->> 'rtindex'), '{"tracked": false, "columns": []}');
    END IF;
    v_left := lakets._union_labels(p_node -> 'larg', p_scope);
    v_right := lakets._union_labels(p_node -> 'rarg', p_scope);
    RETURN jsonb_build_object(
        'tracked', (v_left ->> 'tracked')::boolean OR (v_right ->> 'tracked')::boolean,
        'query', p_scope -> 'query',
        'columns', (
            SELECT coalesce(jsonb_agg(CASE
                       WHEN p_scope -> 'query' ?| '{limitCount,limitOffset}'
                           THEN jsonb_build_object('why', 'LIMIT takes rows of some buckets and not of others')
                       WHEN one.label -> 'steps' = other.label -> 'steps'
                           THEN one.label || jsonb_build_object('nullable', (one.label ->> 'nullable')::boolean OR (other.label ->> 'nullable')::boolean)
                       ELSE jsonb_build_object('why', coalesce(one.label ->> 'why', other.label ->> 'why',
                            'the parts of ' || CASE p_node ->> 'op' WHEN '1' THEN 'UNION' WHEN '2' THEN 'INTERSECT' ELSE 'EXCEPT' END
                            || ' have different buckets, or rows that do not come from the source')) END ORDER BY position), '[]')
              FROM jsonb_array_elements(v_left -> 'columns') WITH ORDINALITY AS one (label, position)
              FULL JOIN jsonb_array_elements(v_right -> 'columns') WITH ORDINALITY AS other (label, position) USING (position)));
END;
$$;

-- Return why a query's rows of one label depend on source rows of other labels; null if they do
-- not.
CREATE OR REPLACE FUNCTION lakets._label_objection(
    p_scope jsonb,
    p_steps jsonb
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_query  jsonb := p_scope -> 'query';
    v_window jsonb;
BEGIN
    IF v_query ?| '{limitCount,limitOffset}' THEN
        RETURN 'LIMIT takes rows of some buckets and not of others';
    ELSIF jsonb_array_length(lakets._components(v_query -> 'jointree', p_scope, p_steps, lakets._lateral_edges(p_scope, p_steps))) > 1 THEN
        RETURN 'the query joins source rows of different buckets';
    ELSIF (v_query ->> 'hasAggs' = 'true' OR v_query ?| '{groupClause,groupingSets,havingQual}')
          AND NOT lakets._determines(v_query -> 'groupClause', p_scope, p_steps, v_query -> 'groupingSets') THEN
        RETURN CASE WHEN v_query ? 'groupingSets' THEN 'GROUPING SETS, ROLLUP or CUBE make rows without it'
                    ELSE 'the query groups rows of different buckets' END;
    ELSIF v_query ->> 'hasDistinctOn' = 'true' AND NOT lakets._determines(v_query -> 'distinctClause', p_scope, p_steps) THEN
        RETURN 'DISTINCT ON takes rows of some buckets and not of others';
    END IF;
    FOR v_window IN SELECT jsonb_path_query(v_query, '$.windowClause[*]') LOOP
        IF NOT lakets._determines(v_window -> 'partitionClause', p_scope, p_steps) THEN
            RETURN 'a window function looks at rows of other buckets';
        END IF;
    END LOOP;
    IF EXISTS (
        SELECT FROM lakets._sublinks(p_scope) AS link
         WHERE (lakets._query_labels(link -> 'subselect', p_scope -> 'bases', p_scope -> 'ctes', p_scope) ->> 'tracked')::boolean
           AND lakets._confined_to(link -> 'subselect', p_scope, p_steps) IS NULL
           AND NOT lakets._is_in(link, p_scope, p_steps)) THEN
        RETURN 'a subquery reads source rows of other buckets';
    END IF;
    RETURN NULL;
END;
$$;

-- Return whether some expression of a GROUP BY, PARTITION BY or DISTINCT ON determines the label in
-- each of the grouping sets.
CREATE OR REPLACE FUNCTION lakets._determines(
    p_clauses jsonb,
    p_scope   jsonb,
    p_steps   jsonb,
    p_sets    jsonb DEFAULT NULL
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM jsonb_array_elements(p_clauses) AS clause
         CROSS JOIN jsonb_array_elements(p_scope -> 'query' -> 'targetList') AS target
         WHERE target ->> 'ressortgroupref' = clause ->> 'tleSortGroupRef'
           AND lakets._steps_between(lakets._own_label(target -> 'expr', p_scope) -> 'steps', p_steps) IS NOT NULL
           AND lakets._is_in_each_set(clause ->> 'tleSortGroupRef', p_sets));
END;
$$;

-- Return whether an expression is among those of each grouping set. The sets of several elements
-- are their combinations.
CREATE OR REPLACE FUNCTION lakets._is_in_each_set(
    p_reference text,
    p_sets      jsonb
) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_sets IS NULL THEN
        RETURN true;
    END IF;
    RETURN EXISTS (
        SELECT FROM jsonb_array_elements(p_sets) AS element
         WHERE element ->> 'kind' = '1' AND ((element -> 'content') - 0) ? p_reference  -- a simple one
            OR element ->> 'kind' = '4' AND NOT EXISTS (
                SELECT FROM jsonb_array_elements(element -> 'content') AS part
                 WHERE NOT lakets._is_in_each_set(p_reference, jsonb_build_array(part))));
END;
$$;
