-- Translate the functions that make buckets into steps (78_bucket_steps.sql). Their other arguments
-- must be constants. A function that is not listed here makes no bucket.

-- The arguments of a call in their order, whether or not it names them.
CREATE OR REPLACE FUNCTION lakets._arguments(
    p_args jsonb
) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT p_args @? 'strict $[*] ? (@._ == "NAMEDARGEXPR")' THEN
        RETURN p_args;
    END IF;
    RETURN (
        SELECT jsonb_agg(CASE arg ->> '_' WHEN 'NAMEDARGEXPR' THEN arg -> 'arg' ELSE arg END
                         ORDER BY CASE arg ->> '_' WHEN 'NAMEDARGEXPR' THEN (arg ->> 'argnumber')::integer ELSE position - 1 END)
          FROM jsonb_array_elements(p_args) WITH ORDINALITY AS a (arg, position));
END;
$$;

-- The step that a call applies to its time argument: {step, argument}, with an empty step if the
-- value does not change. Null if the call is no step.
CREATE OR REPLACE FUNCTION lakets._call_step(
    p_function oid,
    p_args     jsonb
) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET quote_all_identifiers = off
AS $$
DECLARE
    v_call   text := (
        SELECT CASE WHEN fn.pronamespace = 'pg_catalog'::regnamespace THEN '' ELSE fn.pronamespace::regnamespace || '.' END
               || fn.proname || '(' || pg_get_function_identity_arguments(fn.oid) || ')'
          FROM pg_proc AS fn WHERE fn.oid = p_function);
    v_first  jsonb := lakets._constant(p_args -> 0);
    v_second jsonb := lakets._constant(p_args -> 1);
    v_third  jsonb := lakets._constant(p_args -> 2);
    v_step   jsonb;
    v_time   integer := 1;
