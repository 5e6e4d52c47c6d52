CREATE FUNCTION lakets._add_policy(p_table_name text, p_schema_name text, p_type text, p_config jsonb) RETURNS int
    LANGUAGE plpgsql AS $$
DECLARE
    v_id int := lakets._table_id(p_table_name, p_schema_name);
    v_policy int;
BEGIN
    IF EXISTS (SELECT FROM lakets._policy_registry WHERE chronotable_id = v_id AND policy_type = p_type) THEN
        RAISE EXCEPTION 'A % policy already exists for %.%', p_type, p_schema_name, p_table_name;
    END IF;
    INSERT INTO lakets._policy_registry (chronotable_id, policy_type, config, enabled)
    VALUES (v_id, p_type, p_config, true) RETURNING id INTO v_policy;
    RETURN v_policy;
END $$;

-- Write positions are tracked from the first policy that tiers; what was written before counts as written now.
CREATE FUNCTION lakets._track_positions(p_table_name text, p_schema_name text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_event text;
BEGIN
    FOREACH v_event IN ARRAY '{insert,update,delete}'::text[] LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %I.%I REFERENCING %s TABLE AS moved_rows
                        FOR EACH STATEMENT EXECUTE FUNCTION lakets._stamp_positions()',
                       'trg_lakets_tier_lsn_' || v_event, v_event, p_schema_name, p_table_name,
                       CASE v_event WHEN 'delete' THEN 'OLD' ELSE 'NEW' END);
    END LOOP;
    UPDATE lakets._chronotable_registry SET tiering_enabled = true WHERE id = lakets._table_id(p_table_name, p_schema_name);
    UPDATE lakets._chunk_metadata SET last_write_lsn = pg_current_wal_lsn()
     WHERE chronotable_id = lakets._table_id(p_table_name, p_schema_name) AND status = 'active' AND last_write_lsn IS NULL;
END $$;

CREATE FUNCTION lakets._stamp_positions() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_table lakets._chronotable_registry := lakets._table_of_trigger(TG_RELID);
BEGIN
    EXECUTE format('UPDATE lakets._chunk_metadata SET last_write_lsn = pg_current_wal_lsn()
                     WHERE chronotable_id = $1 AND range_start IN (SELECT date_bin($2, %I, ''2000-01-01''::timestamptz) FROM moved_rows)',
                   v_table.time_column) USING v_table.id, v_table.chunk_interval;
    RETURN NULL;
END $$;

CREATE FUNCTION lakets.add_tiering_policy(p_table_name text, p_after interval, p_schema_name text DEFAULT 'public')
    RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_policy int := lakets._add_policy(p_table_name, p_schema_name, 'tiering', jsonb_build_object('after', p_after::text));
BEGIN
    PERFORM lakets._track_positions(p_table_name, p_schema_name);
    RETURN v_policy;
END $$;

CREATE FUNCTION lakets.remove_tiering_policy(p_table_name text, p_schema_name text DEFAULT 'public') RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    v_id int := lakets._table_id(p_table_name, p_schema_name);
    v_event text;
BEGIN
    DELETE FROM lakets._policy_registry WHERE chronotable_id = v_id AND policy_type = 'tiering';
    UPDATE lakets._chronotable_registry SET tiering_enabled = false WHERE id = v_id;
    FOREACH v_event IN ARRAY '{insert,update,delete}'::text[] LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %I.%I', 'trg_lakets_tier_lsn_' || v_event, p_schema_name, p_table_name);
    END LOOP;
END $$;

CREATE FUNCTION lakets.show_tiering_policy(p_table_name text, p_schema_name text DEFAULT 'public')
    RETURNS TABLE (policy_id int, after text, enabled boolean, last_run_at timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    SELECT p.id, p.config ->> 'after', p.enabled, p.last_run_at
      FROM lakets._policy_registry p JOIN lakets._chronotable_registry t ON t.id = p.chronotable_id
     WHERE t.schema_name = p_schema_name AND t.table_name = p_table_name AND p.policy_type = 'tiering';
END $$;

CREATE FUNCTION lakets.add_retention_policy(p_table_name text, p_drop_after interval, p_schema_name text DEFAULT 'public')
    RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_policy int := lakets._add_policy(p_table_name, p_schema_name, 'retention', jsonb_build_object('drop_after', p_drop_after::text));
BEGIN
    UPDATE lakets._chronotable_registry SET retention_interval = p_drop_after WHERE id = lakets._table_id(p_table_name, p_schema_name);
    RETURN v_policy;
END $$;

CREATE FUNCTION lakets.add_tiered_retention_policy(p_table_name text, p_tier_after interval, p_drop_after interval,
    p_schema_name text DEFAULT 'public') RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_policy int;
BEGIN
    IF p_tier_after >= p_drop_after THEN
        RAISE EXCEPTION 'tier_after (%) must be less than drop_after (%)', p_tier_after, p_drop_after;
    END IF;
    v_policy := lakets._add_policy(p_table_name, p_schema_name, 'tiered_retention',
        jsonb_build_object('tier_after', p_tier_after::text, 'drop_after', p_drop_after::text));
    PERFORM lakets._track_positions(p_table_name, p_schema_name);
    RETURN v_policy;
END $$;

CREATE FUNCTION lakets.remove_retention_policy(p_table_name text, p_schema_name text DEFAULT 'public') RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    v_id int := lakets._table_id(p_table_name, p_schema_name);
BEGIN
    DELETE FROM lakets._policy_registry WHERE chronotable_id = v_id AND policy_type IN ('retention', 'tiered_retention');
    UPDATE lakets._chronotable_registry SET retention_interval = NULL WHERE id = v_id;
END $$;

CREATE FUNCTION lakets.show_retention_policy(p_table_name text, p_schema_name text DEFAULT 'public')
    RETURNS TABLE (policy_id int, policy_type text, drop_after text, tier_after text, enabled boolean, last_run_at timestamptz)
    LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    SELECT p.id, p.policy_type, p.config ->> 'drop_after', p.config ->> 'tier_after', p.enabled, p.last_run_at
      FROM lakets._policy_registry p
     WHERE p.chronotable_id = lakets._table_id(p_table_name, p_schema_name) AND p.policy_type IN ('retention', 'tiered_retention');
END $$;
