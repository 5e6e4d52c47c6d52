-- delta and rate: how much a value changed from one row to the next, and how fast a counter grew.
--
-- delta and rate compare two values that the caller gives them, usually by lag():
--
--   SELECT ts, lakets.rate(n, lag(n) OVER w, ts, lag(ts) OVER w)
--     FROM counter WINDOW w AS (ORDER BY ts);
--
-- delta_agg and rate_agg do that for all rows of a group.
--
-- delta_agg is for gauges (a temperature, a balance): the value at the largest time minus the one
-- at the smallest, in the numeric type of the value. It is negative if the value fell. Rows may
-- come in any order.
--
-- rate_agg is for counters, which only grow, until a restart sets them back to zero. It adds up the
-- growth from each sample to the next and divides by the seconds between first and last; a value
-- below the one before it means a restart, after which the counter has grown to that value from
-- zero. That depends on the order, which only the caller can give: rate_agg(value, time ORDER BY
-- time). A row out of order is refused with 22023 rather than taken for a restart. Even a table
-- filled in order of time may be read in another order: a large scan starts where a running one is,
-- and parallel workers read in turn.
--
-- In both aggregates, rows with a NULL value or time do not count. No rows give NULL, and so does
-- rate_agg when there are no two different times. Of several values at one time only one counts:
-- for delta_agg the one whose text sorts lowest (at the start) or highest (at the end), for
-- rate_agg the greatest.
--
-- As in 12_first_last.sql the aggregates are made once for each type of time ({time}), values are
-- kept as text in the state of delta_agg, and transition functions have no SET clause, since it
-- would cost more per row than they do.

-- The difference from the previous value; NULL without one. If the value fell, the counter was
-- restarted, and the growth is the value itself, unless p_handle_resets is false. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets.delta(
    p_value         double precision,
    p_prev_value    double precision,
    p_handle_resets boolean DEFAULT true
) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN p_prev_value IS NULL THEN NULL
        WHEN p_handle_resets AND p_value OPERATOR(pg_catalog.<) p_prev_value THEN p_value
        ELSE p_value OPERATOR(pg_catalog.-) p_prev_value
    END
$$;

COMMENT ON FUNCTION lakets.delta(double precision, double precision, boolean) IS
    'Growth since the previous value, counter resets included: delta(value, lag(value) OVER (ORDER BY time))';

-- delta per second: NULL when the times are equal or one is missing. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets.rate(
    p_value         double precision,
    p_prev_value    double precision,
    p_time          timestamptz,
    p_prev_time     timestamptz,
    p_handle_resets boolean DEFAULT true
) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN p_time OPERATOR(pg_catalog.<>) p_prev_time THEN
            lakets.delta(p_value, p_prev_value, p_handle_resets)
            OPERATOR(pg_catalog./) pg_catalog.date_part('epoch', p_time OPERATOR(pg_catalog.-) p_prev_time)
    END
$$;

COMMENT ON FUNCTION lakets.rate(double precision, double precision, timestamptz, timestamptz, boolean) IS
    'delta(value, previous value) by the second between the two times';

DO $install$
DECLARE
    v_time text;
