-- time_bucket: the start of the bucket that an instant falls into.
--
-- One rule for its three forms (timestamptz, timestamp, date). Buckets are counted from p_origin in
-- UTC, whatever the session time zone: a day has 24 hours, and daylight saving moves nothing; a
-- timestamp without zone is read as UTC. A bucket holds its start and not its end. The origin has
-- the type of the time. NULL in, NULL out; infinity in, infinity out.
--
-- Months and years follow the calendar: bucket k starts at p_origin + k * p_interval. With the
-- default origin, a bucket starts at midnight on the first of a month. An origin on the 15th gives
-- buckets from the 15th to the 15th; an origin on the 31st gives buckets that start on the last day
-- of shorter months. Weeks counted from the default origin start on Saturdays, because 2000-01-01
-- was a Saturday. Pass the origin 2000-01-03 for weeks that start on Mondays.
--
-- Refused with 22023: an interval that is zero, negative, infinite, or mixes months with days or
-- hours; a bucket of dates that is not whole days; an infinite origin.
--
-- None of the SQL functions here has a SET clause, so that the planner can inline them: given a
-- constant interval it folds the CASEs away and what is left of time_bucket is one date_bin. They
-- qualify every name instead.

-- Raise the error for an interval or origin that time_bucket cannot use; never returns. The result
-- type lets it stand in a CASE branch, and its parameter p_origin keeps the planner from calling it
-- early for a valid constant interval.
CREATE OR REPLACE FUNCTION lakets._refuse_bucket(
    p_interval interval,
    p_origin   anyelement
) RETURNS anyelement
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_problem text;
    v_hint    text := 'Pass a positive interval such as ''15 minutes'', ''1 day'' or ''3 months''.';
BEGIN
    IF NOT isfinite(p_interval) OR p_interval <= interval '0' THEN
        v_problem := format('A time bucket must have a positive, finite width; the interval is %s.', p_interval);
    ELSIF p_origin IN ('infinity', '-infinity') THEN
        v_problem := format('Time buckets cannot be counted from %s.', p_origin);
        v_hint := 'Pass a finite origin, or leave it out.';
    ELSIF date_trunc('month', p_interval) <> interval '0' THEN
        v_problem := format('A time bucket cannot mix months or years with shorter units; the interval is %s.', p_interval);
        v_hint := 'Months differ in length: pass months and years alone, or days, hours and shorter alone.';
    ELSE
        v_problem := format('A time bucket of dates must be whole days wide; the interval is %s.', p_interval);
        v_hint := 'Pass whole days or months, or cast the date to timestamp.';
    END IF;
    RAISE EXCEPTION '%', v_problem USING ERRCODE = 'invalid_parameter_value', HINT = v_hint;
END;
$$;

-- The number of months in an interval, years included; days and shorter do not count. Inlined: no
-- SET.
CREATE OR REPLACE FUNCTION lakets._months(
    p_interval interval
) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT 12 OPERATOR(pg_catalog.*) pg_catalog.date_part('year', p_interval)
        OPERATOR(pg_catalog.+) pg_catalog.date_part('month', p_interval)
$$;

-- Return whether date_bin takes this width. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets._is_plain_bucket(
    p_interval interval
) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT p_interval OPERATOR(pg_catalog.>) '0'
        AND pg_catalog.date_trunc('month', p_interval) OPERATOR(pg_catalog.=) '0'
$$;

-- Return whether time_bucket refuses this width. It accepts NULL, and returns NULL for it.
-- Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets._is_bad_bucket(
    p_interval interval
) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT p_interval OPERATOR(pg_catalog.<=) '0'
        OR NOT pg_catalog.isfinite(p_interval)
        OR (lakets._months(p_interval) OPERATOR(pg_catalog.<>) 0
            AND pg_catalog.date_trunc('month', p_interval) OPERATOR(pg_catalog.<>) p_interval)
$$;

-- A serial number of the calendar month of an instant. Year -1 comes before year 1, so years before
-- Christ are moved up by one. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets._month_number(
    p_timestamp timestamp
) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT 12 OPERATOR(pg_catalog.*) pg_catalog.date_part('year', p_timestamp)
        OPERATOR(pg_catalog.+) pg_catalog.date_part('month', p_timestamp)
        OPERATOR(pg_catalog.+) CASE WHEN p_timestamp OPERATOR(pg_catalog.<) '0001-01-01' THEN 12 ELSE 0 END
$$;

