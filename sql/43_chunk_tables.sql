-- Create chunks: fill them with the rows that waited for them, attach them and register them.

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

-- Create the tables of chunks. Creating them as partitions takes half the time of attaching them,
-- but locks the parent against everybody. Creating them as separate tables blocks nobody.
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
    END LOOP;
    IF p_in_place THEN
        PERFORM lakets._match_identities(v_relation, v_chunks);
    END IF;
    RETURN v_chunks;
END;
$$;

-- Attach the tables of chunks, with the rows that waited for them in the default partition, which
-- the caller has locked. If that partition could be written directly, rows without tracking may be
-- among them: everything counts as changed, and the mirror as incomplete.
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
        IF lakets._move_strays(v_default, v_new.chunk, format('%1$I >= %2$s AND %1$I < %3$s', p_table.time_column,
               lakets._time_literal(lower(v_new.range), v_type), lakets._time_literal(upper(v_new.range), v_type))) THEN
            PERFORM lakets._mark_moved(p_table, v_new.range);
        END IF;
        EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s %s', v_relation, v_new.chunk, lakets._partition_bounds(v_new.range, v_type));
    END LOOP;
    PERFORM lakets._match_identities(v_relation, p_chunks);
    IF p_chunks <> '{}' AND (NOT lakets._is_guarded(v_default)
            OR EXISTS (SELECT FROM pg_class AS cls WHERE cls.oid = v_default AND cls.relkind <> 'r')) THEN
        PERFORM lakets._guard_partition(v_default);
        PERFORM lakets._log_guarded(p_table, ARRAY[v_default]);
    END IF;
END;
$$;

-- The statements that restore a table's triggers after DISABLE TRIGGER USER.
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

-- Return what would make moving a row of a relation more than a move: null if there is nothing. The
-- row is deleted in one table and inserted into another. That would fire ON DELETE CASCADE or SET
-- NULL of foreign keys, whose triggers cannot be switched off, and rules may send it elsewhere.
CREATE OR REPLACE FUNCTION lakets._move_obstacles(
    p_relation regclass
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN nullif(concat_ws(', ', 'foreign key ' || lakets._foreign_keys_to(p_relation),
        (SELECT string_agg(format('rule %I on %s', rule.rulename, p_relation), ', ' ORDER BY rule.rulename)
           FROM pg_rewrite AS rule WHERE rule.ev_class = p_relation AND rule.ev_enabled <> 'D')), '');
END;
$$;

-- Raise an error if rows cannot be moved from the default partition, where they wait, to a chunk.
CREATE OR REPLACE FUNCTION lakets._check_movable(
    p_default regclass,
    p_chunk   regclass
) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_obstacles text := coalesce(lakets._move_obstacles(p_default), lakets._move_obstacles(p_chunk));
BEGIN
    IF v_obstacles IS NOT NULL THEN
        RAISE EXCEPTION 'Rows in % cannot be moved to their chunk because of: %.', p_default, v_obstacles
            USING HINT = 'Nothing was moved, because a foreign key or rule would act as if the row was deleted. Drop the foreign key or rule;'
                         ' a ChronoTable cannot have a foreign key that points at it, since a chunk whose rows are referenced could never be dropped.';
    END IF;
END;
$$;

-- Move rows from the default partition to a table about to be attached; returns whether there were
-- any. They stay rows of the ChronoTable, so no trigger must fire. When the table is attached,
-- Postgres checks that no row was left behind, for example one that a policy hides.
CREATE OR REPLACE FUNCTION lakets._move_strays(
    p_default   regclass,
    p_chunk     regclass,
    p_condition text
) RETURNS boolean
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
        RETURN false;
    END IF;
    PERFORM lakets._check_movable(p_default, p_chunk);
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER USER', p_default);
    EXECUTE format('ALTER TABLE %s DISABLE TRIGGER USER', p_chunk);
    EXECUTE format('WITH moved AS (DELETE FROM %1$s WHERE %2$s RETURNING *) '
                   'INSERT INTO %3$s (%4$s) OVERRIDING SYSTEM VALUE SELECT %4$s FROM moved',
                   p_default, p_condition, p_chunk, v_columns);
    FOREACH v_one IN ARRAY v_enable LOOP
        EXECUTE v_one;
    END LOOP;
    RETURN true;
END;
$$;

-- Register chunks. Two tables whose names contain dots can give a chunk the same name, and so can
-- chunks of less than a second: then the id of the table, or a number, is added to the name.
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
