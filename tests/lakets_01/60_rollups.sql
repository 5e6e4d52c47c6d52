CREATE FUNCTION lakets.create_rollup(p_name text, p_query text, p_bucket_interval interval DEFAULT '1 hour',
    p_source_table text DEFAULT NULL, p_source_schema text DEFAULT 'public', p_depends_on text[] DEFAULT '{}')
    RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_source lakets._chronotable_registry;
    v_table text := '_rollup_' || p_name;
    v_name text;
    v_ids int[] := '{}';
    v_bucket text;
    v_watermark timestamptz;
    v_id int;
BEGIN
    IF EXISTS (SELECT FROM lakets._rollup_registry WHERE name = p_name) THEN
        RAISE EXCEPTION 'RollUp % already exists', p_name;
    END IF;
    IF p_source_table IS NOT NULL THEN
        SELECT * INTO v_source FROM lakets._chronotable_registry WHERE id = lakets._table_id(p_source_table, p_source_schema);
    END IF;
    FOREACH v_name IN ARRAY coalesce(p_depends_on, '{}') LOOP
        IF NOT EXISTS (SELECT FROM lakets._rollup_registry WHERE name = v_name) THEN
            RAISE EXCEPTION 'Dependency RollUp % not found', v_name;
        END IF;
        v_ids := v_ids || (SELECT id FROM lakets._rollup_registry WHERE name = v_name);
    END LOOP;
    EXECUTE format('CREATE TABLE public.%I AS %s', v_table, p_query);
    v_bucket := coalesce((SELECT attname FROM pg_attribute
                           WHERE attrelid = format('public.%I', v_table)::regclass AND attnum > 0
                             AND atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype) ORDER BY attnum LIMIT 1), 'bucket');
    EXECUTE format('CREATE UNIQUE INDEX %I ON public.%I (%s)', 'idx_' || v_table || '_unique', v_table,
                   (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
                     WHERE attrelid = format('public.%I', v_table)::regclass AND attnum > 0));
    EXECUTE format('SELECT max(%I) FROM public.%I', v_bucket, v_table) INTO v_watermark;
    -- A RollUp without a source fails here.
    INSERT INTO lakets._rollup_registry (name, source_chronotable_id, rollup_table, realtime_view, bucket_interval,
        query_text, watermark, last_refreshed_at, bucket_column, source_time_column, depends_on)
    VALUES (p_name, v_source.id, v_table, '_rollup_rt_' || p_name, p_bucket_interval,
        p_query, v_watermark, now(), v_bucket, v_source.time_column, v_ids) RETURNING id INTO v_id;
    RETURN v_id;
END $$;

CREATE FUNCTION lakets._validate_rollup_dependencies() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_id int;
BEGIN
    FOREACH v_id IN ARRAY coalesce(NEW.depends_on, '{}') LOOP
        IF v_id = NEW.id THEN RAISE EXCEPTION 'RollUp cannot depend on itself (ID %)', v_id; END IF;
        IF NOT EXISTS (SELECT FROM lakets._rollup_registry WHERE id = v_id) THEN
            RAISE EXCEPTION 'RollUp dependency ID % does not exist', v_id;
        END IF;
    END LOOP;
    RETURN NEW;
END $$;
CREATE TRIGGER trg_validate_rollup_deps BEFORE INSERT OR UPDATE ON lakets._rollup_registry
    FOR EACH ROW EXECUTE FUNCTION lakets._validate_rollup_dependencies();