-- Return how many whole months an instant lies after an origin; negative before it. Where the
-- origin starts a month, the month numbers are enough, and the planner drops the rest. Inlined: no
-- SET.
CREATE OR REPLACE FUNCTION lakets._months_since(
    p_origin    timestamp,
    p_timestamp timestamp
) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT lakets._month_number(p_timestamp) OPERATOR(pg_catalog.-) lakets._month_number(p_origin)
        OPERATOR(pg_catalog.-) CASE
            WHEN p_origin OPERATOR(pg_catalog.=) pg_catalog.date_trunc('month', p_origin) THEN 0
            WHEN p_timestamp OPERATOR(pg_catalog.<) (p_origin OPERATOR(pg_catalog.+) pg_catalog.make_interval(
                months => CAST(lakets._month_number(p_timestamp)
                    OPERATOR(pg_catalog.-) lakets._month_number(p_origin) AS integer))) THEN 1
            ELSE 0
        END
$$;

-- The date_trunc unit that is as wide as an interval; NULL when there is none. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets._month_unit(
    p_interval interval
) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN lakets._months(p_interval) OPERATOR(pg_catalog.=) 1 THEN 'month'
        WHEN lakets._months(p_interval) OPERATOR(pg_catalog.=) 3 THEN 'quarter'
        WHEN lakets._months(p_interval) OPERATOR(pg_catalog.=) 12 THEN 'year'
    END
$$;

-- time_bucket for months and years, which date_bin refuses. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets._month_bucket(
    p_interval  interval,
    p_timestamp timestamp,
    p_origin    timestamp
) RETURNS timestamp
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        -- Common widths with an origin at the start of such a bucket take date_trunc, at a third of
        -- the cost.
        WHEN p_origin OPERATOR(pg_catalog.=) pg_catalog.date_trunc(lakets._month_unit(p_interval), p_origin)
            THEN pg_catalog.date_trunc(lakets._month_unit(p_interval), p_timestamp)
        WHEN NOT pg_catalog.isfinite(p_timestamp) THEN p_timestamp
        ELSE p_origin OPERATOR(pg_catalog.+) pg_catalog.make_interval(months => CAST(
            lakets._months(p_interval) OPERATOR(pg_catalog.*) pg_catalog.floor(
                lakets._months_since(p_origin, p_timestamp) OPERATOR(pg_catalog./) lakets._months(p_interval))
            AS integer))
    END
$$;

-- The start of the bucket of an instant. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets.time_bucket(
    p_interval  interval,
    p_timestamp timestamptz,
    p_origin    timestamptz DEFAULT '2000-01-01+00'
) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN lakets._is_plain_bucket(p_interval) AND pg_catalog.isfinite(p_origin)
            THEN pg_catalog.date_bin(p_interval, p_timestamp, p_origin)
        WHEN lakets._is_bad_bucket(p_interval) OR NOT pg_catalog.isfinite(p_origin)
            THEN lakets._refuse_bucket(p_interval, p_origin)
        -- Shifting by an interval of zero reads the clock in UTC without looking up a zone by name.
        ELSE pg_catalog.timezone(interval '0', lakets._month_bucket(p_interval,
            pg_catalog.timezone(interval '0', p_timestamp), pg_catalog.timezone(interval '0', p_origin)))
    END
$$;

COMMENT ON FUNCTION lakets.time_bucket(interval, timestamptz, timestamptz) IS
    'Start of the bucket that an instant falls into, counted from p_origin in UTC; months and years by the calendar';

-- The same for a timestamp without zone, read as UTC. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets.time_bucket(
    p_interval  interval,
    p_timestamp timestamp,
    p_origin    timestamp DEFAULT '2000-01-01'
) RETURNS timestamp
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN lakets._is_plain_bucket(p_interval) AND pg_catalog.isfinite(p_origin)
            THEN pg_catalog.date_bin(p_interval, p_timestamp, p_origin)
        WHEN lakets._is_bad_bucket(p_interval) OR NOT pg_catalog.isfinite(p_origin)
            THEN lakets._refuse_bucket(p_interval, p_origin)
        ELSE lakets._month_bucket(p_interval, p_timestamp, p_origin)
    END
$$;

COMMENT ON FUNCTION lakets.time_bucket(interval, timestamp, timestamp) IS
    'Start of the bucket that a timestamp without zone falls into, counted from p_origin; months and years by the calendar';

-- The same for a date; the bucket must be whole days or months. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets.time_bucket(
    p_interval  interval,
    p_timestamp date,
    p_origin    date DEFAULT '2000-01-01'
) RETURNS date
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN lakets._is_bad_bucket(p_interval) OR NOT pg_catalog.isfinite(p_origin)
            OR pg_catalog.date_trunc('day', pg_catalog.justify_hours(p_interval)) OPERATOR(pg_catalog.<>) p_interval
            THEN lakets._refuse_bucket(p_interval, p_origin)
        ELSE CAST(lakets.time_bucket(
            p_interval, CAST(p_timestamp AS timestamp), CAST(p_origin AS timestamp)) AS pg_catalog.date)
    END
$$;

COMMENT ON FUNCTION lakets.time_bucket(interval, date, date) IS
    'First day of the bucket that a date falls into, counted from p_origin; months and years by the calendar';
