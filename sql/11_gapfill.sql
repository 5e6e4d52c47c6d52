-- Filling gaps: every bucket of a range, and values for the buckets that have none.
--
-- Plain SQL cannot rewrite the query it is called from, so filling takes the buckets first and
-- joins the data to them. The scalar functions take the neighbours from lag() and lead():
--
--   SELECT bucket, temp,
--          lakets.locf(temp, lag(temp) OVER w) AS carried_over_one_gap,
--          lakets.interpolate(temp, lag(temp) OVER w, lead(temp) OVER w,
--                             lag(bucket) OVER w, bucket, lead(bucket) OVER w) AS line_over_one_gap
--     FROM (SELECT gap.bucket, avg(obs.temp) AS temp
--             FROM lakets.time_bucket_gapfill('1 hour', '2026-01-01+00', '2026-01-02+00')
--                  AS gap (bucket)
--             LEFT JOIN weather AS obs ON lakets.time_bucket('1 hour', obs.ts) = gap.bucket
--            GROUP BY gap.bucket) AS filled
--   WINDOW w AS (ORDER BY bucket);
--
-- lag() and lead() see one row. The window aggregate locf_agg carries a value over gaps of any
-- length: locf_agg(temp) OVER (ORDER BY bucket), and with ORDER BY bucket DESC it finds the next
-- one.

-- The starts of all buckets from that of p_start to that of p_finish, both included, oldest first.
-- Buckets are those of time_bucket, so the first may start before p_start. No rows when p_finish is
-- in an earlier bucket than p_start, or an argument is NULL. Refuses what time_bucket refuses, and
-- infinite ends.
CREATE OR REPLACE FUNCTION lakets.time_bucket_gapfill(
    p_interval interval,
    p_start    timestamp,
    p_finish   timestamp,
    p_origin   timestamp DEFAULT '2000-01-01'
) RETURNS SETOF timestamp
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_first  timestamp := lakets.time_bucket(p_interval, p_start, p_origin);
    v_months integer := lakets._months(p_interval);
BEGIN
    IF NOT isfinite(p_start) OR NOT isfinite(p_finish) THEN
        RAISE EXCEPTION 'Buckets cannot be listed from % to %: both ends must be finite.', p_start, p_finish
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Pass the range to fill, for example the smallest and largest time of the data.';
    END IF;

    IF v_months = 0 THEN
        RETURN QUERY
            SELECT gap.bucket FROM generate_series(v_first, p_finish, p_interval) AS gap (bucket);
    ELSE
        -- Count each from the origin, not from the previous one: a step over February would lose
        -- the 31st.
        RETURN QUERY
            SELECT p_origin + make_interval(months => v_months * gap.step)
              FROM generate_series(
                       floor(lakets._months_since(p_origin, p_start) / v_months)::integer,
                       floor(lakets._months_since(p_origin, p_finish) / v_months)::integer) AS gap (step);
    END IF;
END;
$$;

COMMENT ON FUNCTION lakets.time_bucket_gapfill(interval, timestamp, timestamp, timestamp) IS
    'Starts of all buckets from that of p_start to that of p_finish, to LEFT JOIN data to';

-- The same for timestamptz. As in time_bucket, the session time zone has no effect.
CREATE OR REPLACE FUNCTION lakets.time_bucket_gapfill(
    p_interval interval,
    p_start    timestamptz,
    p_finish   timestamptz,
    p_origin   timestamptz DEFAULT '2000-01-01+00'
) RETURNS SETOF timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT gap.bucket AT TIME ZONE interval '0'
      FROM lakets.time_bucket_gapfill(
               p_interval,
               p_start AT TIME ZONE interval '0',
               p_finish AT TIME ZONE interval '0',
               p_origin AT TIME ZONE interval '0') AS gap (bucket)
$$;

COMMENT ON FUNCTION lakets.time_bucket_gapfill(interval, timestamptz, timestamptz, timestamptz) IS
    'Starts of all buckets from that of p_start to that of p_finish, to LEFT JOIN data to';

-- The same for dates. The buckets must be whole days or months.
CREATE OR REPLACE FUNCTION lakets.time_bucket_gapfill(
    p_interval interval,
    p_start    date,
    p_finish   date,
    p_origin   date DEFAULT '2000-01-01'
) RETURNS SETOF date
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT gap.bucket::date
      FROM lakets.time_bucket_gapfill(
               p_interval,
               lakets.time_bucket(p_interval, p_start, p_origin)::timestamp,  -- refuses parts of a day
               p_finish::timestamp,
               p_origin::timestamp) AS gap (bucket)
$$;

COMMENT ON FUNCTION lakets.time_bucket_gapfill(interval, date, date, date) IS
    'First days of all buckets from that of p_start to that of p_finish, to LEFT JOIN data to';

-- Last observation carried forward by one row: p_value, or p_prev_value if it is NULL. Inlined: no
-- SET.
CREATE OR REPLACE FUNCTION lakets.locf(
    p_value      double precision,
    p_prev_value double precision DEFAULT NULL
) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT coalesce(p_value, p_prev_value)
$$;

COMMENT ON FUNCTION lakets.locf(double precision, double precision) IS
    'The value, or the previous one where it is NULL: locf(value, lag(value) OVER (ORDER BY time))';

-- Transition function of locf_agg. STRICT makes Postgres skip NULL and keep the state. No SET
-- clause: it would cost three times the call itself per row, and there is no name to look up.
CREATE OR REPLACE FUNCTION lakets._locf_step(
    p_state anyelement,
    p_value anyelement
) RETURNS anyelement
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
BEGIN
    RETURN p_value;
END;
$$;

-- The newest value that is not NULL, up to the current row: locf_agg(value) OVER (ORDER BY time);
-- NULL until there is one. Without OVER, the plan determines the order, so there is no combine
-- function: write locf_agg(value ORDER BY time), or use last.
CREATE OR REPLACE AGGREGATE lakets.locf_agg(p_value anyelement) (
    SFUNC = lakets._locf_step,
    STYPE = anyelement,
    PARALLEL = SAFE
);

COMMENT ON AGGREGATE lakets.locf_agg(anyelement) IS
    'Newest value that is not NULL up to the current row: locf_agg(value) OVER (ORDER BY time)';

-- The value itself; where it is NULL, the point at p_curr_time of the straight line between its
-- neighbours. NULL where a neighbour is missing; the previous value where both neighbours have the
-- same time. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets.interpolate(
    p_value      double precision,
    p_prev_value double precision,
    p_next_value double precision,
    p_prev_time  timestamptz,
    p_curr_time  timestamptz,
    p_next_time  timestamptz
) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN p_value IS NOT NULL THEN p_value
        WHEN p_prev_value IS NULL OR p_next_value IS NULL THEN NULL
        WHEN p_next_time OPERATOR(pg_catalog.=) p_prev_time THEN p_prev_value
        -- Each operation is in brackets, because operators written as OPERATOR() all have one
        -- precedence.
        ELSE p_prev_value OPERATOR(pg_catalog.+) (
            (p_next_value OPERATOR(pg_catalog.-) p_prev_value)
            OPERATOR(pg_catalog.*) (
                pg_catalog.date_part('epoch', p_curr_time OPERATOR(pg_catalog.-) p_prev_time)
                OPERATOR(pg_catalog./)
                pg_catalog.date_part('epoch', p_next_time OPERATOR(pg_catalog.-) p_prev_time)))
    END
$$;

COMMENT ON FUNCTION lakets.interpolate(
    double precision, double precision, double precision, timestamptz, timestamptz, timestamptz) IS
    'The value, or where it is NULL the point on the straight line between its neighbours in time';
