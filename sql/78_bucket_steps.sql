-- How a bucket's label follows from the time of its source rows: a list of steps, each of which
-- keeps the order of times (except where clocks are set). Times and labels are instants;
-- those without a zone are read as UTC.
--
--     ["bin", width, origin]     down to a multiple of width, in us since 2000-01-01 plus origin
--     ["months", count, origin]  down to a start of count months since origin, in us since 2000
--     ["part", unit, zone]       date_trunc of an hour or less in a zone
--     ["shift", months, us]      later by that interval
--     ["zone", name]             from UTC to a zone's local time
--     ["unzone", name]           from a zone's local time to UTC
--
-- The labels of changed times can be computed from the steps, and so can the times that have a
-- label, in any zone.

-- Simplify steps: those without effect are removed, so that equal labels have equal steps.
CREATE OR REPLACE FUNCTION lakets._simple_steps(
    p_steps jsonb
) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_result jsonb := '[]';
    v_step   jsonb;
    v_last   jsonb;
BEGIN
    FOR v_step IN SELECT step FROM jsonb_array_elements(p_steps) WITH ORDINALITY AS s (step, position) ORDER BY position LOOP
        v_last := v_result -> -1;
        -- Buckets of hours and then of days are buckets of days.
        WHILE lakets._is_coarser(v_step, v_last) LOOP
            v_result := v_result - -1;
            v_last := v_result -> -1;
        END LOOP;
        IF v_step ->> 0 = 'shift' AND v_last ->> 0 = 'shift' THEN
            v_result := v_result - -1;
            v_step := jsonb_build_array('shift', (v_step ->> 1)::bigint + (v_last ->> 1)::bigint,
                                        (v_step ->> 2)::bigint + (v_last ->> 2)::bigint);
            v_last := v_result -> -1;
        END IF;
        IF v_step = '["shift", 0, 0]' OR lakets._is_coarser(v_last, v_step)
           OR v_step = v_last AND v_step ->> 0 NOT IN ('zone', 'unzone') THEN  -- a zone applied twice moves times twice
            CONTINUE;
        END IF;
        -- Not even a zone and back leave all times as they were: a clock skips some of them.
        v_result := v_result || jsonb_build_array(v_step);
    END LOOP;
    RETURN v_result;
END;
$$;

-- Return whether each bucket of p_step consists of whole buckets of p_finer.
CREATE OR REPLACE FUNCTION lakets._is_coarser(
    p_step  jsonb,
    p_finer jsonb
) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_day constant bigint := 86400000000;
BEGIN
    RETURN coalesce(CASE p_step ->> 0 || ' of ' || (p_finer ->> 0)
        WHEN 'bin of bin' THEN (p_step ->> 1)::bigint % (p_finer ->> 1)::bigint = 0
                               AND ((p_step ->> 2)::bigint - (p_finer ->> 2)::bigint) % (p_finer ->> 1)::bigint = 0
        WHEN 'months of bin' THEN v_day % (p_finer ->> 1)::bigint = 0
                                  AND ((p_step ->> 2)::bigint - (p_finer ->> 2)::bigint) % (p_finer ->> 1)::bigint = 0
        WHEN 'months of months' THEN (p_step ->> 1)::bigint % (p_finer ->> 1)::bigint = 0 AND p_step -> 2 = p_finer -> 2
        ELSE false END, false);
END;
$$;

-- The steps from a label of p_from to the label of p_to; null if the first does not determine the
-- second.
CREATE OR REPLACE FUNCTION lakets._steps_between(
    p_from jsonb,
    p_to   jsonb
) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_rest jsonb := p_to;
BEGIN
    LOOP
        IF lakets._simple_steps(p_from || v_rest) = p_to THEN
            RETURN v_rest;
        END IF;
        EXIT WHEN v_rest = '[]' OR v_rest -> 0 IS DISTINCT FROM p_from -> (jsonb_array_length(p_to) - jsonb_array_length(v_rest));
        v_rest := v_rest - 0;
    END LOOP;
    RETURN NULL;