BEGIN
    FOREACH v_time IN ARRAY ARRAY['timestamptz', 'timestamp', 'date'] LOOP
        IF pg_catalog.to_regtype('lakets._span_' || v_time) IS NULL THEN
            EXECUTE pg_catalog.format(
                'CREATE TYPE lakets._span_%1$s AS (
                     first_at pg_catalog.%1$s, first_value pg_catalog.text,
                     last_at  pg_catalog.%1$s, last_value  pg_catalog.text)', v_time);
        END IF;
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS att JOIN pg_catalog.pg_class AS cls ON cls.oid = att.attrelid
                        WHERE cls.reltype = pg_catalog.to_regtype('lakets._span_' || v_time) AND att.attname = 'is_plain') THEN
            EXECUTE pg_catalog.format('ALTER TYPE lakets._span_%s ADD ATTRIBUTE is_plain boolean', v_time);  -- _writes_exactly
        END IF;
        EXECUTE pg_catalog.replace($template$

-- Transition of delta_agg: widen the span to this row. STRICT skips rows without value or time.
-- No SET clause: see above.
CREATE OR REPLACE FUNCTION lakets._delta_step(
    p_state lakets._span_{time},
    p_value anyelement,
    p_time  pg_catalog.{time}
) RETURNS lakets._span_{time}
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
AS $$
DECLARE
    v_is_plain boolean;
    v_value    pg_catalog.text;
BEGIN
    IF p_time OPERATOR(pg_catalog.>) p_state.first_at AND p_time OPERATOR(pg_catalog.<) p_state.last_at THEN
        RETURN p_state;
    END IF;
    v_is_plain := coalesce(p_state.is_plain, lakets._writes_exactly());
    v_value := CASE WHEN v_is_plain THEN CAST(p_value AS pg_catalog.text) ELSE lakets._exact_value(p_value) END;
    RETURN ROW(
        least(p_state.first_at, p_time),
        CASE
            WHEN p_time OPERATOR(pg_catalog.>) p_state.first_at THEN p_state.first_value
            WHEN p_time OPERATOR(pg_catalog.=) p_state.first_at THEN least(p_state.first_value, v_value COLLATE pg_catalog."C")
            ELSE v_value
        END,
        greatest(p_state.last_at, p_time),
        CASE
            WHEN p_time OPERATOR(pg_catalog.<) p_state.last_at THEN p_state.last_value
            WHEN p_time OPERATOR(pg_catalog.=) p_state.last_at THEN greatest(p_state.last_value, v_value COLLATE pg_catalog."C")
            ELSE v_value
        END,
        v_is_plain)::lakets._span_{time};
END;
$$;

-- Merge the states of two parallel workers. No SET clause: see above.
CREATE OR REPLACE FUNCTION lakets._delta_merge(
    p_state lakets._span_{time},
    p_other lakets._span_{time}
) RETURNS lakets._span_{time}
    LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN p_other.first_at IS NULL THEN p_state
        ELSE lakets._delta_step(
            lakets._delta_step(p_state, p_other.first_value, p_other.first_at), p_other.last_value, p_other.last_at)
    END
$$;

-- Last minus first, in the type of the values, which the other two arguments determine. No SET
-- clause: see above.
CREATE OR REPLACE FUNCTION lakets._delta_value(
    p_state lakets._span_{time},
    p_value anyelement,
    p_time  pg_catalog.{time}
) RETURNS anyelement
    LANGUAGE plpgsql STABLE PARALLEL SAFE
AS $$
DECLARE
    v_first p_value%TYPE := p_state.first_value;
    v_last  p_value%TYPE := p_state.last_value;
BEGIN
    RETURN v_last OPERATOR(pg_catalog.-) v_first;
END;
$$;

CREATE OR REPLACE AGGREGATE lakets.delta_agg(p_value anyelement, p_time pg_catalog.{time}) (
    SFUNC = lakets._delta_step,
    STYPE = lakets._span_{time},
    INITCOND = '(,,,,)',
    COMBINEFUNC = lakets._delta_merge,
    FINALFUNC = lakets._delta_value,
    FINALFUNC_EXTRA,
    PARALLEL = SAFE
);

COMMENT ON AGGREGATE lakets.delta_agg(anyelement, pg_catalog.{time}) IS
    'The value at the largest time minus the value at the smallest';

        $template$, '{time}', v_time);
    END LOOP;
END
$install$;

-- The growth of a counter from one sample to the next; the first sample has none. Inlined: no SET.
CREATE OR REPLACE FUNCTION lakets._growth(
    p_before double precision,
    p_after  double precision
) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN p_before IS NULL THEN 0
        WHEN p_after OPERATOR(pg_catalog.<) p_before THEN p_after
        ELSE p_after OPERATOR(pg_catalog.-) p_before
    END
