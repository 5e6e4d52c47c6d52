-- Job 1: chunks exist before the rows that belong in them.

-- Rows go through the ChronoTable: a statement that names a chunk would bypass change tracking, and what
-- it wrote would be missing from the shadow and the RollUps.
CREATE OR REPLACE FUNCTION lakets._refuse_direct_write() RETURNS trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('lakets.moving_rows', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '%.% is a chunk of a ChronoTable and cannot be written directly.', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'object_not_in_prerequisite_state',
              HINT = 'Write to the ChronoTable itself, so that RollUps and the change feed see the change.';
END;
$$;

-- A free name for a partition: table, then suffix, cut to what Postgres can hold.
CREATE OR REPLACE FUNCTION lakets._free_relation_name(
    p_schema_name text,
    p_table_name  text,
    p_suffix      text
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name  text := p_table_name || p_suffix;
    v_tries integer := 0;
BEGIN
    -- Cut long names, and step aside for a relation that is not ours, with a digest of the whole name.
    WHILE octet_length(v_name) > 63 OR to_regclass(format('%I.%I', p_schema_name, v_name)) IS NOT NULL LOOP
        v_name := '_' || left(md5(p_table_name || v_tries), 8) || p_suffix;
        v_name := substr(p_table_name, 1, 63 - octet_length(v_name)) || v_name;
        WHILE octet_length(v_name) > 63 LOOP  -- letters of several bytes
            v_name := substr(v_name, 2);
        END LOOP;
        v_tries := v_tries + 1;
    END LOOP;
    RETURN v_name;
END;
$$;

-- Make a table that can become a partition. It is reached through its parent only, so it needs no grants.
CREATE OR REPLACE FUNCTION lakets._create_partition_table(
    p_relation    regclass,
    p_schema_name text,
    p_name        text
) RETURNS regclass
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_owner name := (SELECT pg_get_userbyid(cls.relowner) FROM pg_class AS cls WHERE cls.oid = p_relation);
BEGIN
    EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY EXCLUDING COMMENTS EXCLUDING STATISTICS)',
                   p_schema_name, p_name, p_relation);
    IF v_owner <> current_user THEN
        EXECUTE format('ALTER TABLE %I.%I OWNER TO %I', p_schema_name, p_name, v_owner);
    END IF;
    EXECUTE format('CREATE TRIGGER lakets_no_direct_write BEFORE INSERT OR UPDATE OR DELETE ON %I.%I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION lakets._refuse_direct_write()', p_schema_name, p_name);
    RETURN lakets._relation(p_schema_name, p_name);
END;
$$;

-- The partition that keeps rows outside every chunk (too early, too late, infinite, without a time), so
-- that none is refused; _ensure_partitions moves them into a chunk as soon as there is one.
CREATE OR REPLACE FUNCTION lakets._create_default_partition(
    p_table lakets._chronotable_registry
) RETURNS regclass
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation  regclass := lakets._relation(p_table.schema_name, p_table.table_name);
    v_partition regclass := lakets._create_partition_table(v_relation, p_table.schema_name,
        lakets._free_relation_name(p_table.schema_name, p_table.table_name, '_default'));
BEGIN
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s DEFAULT', v_relation, v_partition);
    RETURN v_partition;
END;
$$;

-- Make one chunk for [p_start, p_end), taking in the rows that waited for it in the default partition.
-- The caller holds the maintenance lock and knows that the range is free.
CREATE OR REPLACE FUNCTION lakets._create_chunk(
    p_table lakets._chronotable_registry,
    p_start timestamptz,
    p_end   timestamptz
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation  regclass := lakets._relation(p_table.schema_name, p_table.table_name);
    v_default   regclass := lakets._default_partition(v_relation);
    v_type      regtype  := lakets._column_type(v_relation, p_table.time_column);
    v_from      text     := lakets._time_literal(p_start, v_type);
    v_to        text     := lakets._time_literal(p_end, v_type);
    v_suffix    text     := to_char(p_start AT TIME ZONE 'UTC', '_YYYYMMDD_HH24MISS');
    v_columns   text;
    v_chunk     regclass;
    v_strays    boolean := false;
BEGIN
    v_chunk := lakets._create_partition_table(
        v_relation, p_table.schema_name, lakets._free_relation_name(p_table.schema_name, p_table.table_name, v_suffix));
    IF v_default IS NOT NULL THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %1$s WHERE %2$I >= %3$s AND %2$I < %4$s)',
                       v_default, p_table.time_column, v_from, v_to) INTO v_strays;
    END IF;
    IF v_strays THEN
        v_columns := lakets._writable_columns(v_relation);
        PERFORM set_config('lakets.moving_rows', 'on', true);
        EXECUTE format('WITH moved AS (DELETE FROM %1$s WHERE %2$I >= %3$s AND %2$I < %4$s RETURNING *) '
                       'INSERT INTO %5$s (%6$s) OVERRIDING SYSTEM VALUE SELECT %6$s FROM moved',
                       v_default, p_table.time_column, v_from, v_to, v_chunk, v_columns);
        PERFORM set_config('lakets.moving_rows', 'off', true);
    END IF;
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%s) TO (%s)', v_relation, v_chunk, v_from, v_to);

    INSERT INTO lakets._chunk_metadata (chronotable_id, chunk_name, relation_name, range_start, range_end)
    SELECT p_table.id, format('%s.%s%s', p_table.schema_name, p_table.table_name, v_suffix), cls.relname, p_start, p_end
      FROM pg_class AS cls WHERE cls.oid = v_chunk;
