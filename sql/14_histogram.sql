-- histogram(value, min, max, buckets): how many values fall into each of the equal parts of [min, max).
--
-- The result has buckets + 2 elements: the values below min, those in each part, those at or above max. NaN
-- counts as above, where Postgres sorts it. A NULL value does not count; without a value the result is NULL.
-- min, max and buckets are constants of the group. Time grows with the number of buckets, as each row
-- copies the counts: for more than a hundred GROUP BY width_bucket(...) is faster.

-- The counts to start from, all zero. Refuses with 22023 fewer than 1 or more than 10000 buckets, a number
-- of buckets other than before, and bounds that are not finite and in order.
CREATE OR REPLACE FUNCTION lakets._histogram_start(
    p_state   integer[],
    p_min     double precision,
    p_max     double precision,
    p_buckets integer
) RETURNS integer[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_state IS NOT NULL THEN
        RAISE EXCEPTION 'A histogram cannot change from % to % buckets within a group.',
            cardinality(p_state) - 2, p_buckets
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass the same number of buckets for every row.';
    ELSIF (p_buckets BETWEEN 1 AND 10000) IS NOT TRUE THEN
        RAISE EXCEPTION 'A histogram has from 1 to 10000 buckets; asked for %.', p_buckets
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass a number of buckets within those bounds.';
    ELSIF (p_min > '-infinity' AND p_min < p_max AND p_max < 'infinity') IS NOT TRUE THEN
        RAISE EXCEPTION 'A histogram cannot span from % to %.', p_min, p_max
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass finite bounds, the lower one first.';
    END IF;
    RETURN array_fill(0, ARRAY[p_buckets + 2]);
END;
$$;

-- Transition of histogram: count one value. No SET clause: it would cost as much again per row; every name
-- is qualified instead.
CREATE OR REPLACE FUNCTION lakets._histogram_step(
    p_state   integer[],
    p_value   double precision,
    p_min     double precision,
    p_max     double precision,
    p_buckets integer
) RETURNS integer[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
DECLARE
    v_part integer;
BEGIN
    IF p_value IS NULL THEN
        RETURN p_state;
    ELSIF p_state IS NULL
        OR pg_catalog.cardinality(p_state) OPERATOR(pg_catalog.<>) (p_buckets OPERATOR(pg_catalog.+) 2)
    THEN
        p_state := lakets._histogram_start(p_state, p_min, p_max, p_buckets);
    END IF;
    v_part := CASE
        WHEN p_value OPERATOR(pg_catalog.<) p_min THEN 1
        WHEN p_value OPERATOR(pg_catalog.>=) p_max THEN p_buckets OPERATOR(pg_catalog.+) 2
        ELSE pg_catalog.width_bucket(p_value, p_min, p_max, p_buckets) OPERATOR(pg_catalog.+) 1
    END;
    p_state[v_part] := p_state[v_part] OPERATOR(pg_catalog.+) 1;
    RETURN p_state;
END;
$$;

-- Merge the counts of two parallel workers.
CREATE OR REPLACE FUNCTION lakets._histogram_merge(
    p_state integer[],
    p_other integer[]
) RETURNS integer[]
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF cardinality(p_state) <> cardinality(p_other) THEN
        RETURN lakets._histogram_start(p_state, NULL, NULL, cardinality(p_other) - 2);  -- refuses
    END IF;
    RETURN ARRAY(
        SELECT part.ours + part.theirs
          FROM unnest(p_state, p_other) WITH ORDINALITY AS part (ours, theirs, place)
         ORDER BY part.place);
END;
$$;

CREATE OR REPLACE AGGREGATE lakets.histogram(
    p_value   double precision,
    p_min     double precision,
    p_max     double precision,
    p_buckets integer
) (
    SFUNC = lakets._histogram_step,
    STYPE = integer[],
    COMBINEFUNC = lakets._histogram_merge,
    PARALLEL = SAFE
);

COMMENT ON AGGREGATE lakets.histogram(double precision, double precision, double precision, integer) IS
    'Counts of values below min, in each of the equal parts of [min, max), and at or above max';
