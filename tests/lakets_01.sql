-- A stand-in for LakeTS 0.1.x, which many projects have installed: the registries, names, arguments and
-- results that the provider may rely on, and nothing that came later. The bodies are as plain as can be;
-- errors are bare RAISE EXCEPTION. What it proves is that the provider needs no more than this.
CREATE SCHEMA lakets;
CREATE SCHEMA lakets_cdf;

CREATE TABLE lakets._version (version text, installed_at timestamptz DEFAULT now(), modules text[]);
INSERT INTO lakets._version (version, modules) VALUES ('0.1.4', '{core}');

CREATE TABLE lakets._chronotable_registry (
    id serial PRIMARY KEY, schema_name text NOT NULL, table_name text NOT NULL, time_column text NOT NULL,
    chunk_interval interval NOT NULL, tiering_enabled boolean DEFAULT false, retention_interval interval,
    shadow_table_name text, sync_enabled boolean DEFAULT false, created_at timestamptz DEFAULT now(),
    UNIQUE (schema_name, table_name)
);
CREATE TABLE lakets._chunk_metadata (
    id serial PRIMARY KEY,
    chronotable_id int NOT NULL REFERENCES lakets._chronotable_registry (id) ON DELETE CASCADE,
    chunk_name text NOT NULL UNIQUE, range_start timestamptz NOT NULL, range_end timestamptz NOT NULL,
    status text NOT NULL DEFAULT 'active', row_count bigint, size_bytes bigint, tiered_at timestamptz,
    last_write_lsn pg_lsn, last_modified_at timestamptz, created_at timestamptz DEFAULT now(),
    UNIQUE (chronotable_id, range_start)
);
CREATE TABLE lakets._policy_registry (
    id serial PRIMARY KEY,
    chronotable_id int NOT NULL REFERENCES lakets._chronotable_registry (id) ON DELETE CASCADE,
    policy_type text NOT NULL CHECK (policy_type IN ('tiering', 'retention', 'tiered_retention')),
    config jsonb NOT NULL, enabled boolean DEFAULT true, last_run_at timestamptz, created_at timestamptz DEFAULT now()
);
CREATE TABLE lakets._rollup_registry (
    id serial PRIMARY KEY, name text NOT NULL UNIQUE, source_chronotable_id int, rollup_table text,
    realtime_view text, bucket_interval interval, refresh_lag interval DEFAULT '1 hour', watermark timestamptz,
    query_text text, last_refreshed_at timestamptz, bucket_column text, source_time_column text,
    depends_on int[] DEFAULT '{}', sync_enabled boolean DEFAULT false, shadow_table_name text,
    created_at timestamptz DEFAULT now()
);
CREATE TABLE lakets._rollup_invalidation_log (
    id bigserial PRIMARY KEY, rollup_id int NOT NULL, bucket_start timestamptz NOT NULL,
    invalidated_at timestamptz DEFAULT now()
);