END;
$$;

-- Return whether labels are times of a clock that can be set back: then the times of a label are
-- known only with a margin.
CREATE OR REPLACE FUNCTION lakets._has_margin(
    p_steps jsonb
) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN p_steps @? 'strict $[*] ? (@[0] == "zone" || @[0] == "unzone" || @[0] == "part" || @[0] == "shift" && @[1] != 0)';
END;
$$;

-- The width of the buckets in units of their label, with a month as 31 days; null if each instant
-- is its own label.
CREATE OR REPLACE FUNCTION lakets._bucket_width(
    p_steps jsonb
) RETURNS interval
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT max(CASE step ->> 0 WHEN 'bin' THEN justify_hours((step ->> 1)::float8 * interval '1 microsecond')
                                   WHEN 'months' THEN make_interval(months => (step ->> 1)::integer)
                                   WHEN 'part' THEN ('1 ' || (step ->> 1))::interval END)
          FROM jsonb_array_elements(p_steps) AS step);
END;
$$;

-- Return how far a zone's clock is ahead of UTC at an instant (a timestamp in UTC).
CREATE OR REPLACE FUNCTION lakets._zone_offset(
    p_zone text,
    p_at   timestamp
) RETURNS interval
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (p_at AT TIME ZONE 'UTC' AT TIME ZONE p_zone) - p_at;
END;
$$;

-- Return when the clock of a zone is set within one day; null if it is not set. Clocks are set at
-- whole seconds.
CREATE OR REPLACE FUNCTION lakets._clock_change(
    p_zone text,
    p_from timestamp,
    p_to   timestamp
) RETURNS timestamp
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_before timestamp := date_trunc('second', p_from);
    v_after  timestamp := date_trunc('second', p_to);
    v_middle timestamp;
    v_offset interval  := lakets._zone_offset(p_zone, p_from);
BEGIN
    IF v_offset = lakets._zone_offset(p_zone, p_to) THEN
        RETURN NULL;
    END IF;
    WHILE v_after - v_before > interval '1 second' LOOP
        v_middle := date_trunc('second', v_before + (v_after - v_before) / 2);
        IF lakets._zone_offset(p_zone, v_middle) = v_offset THEN
            v_before := v_middle;
        ELSE
            v_after := v_middle;
        END IF;
    END LOOP;
    RETURN v_after;
END;
$$;

-- The start of the bucket of a time, for a step that makes buckets; p_next: of the bucket after it.
CREATE OR REPLACE FUNCTION lakets._step_start(
    p_step jsonb,
    p_at   timestamp,
    p_next boolean
) RETURNS timestamp
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_epoch  constant timestamp := '2000-01-01';
    v_width  interval;
    v_origin timestamp;
BEGIN
    CASE p_step ->> 0
        WHEN 'bin' THEN
            v_width := (p_step ->> 1)::float8 * interval '1 microsecond';
            RETURN date_bin(v_width, p_at, v_epoch + (p_step ->> 2)::float8 * interval '1 microsecond')
                + CASE WHEN p_next THEN v_width ELSE interval '0' END;
        WHEN 'months' THEN
            v_width := make_interval(months => (p_step ->> 1)::integer);
            v_origin := v_epoch + (p_step ->> 2)::float8 * interval '1 microsecond';
            p_at := lakets.time_bucket(v_width, p_at, v_origin);
            -- Buckets of months from a 31st start on the last day of shorter months: one interval
            -- later may be too early.
            RETURN CASE WHEN p_next THEN lakets.time_bucket(v_width, p_at + v_width + interval '4 days', v_origin) ELSE p_at END;
        WHEN 'part' THEN
            RETURN (date_trunc(p_step ->> 1, p_at AT TIME ZONE 'UTC', p_step ->> 2) AT TIME ZONE 'UTC')
                + CASE WHEN p_next THEN ('1 ' || (p_step ->> 1))::interval ELSE interval '0' END;
    END CASE;
