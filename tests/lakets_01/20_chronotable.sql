CREATE FUNCTION lakets.create_chronotable(p_table_name text, p_time_column text,
    p_chunk_interval interval DEFAULT '7 days', p_schema_name text DEFAULT 'public',
    p_if_not_exists boolean DEFAULT false) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_id int;
    v_first timestamptz;
    v_last timestamptz;
BEGIN
    SELECT id INTO v_id FROM lakets._chronotable_registry
     WHERE schema_name = p_schema_name AND table_name = p_table_name;
    IF v_id IS NOT NULL THEN
        IF p_if_not_exists THEN RETURN v_id; END IF;
        RAISE EXCEPTION 'Table %.% is already a ChronoTable (id=%)', p_schema_name, p_table_name, v_id;
    END IF;
    IF to_regclass(format('%I.%I', p_schema_name, p_table_name)) IS NULL THEN
        RAISE EXCEPTION 'Table %.% does not exist', p_schema_name, p_table_name;
    END IF;
    EXECUTE format('SELECT min(%I), max(%1$I) FROM %I.%I', p_time_column, p_schema_name, p_table_name)
       INTO v_first, v_last;
    EXECUTE format('ALTER TABLE %I.%I RENAME TO %I', p_schema_name, p_table_name, p_table_name || '_lakets_orig');
    EXECUTE format('CREATE TABLE %1$I.%2$I (LIKE %1$I.%3$I INCLUDING DEFAULTS) PARTITION BY RANGE (%4$I)',
                   p_schema_name, p_table_name, p_table_name || '_lakets_orig', p_time_column);
    INSERT INTO lakets._chronotable_registry (schema_name, table_name, time_column, chunk_interval)
    VALUES (p_schema_name, p_table_name, p_time_column, p_chunk_interval) RETURNING id INTO v_id;
    IF v_first IS NOT NULL THEN
        PERFORM lakets._ensure_partitions(v_id, p_range_start => v_first, p_range_end => v_last + interval '1 day');
    END IF;
    PERFORM lakets._ensure_partitions(v_id);
    EXECUTE format('INSERT INTO %1$I.%2$I SELECT * FROM %1$I.%3$I',
                   p_schema_name, p_table_name, p_table_name || '_lakets_orig');
    EXECUTE format('CREATE INDEX %I ON %I.%I (%I DESC)', 'idx_' || p_table_name || '_' || p_time_column,
                   p_schema_name, p_table_name, p_time_column);
    EXECUTE format('DROP TABLE %I.%I', p_schema_name, p_table_name || '_lakets_orig');
    RETURN v_id;
END $$;

-- Chunks begin where the session's time zone says; their names are in UTC.
CREATE FUNCTION lakets._ensure_partitions(p_chronotable_id int, p_past_count int DEFAULT 1,
    p_future_count int DEFAULT 3, p_range_start timestamptz DEFAULT NULL, p_range_end timestamptz DEFAULT NULL)
    RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_table lakets._chronotable_registry;
    v_origin timestamptz := '2000-01-01';
    v_start timestamptz;
    v_last timestamptz;
    v_name text;
    v_created int := 0;
BEGIN
    SELECT * INTO v_table FROM lakets._chronotable_registry WHERE id = p_chronotable_id;
    IF v_table.id IS NULL THEN
        RAISE EXCEPTION 'ChronoTable with id % not found', p_chronotable_id;
    END IF;
    v_start := date_bin(v_table.chunk_interval, coalesce(p_range_start, now()), v_origin)
             - CASE WHEN p_range_start IS NULL THEN p_past_count ELSE 0 END * v_table.chunk_interval;
    v_last := date_bin(v_table.chunk_interval, coalesce(p_range_end, now()), v_origin)
            + CASE WHEN p_range_end IS NULL THEN p_future_count ELSE 0 END * v_table.chunk_interval;
    WHILE v_start <= v_last LOOP
        v_name := v_table.table_name || to_char(v_start AT TIME ZONE 'UTC', '_YYYYMMDD_HH24MISS');
        IF NOT EXISTS (SELECT FROM lakets._chunk_metadata WHERE chronotable_id = v_table.id
                          AND range_start = v_start AND status <> 'dropped') THEN
            EXECUTE format('CREATE TABLE IF NOT EXISTS %1$I.%2$I PARTITION OF %1$I.%3$I FOR VALUES FROM (%4$L) TO (%5$L)',
                v_table.schema_name, v_name, v_table.table_name, v_start, v_start + v_table.chunk_interval);
            INSERT INTO lakets._chunk_metadata (chronotable_id, chunk_name, range_start, range_end)
            VALUES (v_table.id, v_table.schema_name || '.' || v_name, v_start, v_start + v_table.chunk_interval)
                ON CONFLICT (chronotable_id, range_start) DO NOTHING;
            v_created := v_created + 1;
        END IF;
        v_start := v_start + v_table.chunk_interval;
    END LOOP;
    RETURN v_created;