CREATE FUNCTION lakets._table_id(p_table_name text, p_schema_name text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_id int;
BEGIN
    SELECT id INTO v_id FROM lakets._chronotable_registry
     WHERE schema_name = p_schema_name AND table_name = p_table_name;
    IF v_id IS NULL THEN
        RAISE EXCEPTION 'ChronoTable %.% not found', p_schema_name, p_table_name;
    END IF;
    RETURN v_id;
END $$;

CREATE FUNCTION lakets.create_chronotable(p_table_name text, p_time_column text,
    p_chunk_interval interval DEFAULT '7 days', p_schema_name text DEFAULT 'public',
    p_if_not_exists boolean DEFAULT false) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_id int;
BEGIN
    SELECT id INTO v_id FROM lakets._chronotable_registry
     WHERE schema_name = p_schema_name AND table_name = p_table_name;
    IF v_id IS NOT NULL THEN
        IF p_if_not_exists THEN RETURN v_id; END IF;
        RAISE EXCEPTION 'ChronoTable %.% already exists', p_schema_name, p_table_name;
    END IF;
    IF to_regclass(format('%I.%I', p_schema_name, p_table_name)) IS NULL THEN
        RAISE EXCEPTION 'Table %.% does not exist', p_schema_name, p_table_name;
    END IF;
    EXECUTE format('ALTER TABLE %I.%I RENAME TO _was', p_schema_name, p_table_name);
    EXECUTE format('CREATE TABLE %I.%I (LIKE %1$I._was INCLUDING DEFAULTS) PARTITION BY RANGE (%3$I)',
                   p_schema_name, p_table_name, p_time_column);
    EXECUTE format('DROP TABLE %I._was', p_schema_name);
    INSERT INTO lakets._chronotable_registry (schema_name, table_name, time_column, chunk_interval)
    VALUES (p_schema_name, p_table_name, p_time_column, p_chunk_interval) RETURNING id INTO v_id;
    PERFORM lakets._ensure_partitions(v_id);
    RETURN v_id;
END $$;

CREATE FUNCTION lakets._ensure_partitions(p_chronotable_id int, p_past_count int DEFAULT 1,
    p_future_count int DEFAULT 3, p_range_start timestamptz DEFAULT NULL, p_range_end timestamptz DEFAULT NULL)
    RETURNS int LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    v_table lakets._chronotable_registry;
    v_start timestamptz;
    v_last timestamptz;
    v_name text;
    v_created int := 0;
BEGIN
    SELECT * INTO v_table FROM lakets._chronotable_registry WHERE id = p_chronotable_id;
    IF v_table.id IS NULL THEN
        RAISE EXCEPTION 'ChronoTable with id % not found', p_chronotable_id;
    END IF;
    v_start := date_bin(v_table.chunk_interval,
        coalesce(p_range_start, now() - p_past_count * v_table.chunk_interval), '2000-01-01+00');
    v_last := coalesce(p_range_end, now() + p_future_count * v_table.chunk_interval);
    WHILE v_start < v_last LOOP
        v_name := v_table.table_name || to_char(v_start, '_YYYYMMDD_HH24MISS');
        IF to_regclass(format('%I.%I', v_table.schema_name, v_name)) IS NULL THEN
            EXECUTE format('CREATE TABLE %1$I.%2$I PARTITION OF %1$I.%3$I FOR VALUES FROM (%4$L) TO (%5$L)',
                v_table.schema_name, v_name, v_table.table_name, v_start, v_start + v_table.chunk_interval);
            INSERT INTO lakets._chunk_metadata (chronotable_id, chunk_name, range_start, range_end)
            VALUES (p_chronotable_id, v_table.schema_name || '.' || v_name, v_start, v_start + v_table.chunk_interval);
            v_created := v_created + 1;
        END IF;
        v_start := v_start + v_table.chunk_interval;
    END LOOP;
    RETURN v_created;
END $$;

CREATE FUNCTION lakets.show_chunks(p_table_name text, p_older_than interval DEFAULT NULL,
    p_newer_than interval DEFAULT NULL, p_schema_name text DEFAULT 'public')
    RETURNS TABLE (chunk_name text, range_start timestamptz, range_end timestamptz, status text,
                   row_count bigint, size_bytes bigint, created_at timestamptz) LANGUAGE sql AS $$
    SELECT c.chunk_name, c.range_start, c.range_end, c.status, c.row_count, c.size_bytes, c.created_at
      FROM lakets._chunk_metadata c
     WHERE c.chronotable_id = lakets._table_id(p_table_name, p_schema_name) AND c.status <> 'dropped'
       AND (p_older_than IS NULL OR c.range_end <= now() - p_older_than)
       AND (p_newer_than IS NULL OR c.range_start >= now() - p_newer_than)
     ORDER BY c.range_start
$$;

CREATE FUNCTION lakets._add_policy(p_id int, p_type text, p_config jsonb) RETURNS int LANGUAGE sql AS $$
    INSERT INTO lakets._policy_registry (chronotable_id, policy_type, config)
    VALUES (p_id, p_type, p_config) RETURNING id
$$;
CREATE FUNCTION lakets.add_tiering_policy(p_table_name text, p_after interval, p_schema_name text DEFAULT 'public')
    RETURNS int LANGUAGE sql AS $$
    SELECT lakets._add_policy(lakets._table_id(p_table_name, p_schema_name), 'tiering', jsonb_build_object('after', p_after::text))
$$;
CREATE FUNCTION lakets.add_retention_policy(p_table_name text, p_drop_after interval, p_schema_name text DEFAULT 'public')
    RETURNS int LANGUAGE sql AS $$
    SELECT lakets._add_policy(lakets._table_id(p_table_name, p_schema_name), 'retention', jsonb_build_object('drop_after', p_drop_after::text))
$$;
CREATE FUNCTION lakets.add_tiered_retention_policy(p_table_name text, p_tier_after interval, p_drop_after interval,
    p_schema_name text DEFAULT 'public') RETURNS int LANGUAGE sql AS $$
    SELECT lakets._add_policy(lakets._table_id(p_table_name, p_schema_name), 'tiered_retention',
        jsonb_build_object('tier_after', p_tier_after::text, 'drop_after', p_drop_after::text))
$$;

CREATE FUNCTION lakets.enable_sync(p_table_name text, p_schema_name text DEFAULT 'public') RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    UPDATE lakets._chronotable_registry
       SET sync_enabled = true, tiering_enabled = true, shadow_table_name = 'lakets_cdf._shadow_' || p_table_name
     WHERE id = lakets._table_id(p_table_name, p_schema_name);
    EXECUTE format('CREATE TABLE lakets_cdf.%I (LIKE %I.%I)', '_shadow_' || p_table_name, p_schema_name, p_table_name);
    EXECUTE format('ALTER TABLE lakets_cdf.%I REPLICA IDENTITY FULL', '_shadow_' || p_table_name);
END $$;

CREATE FUNCTION lakets._cdf_committed_lsn(p_shadow_name text) RETURNS pg_lsn LANGUAGE plpgsql AS $$
DECLARE
    v_lsn pg_lsn;
BEGIN
    IF to_regclass('wal2delta.tables') IS NOT NULL THEN
        EXECUTE 'SELECT committed_lsn FROM wal2delta.tables WHERE table_oid = to_regclass($1) AND status = $2'
           INTO v_lsn USING p_shadow_name, 'STREAMING';
    END IF;
    RETURN v_lsn;
END $$;

CREATE FUNCTION lakets._get_chunks_to_tier(p_table_name text, p_schema_name text DEFAULT 'public')
    RETURNS TABLE (chunk_id int, chunk_name text, range_start timestamptz, range_end timestamptz) LANGUAGE sql AS $$
    SELECT c.id, c.chunk_name, c.range_start, c.range_end
      FROM lakets._chunk_metadata c
      JOIN lakets._chronotable_registry t ON t.id = c.chronotable_id
      JOIN lakets._policy_registry p ON p.chronotable_id = t.id AND p.enabled
     WHERE t.id = lakets._table_id(p_table_name, p_schema_name) AND c.status = 'active'
       AND c.range_end <= now() - coalesce(p.config ->> 'after', p.config ->> 'tier_after')::interval
       AND lakets._cdf_committed_lsn(t.shadow_table_name) IS NOT NULL
     ORDER BY c.range_start
$$;

CREATE FUNCTION lakets.tier_chunk(p_chunk_name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_chunk lakets._chunk_metadata;
    v_shadow text;
BEGIN
    SELECT * INTO v_chunk FROM lakets._chunk_metadata WHERE chunk_name = p_chunk_name FOR UPDATE;
    IF v_chunk.id IS NULL THEN RAISE EXCEPTION 'Chunk % not found', p_chunk_name; END IF;
    IF v_chunk.status = 'tiered' THEN RETURN true; END IF;
    IF v_chunk.status = 'dropped' THEN RAISE EXCEPTION 'Chunk % is already dropped', p_chunk_name; END IF;
    SELECT shadow_table_name INTO v_shadow FROM lakets._chronotable_registry WHERE id = v_chunk.chronotable_id;
    IF lakets._cdf_committed_lsn(v_shadow) >= coalesce(v_chunk.last_write_lsn, '0/0') THEN
        UPDATE lakets._chunk_metadata SET status = 'tiered', tiered_at = now() WHERE id = v_chunk.id;
        RETURN true;
    END IF;
    RETURN false;
END $$;

CREATE FUNCTION lakets.untier_chunk(p_chunk_name text) RETURNS void LANGUAGE sql AS $$
    UPDATE lakets._chunk_metadata SET status = 'active', tiered_at = NULL
     WHERE chunk_name = p_chunk_name AND status = 'tiered'
$$;

CREATE FUNCTION lakets.show_tiering_status(p_table_name text, p_schema_name text DEFAULT 'public')
    RETURNS TABLE (schema_name text, table_name text, after interval, active_chunks bigint, tiered_chunks bigint,
                   pending_chunks bigint, reclaimable_bytes bigint, reclaimed_bytes bigint, cdf_status text,
                   cdf_lag_bytes numeric, caught_up boolean, last_run_at timestamptz) LANGUAGE sql AS $$
    SELECT t.schema_name, t.table_name, (SELECT coalesce(p.config ->> 'after', p.config ->> 'tier_after')::interval
             FROM lakets._policy_registry p WHERE p.chronotable_id = t.id LIMIT 1),
           count(*) FILTER (WHERE c.status = 'active'), count(*) FILTER (WHERE c.status = 'tiered'), 0::bigint,
           0::bigint, 0::bigint, CASE WHEN lakets._cdf_committed_lsn(t.shadow_table_name) IS NULL THEN 'NONE' ELSE 'STREAMING' END,
           NULL::numeric, NULL::boolean, NULL::timestamptz
      FROM lakets._chronotable_registry t LEFT JOIN lakets._chunk_metadata c ON c.chronotable_id = t.id
     WHERE t.id = lakets._table_id(p_table_name, p_schema_name) GROUP BY t.id
$$;

CREATE FUNCTION lakets.execute_retention(p_table_name text, p_schema_name text DEFAULT 'public',
    p_force boolean DEFAULT false) RETURNS int LANGUAGE plpgsql SET lock_timeout = '300ms' AS $$
DECLARE
    v_table lakets._chronotable_registry;
    v_policy lakets._policy_registry;
    v_chunk record;
    v_dropped int := 0;
BEGIN
    SELECT * INTO v_table FROM lakets._chronotable_registry WHERE id = lakets._table_id(p_table_name, p_schema_name);
    SELECT * INTO v_policy FROM lakets._policy_registry
     WHERE chronotable_id = v_table.id AND enabled AND policy_type IN ('retention', 'tiered_retention');
    FOR v_chunk IN SELECT * FROM lakets._chunk_metadata
                    WHERE chronotable_id = v_table.id AND status <> 'dropped'
                      AND range_end <= now() - (v_policy.config ->> 'drop_after')::interval
                    ORDER BY range_start
    LOOP
        CONTINUE WHEN NOT p_force AND v_chunk.status <> 'tiered'
                  AND (v_table.sync_enabled OR v_policy.policy_type = 'tiered_retention');
        EXECUTE format('DROP TABLE %I.%I', v_table.schema_name, split_part(v_chunk.chunk_name, '.', 2));
        UPDATE lakets._chunk_metadata SET status = 'dropped' WHERE id = v_chunk.id;
        v_dropped := v_dropped + 1;
    END LOOP;
    UPDATE lakets._policy_registry SET last_run_at = now() WHERE id = v_policy.id;
    RETURN v_dropped;
END $$;

CREATE FUNCTION lakets.create_rollup(p_name text, p_query text, p_bucket_interval interval DEFAULT '1 hour',
    p_source_table text DEFAULT NULL, p_source_schema text DEFAULT 'public', p_depends_on text[] DEFAULT '{}')
    RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_id int;
BEGIN
    IF EXISTS (SELECT FROM lakets._rollup_registry WHERE name = p_name) THEN
        RAISE EXCEPTION 'RollUp % already exists', p_name;
    END IF;
    EXECUTE format('CREATE TABLE public.%I AS %s', '_rollup_' || p_name, p_query);
    INSERT INTO lakets._rollup_registry (name, source_chronotable_id, rollup_table, bucket_interval, query_text, depends_on)
    VALUES (p_name, CASE WHEN p_source_table IS NOT NULL THEN lakets._table_id(p_source_table, p_source_schema) END,
            'public._rollup_' || p_name, p_bucket_interval, p_query, ARRAY(SELECT id FROM lakets._rollup_registry WHERE name = ANY (p_depends_on))) RETURNING id INTO v_id;
    RETURN v_id;
END $$;

CREATE FUNCTION lakets.refresh_rollup(p_name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_rollup lakets._rollup_registry;
BEGIN
    SELECT * INTO v_rollup FROM lakets._rollup_registry WHERE name = p_name;
    IF v_rollup.id IS NULL THEN RAISE EXCEPTION 'RollUp % not found', p_name; END IF;
    IF NOT pg_try_advisory_xact_lock(hashtext('lakets_rollup'), v_rollup.id) THEN RETURN false; END IF;
    IF v_rollup.last_refreshed_at + v_rollup.refresh_lag > now() THEN RETURN false; END IF;
    EXECUTE format('TRUNCATE public.%I', '_rollup_' || p_name);
    EXECUTE format('INSERT INTO public.%I %s', '_rollup_' || p_name, v_rollup.query_text);
    DELETE FROM lakets._rollup_invalidation_log WHERE rollup_id = v_rollup.id;
    UPDATE lakets._rollup_registry SET last_refreshed_at = now() WHERE id = v_rollup.id;
    RETURN true;
END $$;

CREATE FUNCTION lakets.invalidate_rollup_range(p_name text, p_from timestamptz, p_to timestamptz) RETURNS int
    LANGUAGE plpgsql AS $$
DECLARE
    v_rollup lakets._rollup_registry;
    v_marked int;
BEGIN
    SELECT * INTO v_rollup FROM lakets._rollup_registry WHERE name = p_name;
    IF v_rollup.id IS NULL THEN RAISE EXCEPTION 'RollUp % not found', p_name; END IF;
    INSERT INTO lakets._rollup_invalidation_log (rollup_id, bucket_start)
    SELECT v_rollup.id, b FROM generate_series(date_bin(v_rollup.bucket_interval, p_from, '2000-01-01+00'),
        p_to - interval '1 us', v_rollup.bucket_interval) b;
    GET DIAGNOSTICS v_marked = ROW_COUNT;
    RETURN v_marked;
END $$;

CREATE FUNCTION lakets.drop_rollup(p_name text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TABLE public.%I', '_rollup_' || p_name);
    DELETE FROM lakets._rollup_registry WHERE name = p_name;
END $$;

CREATE FUNCTION lakets.show_rollup_dag() RETURNS TABLE (rollup_name text, depends_on_names text[],
    refresh_order int, bucket_interval interval, last_refreshed timestamptz) LANGUAGE sql AS $$
    SELECT r.name, ARRAY(SELECT d.name FROM lakets._rollup_registry d WHERE d.id = ANY (r.depends_on) ORDER BY 1),
           row_number() OVER (ORDER BY r.id)::int, r.bucket_interval, r.last_refreshed_at
      FROM lakets._rollup_registry r ORDER BY r.id
$$;

CREATE FUNCTION lakets.lakets_metrics() RETURNS TABLE (metric_name text, metric_value numeric, labels jsonb)
    LANGUAGE sql AS $$
    SELECT 'lakets_chunks', count(*)::numeric, jsonb_build_object('status', status) FROM lakets._chunk_metadata GROUP BY status
$$;

CREATE FUNCTION lakets.chunk_health() RETURNS TABLE (chronotable text, total bigint, active bigint, tiered bigint,
    dropped bigint, oldest_active timestamptz, newest_active timestamptz) LANGUAGE sql AS $$
    SELECT t.schema_name || '.' || t.table_name, count(c.id), count(*) FILTER (WHERE c.status = 'active'),
           count(*) FILTER (WHERE c.status = 'tiered'), count(*) FILTER (WHERE c.status = 'dropped'),
           min(c.range_start) FILTER (WHERE c.status = 'active'), max(c.range_end) FILTER (WHERE c.status = 'active')
      FROM lakets._chronotable_registry t LEFT JOIN lakets._chunk_metadata c ON c.chronotable_id = t.id
     GROUP BY t.id ORDER BY 1
$$;