END;
$$;

-- The labels of times, as a range [first, start of the bucket after the last); null without steps.
CREATE OR REPLACE FUNCTION lakets._labels_of(
    p_steps jsonb,
    p_times tstzrange
) RETURNS tstzrange
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'
AS $$
DECLARE
    v_from   timestamp := coalesce(lower(p_times), '-infinity');
    v_to     timestamp := coalesce(upper(p_times), 'infinity');
    v_label  timestamp := v_to - interval '1 microsecond';  -- the last one, or later
    v_step   jsonb;
    v_change timestamp;
    v_last   timestamp;
    v_clock  tsrange;
BEGIN
    IF p_steps IS NULL OR isempty(p_times) THEN
        RETURN CASE WHEN p_steps IS NOT NULL THEN p_times END;
    END IF;
    FOR v_position IN 0 .. jsonb_array_length(p_steps) - 1 LOOP
        v_step := p_steps -> v_position;
        CASE v_step ->> 0
            WHEN 'bin', 'months', 'part' THEN  -- first, since most RollUps have no other steps
                IF isfinite(v_from) THEN
                    v_from := lakets._step_start(v_step, v_from, false);
                END IF;
                IF isfinite(v_to) THEN
                    v_to := lakets._step_start(v_step, v_label, true);
                    -- Weeks that begin before a month may end in it: the next step must not see the
                    -- week's end. Hours in a zone may begin before the previous one has ended.
                    v_label := CASE WHEN v_step ->> 0 = 'part' THEN v_to - interval '1 microsecond'
                                    ELSE lakets._step_start(v_step, v_label, false) END;
                END IF;
            WHEN 'shift' THEN
                v_from := v_from + make_interval(months => (v_step ->> 1)::integer) + (v_step ->> 2)::float8 * interval '1 microsecond';
                v_to := v_to + make_interval(months => (v_step ->> 1)::integer) + (v_step ->> 2)::float8 * interval '1 microsecond';
                v_label := v_label + make_interval(months => (v_step ->> 1)::integer) + (v_step ->> 2)::float8 * interval '1 microsecond';
            WHEN 'zone' THEN
                v_last := v_to;
                -- A clock that is set back shows times twice: the first may lie before the start,
                -- the last after the end.
                IF isfinite(v_to) THEN
                    v_change := lakets._clock_change(v_step ->> 1, greatest(v_from, v_to - interval '1 day'), v_to);
                    v_to := greatest(v_to + lakets._zone_offset(v_step ->> 1, v_to - interval '1 microsecond'),
                                     v_change + lakets._zone_offset(v_step ->> 1, v_change - interval '1 second'));
                END IF;
                IF isfinite(v_from) THEN
                    v_change := lakets._clock_change(v_step ->> 1, v_from, least(v_last, v_from + interval '1 day'));
                    v_from := least(v_from + lakets._zone_offset(v_step ->> 1, v_from),
                                    v_change + lakets._zone_offset(v_step ->> 1, v_change));
                END IF;
                v_label := v_to - interval '1 microsecond';
            WHEN 'unzone' THEN
                v_clock := tsrange(v_from, v_to);
                v_from := v_from AT TIME ZONE (v_step ->> 1) AT TIME ZONE 'UTC';
                v_to := v_to AT TIME ZONE (v_step ->> 1) AT TIME ZONE 'UTC';
                -- A clock that is set forward skips times. They are read as if it had not been set,
                -- and so come after the first times that it shows next.
                IF isfinite(v_to) THEN
                    v_change := lakets._clock_change(v_step ->> 1, v_to - interval '1 day', v_to);
                    v_last := v_change + lakets._zone_offset(v_step ->> 1, v_change);  -- what it is set to
                    IF v_last > lower(v_clock) AND v_last <= upper(v_clock) THEN
                        v_to := greatest(v_to, v_last - lakets._zone_offset(v_step ->> 1, v_change - interval '1 second'));
                    END IF;
                END IF;
                IF isfinite(v_from) THEN
                    v_change := lakets._clock_change(v_step ->> 1, v_from - interval '1 day', v_from);
                    v_last := v_change + lakets._zone_offset(v_step ->> 1, v_change);
                    IF v_last > lower(v_clock) AND v_last < upper(v_clock) THEN
                        v_from := least(v_from, v_change);
                    END IF;
                END IF;
                v_label := v_to - interval '1 microsecond';
        END CASE;
    END LOOP;
    RETURN tstzrange(v_from AT TIME ZONE 'UTC', v_to AT TIME ZONE 'UTC');