$$;

-- Raise the error for a row of rate_agg that is out of order; never returns. The state argument, of
-- any time type, determines the result type.
CREATE OR REPLACE FUNCTION lakets._refuse_disorder(
    p_state  anyelement,
    p_time   text,
    p_before text
) RETURNS anyelement
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'rate_agg was given the time % after %: it needs its rows in order of time.', p_time, p_before
        USING ERRCODE = 'invalid_parameter_value',
              HINT = 'Write rate_agg(value, time ORDER BY time).';
END;
$$;

DO $install$
DECLARE
    v_time  text;
    v_clock text;  -- the type whose differences are in seconds: dates differ by days
BEGIN
    FOREACH v_time IN ARRAY ARRAY['timestamptz', 'timestamp', 'date'] LOOP
        v_clock := CASE v_time WHEN 'date' THEN 'timestamp' ELSE v_time END;
        IF pg_catalog.to_regtype('lakets._counter_' || v_time) IS NULL THEN
            -- growth is up to value_before, so that last_value may still rise at the same time.
            EXECUTE pg_catalog.format(
                'CREATE TYPE lakets._counter_%1$s AS (
                     first_at pg_catalog.%1$s, growth double precision, value_before double precision,
                     last_at  pg_catalog.%1$s, last_value double precision)', v_time);
        END IF;
        EXECUTE pg_catalog.replace(pg_catalog.replace($template$

-- Transition of rate_agg: one step of the counter. STRICT skips rows without value or time.
-- No SET clause: see above.
CREATE OR REPLACE FUNCTION lakets._rate_step(
    p_state lakets._counter_{time},
    p_value double precision,
    p_time  pg_catalog.{time}
) RETURNS lakets._counter_{time}
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
BEGIN
    RETURN CASE
        WHEN p_time OPERATOR(pg_catalog.<) p_state.last_at THEN
            lakets._refuse_disorder(
                p_state, CAST(p_time AS pg_catalog.text), CAST(p_state.last_at AS pg_catalog.text))
        WHEN p_time OPERATOR(pg_catalog.=) p_state.last_at THEN
            ROW(p_state.first_at, p_state.growth, p_state.value_before,
                p_time, greatest(p_state.last_value, p_value))::lakets._counter_{time}
        ELSE
            ROW(coalesce(p_state.first_at, p_time),
                p_state.growth OPERATOR(pg_catalog.+) lakets._growth(p_state.value_before, p_state.last_value),
                p_state.last_value, p_time, p_value)::lakets._counter_{time}
    END;
END;
$$;

-- Growth per second. No SET clause: see above.
CREATE OR REPLACE FUNCTION lakets._rate_value(
    p_state lakets._counter_{time}
) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT CASE
        WHEN p_state.last_at OPERATOR(pg_catalog.>) p_state.first_at THEN
            (p_state.growth OPERATOR(pg_catalog.+) lakets._growth(p_state.value_before, p_state.last_value))
            OPERATOR(pg_catalog./) pg_catalog.date_part('epoch',
                CAST(p_state.last_at AS {clock}) OPERATOR(pg_catalog.-) CAST(p_state.first_at AS {clock}))
    END
$$;

-- No combine function: the rows of parallel workers interleave in time.
CREATE OR REPLACE AGGREGATE lakets.rate_agg(p_value double precision, p_time pg_catalog.{time}) (
    SFUNC = lakets._rate_step,
    STYPE = lakets._counter_{time},
    INITCOND = '(,0,,,)',
    FINALFUNC = lakets._rate_value,
    PARALLEL = SAFE
);

COMMENT ON AGGREGATE lakets.rate_agg(double precision, pg_catalog.{time}) IS
    'Growth per second of a counter, restarts from zero included: rate_agg(value, time ORDER BY time)';

        $template$, '{time}', v_time), '{clock}', 'pg_catalog.' || v_clock);
    END LOOP;
END
$install$;