-- The buckets from one before the watermark on, and those marked below it.
CREATE FUNCTION lakets.refresh_rollup(p_name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    v_rollup lakets._rollup_registry;
    v_from timestamptz;
    v_marked timestamptz[];
BEGIN
    SELECT * INTO v_rollup FROM lakets._rollup_registry WHERE name = p_name;
    IF v_rollup.id IS NULL THEN RAISE EXCEPTION 'RollUp % not found', p_name; END IF;
    IF NOT pg_try_advisory_xact_lock('lakets._rollup_registry'::regclass::oid::int, v_rollup.id) THEN RETURN false; END IF;
    IF v_rollup.last_refreshed_at + v_rollup.refresh_lag > now() THEN RETURN false; END IF;
    v_from := coalesce(v_rollup.watermark, '-infinity') - v_rollup.bucket_interval;
    SELECT coalesce(array_agg(bucket_start), '{}') INTO v_marked
      FROM lakets._rollup_invalidation_log WHERE rollup_id = v_rollup.id AND bucket_start < v_from;
    EXECUTE format('DELETE FROM public.%I WHERE %2$I >= $1 OR %2$I = ANY ($2)', v_rollup.rollup_table, v_rollup.bucket_column)
      USING v_from, v_marked;
    EXECUTE format('INSERT INTO public.%I SELECT * FROM (%s) q WHERE q.%3$I >= $1 OR q.%3$I = ANY ($2)',
                   v_rollup.rollup_table, v_rollup.query_text, v_rollup.bucket_column) USING v_from, v_marked;
    DELETE FROM lakets._rollup_invalidation_log WHERE rollup_id = v_rollup.id AND bucket_start < v_from;
    EXECUTE format('UPDATE lakets._rollup_registry SET last_refreshed_at = now(),
                    watermark = coalesce((SELECT max(%I) FROM public.%I), watermark) WHERE id = $1',
                   v_rollup.bucket_column, v_rollup.rollup_table) USING v_rollup.id;
    RETURN true;
END $$;

-- Dependencies first; an error for a circle.
CREATE FUNCTION lakets._build_rollup_dag(p_root_ids int[] DEFAULT NULL) RETURNS int[] LANGUAGE plpgsql AS $$
DECLARE
    v_wanted int[];
    v_done int[] := '{}';
    v_next int[];
BEGIN
    WITH RECURSIVE wanted AS (
        SELECT id, depends_on FROM lakets._rollup_registry WHERE p_root_ids IS NULL OR id = ANY (p_root_ids)
        UNION SELECT r.id, r.depends_on FROM lakets._rollup_registry r JOIN wanted w ON r.id = ANY (w.depends_on))
    SELECT coalesce(array_agg(DISTINCT id), '{}') INTO v_wanted FROM wanted;
    WHILE cardinality(v_done) < cardinality(v_wanted) LOOP
        SELECT array_agg(id ORDER BY id) INTO v_next FROM lakets._rollup_registry
         WHERE id = ANY (v_wanted) AND NOT id = ANY (v_done) AND coalesce(depends_on, '{}') <@ v_done;
        IF v_next IS NULL THEN RAISE EXCEPTION 'Circular dependency detected in RollUp DAG'; END IF;
        v_done := v_done || v_next;
    END LOOP;
    RETURN v_done;
END $$;

CREATE FUNCTION lakets.refresh_rollup_cascade(p_name text DEFAULT NULL)
    RETURNS TABLE (rollup_name text, refreshed boolean, refresh_ms float8) LANGUAGE plpgsql AS $$
DECLARE
    v_root int;
    v_id int;
    v_began timestamptz;
BEGIN
    SELECT id INTO v_root FROM lakets._rollup_registry WHERE name = p_name;
    IF p_name IS NOT NULL AND v_root IS NULL THEN RAISE EXCEPTION 'RollUp % not found', p_name; END IF;
    FOREACH v_id IN ARRAY lakets._build_rollup_dag(CASE WHEN p_name IS NOT NULL THEN ARRAY[v_root] END) LOOP
        v_began := clock_timestamp();
        SELECT name INTO rollup_name FROM lakets._rollup_registry WHERE id = v_id;
        refreshed := lakets.refresh_rollup(rollup_name);
        refresh_ms := extract(epoch FROM clock_timestamp() - v_began) * 1000;
        RETURN NEXT;
    END LOOP;
END $$;

CREATE FUNCTION lakets._rollup_watermark(p_name text) RETURNS timestamptz LANGUAGE sql STABLE AS
    'SELECT watermark FROM lakets._rollup_registry WHERE name = p_name';

CREATE FUNCTION lakets.create_rollup_view(p_name text, p_raw_query text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_rollup lakets._rollup_registry;
BEGIN
    SELECT * INTO v_rollup FROM lakets._rollup_registry WHERE name = p_name;
    IF v_rollup.id IS NULL THEN RAISE EXCEPTION 'RollUp % not found', p_name; END IF;
    EXECUTE format('DROP VIEW IF EXISTS public.%I', v_rollup.realtime_view);
    EXECUTE format('CREATE VIEW public.%I AS SELECT * FROM public.%I UNION ALL %s',
                   v_rollup.realtime_view, v_rollup.rollup_table, p_raw_query);
END $$;

CREATE FUNCTION lakets.drop_rollup(p_name text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_rollup lakets._rollup_registry;
BEGIN
    SELECT * INTO v_rollup FROM lakets._rollup_registry WHERE name = p_name;
    IF v_rollup.id IS NULL THEN RAISE EXCEPTION 'RollUp % not found', p_name; END IF;
    IF v_rollup.sync_enabled THEN PERFORM lakets.disable_sync(p_name); END IF;
    EXECUTE format('DROP VIEW IF EXISTS public.%I', v_rollup.realtime_view);
    EXECUTE format('DROP TABLE IF EXISTS public.%I', v_rollup.rollup_table);
    DELETE FROM lakets._rollup_registry WHERE id = v_rollup.id;
END $$;

CREATE FUNCTION lakets.show_rollups() RETURNS TABLE (name text, rollup_table text, realtime_view text,
    bucket_interval interval, refresh_lag interval, watermark timestamptz, last_refreshed_at timestamptz,
    source_table text, bucket_column text, depends_on int[]) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    SELECT r.name, r.rollup_table, r.realtime_view, r.bucket_interval, r.refresh_lag, r.watermark, r.last_refreshed_at,
           t.schema_name || '.' || t.table_name, coalesce(r.bucket_column, 'bucket'), r.depends_on
      FROM lakets._rollup_registry r JOIN lakets._chronotable_registry t ON t.id = r.source_chronotable_id ORDER BY r.name;
END $$;

CREATE FUNCTION lakets.show_rollup_dag() RETURNS TABLE (rollup_name text, depends_on_names text[],
    refresh_order int, bucket_interval interval, last_refreshed timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    SELECT r.name, (SELECT array_agg(d.name) FROM lakets._rollup_registry d WHERE d.id = ANY (r.depends_on)),
           o.position::int, r.bucket_interval, r.last_refreshed_at
      FROM unnest(lakets._build_rollup_dag()) WITH ORDINALITY o (id, position)
      JOIN lakets._rollup_registry r ON r.id = o.id ORDER BY o.position;
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
    SELECT v_rollup.id, b FROM generate_series(date_bin(v_rollup.bucket_interval, p_from, '2000-01-01'),
        date_bin(v_rollup.bucket_interval, p_to, '2000-01-01'), v_rollup.bucket_interval) b
        ON CONFLICT (rollup_id, bucket_start) DO UPDATE SET invalidated_at = now();
    GET DIAGNOSTICS v_marked = ROW_COUNT;
    RETURN v_marked;
END $$;

-- A row at a time for changes, a range at a time for what is added.
CREATE FUNCTION lakets._rollup_invalidation_trigger_fn() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_table lakets._chronotable_registry := lakets._table_of_trigger(TG_RELID);
    v_at timestamptz;
BEGIN
    IF TG_OP = 'DELETE' THEN
        EXECUTE format('SELECT ($1).%I', v_table.time_column) INTO v_at USING OLD;
    ELSE
        EXECUTE format('SELECT ($1).%I', v_table.time_column) INTO v_at USING NEW;
    END IF;
    PERFORM lakets.invalidate_rollup_range(name, v_at, v_at)
       FROM lakets._rollup_registry WHERE source_chronotable_id = v_table.id;
    RETURN NULL;
END $$;
CREATE FUNCTION lakets._bulk_import_invalidation() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_table lakets._chronotable_registry := lakets._table_of_trigger(TG_RELID);
    v_first timestamptz;
    v_last timestamptz;
BEGIN
    EXECUTE format('SELECT min(%I), max(%1$I) FROM _new_rows', v_table.time_column) INTO v_first, v_last;
    PERFORM lakets.invalidate_rollup_range(name, v_first, least(v_last, coalesce(watermark, v_last)) + bucket_interval)
       FROM lakets._rollup_registry
      WHERE source_chronotable_id = v_table.id AND v_first < coalesce(watermark, 'infinity');
    RETURN NULL;
END $$;

-- Its chunk is never found, since names of chunks have a schema.
CREATE FUNCTION lakets._touch_chunk_metadata() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE lakets._chunk_metadata SET last_modified_at = now() WHERE chunk_name = TG_TABLE_NAME;
    RETURN NULL;
END $$;

CREATE FUNCTION lakets._source_of(p_rollup_name text) RETURNS regclass LANGUAGE plpgsql AS $$
DECLARE
    v_source regclass := (
        SELECT to_regclass(format('%I.%I', t.schema_name, t.table_name))
          FROM lakets._rollup_registry r JOIN lakets._chronotable_registry t ON t.id = r.source_chronotable_id
         WHERE r.name = p_rollup_name);
BEGIN
    IF v_source IS NULL THEN RAISE EXCEPTION 'RollUp % not found', p_rollup_name; END IF;
    RETURN v_source;
END $$;

CREATE FUNCTION lakets.enable_rollup_invalidation(p_rollup_name text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_source regclass := lakets._source_of(p_rollup_name);
    v_chunk regclass;
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER trg_lakets_rollup_invalidation AFTER UPDATE OR DELETE ON %s
                    FOR EACH ROW EXECUTE FUNCTION lakets._rollup_invalidation_trigger_fn()', v_source);
    EXECUTE format('CREATE OR REPLACE TRIGGER trg_lakets_rollup_bulk_invalidation AFTER INSERT ON %s
                    REFERENCING NEW TABLE AS _new_rows FOR EACH STATEMENT EXECUTE FUNCTION lakets._bulk_import_invalidation()', v_source);
    FOR v_chunk IN SELECT inhrelid FROM pg_inherits WHERE inhparent = v_source LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER trg_lakets_touch_chunk AFTER INSERT ON %s
                        FOR EACH STATEMENT EXECUTE FUNCTION lakets._touch_chunk_metadata()', v_chunk);
    END LOOP;
END $$;

CREATE FUNCTION lakets.disable_rollup_invalidation(p_rollup_name text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_source regclass := lakets._source_of(p_rollup_name);
BEGIN
    DELETE FROM lakets._rollup_invalidation_log
     WHERE rollup_id = (SELECT id FROM lakets._rollup_registry WHERE name = p_rollup_name);
    IF NOT EXISTS (SELECT FROM lakets._rollup_registry r WHERE r.name <> p_rollup_name AND lakets._source_of(r.name) = v_source) THEN
        EXECUTE format('DROP TRIGGER IF EXISTS trg_lakets_rollup_invalidation ON %s', v_source);
        EXECUTE format('DROP TRIGGER IF EXISTS trg_lakets_rollup_bulk_invalidation ON %s', v_source);
    END IF;
END $$;
