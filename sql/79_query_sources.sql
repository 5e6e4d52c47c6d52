-- Find which sources of a query are joined by equal labels: then rows of one label come from source
-- rows of that label only (79_query_labels.sql). A component is a list of entries of FROM that are
-- joined in this way.

-- The equalities of labels in a condition that determine the given label.
CREATE OR REPLACE FUNCTION lakets._label_edges(
    p_condition jsonb,
    p_scope     jsonb,
    p_steps     jsonb
) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_edges jsonb := '[]';
    v_part  jsonb;
    v_one   jsonb;
    v_other jsonb;
BEGIN
    IF p_condition ->> '_' = 'BOOLEXPR' AND p_condition ->> 'boolop' = 'and' THEN
        FOR v_part IN SELECT jsonb_array_elements(p_condition -> 'args') LOOP
            v_edges := v_edges || lakets._label_edges(v_part, p_scope, p_steps);
        END LOOP;
    ELSIF p_condition ->> '_' = 'OPEXPR' AND lakets._is_equality((p_condition ->> 'opno')::oid) THEN
        v_one := lakets._label(p_condition -> 'args' -> 0, p_scope);
        v_other := lakets._label(p_condition -> 'args' -> 1, p_scope);
        IF v_one -> 'steps' = v_other -> 'steps' AND lakets._steps_between(v_one -> 'steps', p_steps) IS NOT NULL THEN
            v_edges := jsonb_build_array(jsonb_build_object(
                'units', jsonb_build_array(v_one -> 'units' -> 0, v_other -> 'units' -> 0), 'outer', coalesce(v_one -> 'outer', v_other -> 'outer')));
        END IF;
    END IF;
    RETURN v_edges;
END;
$$;

-- Return whether an operator is the = of Postgres.
CREATE OR REPLACE FUNCTION lakets._is_equality(
    p_operator oid
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM pg_operator AS op
                    WHERE op.oid = p_operator AND op.oprname = '=' AND op.oprnamespace = 'pg_catalog'::regnamespace);
END;
$$;

-- The components of a part of FROM.
CREATE OR REPLACE FUNCTION lakets._components(
    p_node  jsonb,
    p_scope jsonb,
    p_steps jsonb,
    p_edges jsonb  -- equalities that hold wherever both sides are not null
) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_result jsonb := '[]';
    v_left   jsonb;
    v_right  jsonb;
    v_part   jsonb;
    v_edges  jsonb := p_edges;
BEGIN
    IF p_node ->> '_' = 'RANGETBLREF' THEN
        RETURN CASE WHEN p_scope -> 'relations' ? (p_node ->> 'rtindex')
                    THEN jsonb_build_array(jsonb_build_array((p_node ->> 'rtindex')::integer)) ELSE '[]' END;
    END IF;
    v_edges := v_edges || lakets._label_edges(p_node -> 'quals', p_scope, p_steps);
    IF p_node ->> '_' = 'FROMEXPR' THEN
        FOR v_part IN SELECT jsonb_array_elements(p_node -> 'fromlist') LOOP
            v_result := v_result || lakets._components(v_part, p_scope, p_steps, p_edges);
        END LOOP;
        RETURN lakets._joined(v_result, v_edges);
    END IF;
    v_left := lakets._components(p_node -> 'larg', p_scope, p_steps, p_edges);
    v_right := lakets._components(p_node -> 'rarg', p_scope, p_steps, p_edges);
    RETURN CASE p_node ->> 'jointype'
        WHEN '0' THEN lakets._joined(v_left || v_right, v_edges)
        WHEN '1' THEN lakets._attached(v_left, lakets._joined(v_right, v_edges), v_edges)
        WHEN '3' THEN lakets._attached(v_right, lakets._joined(v_left, v_edges), v_edges)
        WHEN '2' THEN lakets._attached(v_left, v_right, v_edges) END;
END;
$$;

-- Join the components that edges connect, as an inner join does.
CREATE OR REPLACE FUNCTION lakets._joined(
    p_components jsonb,
    p_edges      jsonb
) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_edge jsonb;
BEGIN
    FOR v_edge IN SELECT edge -> 'units' FROM jsonb_array_elements(p_edges) AS edge LOOP
        p_components := (
            SELECT coalesce(jsonb_agg(merged.members), '[]')
              FROM (SELECT jsonb_path_query_array(jsonb_agg(component), '$[*][*]') AS members
                      FROM jsonb_array_elements(p_components) WITH ORDINALITY AS c (component, position)
                     GROUP BY CASE WHEN component @> (v_edge -> 0) OR component @> (v_edge -> 1) THEN 0 ELSE position END) AS merged);
    END LOOP;
    RETURN p_components;
END;
$$;

-- Add each optional component to one with which an edge connects it, as an outer join does. It does
-- not connect two kept components, because their rows stay if the condition fails.
CREATE OR REPLACE FUNCTION lakets._attached(
    p_kept     jsonb,
    p_optional jsonb,
    p_edges    jsonb
) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_component jsonb;
    v_position  integer;
