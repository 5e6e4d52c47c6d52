-- Job 1: chunks exist before the rows that belong in them.

-- Rows go through the ChronoTable: a statement that names a chunk would bypass change tracking, and what
-- it wrote would be missing from the shadow and the RollUps.
CREATE OR REPLACE FUNCTION lakets._refuse_direct_write() RETURNS trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'TRUNCATE'
       AND pg_partition_root(TG_RELID)::oid::text = ANY (string_to_array(current_setting('lakets.truncating', true), ' ')) THEN
        RETURN NULL;  -- as part of its table
    END IF;
    RAISE EXCEPTION '%.% is a chunk of a ChronoTable and cannot be written directly.', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING HINT = 'Write to the ChronoTable itself, so that RollUps and the change feed see the change.';
END;
$$;

-- Put that guard on one partition.
CREATE OR REPLACE FUNCTION lakets._guard_partition(
    p_partition regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER lakets_no_direct_write BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION lakets._refuse_direct_write()', p_partition);
    EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER lakets_no_direct_write', p_partition);
END;
$$;

-- See that no partition of a table can be written directly.
CREATE OR REPLACE FUNCTION lakets._guard_partitions(
    p_relation regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_partition regclass;
BEGIN
    FOR v_partition IN
        SELECT inh.inhrelid FROM pg_inherits AS inh
         WHERE inh.inhparent = p_relation
           AND NOT EXISTS (SELECT FROM pg_trigger AS trg WHERE trg.tgrelid = inh.inhrelid AND trg.tgname = 'lakets_no_direct_write')
         ORDER BY inh.inhrelid
    LOOP
        PERFORM lakets._guard_partition(v_partition);
    END LOOP;
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
    -- Cut long names, and step aside for a relation or type that is not ours, with a digest of the whole name.
    WHILE octet_length(v_name) > 63 OR to_regclass(format('%I.%I', p_schema_name, v_name)) IS NOT NULL
          OR to_regtype(format('%I.%I', p_schema_name, v_name)) IS NOT NULL LOOP
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

-- A table's storage parameters, as in WITH (...); empty if it has none.
CREATE OR REPLACE FUNCTION lakets._storage_options(
    p_relation regclass
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce('WITH (' || string_agg(format('%I = %L', opt.option_name, opt.option_value), ', ') || ')', '')
      FROM pg_class AS cls, pg_options_to_table(cls.reloptions) AS opt WHERE cls.oid = p_relation;
$$;

-- Make a table that can become a partition, or is one at once when p_bounds says FOR VALUES ...; that locks the
-- parent. It is reached through its parent only, so it needs no grants.
CREATE OR REPLACE FUNCTION lakets._create_partition_table(
    p_relation    regclass,
    p_schema_name text,
    p_name        text,
    p_options     text,
    p_bounds      text DEFAULT NULL
) RETURNS regclass
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_new   regclass;
    v_owner oid;  -- if it must become another's
    v_acl   aclitem[];
BEGIN
    EXECUTE format(CASE WHEN p_bounds IS NOT NULL THEN 'CREATE TABLE %1$I.%2$I PARTITION OF %3$s %5$s %4$s'
        ELSE 'CREATE TABLE %1$I.%2$I (LIKE %3$s INCLUDING ALL EXCLUDING INDEXES EXCLUDING IDENTITY EXCLUDING COMMENTS EXCLUDING STATISTICS) %4$s'
        END, p_schema_name, p_name, p_relation, p_options, p_bounds);
    SELECT cls.oid, nullif(parent.relowner, cls.relowner), cls.relacl INTO v_new, v_owner, v_acl
      FROM pg_class AS cls, pg_class AS parent
     WHERE cls.oid = to_regclass(format('%I.%I', p_schema_name, p_name)) AND parent.oid = p_relation;
    IF v_owner IS NOT NULL THEN
        EXECUTE format('ALTER TABLE %s OWNER TO %I', v_new, pg_get_userbyid(v_owner));
    END IF;
    IF v_acl IS NOT NULL THEN
        PERFORM lakets._revoke_all(v_new);
    END IF;
    PERFORM lakets._guard_partition(v_new);
    RETURN v_new;
END;
$$;

-- Give a partition the replica identity of its table, which Postgres does not pass on. Rows leave the default partition for
-- chunks: so where there is neither an identity nor a key, that one is identified by the whole row, or a publication would
-- refuse it.
CREATE OR REPLACE FUNCTION lakets._match_identity(
    p_relation  regclass,
    p_partition regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_is       "char" := (SELECT cls.relreplident FROM pg_class AS cls WHERE cls.oid = p_partition);
    v_identity text;
BEGIN
    SELECT CASE
           WHEN cls.relreplident IN ('d', 'n') AND p_partition = lakets._default_partition(p_relation)
                AND (cls.relreplident = 'n' OR lakets._key_index(p_relation) IS NULL) THEN CASE WHEN v_is <> 'f' THEN 'FULL' END
           WHEN cls.relreplident = 'f' AND v_is <> 'f' THEN 'FULL'
           WHEN cls.relreplident = 'n' AND v_is <> 'n' THEN 'NOTHING'
           WHEN cls.relreplident = 'i' THEN (
               SELECT 'USING INDEX ' || quote_ident(part.relname)
                 FROM pg_index AS idx
                 JOIN pg_inherits AS inh ON inh.inhparent = idx.indexrelid
                 JOIN pg_index AS own ON own.indexrelid = inh.inhrelid AND own.indrelid = p_partition AND NOT own.indisreplident
                 JOIN pg_class AS part ON part.oid = own.indexrelid
                WHERE idx.indrelid = p_relation AND idx.indisreplident) END
      INTO v_identity FROM pg_class AS cls WHERE cls.oid = p_relation;
    IF v_identity IS NOT NULL THEN
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY %s', p_partition, v_identity);
    END IF;
END;
$$;

-- The partition that keeps rows outside every chunk (too early, too late, infinite, without a time), so
-- that none is refused; _ensure_partitions moves them into a chunk as soon as there is one. Its storage parameters
-- are what new chunks get.
CREATE OR REPLACE FUNCTION lakets._create_default_partition(
    p_table   lakets._chronotable_registry,
    p_options text DEFAULT ''
) RETURNS regclass
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation  regclass := lakets._relation(p_table);
    v_partition regclass := lakets._create_partition_table(v_relation, p_table.schema_name,
        lakets._free_relation_name(p_table.schema_name, p_table.table_name, '_default'), p_options);
BEGIN
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s DEFAULT', v_relation, v_partition);
    PERFORM lakets._match_identity(v_relation, v_partition);
    RETURN v_partition;
END;
$$;

-- The bounds of a partition as SQL text, in the type of its time column.
CREATE OR REPLACE FUNCTION lakets._partition_bounds(
    p_range tstzrange,
    p_type  regtype
) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('FOR VALUES FROM (%s) TO (%s)', lakets._time_literal(lower(p_range), p_type), lakets._time_literal(upper(p_range), p_type));
END;
$$;

-- The end of a partition's name, and of a chunk's: its start in UTC.
CREATE OR REPLACE FUNCTION lakets._chunk_suffix(
    p_start timestamptz
) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT to_char(p_start AT TIME ZONE 'UTC', '_YYYYMMDD_HH24MISS');
$$;

-- Make the tables of chunks. In place, they are partitions at once, which is half the work of attaching them but locks
-- the parent against everybody; beside it, nobody can notice.
CREATE OR REPLACE FUNCTION lakets._create_chunk_tables(
    p_table    lakets._chronotable_registry,
    p_ranges   tstzrange[],
    p_in_place boolean
) RETURNS regclass[]
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._relation(p_table);
    v_type     regtype  := lakets._column_type(v_relation, p_table.time_column);
    v_options  text     := lakets._storage_options(lakets._default_partition(v_relation));
    v_range    tstzrange;
    v_chunks   regclass[] := '{}';
BEGIN
    FOREACH v_range IN ARRAY p_ranges LOOP
        v_chunks := v_chunks || lakets._create_partition_table(v_relation, p_table.schema_name,
            lakets._free_relation_name(p_table.schema_name, p_table.table_name, lakets._chunk_suffix(lower(v_range))),
            v_options, CASE WHEN p_in_place THEN lakets._partition_bounds(v_range, v_type) END);
        IF p_in_place THEN
            PERFORM lakets._match_identity(v_relation, v_chunks[cardinality(v_chunks)]);
        END IF;
    END LOOP;
    RETURN v_chunks;
END;
$$;

-- Lock a table against everybody, with its default partition, if nobody is using it now and no row waits for a chunk.
-- Not where it refers to other tables: their locks could be waited for meanwhile.
CREATE OR REPLACE FUNCTION lakets._lock_unused(
    p_relation regclass,
    p_default  regclass
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_has_row boolean;
BEGIN
    IF EXISTS (SELECT FROM pg_constraint AS con WHERE con.conrelid = p_relation AND con.contype = 'f') THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE ONLY %s, %s IN ACCESS EXCLUSIVE MODE NOWAIT', p_relation, p_default);
    EXECUTE format('SELECT EXISTS (SELECT FROM %s)', p_default) INTO v_has_row;
    IF v_has_row THEN
        RAISE lock_not_available;  -- which lets go of the locks again
    END IF;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END;
$$;

-- Attach the tables of chunks, with the rows that waited for them in the default partition. The caller has locked that.
CREATE OR REPLACE FUNCTION lakets._attach_chunks(
    p_table  lakets._chronotable_registry,
    p_chunks regclass[],
    p_ranges tstzrange[]
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._relation(p_table);
    v_type     regtype  := lakets._column_type(v_relation, p_table.time_column);
    v_default  regclass := lakets._default_partition(v_relation);
    v_new      record;
BEGIN
    FOR v_new IN SELECT new.* FROM unnest(p_chunks, p_ranges) AS new (chunk, range) LOOP
        PERFORM lakets._move_strays(v_default, v_new.chunk, format('%1$I >= %2$s AND %1$I < %3$s', p_table.time_column,
            lakets._time_literal(lower(v_new.range), v_type), lakets._time_literal(upper(v_new.range), v_type)));
        EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s %s', v_relation, v_new.chunk, lakets._partition_bounds(v_new.range, v_type));
        PERFORM lakets._match_identity(v_relation, v_new.chunk);
    END LOOP;
END;
$$;

-- Note chunks in the registry. Tables whose names hold dots can spell the same name of a chunk, and chunks of less than
-- a second can have the same: an id, and a number, tell them apart.
CREATE OR REPLACE FUNCTION lakets._register_chunks(
    p_table  lakets._chronotable_registry,
    p_chunks regclass[],
    p_ranges tstzrange[]
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO lakets._chunk_metadata (chronotable_id, chunk_name, relation_name, relation, range_start, range_end)
    SELECT p_table.id,
           named.name || CASE twins.count WHEN 0 THEN '' WHEN 1 THEN format('_%s', p_table.id) ELSE format('_%s_%s', p_table.id, twins.count) END,
           named.relation_name, named.relation, lower(named.range), upper(named.range)
      FROM (SELECT new.range, new.chunk::oid AS relation, cls.relname AS relation_name, label.name,
                   row_number() OVER (PARTITION BY label.name ORDER BY new.range) - 1 AS position
              FROM unnest(p_chunks, p_ranges) AS new (chunk, range)
              JOIN pg_class AS cls ON cls.oid = new.chunk
             CROSS JOIN LATERAL (SELECT format('%s.%s%s', p_table.schema_name, p_table.table_name,
                                               lakets._chunk_suffix(lower(new.range))) AS name) AS label) AS named
     CROSS JOIN LATERAL (SELECT named.position + count(*) AS count FROM lakets._chunk_metadata AS chunk
                          WHERE chunk.chunk_name IN (named.name, format('%s_%s', named.name, p_table.id))) AS twins
     ORDER BY named.range;
END;
$$;

-- The statements that put a table's triggers back after DISABLE TRIGGER USER.
CREATE OR REPLACE FUNCTION lakets._enable_statements(
    p_relation regclass
) RETURNS SETOF text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('ALTER TABLE %s %s TRIGGER %I', p_relation, CASE trg.tgenabled WHEN 'A' THEN 'ENABLE ALWAYS'
                      WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE' END, trg.tgname)
      FROM pg_trigger AS trg
     WHERE trg.tgrelid = p_relation AND NOT trg.tgisinternal AND trg.tgenabled <> 'D';
$$;

-- Move rows from the default partition to a table about to be attached. They stay rows of the ChronoTable, so no
-- trigger has business with them.
CREATE OR REPLACE FUNCTION lakets._move_strays(
    p_default   regclass,
    p_chunk     regclass,
    p_condition text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_columns text   := lakets._writable_columns(p_chunk);
    v_enable  text[] := ARRAY(SELECT enable FROM lakets._enable_statements(p_default) AS enable
                              UNION ALL SELECT enable FROM lakets._enable_statements(p_chunk) AS enable);
    v_strays  boolean;
    v_one     text;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE %s)', p_default, p_condition) INTO v_strays;
    IF NOT v_strays THEN
        RETURN;
    END IF;
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER USER', p_default);
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER USER', p_chunk);
    EXECUTE format('WITH moved AS (DELETE FROM %1$s WHERE %2$s RETURNING *) '
                   'INSERT INTO %3$s (%4$s) OVERRIDING SYSTEM VALUE SELECT %4$s FROM moved',
                   p_default, p_condition, p_chunk, v_columns);
    FOREACH v_one IN ARRAY v_enable LOOP
        EXECUTE v_one;
    END LOOP;
END;
$$;

-- What chunks that overlap [p_from, p_to) cover already, whatever interval they were made with, and partitions made by
-- hand. A range once dropped counts: its rows are in Unity Catalog, and a new chunk there would claim to hold them all.
CREATE OR REPLACE FUNCTION lakets._covered(
    p_table lakets._chronotable_registry,
    p_from  timestamptz DEFAULT '-infinity',
    p_to    timestamptz DEFAULT 'infinity'
) RETURNS tstzmultirange
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT coalesce(range_agg(part.range), '{}')
          FROM (SELECT tstzrange(chunk.range_start, chunk.range_end)
                  FROM lakets._chunk_metadata AS chunk
                 WHERE chunk.chronotable_id = p_table.id AND chunk.range_end > p_from AND chunk.range_start < p_to
                UNION ALL
                SELECT hand.range FROM lakets._foreign_partitions(p_table) AS hand) AS part (range));
END;
$$;

-- The first p_limit chunks that are missing in [p_from, p_to): whole cells of the interval's grid, less what is
-- covered. They are made in the years 2 to 9998: beyond, names and client libraries fail, and the time zone of a
-- session may show a year more or less.
CREATE OR REPLACE FUNCTION lakets._missing_chunks(
    p_table   lakets._chronotable_registry,
    p_from    timestamptz,
    p_to      timestamptz,
    p_covered tstzmultirange,
    p_limit   integer DEFAULT NULL
) RETURNS TABLE (range_start timestamptz, range_end timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_wanted tstzrange := tstzrange(p_from, p_to);
    v_count  integer := 0;
    v_gap    tstzrange;
    v_cell   timestamptz;
    v_next   timestamptz;
BEGIN
    IF v_wanted <@ p_covered THEN
        RETURN;
    END IF;
    FOR v_gap IN
        SELECT gap FROM unnest(tstzmultirange(tstzrange(lakets.time_bucket(p_table.chunk_interval, p_from),
                                                        lakets._shift(p_to, p_table.chunk_interval))) - p_covered) AS gap
    LOOP
        v_next := lakets.time_bucket(p_table.chunk_interval, lower(v_gap));
        WHILE v_next < least(upper(v_gap), p_to) AND (v_count < p_limit) IS NOT FALSE LOOP
            v_cell := v_next;
            v_next := lakets._shift(v_cell, p_table.chunk_interval);
            range_start := greatest(v_cell, lower(v_gap));
            range_end := least(v_next, upper(v_gap));
            IF tstzrange(range_start, range_end) && v_wanted
               AND v_cell >= '0002-01-01 00:00:00+00' AND v_next <= '9999-01-01 00:00:00+00' THEN
                v_count := v_count + 1;
                RETURN NEXT;
            END IF;
        END LOOP;
    END LOOP;
END;
$$;

-- The chunks that a table's rows are waiting for, as far as there can be any. At most p_limit cells of the grid
-- are looked at.
CREATE OR REPLACE FUNCTION lakets._cells_of_rows(
    p_table    lakets._chronotable_registry,
    p_relation regclass,
    p_limit    integer DEFAULT NULL
) RETURNS TABLE (range_start timestamptz, range_end timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
AS $$
DECLARE
    v_covered tstzmultirange;
    v_time    text := lakets._as_instant(format('r.%I', p_table.time_column), lakets._column_type(p_relation, p_table.time_column));
    v_has_row boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %s)', p_relation) INTO v_has_row;
    IF NOT v_has_row THEN
        RETURN;  -- so it is with most default partitions; a table can have thousands of chunks to look at
    END IF;
    v_covered := lakets._covered(p_table);
    RETURN QUERY EXECUTE format(
        'SELECT chunk.range_start, chunk.range_end
           FROM (SELECT DISTINCT lakets.time_bucket($1, %1$s) AS start
                   FROM %2$s AS r
                  WHERE %1$s >= ''0002-01-01 00:00:00+00'' AND %1$s < ''9999-01-01 00:00:00+00'' AND NOT $2 @> %1$s
                  LIMIT $3) AS cell,
                lakets._missing_chunks($4, cell.start, lakets._shift(cell.start, $1), $2) AS chunk',
        v_time, p_relation) USING p_table.chunk_interval, v_covered, p_limit, p_table;
END;
$$;

-- The chunks that are due: in the range asked for (the first p_limit), and where rows wait in the default partition.
CREATE OR REPLACE FUNCTION lakets._due_chunks(
    p_table   lakets._chronotable_registry,
    p_default regclass,
    p_from    timestamptz,
    p_to      timestamptz,
    p_limit   integer
) RETURNS TABLE (range_start timestamptz, range_end timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT chunk.*
          FROM lakets._missing_chunks(p_table, p_from, p_to, lakets._covered(
                   p_table, lakets.time_bucket(p_table.chunk_interval, p_from), lakets._shift(p_to, p_table.chunk_interval)), p_limit) AS chunk;
    IF p_default IS NOT NULL THEN
        RETURN QUERY SELECT chunk.* FROM lakets._cells_of_rows(p_table, p_default, 100) AS chunk;
    END IF;
END;
$$;

-- Job 1. Make the chunks of p_past_count intervals before now to p_future_count after, or of an explicit
-- range (a backfill), and those that rows wait for in the default partition. Returns how many were made;
-- 0 means none was due. p_max_chunks bounds one call, and so how long it locks: call again until it returns less.
-- Waits at most 2 s for a lock, then fails as contended (55P03).
CREATE OR REPLACE FUNCTION lakets._ensure_partitions(
    p_chronotable_id integer,
    p_past_count     integer     DEFAULT 1,
    p_future_count   integer     DEFAULT 3,
    p_range_start    timestamptz DEFAULT NULL,
    p_range_end      timestamptz DEFAULT NULL,
    p_max_chunks     integer     DEFAULT NULL
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
    v_due      tstzrange[];
    v_in_place boolean;
    v_chunks   regclass[];
BEGIN
    PERFORM lakets._check_max_chunks(p_max_chunks);
    v_table := lakets._chronotable(p_chronotable_id);
    v_from := coalesce(v_from, lakets._shift(lakets.time_bucket(v_table.chunk_interval, now()), v_table.chunk_interval, -p_past_count));
    v_to := coalesce(v_to, lakets._shift(lakets.time_bucket(v_table.chunk_interval, now()), v_table.chunk_interval, p_future_count + 1));
    PERFORM lakets._check_range(v_table, v_from, v_to);

    v_relation := v_table.relation;
    v_default := lakets._default_partition(v_relation);
    PERFORM lakets._warn_of_foreign_partitions(v_table);
    BEGIN
        IF v_default IS NOT NULL AND NOT lakets._must_follow(v_table) AND NOT EXISTS (SELECT FROM lakets._due_chunks(v_table, v_default, v_from, v_to, 1)) THEN
            RETURN 0;  -- the usual case waits for nobody
        END IF;
        -- Let go of the default partition, which was read: whoever maintains the table now may be about to lock it.
        RAISE lock_not_available;
    EXCEPTION WHEN lock_not_available THEN
        NULL;
    END;

    PERFORM lakets._require_read_committed();
    -- Lock order: (1) advisory (lakets, relation), (2) parent, (3) default partition, (4) tables that it refers to.
    PERFORM lakets._lock_maintenance(v_relation);
    v_table := lakets._follow(v_table);  -- if it is still one
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', v_relation);
    v_default := coalesce(lakets._default_partition(v_relation), lakets._create_default_partition(v_table));
    v_due := ARRAY(SELECT DISTINCT tstzrange(due.range_start, due.range_end)
                     FROM lakets._due_chunks(v_table, v_default, v_from, v_to, p_max_chunks) AS due ORDER BY 1 LIMIT p_max_chunks);
    -- At most 100, so that whoever comes meanwhile waits for a moment only.
    v_in_place := cardinality(v_due) <= 100 AND lakets._lock_unused(v_relation, v_default);
    v_chunks := lakets._create_chunk_tables(v_table, v_due, v_in_place);
    IF NOT v_in_place THEN
        -- From here on readers of the default partition wait, and rows cannot get into it.
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', v_default);
        PERFORM lakets._attach_chunks(v_table, v_chunks, v_due);
    END IF;
    PERFORM lakets._register_chunks(v_table, v_chunks, v_due);
    RETURN cardinality(v_due);
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
    IF p_from IS NULL OR p_to IS NULL OR p_from > p_to
       OR p_from < '0002-01-01 00:00:00+00' OR p_to > '9999-01-01 00:00:00+00' THEN
        RAISE EXCEPTION 'The range from % to % is not one in which chunks can be made.',
            coalesce(p_from::text, 'null'), coalesce(p_to::text, 'null')
            USING HINT = 'Give a start and a later end, in the years 2 to 9998.';
    ELSIF extract(epoch FROM p_to - p_from) / extract(epoch FROM p_table.chunk_interval) > 20000 THEN
        RAISE EXCEPTION 'The range from % to % would make more than 20000 chunks of % in %.%.',
            p_from, p_to, p_table.chunk_interval, p_table.schema_name, p_table.table_name
            USING HINT = 'Take a shorter range, or a longer chunk interval.';
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