END;
$$;

-- A range of times that contains all times with a label in a range, and no others unless the steps
-- have a margin.
CREATE OR REPLACE FUNCTION lakets._times_of(
    p_steps  jsonb,
    p_labels tstzrange
) RETURNS tstzrange
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'
AS $$
DECLARE
    v_from  timestamp := coalesce(lower(p_labels), '-infinity');
    v_to    timestamp := coalesce(upper(p_labels), 'infinity');
    v_step  jsonb;
    v_day   constant interval := '1 day';
    v_shift interval;
    v_slack interval;
BEGIN
    IF isempty(p_labels) THEN
        RETURN p_labels;
    END IF;
    FOR v_position IN REVERSE jsonb_array_length(p_steps) - 1 .. 0 LOOP
        v_step := p_steps -> v_position;
        CASE v_step ->> 0
            WHEN 'bin', 'months' THEN
                -- A label is a bucket's start: the first one not before v_from, and all before the
                -- first not before v_to.
                IF isfinite(v_from) THEN
                    v_from := lakets._step_start(v_step, v_from - interval '1 microsecond', true);
                END IF;
                IF isfinite(v_to) THEN
                    v_to := lakets._step_start(v_step, v_to - interval '1 microsecond', true);
                END IF;
            WHEN 'shift' THEN
                v_shift := make_interval(months => (v_step ->> 1)::integer) + (v_step ->> 2)::float8 * interval '1 microsecond';
                v_slack := CASE WHEN v_step ->> 1 = '0' THEN '0' ELSE '4 days' END;
                v_from := v_from - v_shift - v_slack;
                v_to := v_to - v_shift + v_slack;
            WHEN 'zone' THEN
                IF isfinite(v_from) THEN
                    v_from := v_from - greatest(lakets._zone_offset(v_step ->> 1, v_from - v_day), lakets._zone_offset(v_step ->> 1, v_from + v_day));
                END IF;
                IF isfinite(v_to) THEN
                    v_to := v_to - least(lakets._zone_offset(v_step ->> 1, v_to - v_day), lakets._zone_offset(v_step ->> 1, v_to + v_day));
                END IF;
            WHEN 'unzone' THEN
                IF isfinite(v_from) THEN
                    v_from := v_from + least(lakets._zone_offset(v_step ->> 1, v_from - v_day), lakets._zone_offset(v_step ->> 1, v_from + v_day));
                END IF;
                IF isfinite(v_to) THEN
                    v_to := v_to + greatest(lakets._zone_offset(v_step ->> 1, v_to - v_day), lakets._zone_offset(v_step ->> 1, v_to + v_day));
                END IF;
            WHEN 'part' THEN
                -- If a clock is set by half an hour, an hour may begin before the previous one has
                -- ended.
                v_to := v_to + ('1 ' || (v_step ->> 1))::interval;
        END CASE;
    END LOOP;
    RETURN CASE WHEN v_from < v_to THEN tstzrange(v_from AT TIME ZONE 'UTC', v_to AT TIME ZONE 'UTC') ELSE 'empty' END;
END;
$$;
