-- Create, list and drop ChronoTables.

-- Refuse a chunk interval unless it is positive, either whole months or a fixed length, and no
-- finer than the names of chunks.
CREATE OR REPLACE FUNCTION lakets._check_chunk_interval(
    p_interval interval,
    p_type     regtype
) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_interval IS NULL OR NOT isfinite(p_interval) OR p_interval <= '0' OR p_interval > '100 years'
       OR (date_trunc('month', p_interval) <> '0' AND date_trunc('month', p_interval) <> p_interval) THEN
        RAISE EXCEPTION 'Chunk interval % is not usable.', coalesce(p_interval::text, 'null')
            USING HINT = 'Use a positive length of whole months or years (at most 100 years), or of days, hours and seconds, not both.';
    ELSIF date_trunc('month', p_interval) = '0'
          AND extract(epoch FROM p_interval) % (CASE p_type WHEN 'date'::regtype THEN 86400 ELSE 1 END) <> 0 THEN
        RAISE EXCEPTION 'Chunk interval % is too fine for a column of type %.', p_interval, p_type
            USING HINT = 'Use whole seconds, and whole days for a date column.';
    END IF;
END;
$$;

-- Check the arguments of create_chronotable.
CREATE OR REPLACE FUNCTION lakets._check_new_chronotable(
    p_relation       regclass,
    p_time_column    text,
    p_chunk_interval interval
) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_type  regtype := lakets._column_type(p_relation, p_time_column);
    v_class pg_class;
    v_name  text;
BEGIN
    SELECT cls.* INTO v_class FROM pg_class AS cls WHERE cls.oid = p_relation;
    SELECT reg.name INTO v_name FROM lakets._rollup_registry AS reg
     WHERE to_regclass(format('public.%I', '_rollup_' || reg.name))::oid = p_relation;
    IF v_class.relkind = 'p' THEN
        RAISE EXCEPTION 'Table % is already partitioned.', p_relation
            USING HINT = 'LakeTS partitions ordinary tables; copy the rows into one first.';
    ELSIF v_class.relkind <> 'r' OR v_class.relpersistence = 't' OR v_class.relispartition
          OR EXISTS (SELECT FROM pg_inherits AS inh WHERE p_relation IN (inh.inhrelid, inh.inhparent)) THEN
        RAISE EXCEPTION '% is not an ordinary table.', p_relation
            USING HINT = 'Views, temporary, foreign and inherited tables and partitions cannot become ChronoTables.';
    ELSIF v_class.relnamespace::regnamespace::text IN ('lakets', 'lakets_cdf') THEN
        RAISE EXCEPTION '% is in a schema that is reserved for LakeTS.', p_relation
            USING HINT = 'Keep ChronoTables in a schema of your own.';
    ELSIF v_name IS NOT NULL THEN
        RAISE EXCEPTION '% is the table of RollUp %.', p_relation, v_name
            USING HINT = 'It must stay as it is, or no refresh would find it. Remove its old buckets with DELETE.';
    ELSIF v_type IS NULL THEN
        RAISE EXCEPTION 'Table % has no column %.', p_relation, p_time_column
            USING HINT = 'Name the column that holds each row''s time.';
    ELSIF v_type NOT IN ('timestamptz'::regtype, 'timestamp'::regtype, 'date'::regtype) THEN
        RAISE EXCEPTION 'Column % of table % is of type %.', p_time_column, p_relation, v_type
            USING HINT = 'The time column is a timestamptz, timestamp or date.';
    END IF;
    PERFORM lakets._check_chunk_interval(p_chunk_interval, v_type);
END;
$$;