END $$;

CREATE FUNCTION lakets.set_chunk_interval(p_table_name text, p_chunk_interval interval,
    p_schema_name text DEFAULT 'public') RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE lakets._chronotable_registry SET chunk_interval = p_chunk_interval
     WHERE id = lakets._table_id(p_table_name, p_schema_name);
END $$;

CREATE FUNCTION lakets.show_chunks(p_table_name text, p_older_than interval DEFAULT NULL,
    p_newer_than interval DEFAULT NULL, p_schema_name text DEFAULT 'public')
    RETURNS TABLE (chunk_name text, range_start timestamptz, range_end timestamptz, status text,
                   row_count bigint, size_bytes bigint, created_at timestamptz) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
    SELECT c.chunk_name, c.range_start, c.range_end, c.status, c.row_count, c.size_bytes, c.created_at
      FROM lakets._chunk_metadata c
     WHERE c.chronotable_id = lakets._table_id(p_table_name, p_schema_name) AND c.status <> 'dropped'
       AND (p_older_than IS NULL OR c.range_end < now() - p_older_than)
       AND (p_newer_than IS NULL OR c.range_start > now() - p_newer_than)
     ORDER BY c.range_start;
END $$;

CREATE FUNCTION lakets._drop_chunk(p_chunk lakets._chunk_metadata) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TABLE IF EXISTS %I.%I', split_part(p_chunk.chunk_name, '.', 1), split_part(p_chunk.chunk_name, '.', 2));
    UPDATE lakets._chunk_metadata SET status = 'dropped' WHERE id = p_chunk.id;
END $$;

CREATE FUNCTION lakets.drop_chunks(p_table_name text, p_older_than interval, p_schema_name text DEFAULT 'public')
    RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_chunk lakets._chunk_metadata;
    v_dropped int := 0;
BEGIN
    FOR v_chunk IN SELECT * FROM lakets._chunk_metadata
                    WHERE chronotable_id = lakets._table_id(p_table_name, p_schema_name)
                      AND status = 'active' AND range_end <= now() - p_older_than LOOP
        PERFORM lakets._drop_chunk(v_chunk);
        v_dropped := v_dropped + 1;
    END LOOP;
    RETURN v_dropped;
END $$;

-- Leaves the shadow where it is.
CREATE FUNCTION lakets.drop_chronotable(p_table_name text, p_schema_name text DEFAULT 'public') RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    v_id int := lakets._table_id(p_table_name, p_schema_name);
    v_name text;
BEGIN
    FOR v_name IN SELECT name FROM lakets._rollup_registry WHERE source_chronotable_id = v_id LOOP
        PERFORM lakets.drop_rollup(v_name);
    END LOOP;
    IF EXISTS (SELECT FROM lakets._lvc_registry WHERE chronotable_id = v_id) THEN
        PERFORM lakets.disable_lvc(p_table_name, p_schema_name);
    END IF;
    DELETE FROM lakets._chronotable_registry WHERE id = v_id;
    EXECUTE format('DROP TABLE IF EXISTS %I.%I CASCADE', p_schema_name, p_table_name);
END $$;

CREATE FUNCTION lakets.create_metric_table(p_table_name text, p_tag_columns text[], p_field_columns text[],
    p_chunk_interval interval DEFAULT '1 day', p_schema_name text DEFAULT 'public') RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    v_id int;
    v_tags text := (SELECT string_agg(quote_ident(tag), ', ' ORDER BY n) FROM unnest(p_tag_columns) WITH ORDINALITY u (tag, n));
BEGIN
    EXECUTE format('CREATE TABLE %I.%I (time timestamptz NOT NULL%s%s)', p_schema_name, p_table_name,
        (SELECT string_agg(format(', %I text NOT NULL', tag), '' ORDER BY n) FROM unnest(p_tag_columns) WITH ORDINALITY u (tag, n)),
        (SELECT string_agg(format(', %I float8', field), '' ORDER BY n) FROM unnest(p_field_columns) WITH ORDINALITY u (field, n)));
    v_id := lakets.create_chronotable(p_table_name, 'time', p_chunk_interval, p_schema_name);
    EXECUTE format('CREATE INDEX %I ON %I.%I (%s, time DESC)', 'idx_' || p_table_name || '_series', p_schema_name, p_table_name, v_tags);
    EXECUTE format('CREATE INDEX %I ON %I.%I USING brin (time)', 'idx_' || p_table_name || '_brin', p_schema_name, p_table_name);
    RETURN v_id;
END $$;
