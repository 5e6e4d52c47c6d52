-- Months begin at midnight of the session's time zone.
CREATE FUNCTION lakets.time_bucket(p_interval interval, p_timestamp timestamptz,
    p_origin timestamptz DEFAULT '2000-01-01 00:00:00+00'::timestamptz) RETURNS timestamptz
    LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    v_months int := extract(year FROM p_interval) * 12 + extract(month FROM p_interval);
    v_from int;
    v_at int;
BEGIN
    IF v_months = 0 THEN RETURN date_bin(p_interval, p_timestamp, p_origin); END IF;
    v_from := extract(year FROM p_origin) * 12 + extract(month FROM p_origin) - 1;
    v_at := extract(year FROM p_timestamp) * 12 + extract(month FROM p_timestamp) - 1;
    v_at := v_from + (v_at - v_from) / v_months * v_months;
    RETURN make_timestamptz(v_at / 12, v_at % 12 + 1, 1, 0, 0, 0);
END $$;

CREATE FUNCTION lakets.time_bucket_gapfill(p_interval interval, p_start timestamptz, p_finish timestamptz)
    RETURNS SETOF timestamptz LANGUAGE sql IMMUTABLE AS $$
    SELECT generate_series(lakets.time_bucket(p_interval, p_start), lakets.time_bucket(p_interval, p_finish), p_interval)
$$;

CREATE TYPE lakets._first_last_state AS (value float8, ts timestamptz);
CREATE FUNCTION lakets._first_sfunc(state lakets._first_last_state, value float8, ts timestamptz)
    RETURNS lakets._first_last_state LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN (state).ts IS NULL OR ts < (state).ts THEN ROW(value, ts)::lakets._first_last_state ELSE state END
$$;
CREATE FUNCTION lakets._last_sfunc(state lakets._first_last_state, value float8, ts timestamptz)
    RETURNS lakets._first_last_state LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN (state).ts IS NULL OR ts > (state).ts THEN ROW(value, ts)::lakets._first_last_state ELSE state END
$$;
CREATE FUNCTION lakets._first_ffunc(state lakets._first_last_state) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT (state).value';
CREATE FUNCTION lakets._last_ffunc(state lakets._first_last_state) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT (state).value';
CREATE AGGREGATE lakets.first(float8, timestamptz)
    (SFUNC = lakets._first_sfunc, STYPE = lakets._first_last_state, FINALFUNC = lakets._first_ffunc);
CREATE AGGREGATE lakets.last(float8, timestamptz)
    (SFUNC = lakets._last_sfunc, STYPE = lakets._first_last_state, FINALFUNC = lakets._last_ffunc);

CREATE FUNCTION lakets.locf(p_value float8, p_prev_value float8 DEFAULT NULL) RETURNS float8 LANGUAGE sql IMMUTABLE AS
    'SELECT coalesce(p_value, p_prev_value)';
CREATE FUNCTION lakets.interpolate(p_value float8, p_prev_value float8, p_next_value float8,
    p_prev_time timestamptz, p_curr_time timestamptz, p_next_time timestamptz) RETURNS float8 LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_value IS NOT NULL THEN p_value
                WHEN p_prev_value IS NULL OR p_next_value IS NULL THEN NULL
                WHEN p_next_time = p_prev_time THEN p_prev_value
                ELSE p_prev_value + (p_next_value - p_prev_value) * extract(epoch FROM p_curr_time - p_prev_time)
                                                                  / extract(epoch FROM p_next_time - p_prev_time) END
$$;
CREATE FUNCTION lakets.delta(p_value float8, p_prev_value float8, p_handle_resets boolean DEFAULT true) RETURNS float8
    LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_prev_value IS NOT NULL THEN
                p_value - CASE WHEN p_handle_resets AND p_value < p_prev_value THEN 0 ELSE p_prev_value END END
$$;
CREATE FUNCTION lakets.rate(p_value float8, p_prev_value float8, p_time timestamptz, p_prev_time timestamptz,
    p_handle_resets boolean DEFAULT true) RETURNS float8 LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_time <> p_prev_time THEN
                lakets.delta(p_value, p_prev_value, p_handle_resets) / extract(epoch FROM p_time - p_prev_time) END
$$;
CREATE FUNCTION lakets.histogram(p_value float8, p_min float8, p_max float8, p_num_buckets int) RETURNS int
    LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_value < p_min THEN 0 WHEN p_value >= p_max THEN p_num_buckets - 1
                ELSE least(floor((p_value - p_min) / ((p_max - p_min) / p_num_buckets))::int, p_num_buckets - 1) END
$$;
