-- Policies: when chunks are tiered, and when they are dropped. At most one of a kind a table.

-- Add a policy, or say that there is one.
CREATE OR REPLACE FUNCTION lakets._add_policy(
    p_table  lakets._chronotable_registry,
    p_types  text[],
    p_config jsonb
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_found text;
    v_id    integer;
BEGIN
    SELECT pol.policy_type INTO v_found
      FROM lakets._policy_registry AS pol WHERE pol.chronotable_id = p_table.id AND pol.policy_type = ANY (p_types);
    IF FOUND THEN
        RAISE EXCEPTION '%.% already has a % policy.', p_table.schema_name, p_table.table_name, v_found
            USING ERRCODE = 'duplicate_object', HINT = 'Remove it first, then add the new one.';
    END IF;
    INSERT INTO lakets._policy_registry AS pol (chronotable_id, policy_type, config)
    VALUES (p_table.id, p_types[1], p_config) RETURNING pol.id INTO v_id;
    RETURN v_id;
END;
$$;

-- What a policy's config says of p_trim_shadow: nothing, unless it is wanted.
CREATE OR REPLACE FUNCTION lakets._trim_config(
    p_trim_shadow boolean
) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN p_trim_shadow THEN '{"trim_shadow": true}'::jsonb ELSE '{}' END;
$$;

-- A policy's age must be positive.
CREATE OR REPLACE FUNCTION lakets._check_age(
    p_name text,
    p_age  interval
) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_age IS NULL OR p_age <= interval '0' THEN
        RAISE EXCEPTION '% must be a positive interval, not %.', p_name, coalesce(p_age::text, 'null')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'For example ''30 days''.';
    END IF;
END;
$$;

-- Flag chunks tiered once they are older than p_after and proved durable.
CREATE OR REPLACE FUNCTION lakets.add_tiering_policy(
    p_table_name  text,
    p_after       interval,
    p_schema_name text DEFAULT 'public'
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
BEGIN
    PERFORM lakets._check_age('p_after', p_after);
    UPDATE lakets._chronotable_registry AS reg SET tiering_enabled = true WHERE reg.id = v_table.id;
    RETURN lakets._add_policy(v_table, '{tiering,tiered_retention}', jsonb_build_object('after', p_after));
END;
$$;

-- Drop chunks from Lakebase once they are older than p_drop_after. p_trim_shadow: remove their rows from the shadow
-- too, afterwards (75_trim.sql).
CREATE OR REPLACE FUNCTION lakets.add_retention_policy(
    p_table_name  text,
    p_drop_after  interval,
    p_schema_name text    DEFAULT 'public',
    p_trim_shadow boolean DEFAULT false
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_id    integer;
BEGIN
    PERFORM lakets._check_age('p_drop_after', p_drop_after);
    UPDATE lakets._chronotable_registry AS reg SET retention_interval = p_drop_after WHERE reg.id = v_table.id;
    v_id := lakets._add_policy(v_table, '{retention,tiered_retention}',
                               jsonb_build_object('drop_after', p_drop_after) || lakets._trim_config(p_trim_shadow));
    PERFORM lakets._prepare_trimming(v_table);
    RETURN v_id;
END;
$$;

-- Both in one: flag after p_tier_after, drop after p_drop_after, and never drop what is not proved durable.
CREATE OR REPLACE FUNCTION lakets.add_tiered_retention_policy(
    p_table_name  text,
    p_tier_after  interval,
    p_drop_after  interval,
    p_schema_name text    DEFAULT 'public',
    p_trim_shadow boolean DEFAULT false
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_id    integer;
BEGIN
    PERFORM lakets._check_age('p_tier_after', p_tier_after);
    PERFORM lakets._check_age('p_drop_after', p_drop_after);
    IF p_tier_after >= p_drop_after THEN
        RAISE EXCEPTION 'p_tier_after (%) must be shorter than p_drop_after (%).', p_tier_after, p_drop_after
            USING ERRCODE = 'invalid_parameter_value', HINT = 'A chunk is proved durable first and dropped later.';
    END IF;
    UPDATE lakets._chronotable_registry AS reg
       SET tiering_enabled = true, retention_interval = p_drop_after WHERE reg.id = v_table.id;
    v_id := lakets._add_policy(v_table, '{tiered_retention,tiering,retention}',
                               jsonb_build_object('tier_after', p_tier_after, 'drop_after', p_drop_after)
                                   || lakets._trim_config(p_trim_shadow));
    PERFORM lakets._prepare_trimming(v_table);
    RETURN v_id;
END;
$$;

-- Remove policies of these kinds, or say that there is none.
CREATE OR REPLACE FUNCTION lakets._remove_policy(
    p_table lakets._chronotable_registry,
    p_types text[]
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM lakets._policy_registry AS pol WHERE pol.chronotable_id = p_table.id AND pol.policy_type = ANY (p_types);
    IF NOT FOUND THEN
        RAISE EXCEPTION '%.% has no % policy.', p_table.schema_name, p_table.table_name, p_types[1]
            USING ERRCODE = 'undefined_object', HINT = 'lakets._policy_registry lists the policies.';
    END IF;
    UPDATE lakets._chronotable_registry AS reg
       SET tiering_enabled = EXISTS (SELECT FROM lakets._policy_registry AS pol
                                      WHERE pol.chronotable_id = reg.id AND pol.policy_type IN ('tiering', 'tiered_retention')),
           retention_interval = (SELECT max((pol.config ->> 'drop_after')::interval)
                                   FROM lakets._policy_registry AS pol WHERE pol.chronotable_id = reg.id)
     WHERE reg.id = p_table.id;
    PERFORM lakets._prepare_trimming(p_table);
END;
$$;

CREATE OR REPLACE FUNCTION lakets.remove_tiering_policy(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT lakets._remove_policy(lakets._chronotable(p_table_name, p_schema_name), '{tiering,tiered_retention}');
$$;

CREATE OR REPLACE FUNCTION lakets.remove_retention_policy(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT lakets._remove_policy(lakets._chronotable(p_table_name, p_schema_name), '{retention,tiered_retention}');
$$;

-- The tiering policy of a table; of every table when none is named.
CREATE OR REPLACE FUNCTION lakets.show_tiering_policy(
    p_table_name  text DEFAULT NULL,
    p_schema_name text DEFAULT 'public'
) RETURNS TABLE (schema_name text, table_name text, policy_type text, after interval, enabled boolean, last_run_at timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT reg.schema_name, reg.table_name, pol.policy_type,
           coalesce(pol.config ->> 'after', pol.config ->> 'tier_after')::interval, pol.enabled, pol.last_run_at
      FROM lakets._policy_registry AS pol
      JOIN lakets._chronotable_registry AS reg ON reg.id = pol.chronotable_id
     WHERE pol.policy_type IN ('tiering', 'tiered_retention')
       AND (p_table_name IS NULL OR (reg.table_name = p_table_name AND reg.schema_name = p_schema_name))
     ORDER BY reg.schema_name, reg.table_name;
$$;

-- The retention policy of a table; of every table when none is named.
CREATE OR REPLACE FUNCTION lakets.show_retention_policy(
    p_table_name  text DEFAULT NULL,
    p_schema_name text DEFAULT 'public'
) RETURNS TABLE (schema_name text, table_name text, policy_type text, drop_after interval, enabled boolean, last_run_at timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT reg.schema_name, reg.table_name, pol.policy_type, (pol.config ->> 'drop_after')::interval, pol.enabled, pol.last_run_at
      FROM lakets._policy_registry AS pol
      JOIN lakets._chronotable_registry AS reg ON reg.id = pol.chronotable_id
     WHERE pol.policy_type IN ('retention', 'tiered_retention')
       AND (p_table_name IS NULL OR (reg.table_name = p_table_name AND reg.schema_name = p_schema_name))
     ORDER BY reg.schema_name, reg.table_name;
$$;
