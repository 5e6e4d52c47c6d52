-- first and last: the value at the smallest and at the largest time of a group.
--
-- A NULL value counts: it is returned if the row of that time has it. A NULL time does not count.
-- No rows, or none with a time, give NULL. Among rows of equal time, the one read first counts, as
-- in 0.1.3. Postgres reads rows in a defined order only when the query states one: last(value, time
-- ORDER BY id).
--
-- The value may be of any type, whole rows included. Integers and real give double precision, as in
-- 0.1.3, so that last(n, time) / 2 is the same as there; other types, numeric included, come back
-- as they are. The state keeps the value as text, because only a superuser can create an aggregate
-- whose state holds a time and a value of any type. Text is exact, except for the padding of
-- char(n), and for floating point where extra_float_digits is set below 1, its default. Times are
-- timestamptz, timestamp or date: a literal without a type is taken as timestamptz. One row costs
-- about ten times as much as in max(time).
--
-- Polymorphic functions cannot combine three types (state, value, time), so everything below is
-- created once for each type of time. {time} in the text stands for it. The functions have no SET
-- clause and qualify every name instead. A SET clause would cost more per row than the functions
-- themselves, and names in a value (regclass) would be read under another search_path than the one
-- under which they were written.

-- Return whether this session writes a value as text that reads back as the same value. DateStyle
-- SQL, Postgres and German write the time zone by an abbreviation that may be read as another zone,
-- and extra_float_digits below 1 leaves digits out. Called once per group. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets._writes_exactly() RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT pg_catalog.starts_with(pg_catalog.current_setting('datestyle'), 'ISO')
        AND CAST(pg_catalog.current_setting('extra_float_digits') AS integer) OPERATOR(pg_catalog.>) 0
$$;

-- The value as text that reads back as the same value, whatever the settings of the session. The
-- caller's search_path stays, as above.
CREATE OR REPLACE FUNCTION lakets._exact_value(
    p_value anyelement
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET datestyle = 'ISO, YMD'
    SET extra_float_digits = 1
AS $$
BEGIN
    RETURN CAST(p_value AS pg_catalog.text);
END;
$$;

DO $install$
DECLARE
    v_time  text;
    v_value text;
BEGIN
    FOREACH v_time IN ARRAY ARRAY['timestamptz', 'timestamp', 'date'] LOOP
        IF pg_catalog.to_regtype('lakets._sample_' || v_time) IS NULL THEN
            EXECUTE pg_catalog.format(
                'CREATE TYPE lakets._sample_%1$s AS (at pg_catalog.%1$s, value pg_catalog.text)', v_time);
        END IF;
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS att JOIN pg_catalog.pg_class AS cls ON cls.oid = att.attrelid
                        WHERE cls.reltype = pg_catalog.to_regtype('lakets._sample_' || v_time) AND att.attname = 'is_plain') THEN
            EXECUTE pg_catalog.format('ALTER TYPE lakets._sample_%s ADD ATTRIBUTE is_plain boolean', v_time);  -- _writes_exactly
        END IF;
        EXECUTE pg_catalog.replace($template$

-- Transition of first: keep the state unless this row is earlier. No SET clause: see above.
CREATE OR REPLACE FUNCTION lakets._first_step(
    p_state lakets._sample_{time},
    p_value anyelement,
    p_time  pg_catalog.{time}
) RETURNS lakets._sample_{time}
    LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN CASE
        WHEN p_time IS NULL OR p_time OPERATOR(pg_catalog.>=) p_state.at THEN p_state
        WHEN p_state.is_plain OR p_state.at IS NULL AND lakets._writes_exactly()
            THEN ROW(p_time, p_value, true)::lakets._sample_{time}
        ELSE ROW(p_time, lakets._exact_value(p_value), false)::lakets._sample_{time}
    END;
END;
$$;

-- Transition of last: keep the state unless this row is later. No SET clause: see above.
CREATE OR REPLACE FUNCTION lakets._last_step(
    p_state lakets._sample_{time},
    p_value anyelement,
    p_time  pg_catalog.{time}
) RETURNS lakets._sample_{time}
    LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
BEGIN
    RETURN CASE
        WHEN p_time IS NULL OR p_time OPERATOR(pg_catalog.<=) p_state.at THEN p_state
        WHEN p_state.is_plain OR p_state.at IS NULL AND lakets._writes_exactly()
            THEN ROW(p_time, p_value, true)::lakets._sample_{time}
        ELSE ROW(p_time, lakets._exact_value(p_value), false)::lakets._sample_{time}
    END;
END;
$$;

-- Merge the states of two parallel workers. No SET clause: see above.
CREATE OR REPLACE FUNCTION lakets._first_merge(
    p_state lakets._sample_{time},
    p_other lakets._sample_{time}
) RETURNS lakets._sample_{time}
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
AS $$
    SELECT lakets._first_step(p_state, p_other.value, p_other.at)
$$;

CREATE OR REPLACE FUNCTION lakets._last_merge(
    p_state lakets._sample_{time},
    p_other lakets._sample_{time}
) RETURNS lakets._sample_{time}
    LANGUAGE sql STABLE STRICT PARALLEL SAFE
AS $$
    SELECT lakets._last_step(p_state, p_other.value, p_other.at)
$$;

-- The value of a state in its own type, which the other two arguments determine. Assigning the text
-- to a variable converts it. No SET clause: see above.
CREATE OR REPLACE FUNCTION lakets._sample_value(
    p_state lakets._sample_{time},
    p_value anyelement,
    p_time  pg_catalog.{time}
) RETURNS anyelement
    LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
BEGIN
    p_value := p_state.value;
    RETURN p_value;
END;
$$;

        $template$, '{time}', v_time);
        FOREACH v_value IN ARRAY ARRAY['anyelement', 'double precision', 'numeric'] LOOP
            EXECUTE pg_catalog.replace(pg_catalog.replace($template$

CREATE OR REPLACE AGGREGATE lakets.first(p_value {value}, p_time pg_catalog.{time}) (
    SFUNC = lakets._first_step,
    STYPE = lakets._sample_{time},
    COMBINEFUNC = lakets._first_merge,
    FINALFUNC = lakets._sample_value,
    FINALFUNC_EXTRA,
    PARALLEL = SAFE
);

COMMENT ON AGGREGATE lakets.first({value}, pg_catalog.{time}) IS
    'The value at the smallest time; of equal times the first row met wins';

CREATE OR REPLACE AGGREGATE lakets.last(p_value {value}, p_time pg_catalog.{time}) (
    SFUNC = lakets._last_step,
    STYPE = lakets._sample_{time},
    COMBINEFUNC = lakets._last_merge,
    FINALFUNC = lakets._sample_value,
    FINALFUNC_EXTRA,
    PARALLEL = SAFE
);

COMMENT ON AGGREGATE lakets.last({value}, pg_catalog.{time}) IS
    'The value at the largest time; of equal times the first row met wins';

            $template$, '{time}', v_time), '{value}', v_value);
        END LOOP;
    END LOOP;
END
$install$;