END;
$$;

-- The chunks that are missing in [p_from, p_to): the cells of the interval's grid, less what is covered
-- already, whatever interval those chunks were made with. A range once dropped counts as covered: its
-- rows are in Unity Catalog, and a new chunk there would claim to hold them all.
CREATE OR REPLACE FUNCTION lakets._missing_chunks(
    p_table lakets._chronotable_registry,
    p_from  timestamptz,
    p_to    timestamptz
) RETURNS TABLE (range_start timestamptz, range_end timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_cell timestamptz := lakets.time_bucket(p_table.chunk_interval, p_from);
    v_gaps tstzmultirange := tstzmultirange(tstzrange(v_cell, p_to)) - coalesce((
        SELECT range_agg(tstzrange(chunk.range_start, chunk.range_end))
          FROM lakets._chunk_metadata AS chunk
         WHERE chunk.chronotable_id = p_table.id AND chunk.range_end > v_cell AND chunk.range_start < p_to), '{}');
    v_next timestamptz;
BEGIN
    IF isempty(v_gaps) THEN
        RETURN;
    END IF;
    WHILE v_cell < p_to LOOP
        v_next := lakets._shift(v_cell, p_table.chunk_interval);
        RETURN QUERY
            SELECT lower(gap), upper(gap)
              FROM unnest(v_gaps * tstzmultirange(tstzrange(v_cell, v_next))) AS gap;
        v_cell := v_next;
    END LOOP;
END;
$$;

-- The grid cells of rows in the default partition that could have a chunk; at most p_limit of them.
CREATE OR REPLACE FUNCTION lakets._stray_cells(
    p_table   lakets._chronotable_registry,
    p_default regclass,
    p_limit   integer DEFAULT 100
) RETURNS SETOF timestamptz
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_time text := lakets._as_instant('stray.' || quote_ident(p_table.time_column),
                                      lakets._column_type(p_default, p_table.time_column));
BEGIN
    RETURN QUERY EXECUTE format(
        'SELECT DISTINCT lakets.time_bucket($1, %1$s) FROM %2$s AS stray
          WHERE isfinite(%1$s)
            AND NOT EXISTS (SELECT FROM lakets._chunk_metadata AS chunk
                             WHERE chunk.chronotable_id = $2 AND chunk.range_end > %1$s AND chunk.range_start <= %1$s)
          LIMIT $3', v_time, p_default) USING p_table.chunk_interval, p_table.id, p_limit;
END;
$$;

-- Job 1. Make the chunks of p_past_count intervals before now to p_future_count after, or of an explicit
-- range (a backfill), and those that rows wait for in the default partition. Returns how many were made;
-- 0 means none was due. Waits at most 2 s for a lock, then fails as contended (55P03).
CREATE OR REPLACE FUNCTION lakets._ensure_partitions(
    p_chronotable_id integer,
    p_past_count     integer     DEFAULT 1,
    p_future_count   integer     DEFAULT 3,
    p_range_start    timestamptz DEFAULT NULL,
    p_range_end      timestamptz DEFAULT NULL
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_table    lakets._chronotable_registry;
    v_relation regclass;
    v_default  regclass;
    v_from     timestamptz := p_range_start;
    v_to       timestamptz := p_range_end;
    v_cells    timestamptz[];
    v_created  integer := 0;
    v_chunk    record;
BEGIN
    SELECT reg.* INTO v_table FROM lakets._chronotable_registry AS reg WHERE reg.id = p_chronotable_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no ChronoTable with id %.', p_chronotable_id
            USING ERRCODE = 'undefined_object', HINT = 'lakets._chronotable_registry lists them.';
    END IF;
    v_from := coalesce(v_from, lakets._shift(lakets.time_bucket(v_table.chunk_interval, now()), v_table.chunk_interval, -p_past_count));
    v_to := coalesce(v_to, lakets._shift(lakets.time_bucket(v_table.chunk_interval, now()), v_table.chunk_interval, p_future_count + 1));
    PERFORM lakets._check_range(v_table, v_from, v_to);

    v_relation := lakets._relation(v_table.schema_name, v_table.table_name);
    v_default := lakets._default_partition(v_relation);
    IF v_default IS NOT NULL THEN
        v_cells := ARRAY(SELECT lakets._stray_cells(v_table, v_default));
    END IF;
    IF v_default IS NOT NULL AND v_cells = '{}'
       AND NOT EXISTS (SELECT FROM lakets._missing_chunks(v_table, v_from, v_to)) THEN
        PERFORM lakets._prune_change_log(v_table);
        RETURN 0;  -- the usual case takes no lock
    END IF;

    PERFORM lakets._require_read_committed();
    -- Lock order: (1) advisory (lakets, relation), (2) parent, (3) default partition, as ATTACH takes them.
    PERFORM lakets._lock_maintenance(v_relation);
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', v_relation);
    v_default := coalesce(lakets._default_partition(v_relation), lakets._create_default_partition(v_table));
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', v_default);
    FOR v_chunk IN
        SELECT missing.* FROM lakets._missing_chunks(v_table, v_from, v_to) AS missing
        UNION
        SELECT missing.*
          FROM lakets._stray_cells(v_table, v_default) AS cell,
               lakets._missing_chunks(v_table, cell, lakets._shift(cell, v_table.chunk_interval)) AS missing
         ORDER BY 1
    LOOP
        PERFORM lakets._create_chunk(v_table, v_chunk.range_start, v_chunk.range_end);
        v_created := v_created + 1;
    END LOOP;
    PERFORM lakets._prune_change_log(v_table);
    RETURN v_created;
END;
$$;

-- Refuse a range that is empty, endless, or would make more chunks than anybody can want.
CREATE OR REPLACE FUNCTION lakets._check_range(
    p_table lakets._chronotable_registry,
    p_from  timestamptz,
    p_to    timestamptz
) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT isfinite(p_from) OR NOT isfinite(p_to) OR p_from > p_to THEN
        RAISE EXCEPTION 'The range from % to % is not one in which chunks can be made.', p_from, p_to
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give a finite start and a later finite end.';
    ELSIF extract(epoch FROM p_to - p_from) / extract(epoch FROM p_table.chunk_interval) > 20000 THEN
        RAISE EXCEPTION 'The range from % to % would make more than 20000 chunks of % in %.%.',
            p_from, p_to, p_table.chunk_interval, p_table.schema_name, p_table.table_name
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Take a shorter range, or a longer chunk interval.';
    END IF;
END;
$$;

-- The chunks that stand, oldest first. row_count is the planner's estimate, null until the first ANALYZE.
CREATE OR REPLACE FUNCTION lakets.show_chunks(
    p_table_name  text,
    p_older_than  interval DEFAULT NULL,
    p_newer_than  interval DEFAULT NULL,
    p_schema_name text     DEFAULT 'public'
) RETURNS TABLE (chunk_name text, range_start timestamptz, range_end timestamptz, status text,
                 row_count bigint, size_bytes bigint, created_at timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT chunk.chunk_name, chunk.range_start, chunk.range_end, chunk.status,
           (SELECT nullif(cls.reltuples, -1)::bigint FROM pg_class AS cls WHERE cls.oid = rel),
           pg_total_relation_size(rel), chunk.created_at
      FROM lakets._chronotable(p_table_name, p_schema_name) AS reg
      JOIN lakets._chunk_metadata AS chunk ON chunk.chronotable_id = reg.id AND chunk.status <> 'dropped'
     CROSS JOIN LATERAL lakets._chunk_relation(reg, chunk) AS rel
     WHERE (p_older_than IS NULL OR chunk.range_end <= now() - p_older_than)
       AND (p_newer_than IS NULL OR chunk.range_start >= now() - p_newer_than)
     ORDER BY chunk.range_start;
$$;