BEGIN
    FOR v_component IN SELECT jsonb_array_elements(p_optional) LOOP
        v_position := (
            SELECT kept.position - 1
              FROM jsonb_array_elements(p_kept) WITH ORDINALITY AS kept (component, position)
             CROSS JOIN jsonb_array_elements(p_edges) AS edge
             WHERE kept.component @> (edge -> 'units' -> 0) AND v_component @> (edge -> 'units' -> 1)
                OR kept.component @> (edge -> 'units' -> 1) AND v_component @> (edge -> 'units' -> 0)
             LIMIT 1);
        p_kept := CASE WHEN v_position IS NULL THEN p_kept || jsonb_build_array(v_component)
                       ELSE jsonb_set(p_kept, ARRAY[v_position::text], (p_kept -> v_position) || v_component) END;
    END LOOP;
    RETURN p_kept;
END;
$$;

-- The entries of FROM to which equal labels bind a subquery's rows; null if the subquery reads
-- other buckets too.
CREATE OR REPLACE FUNCTION lakets._confined_to(
    p_query jsonb,
    p_outer jsonb,
    p_steps jsonb
) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_scope jsonb := lakets._query_scope(p_query, p_outer -> 'bases', p_outer -> 'ctes', p_outer);
    v_edges jsonb := lakets._label_edges(p_query -> 'jointree' -> 'quals', v_scope, p_steps);
    v_parts jsonb := lakets._components(p_query -> 'jointree', v_scope, p_steps, lakets._lateral_edges(v_scope, p_steps));
BEGIN
    IF p_query ? 'setOperations' OR jsonb_array_length(lakets._joined(v_parts || '[[0]]', v_edges)) > 1
       OR EXISTS (SELECT FROM lakets._sublinks(v_scope) AS link
                   WHERE (lakets._query_labels(link -> 'subselect', v_scope -> 'bases', v_scope -> 'ctes', v_scope) ->> 'tracked')::boolean
                     AND lakets._confined_to(link -> 'subselect', v_scope, p_steps) IS NULL) THEN
        RETURN NULL;
    END IF;
    RETURN nullif(jsonb_path_query_array(v_edges, '$[*].outer[*]'), '[]');
END;
$$;

-- The edges between LATERAL subqueries and the entries that they are bound to.
CREATE OR REPLACE FUNCTION lakets._lateral_edges(
    p_scope jsonb,
    p_steps jsonb
) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(jsonb_build_object('units', jsonb_build_array(entry.position, unit))), '[]')
          FROM jsonb_array_elements(p_scope -> 'query' -> 'rtable') WITH ORDINALITY AS entry (e, position)
         CROSS JOIN LATERAL jsonb_array_elements(
               CASE WHEN entry.e ->> 'lateral' = 'true' AND entry.e ->> 'rtekind' = '1' AND p_scope -> 'relations' ? entry.position::text
                    THEN lakets._confined_to(entry.e -> 'subquery', p_scope, p_steps) END) AS unit);
END;
$$;

-- Return whether an expression is "label IN (SELECT label ...)".
CREATE OR REPLACE FUNCTION lakets._is_in(
    p_link  jsonb,
    p_scope jsonb,
    p_steps jsonb
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_test  jsonb := p_link -> 'testexpr';
    v_outer jsonb;
    v_inner jsonb;
BEGIN
    IF p_link ->> 'subLinkType' <> '2' OR v_test ->> '_' <> 'OPEXPR' OR NOT lakets._is_equality((v_test ->> 'opno')::oid) THEN
        RETURN false;
    END IF;
    v_outer := lakets._label(v_test -> 'args' -> 0, p_scope) -> 'steps';
    v_inner := lakets._query_labels(p_link -> 'subselect', p_scope -> 'bases', p_scope -> 'ctes', p_scope) -> 'columns' -> 0 -> 'steps';
    RETURN coalesce(v_outer = v_inner AND v_test -> 'args' -> 1 ->> '_' = 'PARAM' AND lakets._steps_between(v_outer, p_steps) IS NOT NULL, false);
END;
$$;

-- The subqueries in a query's expressions, without those inside other subqueries.
CREATE OR REPLACE FUNCTION lakets._sublinks(
    p_scope jsonb
) RETURNS SETOF jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_scope #>> '{query,hasSubLinks}' = 'true' THEN
        RETURN QUERY
            WITH RECURSIVE part (node) AS (
                SELECT value FROM jsonb_each(p_scope -> 'query')
                UNION ALL
                SELECT child.value
                  FROM part
                 CROSS JOIN LATERAL (
                       SELECT value FROM jsonb_array_elements(CASE WHEN jsonb_typeof(part.node) = 'array' THEN part.node ELSE '[]' END)
                        UNION ALL
                       SELECT value FROM jsonb_each(CASE WHEN jsonb_typeof(part.node) = 'object' THEN part.node ELSE '{}' END)) AS child
                 WHERE child.value ->> '_' IS DISTINCT FROM 'QUERY'
            )
            SELECT part.node FROM part WHERE part.node ->> '_' = 'SUBLINK';
    END IF;
END;
$$;
