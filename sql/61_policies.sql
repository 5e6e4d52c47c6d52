-- Policies: when chunks are tiered, and when they are dropped. A table has at most one of each
-- kind.

-- Add a policy. Raises an error if the table has one of that kind.
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
            USING HINT = 'Remove it first, then add the new one.';
    END IF;
    INSERT INTO lakets._policy_registry AS pol (chronotable_id, policy_type, config)
    VALUES (p_table.id, p_types[1], p_config) RETURNING pol.id INTO v_id;
    RETURN v_id;
END;
$$;

-- Return the part of a policy's config for p_trim_shadow: empty unless it is true.
CREATE OR REPLACE FUNCTION lakets._trim_config(
    p_trim_shadow boolean
) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN p_trim_shadow THEN '{"trim_shadow": true}'::jsonb ELSE '{}' END;
$$;

-- Refuse an age, such as that of a policy, unless it is positive. Zero is allowed for tiering,
-- which removes nothing: then every closed chunk is due.
CREATE OR REPLACE FUNCTION lakets._check_age(
    p_name     text,
    p_age      interval,
    p_may_be_0 boolean DEFAULT false
) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_age IS NULL OR p_age < interval '0' OR (p_age = interval '0' AND NOT p_may_be_0) THEN
        RAISE EXCEPTION '% must be a positive interval%, not %.',
            p_name, CASE WHEN p_may_be_0 THEN ' or zero' ELSE '' END, coalesce(p_age::text, 'null')
            USING HINT = 'For example ''30 days''.';
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
    SET intervalstyle = 'postgres'  -- the form of the text in config
AS $$
DECLARE
    v_table lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
BEGIN
    PERFORM lakets._check_age('p_after', p_after, true);
    UPDATE lakets._chronotable_registry AS reg SET tiering_enabled = true WHERE reg.id = v_table.id;
    RETURN lakets._add_policy(v_table, '{tiering,tiered_retention}', jsonb_build_object('after', p_after));
END;
$$;

-- Drop chunks from Lakebase once they are older than p_drop_after. p_trim_shadow: remove their rows
-- from the shadow too, afterwards (75_trim.sql).
CREATE OR REPLACE FUNCTION lakets.add_retention_policy(
    p_table_name  text,
    p_drop_after  interval,
    p_schema_name text    DEFAULT 'public',
    p_trim_shadow boolean DEFAULT false
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET intervalstyle = 'postgres'  -- the form of the text in config
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

-- Tiering and retention in one policy: flag after p_tier_after, drop after p_drop_after, and never
-- drop a chunk that is not proved durable.
CREATE OR REPLACE FUNCTION lakets.add_tiered_retention_policy(
    p_table_name  text,
    p_tier_after  interval,
    p_drop_after  interval,
    p_schema_name text    DEFAULT 'public',
    p_trim_shadow boolean DEFAULT false
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET intervalstyle = 'postgres'  -- the form of the text in config
AS $$
DECLARE
    v_table lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_id    integer;
BEGIN
    PERFORM lakets._check_age('p_tier_after', p_tier_after, true);
    PERFORM lakets._check_age('p_drop_after', p_drop_after);
    IF p_tier_after >= p_drop_after THEN
        RAISE EXCEPTION 'p_tier_after (%) must be shorter than p_drop_after (%).', p_tier_after, p_drop_after
            USING HINT = 'A chunk is proved durable first and dropped later.';
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

-- Remove policies of these kinds; a table without one stays as it is.
CREATE OR REPLACE FUNCTION lakets._remove_policy(
    p_table lakets._chronotable_registry,
    p_types text[]
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM lakets._policy_registry AS pol WHERE pol.chronotable_id = p_table.id AND pol.policy_type = ANY (p_types);
    UPDATE lakets._chronotable_registry AS reg
       SET tiering_enabled = EXISTS (SELECT FROM lakets._policy_registry AS pol
                                      WHERE pol.chronotable_id = reg.id AND pol.policy_type IN ('tiering', 'tiered_retention')),
           retention_interval = (SELECT max((pol.config ->> 'drop_after')::interval)
                                   FROM lakets._policy_registry AS pol WHERE pol.chronotable_id = reg.id)
     WHERE reg.id = p_table.id;
    PERFORM lakets._prepare_trimming(p_table);
END;
$$;

-- Stop tiering. A tiered_retention policy stays: remove_retention_policy removes it.
CREATE OR REPLACE FUNCTION lakets.remove_tiering_policy(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT lakets._remove_policy(lakets._chronotable(p_table_name, p_schema_name), '{tiering}');
$$;

-- Stop dropping. Removing a tiered_retention policy stops its tiering too.
CREATE OR REPLACE FUNCTION lakets.remove_retention_policy(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT lakets._remove_policy(lakets._chronotable(p_table_name, p_schema_name), '{retention,tiered_retention}');
$$;

-- Return when chunks of a table are tiered, by a policy of either kind.
CREATE OR REPLACE FUNCTION lakets.show_tiering_policy(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS TABLE (policy_id integer, after text, enabled boolean, last_run_at timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pol.id, coalesce(pol.config ->> 'after', pol.config ->> 'tier_after'), pol.enabled, pol.tiered_at
      FROM lakets._policy_registry AS pol
     WHERE pol.chronotable_id = (lakets._chronotable(p_table_name, p_schema_name)).id
       AND pol.policy_type IN ('tiering', 'tiered_retention')
     ORDER BY pol.id;
$$;

-- Return when chunks of a table are dropped.
CREATE OR REPLACE FUNCTION lakets.show_retention_policy(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS TABLE (policy_id integer, policy_type text, drop_after text, tier_after text, enabled boolean, last_run_at timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pol.id, pol.policy_type, pol.config ->> 'drop_after', pol.config ->> 'tier_after', pol.enabled, pol.retained_at
      FROM lakets._policy_registry AS pol
     WHERE pol.chronotable_id = (lakets._chronotable(p_table_name, p_schema_name)).id
       AND pol.policy_type IN ('retention', 'tiered_retention')
     ORDER BY pol.id;
$$;
