-- A query as Postgres parsed it: the tree that the catalog stores for each view, as jsonb. A
-- RollUp's query is analysed from this tree, never from its text.

-- The tree of a view's query. Each node is an object, with its kind under "_"; each other value is
-- text. Null and empty values are left out.
CREATE OR REPLACE FUNCTION lakets._query_tree(
    p_tree text
) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        WITH token AS (
            -- "4 [ 1 0 0 0 ]" is the value of a constant; a backslash keeps what follows from
            -- ending a word.
            SELECT hit[1] AS word, position, lag(hit[1]) OVER (ORDER BY position) AS before
              FROM regexp_matches(p_tree, '\d+ \[ [-\d ]*\]|\{[A-Z]+\w*|(?:\\.|[^\s(){}\\])+|[(){}]', 'g')
                   WITH ORDINALITY AS t (hit, position)
        ), part AS (
            SELECT token.word, token.position,
                   token.word ~ '^:\w+$' AND coalesce(token.before !~ '^:\w+$', true) AS is_field,
                   CASE WHEN token.before IS NULL OR token.before = '(' OR token.before ~ '^:\w+$' THEN '' ELSE ',' END AS comma
              FROM token
        )
        SELECT jsonb_strip_nulls(string_agg(
                   CASE WHEN part.word IN ('}', ')') THEN translate(part.word, ')', ']')
                        WHEN part.is_field THEN ',' || to_json(substr(part.word, 2)) || ':'
                        WHEN part.word = '(' THEN part.comma || '['
                        WHEN part.word LIKE '{%' THEN part.comma || '{"_":' || to_json(substr(part.word, 2))
                        WHEN part.word = '<>' THEN part.comma || 'null'
                        ELSE part.comma || to_json(regexp_replace(part.word, '\\(.)', '\1', 'g')) END,
                   '' ORDER BY part.position)::jsonb -> 0)
          FROM part);
END;
$$;

-- An integer from its bytes, the lowest first.
CREATE OR REPLACE FUNCTION lakets._integer_of(
    p_bytes integer[]
) RETURNS bigint
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT bit_or((byte & 255)::bigint << (8 * (position - 1))::integer)
               - CASE WHEN cardinality(p_bytes) < 8 AND p_bytes[cardinality(p_bytes)] & 128 > 0
                      THEN 1::bigint << (8 * cardinality(p_bytes)) ELSE 0 END
          FROM unnest(p_bytes) WITH ORDINALITY AS b (byte, position));
END;
$$;

-- Return the value of a constant in a tree: text, an interval as {months, us} (a day has 24 hours),
-- an instant or a day as microseconds since 2000, or an integer. Null for a constant of another
-- type, a null constant, and other nodes.
CREATE OR REPLACE FUNCTION lakets._constant(
    p_node jsonb
) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_bytes integer[];
BEGIN
    -- A cast between types of time, in UTC, or between types of text.
    IF p_node ->> '_' = 'RELABELTYPE' THEN
        RETURN lakets._constant(p_node -> 'arg');
    ELSIF p_node ->> '_' = 'FUNCEXPR' AND p_node ->> 'funcformat' IN ('1', '2') AND jsonb_array_length(p_node -> 'args') = 1
          AND p_node ->> 'funcresulttype' IN ('1184', '1114') THEN
        RETURN lakets._constant(p_node -> 'args' -> 0);
    ELSIF p_node ->> '_' <> 'CONST' OR p_node ->> 'constisnull' = 'true' THEN
        RETURN NULL;
    END IF;
    v_bytes := string_to_array(substring(p_node ->> 'constvalue' FROM '\[ (.*) \]'), ' ')::integer[];
    CASE (p_node ->> 'consttype')::oid::regtype
        WHEN 'text'::regtype THEN
            RETURN to_jsonb(convert_from(
                decode((SELECT string_agg(lpad(to_hex(byte & 255), 2, '0'), '' ORDER BY position)
                          FROM unnest(v_bytes[5:]) WITH ORDINALITY AS b (byte, position)), 'hex'),
                getdatabaseencoding()));
        WHEN 'interval'::regtype THEN
            RETURN jsonb_build_object(
                'months', lakets._integer_of(v_bytes[13:16]),
                'us', lakets._integer_of(v_bytes[1:8]) + lakets._integer_of(v_bytes[9:12]) * 86400000000);
        WHEN 'timestamptz'::regtype, 'timestamp'::regtype THEN
            RETURN to_jsonb(lakets._integer_of(v_bytes[1:8]));
        WHEN 'date'::regtype THEN
            RETURN to_jsonb(lakets._integer_of(v_bytes[1:4]) * 86400000000);
        WHEN 'integer'::regtype THEN
            RETURN to_jsonb(lakets._integer_of(v_bytes[1:4]));
        ELSE
            RETURN NULL;
    END CASE;
END;
$$;
