-- histogram(value, min, max, n): the bucket of one value among n equal parts of [min, max), from 0
-- to n - 1. Values below min are in the first bucket, those from max on in the last. NULL for NULL.
--
-- histogram_agg(value, min, max, n) counts the values of a group. The result has n + 2 elements:
-- the values below min, those in each part, those at or above max. NaN counts as above max, as
-- Postgres sorts it. A NULL value does not count; without a value the result is NULL. min, max and
-- n are constants of the group. Time grows with n, as each row copies the counts: for more than a
-- hundred parts GROUP BY width_bucket(...) is faster.

-- Refuse what has no buckets. In PL/pgSQL, so that it is not evaluated when a query is planned.
CREATE OR REPLACE FUNCTION lakets._refuse_histogram(
    p_min     double precision,
    p_max     double precision,
    p_buckets integer
) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_buckets < 1 THEN
        RAISE EXCEPTION 'A histogram has at least 1 bucket; asked for %.', p_buckets
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass a positive number of buckets.';
    END IF;
    RAISE EXCEPTION 'A histogram cannot span from % to %.', p_min, p_max
        USING ERRCODE = 'invalid_parameter_value', HINT = 'Pass finite bounds, the lower one first.';
END;
$$;

-- The number of a value's bucket. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets.histogram(
    p_value       double precision,
    p_min         double precision,
    p_max         double precision,
    p_num_buckets integer
) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN p_value IS NULL OR p_min IS NULL OR p_max IS NULL THEN NULL
        WHEN p_num_buckets OPERATOR(pg_catalog.<) 1
            THEN lakets._refuse_histogram(p_min, p_max, p_num_buckets)
        WHEN p_value OPERATOR(pg_catalog.<) p_min THEN 0
        WHEN p_value OPERATOR(pg_catalog.>=) p_max THEN p_num_buckets OPERATOR(pg_catalog.-) 1
        WHEN p_min OPERATOR(pg_catalog.=) '-infinity' OR p_max OPERATOR(pg_catalog.=) 'NaN'
            THEN lakets._refuse_histogram(p_min, p_max, p_num_buckets)
        -- Halves, where the difference could be out of range.
        WHEN (p_max OPERATOR(pg_catalog./) 2) OPERATOR(pg_catalog.-) (p_min OPERATOR(pg_catalog./) 2) OPERATOR(pg_catalog.>) 8e307
            AND p_max OPERATOR(pg_catalog.<) 'infinity' THEN least(CAST(pg_catalog.floor(
            ((p_value OPERATOR(pg_catalog./) 2) OPERATOR(pg_catalog.-) (p_min OPERATOR(pg_catalog./) 2)) OPERATOR(pg_catalog./)
            (((p_max OPERATOR(pg_catalog./) 2) OPERATOR(pg_catalog.-) (p_min OPERATOR(pg_catalog./) 2)) OPERATOR(pg_catalog./) p_num_buckets)) AS integer),
            p_num_buckets OPERATOR(pg_catalog.-) 1)
        -- Rounding may put a value just below p_max beyond the last bucket. Each operation is in
        -- brackets, because operators written as OPERATOR() all have one precedence.
        ELSE least(CAST(pg_catalog.floor(
            (p_value OPERATOR(pg_catalog.-) p_min) OPERATOR(pg_catalog./)
            ((p_max OPERATOR(pg_catalog.-) p_min) OPERATOR(pg_catalog./) p_num_buckets)) AS integer),
            p_num_buckets OPERATOR(pg_catalog.-) 1)
    END
$$;

COMMENT ON FUNCTION lakets.histogram(double precision, double precision, double precision, integer) IS
    'Number of the bucket of a value, from 0 to p_num_buckets - 1, among equal parts of [p_min, p_max)';

-- The counts to start from, all zero. Refuses with 22023 fewer than 1 or more than 10000 buckets, a
-- number of buckets other than before, and bounds that are not finite and in order.
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

-- Transition of histogram_agg: count one value. No SET clause: it would double the cost per row;
-- every name is qualified instead.
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

CREATE OR REPLACE AGGREGATE lakets.histogram_agg(
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

COMMENT ON AGGREGATE lakets.histogram_agg(double precision, double precision, double precision, integer) IS
    'Counts of values below min, in each of the equal parts of [min, max), and at or above max';