-- Replace a table with a partitioned one of the same definition, and move its rows there.
CREATE OR REPLACE FUNCTION lakets._partition_in_place(
    p_table    lakets._chronotable_registry,
    p_relation regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off  -- fail if a policy hides rows, which would be lost
AS $$
DECLARE
    v_trimmings jsonb := (SELECT jsonb_agg(trim.*) FROM lakets._table_trimmings(p_relation) AS trim);
    v_columns   text  := lakets._writable_columns(p_relation);
    v_options   text  := lakets._storage_options(p_relation);
    v_most      integer := lakets._chunks_to_make(p_relation);
    v_new       regclass;
    v_ranges    tstzrange[];
    v_statement text;
    v_has_rows  boolean;
    v_odd       record;
BEGIN
    PERFORM lakets._set_aside(p_relation);
    EXECUTE format('CREATE TABLE %I.%I (LIKE %s INCLUDING ALL EXCLUDING INDEXES EXCLUDING STATISTICS) PARTITION BY RANGE (%I)',
                   p_table.schema_name, p_table.table_name, p_relation, p_table.time_column);
    v_new := lakets._relation(p_table);
    PERFORM lakets._revoke_all(v_new);
    PERFORM lakets._carry_identity(p_relation, v_new);
    FOR v_statement IN SELECT trim ->> 'statement' FROM jsonb_array_elements(v_trimmings) AS trim WHERE trim ->> 'phase' = '1' LOOP
        EXECUTE v_statement;
    END LOOP;

    EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', p_relation);  -- its owner must see every row to copy
    PERFORM lakets._create_default_partition(p_table, v_options);
    v_ranges := ARRAY(SELECT tstzrange(cell.range_start, cell.range_end)
                        FROM lakets._cells_of_rows(p_table, p_relation, v_most + 1) AS cell ORDER BY 1);
    IF cardinality(v_ranges) > v_most THEN
        v_ranges := v_ranges[1:v_most];
        RAISE WARNING '% chunks of %.% are made; more do not fit into one transaction.', v_most, p_table.schema_name, p_table.table_name
            USING HINT = format('Rows of other times wait in the default partition. Call lakets._ensure_partitions(%s) until it returns 0,'
                                ' each time in a transaction of its own, as the partition job does.', p_table.id);
    END IF;
    PERFORM lakets._register_chunks(p_table, lakets._create_chunk_tables(p_table, v_ranges, true), v_ranges);
    EXECUTE format('INSERT INTO %1$s (%2$s) OVERRIDING SYSTEM VALUE SELECT %2$s FROM %3$s', v_new, v_columns, p_relation);
    SELECT new.part, lakets._interference(new.part) AS what INTO v_odd
      FROM (SELECT v_new AS part UNION ALL SELECT inh.inhrelid FROM pg_inherits AS inh WHERE inh.inhparent = v_new) AS new
     WHERE lakets._interference(new.part) IS NOT NULL LIMIT 1;
    EXECUTE format('SELECT EXISTS (SELECT FROM %s)', p_relation) INTO v_has_rows;
    IF v_odd.what IS NOT NULL AND v_has_rows THEN
        RAISE EXCEPTION 'The rows of %.% cannot be copied: the new table % has %, which can discard or change rows.',
            p_table.schema_name, p_table.table_name, v_odd.part, v_odd.what
            USING HINT = 'Nothing was changed. An event trigger of this database puts it on each new table: call this again with'
                         ' ALTER EVENT TRIGGER ... DISABLE. The triggers of the table itself are kept, and may stay.';
    END IF;

    FOR v_statement IN SELECT trim ->> 'statement' FROM jsonb_array_elements(v_trimmings) AS trim WHERE trim ->> 'phase' = '2' LOOP
        EXECUTE v_statement;
    END LOOP;
    PERFORM lakets._match_identity(v_new, inh.inhrelid) FROM pg_inherits AS inh WHERE inh.inhparent = v_new;
    EXECUTE format('DROP TABLE %s', p_relation);
    FOR v_statement IN SELECT trim ->> 'statement' FROM jsonb_array_elements(v_trimmings) AS trim WHERE trim ->> 'phase' = '3' LOOP
        EXECUTE v_statement;
    END LOOP;
END;
$$;

-- Turn a table into a ChronoTable and return its id. Its rows stay, and so do its types, defaults,
-- constraints, indexes, triggers, policies, grants and comments. The table is locked meanwhile. Its
-- storage parameters, which a partitioned table cannot have, go to the chunks.
CREATE OR REPLACE FUNCTION lakets.create_chronotable(
    p_table_name     text,
    p_time_column    text,
    p_chunk_interval interval DEFAULT '7 days',
    p_schema_name    text     DEFAULT 'public',
    p_if_not_exists  boolean  DEFAULT false
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_relation regclass := lakets._relation(p_schema_name, p_table_name);
    v_table    lakets._chronotable_registry;
BEGIN
    PERFORM lakets._require_read_committed();  -- an older snapshot would miss rows to copy
    -- Lock order: (1) advisory (lakets, relation), (2) the table.
    PERFORM lakets._lock_maintenance(v_relation);
    v_table := lakets._registered(p_table_name, p_schema_name);
    IF v_table.id IS NOT NULL THEN
        v_table := lakets._recognise(v_table);  -- raises if this is another table than the one registered
        IF p_if_not_exists THEN
            RETURN v_table.id;
        END IF;
        RAISE EXCEPTION '%.% is already a ChronoTable.', p_schema_name, p_table_name
            USING HINT = 'Pass p_if_not_exists => true to accept that.';
    END IF;
    PERFORM lakets._check_new_chronotable(v_relation, p_time_column, p_chunk_interval);
    EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', v_relation);
    PERFORM lakets._check_convertible(v_relation, p_time_column);
    IF EXISTS (SELECT FROM pg_class AS cls WHERE cls.oid = v_relation AND cls.relpersistence = 'u') THEN
        RAISE WARNING '%.% is UNLOGGED; its chunks will be logged.', p_schema_name, p_table_name
            USING HINT = 'A crash empties an UNLOGGED table, which the mirror and RollUps could not follow.';
    END IF;

    INSERT INTO lakets._chronotable_registry AS reg (schema_name, table_name, time_column, chunk_interval)
    VALUES (p_schema_name, p_table_name, p_time_column, p_chunk_interval)
    RETURNING reg.* INTO v_table;
    PERFORM lakets._partition_in_place(v_table, v_relation);
    PERFORM lakets._learn(v_table);
    PERFORM lakets._ensure_partitions(v_table.id);
    PERFORM lakets._track_chronotable(v_table.id);
    RETURN v_table.id;
END;
$$;

-- Set the length of chunks created from now on. Existing chunks keep theirs.
CREATE OR REPLACE FUNCTION lakets.set_chunk_interval(
    p_table_name     text,
    p_chunk_interval interval,
    p_schema_name    text DEFAULT 'public'
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
BEGIN
    PERFORM lakets._check_chunk_interval(
        p_chunk_interval, lakets._column_type(v_table.relation, v_table.time_column));
    UPDATE lakets._chronotable_registry AS reg SET chunk_interval = p_chunk_interval WHERE reg.id = v_table.id;
END;
$$;

-- The RollUps that depend on a ChronoTable, directly or not. Each comes before those that it reads.
CREATE OR REPLACE FUNCTION lakets._rollups_of(
    p_chronotable_id integer
) RETURNS text[]
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT dag.rollup_name
          FROM lakets._rollup_order(ARRAY(
                   SELECT reg.id FROM lakets._rollup_registry AS reg WHERE reg.source_chronotable_id = p_chronotable_id)) AS dag
         ORDER BY dag.refresh_order DESC, dag.rollup_id);
END;
$$;
