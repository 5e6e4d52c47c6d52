-- Filling gaps: every bucket of a range, and values for the buckets that have none.
--
-- Plain SQL cannot rewrite the query it is called from, so filling takes the buckets first and joins the
-- data to them:
--
--   SELECT gap.bucket, avg(obs.temp) AS temp, lakets.locf(avg(obs.temp)) OVER (ORDER BY gap.bucket) AS carried
--     FROM lakets.time_bucket_gapfill('1 hour', '2026-01-01+00', '2026-01-02+00') AS gap (bucket)
--     LEFT JOIN weather AS obs ON lakets.time_bucket('1 hour', obs.ts) = gap.bucket
--          AND obs.ts >= '2026-01-01+00' AND obs.ts < '2026-01-02+00'
--    GROUP BY gap.bucket;
--
-- A straight line needs the neighbours on both sides: one window upwards in time, one downwards.
--
--   SELECT bucket, lakets.interpolate(bucket,
--              lakets.locf(known) OVER before, lakets.locf(temp) OVER before,
--              lakets.locf(known) OVER after,  lakets.locf(temp) OVER after) AS temp
--     FROM (SELECT bucket, temp, CASE WHEN temp IS NOT NULL THEN bucket END AS known FROM filled) AS gap
--   WINDOW before AS (ORDER BY bucket), after AS (ORDER BY bucket DESC);

-- The starts of all buckets that touch [p_start, p_finish), oldest first; buckets are those of
-- time_bucket, so the first may start before p_start. No rows when the range is empty or an argument is
-- NULL. Refuses what time_bucket refuses, and infinite ends.
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

    IF p_start >= p_finish THEN
        RETURN;
    ELSIF v_months = 0 THEN
        RETURN QUERY
            SELECT gap.bucket
              FROM generate_series(v_first, p_finish, p_interval) AS gap (bucket)
             WHERE gap.bucket < p_finish;
    ELSE
        -- Each from the origin, not from the one before: a step over February would lose the 31st.
        RETURN QUERY
            SELECT p_origin + make_interval(months => v_months * gap.step)
              FROM generate_series(
                       floor(lakets._months_since(p_origin, p_start) / v_months)::integer,
                       floor(lakets._months_since(p_origin, p_finish) / v_months)::integer) AS gap (step)
             WHERE p_origin + make_interval(months => v_months * gap.step) < p_finish;
    END IF;
END;
$$;

COMMENT ON FUNCTION lakets.time_bucket_gapfill(interval, timestamp, timestamp, timestamp) IS
    'Starts of all buckets that touch [p_start, p_finish), to LEFT JOIN data to';

-- The same in timestamptz; as in time_bucket, the session time zone plays no part.
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
    'Starts of all buckets that touch [p_start, p_finish), to LEFT JOIN data to';

-- The same in dates; the buckets must be whole days or months.
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
     WHERE p_start < p_finish
$$;

COMMENT ON FUNCTION lakets.time_bucket_gapfill(interval, date, date, date) IS
    'First days of all buckets that touch [p_start, p_finish), to LEFT JOIN data to';

-- Transition of locf. STRICT does the work: NULL never gets here and leaves the state as it is.
-- No SET clause: per row it costs three times the call itself, and there is no name to look up.
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

-- Last observation carried forward: the newest value that is not NULL, up to the current row. For use
-- as locf(value) OVER (ORDER BY time); NULL until there is one. Without OVER the order is up to the
-- plan, hence no combine function: say locf(value ORDER BY time), or use last.
CREATE OR REPLACE AGGREGATE lakets.locf(p_value anyelement) (
    SFUNC = lakets._locf_step,
    STYPE = anyelement,
    PARALLEL = SAFE
);

COMMENT ON AGGREGATE lakets.locf(anyelement) IS
    'Newest value that is not NULL up to the current row: locf(value) OVER (ORDER BY time)';

-- The point at p_time of the straight line between two neighbours. A neighbour's own value at its own
-- time. NULL where there is nothing between: a neighbour missing, or p_time outside of them; the ends of
-- a series are not extended. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets.interpolate(
    p_time       timestamptz,
    p_prev_time  timestamptz,
    p_prev_value double precision,
    p_next_time  timestamptz,
    p_next_value double precision
) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN p_time OPERATOR(pg_catalog.=) p_prev_time THEN p_prev_value
        WHEN p_time OPERATOR(pg_catalog.=) p_next_time THEN p_next_value
        WHEN p_prev_time OPERATOR(pg_catalog.<) p_time AND p_time OPERATOR(pg_catalog.<) p_next_time
            -- Every operator in brackets: written as OPERATOR(), * binds no closer than +.
            THEN p_prev_value OPERATOR(pg_catalog.+) (
                (p_next_value OPERATOR(pg_catalog.-) p_prev_value)
                OPERATOR(pg_catalog.*) (
                    pg_catalog.date_part('epoch', p_time OPERATOR(pg_catalog.-) p_prev_time)
                    OPERATOR(pg_catalog./)
                    pg_catalog.date_part('epoch', p_next_time OPERATOR(pg_catalog.-) p_prev_time)))
    END
$$;

COMMENT ON FUNCTION lakets.interpolate(timestamptz, timestamptz, double precision, timestamptz, double precision) IS
    'Value at p_time on the straight line between the neighbours before and after; NULL when one is missing';

-- The same for timestamps without zone. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets.interpolate(
    p_time       timestamp,
    p_prev_time  timestamp,
    p_prev_value double precision,
    p_next_time  timestamp,
    p_next_value double precision
) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT lakets.interpolate(
        pg_catalog.timezone(interval '0', p_time),
        pg_catalog.timezone(interval '0', p_prev_time), p_prev_value,
        pg_catalog.timezone(interval '0', p_next_time), p_next_value)
$$;

COMMENT ON FUNCTION lakets.interpolate(timestamp, timestamp, double precision, timestamp, double precision) IS
    'Value at p_time on the straight line between the neighbours before and after; NULL when one is missing';

-- The same for dates: every day is as long as the next. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets.interpolate(
    p_time       date,
    p_prev_time  date,
    p_prev_value double precision,
    p_next_time  date,
    p_next_value double precision
) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT lakets.interpolate(
        CAST(p_time AS timestamp),
        CAST(p_prev_time AS timestamp), p_prev_value,
        CAST(p_next_time AS timestamp), p_next_value)
$$;

COMMENT ON FUNCTION lakets.interpolate(date, date, double precision, date, double precision) IS
    'Value at p_time on the straight line between the neighbours before and after; NULL when one is missing';
