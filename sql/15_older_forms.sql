-- Forms of functions that earlier builds of 0.2.0 had and that the interface of LakeTS 0.1.3
-- replaced. A call raises an error that says what to write instead. A form is listed here only if
-- no valid call resolves to it, even with untyped literals as arguments; docs/compatibility.md
-- lists the others.

-- Raise the error for such a form.
CREATE OR REPLACE FUNCTION lakets._refuse_older_form(
    p_form text,
    p_hint text
) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'lakets.% is a form of an earlier build of LakeTS 0.2.0 and was removed.', p_form
        USING HINT = p_hint;
END;
$$;

CREATE OR REPLACE FUNCTION lakets._refuse_rate(
    p_state double precision
) RETURNS double precision
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM lakets._refuse_older_form(
        'rate(value, time)',
        'Write lakets.rate_agg(value, time ORDER BY time) for a group of rows, or lakets.rate(value, prev_value, time, prev_time).');
    RETURN NULL;
END;
$$;

DO $install$
DECLARE
    v_time text;
BEGIN
    FOREACH v_time IN ARRAY ARRAY['timestamptz', 'timestamp', 'date'] LOOP
        EXECUTE pg_catalog.replace($template$

CREATE OR REPLACE FUNCTION lakets._refuse_rate_step(
    p_state double precision,
    p_value double precision,
    p_time  {time}
) RETURNS double precision
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN lakets._refuse_rate(p_state);
END;
$$;

CREATE OR REPLACE AGGREGATE lakets.rate(p_value double precision, p_time {time}) (
    SFUNC = lakets._refuse_rate_step,
    STYPE = double precision,
    FINALFUNC = lakets._refuse_rate,
    PARALLEL = SAFE
);

CREATE OR REPLACE FUNCTION lakets.interpolate(
    p_time       {time},
    p_prev_time  {time},
    p_prev_value double precision,
    p_next_time  {time},
    p_next_value double precision
) RETURNS double precision
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM lakets._refuse_older_form(
        'interpolate(time, prev_time, prev_value, next_time, next_value)',
        'Write lakets.interpolate(value, prev_value, next_value, prev_time, time, next_time); value is NULL where there is none.');
    RETURN NULL;
END;
$$;

        $template$, '{time}', v_time);
    END LOOP;
END
$install$;

CREATE OR REPLACE FUNCTION lakets.show_retention_policy()
    RETURNS TABLE (policy_id integer, policy_type text, drop_after text, tier_after text, enabled boolean, last_run_at timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM lakets._refuse_older_form('show_retention_policy()', 'Name a table: lakets.show_retention_policy(''metrics''). '
                                      'The policies of all tables are in lakets._policy_registry.');
END;
$$;

CREATE OR REPLACE FUNCTION lakets.show_tiering_policy()
    RETURNS TABLE (policy_id integer, after text, enabled boolean, last_run_at timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM lakets._refuse_older_form('show_tiering_policy()', 'Name a table: lakets.show_tiering_policy(''metrics''). '
                                      'The policies of all tables are in lakets._policy_registry.');
END;
$$;