BEGIN
    CASE regexp_replace(v_call, '\(.*', '')
        WHEN 'lakets.time_bucket', 'date_bin' THEN
            v_step := lakets._bucket_step(v_first, CASE WHEN jsonb_array_length(p_args) = 3 THEN v_third ELSE '0' END);
        WHEN 'date_trunc' THEN
            v_step := lakets._trunc_steps(v_first #>> '{}', v_third #>> '{}');
            IF jsonb_array_length(p_args) = 3 AND v_third IS NULL OR v_call LIKE '%interval%' THEN
                RETURN NULL;
            END IF;
        WHEN 'timezone' THEN
            IF jsonb_array_length(p_args) = 1 THEN
                v_step := '[]';  -- AT LOCAL, which is UTC here
                v_time := 0;
            ELSIF v_call LIKE 'timezone(text,%' THEN
                v_step := CASE WHEN v_first #>> '{}' ~* '^(UTC|GMT|Z|Zulu|Etc/(UTC|GMT|UCT|Zulu))$' THEN '[]'::jsonb
                               ELSE jsonb_build_array(jsonb_build_array(
                                   CASE WHEN v_call LIKE '%with time zone)' THEN 'zone' ELSE 'unzone' END, v_first)) END;
            ELSIF v_first ->> 'months' = '0' THEN
                v_step := jsonb_build_array(jsonb_build_array('shift', 0,
                    (v_first ->> 'us')::bigint * CASE WHEN v_call LIKE '%with time zone)' THEN 1 ELSE -1 END));
            END IF;
        WHEN 'date' THEN
            v_step := lakets._trunc_steps('day', NULL);
            v_time := 0;
        WHEN 'timestamp', 'timestamptz' THEN
            v_step := CASE WHEN jsonb_array_length(p_args) = 1 THEN '[]'::jsonb END;
            v_time := 0;
        WHEN 'timestamptz_pl_interval', 'timestamp_pl_interval', 'date_pl_interval', 'timestamptz_mi_interval', 'timestamp_mi_interval', 'date_mi_interval' THEN
            v_step := lakets._shift_step(v_second, CASE WHEN v_call LIKE '%mi_interval%' THEN -1 ELSE 1 END);
            v_time := 0;
        WHEN 'interval_pl_timestamptz', 'interval_pl_timestamp', 'interval_pl_date' THEN
            v_step := lakets._shift_step(v_first, 1);
        WHEN 'date_pli', 'date_mii' THEN
            v_step := jsonb_build_array(jsonb_build_array('shift', 0, (v_second #>> '{}')::bigint * 86400000000
                                                          * CASE WHEN v_call LIKE 'date_mii%' THEN -1 ELSE 1 END));
            v_time := 0;
        ELSE
            RETURN NULL;
    END CASE;
    -- If an argument that must be a constant is not, or is null, the call is no step.
    RETURN CASE WHEN NOT jsonb_path_exists(v_step, '$.** ? (@ == null)') THEN jsonb_build_object('steps', v_step, 'argument', p_args -> v_time) END;
END;
$$;

-- The step of time_bucket and date_bin.
CREATE OR REPLACE FUNCTION lakets._bucket_step(
    p_width  jsonb,
    p_origin jsonb
) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_months bigint := p_width ->> 'months';
    v_us     bigint := p_width ->> 'us';
    v_origin bigint := p_origin #>> '{}';
BEGIN
    IF v_months > 0 AND v_us = 0 AND v_origin IS NOT NULL THEN
        RETURN jsonb_build_array(jsonb_build_array('months', v_months, v_origin));
    ELSIF v_months = 0 AND v_us > 0 AND v_origin IS NOT NULL THEN
        RETURN jsonb_build_array(jsonb_build_array('bin', v_us, (v_origin % v_us + v_us) % v_us));
    END IF;
    RETURN NULL;
END;
$$;

-- The steps of date_trunc, in UTC when p_zone is null.
CREATE OR REPLACE FUNCTION lakets._trunc_steps(
    p_unit text,
    p_zone text
) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_unit   text   := regexp_replace(lower(p_unit), '(?<!mi)s$', '');
    v_second constant bigint := 1000000;
    v_step   jsonb;
BEGIN
    v_step := CASE v_unit
        WHEN 'microsecond' THEN jsonb_build_array('bin', 1, 0)
        WHEN 'millisecond' THEN jsonb_build_array('bin', 1000, 0)
        WHEN 'second' THEN jsonb_build_array('bin', v_second, 0)
        WHEN 'minute' THEN jsonb_build_array('bin', 60 * v_second, 0)
        WHEN 'hour' THEN jsonb_build_array('bin', 3600 * v_second, 0)
        WHEN 'day' THEN jsonb_build_array('bin', 86400 * v_second, 0)
        WHEN 'week' THEN jsonb_build_array('bin', 604800 * v_second, 172800 * v_second)  -- from Monday, 2000-01-03
        WHEN 'month' THEN jsonb_build_array('months', 1, 0)
        WHEN 'quarter' THEN jsonb_build_array('months', 3, 0)
        WHEN 'year' THEN jsonb_build_array('months', 12, 0)
        WHEN 'decade' THEN jsonb_build_array('months', 120, 0) END;
    IF v_step IS NULL THEN
        RETURN NULL;
    ELSIF p_zone IS NULL OR p_zone ~* '^(UTC|GMT|Z|Zulu|Etc/(UTC|GMT|UCT|Zulu))$' THEN
        RETURN jsonb_build_array(v_step);
    ELSIF v_unit IN ('hour', 'minute') THEN
        RETURN jsonb_build_array(jsonb_build_array('part', v_unit, p_zone));
    ELSIF v_unit LIKE '%second' THEN
        RETURN jsonb_build_array(v_step);
    END IF;
    RETURN jsonb_build_array(jsonb_build_array('zone', p_zone), v_step, jsonb_build_array('unzone', p_zone));
END;
$$;

-- The step of adding an interval.
CREATE OR REPLACE FUNCTION lakets._shift_step(
    p_by   jsonb,
    p_sign integer
) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN jsonb_build_array(jsonb_build_array('shift', (p_by ->> 'months')::bigint * p_sign, (p_by ->> 'us')::bigint * p_sign));
END;
$$;
