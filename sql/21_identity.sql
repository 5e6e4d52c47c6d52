-- Which table, and in which database. A table is identified by its oid, because another table can
-- get its name. An oid, a transaction id and a WAL position are valid in one database only, so the
-- database is stored beside them.

-- This cluster, in which transaction ids and WAL positions form one sequence. A restored dump is in
-- another cluster; a physical copy, such as a branch or a standby, has the same number, and the
-- same transactions up to the moment of the copy.
CREATE OR REPLACE FUNCTION lakets._cluster() RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN split_part(lakets._here(), '/', 1);
END;
$$;

-- This database, in which an oid identifies one relation.
CREATE OR REPLACE FUNCTION lakets._here() RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- The oid of the database is the name of the folder that its catalogs are in; pg_database would
    -- have to be searched.
    v_database text := split_part(pg_relation_filepath('pg_class'), '/', -2);
BEGIN
    IF NOT has_function_privilege('pg_control_system()', 'EXECUTE') THEN  -- a service may hide the number
        RETURN format('?/%s', v_database);
    END IF;
    RETURN format('%s/%s', (pg_control_system()).system_identifier, v_database);
END;
$$;

-- This cluster and its timeline. A promoted standby and a point-in-time restore begin a new
-- timeline, and so does a branch if the service numbers it. Knowledge of the change feed is not
-- valid on another timeline: the feed may have been further than this copy knows, or may be another
-- feed.
CREATE OR REPLACE FUNCTION lakets._lineage() RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT has_function_privilege('pg_control_checkpoint()', 'EXECUTE') THEN
        RETURN lakets._cluster();
    END IF;
    RETURN concat_ws('/', lakets._cluster(), (SELECT ctl.timeline_id FROM pg_control_checkpoint() AS ctl),
                     nullif(current_setting('neon.timeline_id', true), ''));
END;
$$;

-- The relation with that name, or null. Needs no right on the schema.
CREATE OR REPLACE FUNCTION lakets._find_relation(
    p_schema_name text,
    p_table_name  text
) RETURNS oid
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT cls.oid
          FROM pg_class AS cls JOIN pg_namespace AS nsp ON nsp.oid = cls.relnamespace
         WHERE nsp.nspname = p_schema_name AND cls.relname = p_table_name);
END;
$$;

-- Return the relation of a registry row, even if it was renamed: by its oid, or by its name where
-- the oid is of another database.
CREATE OR REPLACE FUNCTION lakets._known_relation(
    p_table lakets._chronotable_registry
) RETURNS oid
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_table.relation IS NOT NULL AND p_table.cluster = lakets._here() THEN
        RETURN p_table.relation;
    END IF;
    RETURN lakets._find_relation(p_table.schema_name, p_table.table_name);
END;
$$;

-- A registry row with the current names: a renamed table, schema or time column is followed. The
-- result's cluster is null where only the names are known (an older version's row, or a restored
-- one), and oids of chunks are then not valid. Raises an error if the table is gone or if another
-- table has its name.
CREATE OR REPLACE FUNCTION lakets._recognise(
    p_table lakets._chronotable_registry
) RETURNS lakets._chronotable_registry
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_named oid  := lakets._find_relation(p_table.schema_name, p_table.table_name);
    v_name  text := format('%s.%s', p_table.schema_name, p_table.table_name);
    v_now   record;
BEGIN
    IF p_table.relation = v_named AND split_part(p_table.cluster, '/', 1) = lakets._cluster() THEN
        p_table.cluster := lakets._here();  -- this database, or the one that this is a copy of, with the same oids
    ELSIF p_table.relation IS NULL OR p_table.cluster IS DISTINCT FROM lakets._here() THEN
        p_table.relation := v_named;
        p_table.cluster := NULL;
        p_table.time_attnum := (SELECT att.attnum FROM pg_attribute AS att
                                 WHERE att.attrelid = v_named AND att.attname = p_table.time_column AND NOT att.attisdropped);
    END IF;
    SELECT cls.relname, nsp.nspname, cls.relkind, cls.relowner INTO v_now
      FROM pg_class AS cls JOIN pg_namespace AS nsp ON nsp.oid = cls.relnamespace WHERE cls.oid = p_table.relation;
    IF v_now IS NULL AND v_named IS NULL THEN
        RAISE EXCEPTION 'ChronoTable % no longer exists: it was dropped.', v_name
            USING HINT = 'lakets.drop_chronotable removes what is left of it; lakets.forget_chronotable keeps its shadow and RollUps.';
    ELSIF v_now IS NULL OR v_now.relkind <> 'p' THEN
        RAISE EXCEPTION '% is not the ChronoTable that it was: that table was dropped, and this is another one.', v_name
            USING HINT = 'Call lakets.forget_chronotable to forget the one that is gone, and then lakets.create_chronotable for this one; '
                         'or lakets.adopt_chronotable if this is the same table restored.';
    ELSIF v_named <> p_table.relation THEN
        RAISE EXCEPTION '% is not the ChronoTable that it was: that table is now called %.%, and this is another one.',
            v_name, v_now.nspname, v_now.relname
            USING HINT = format('Rename them back, or call lakets.adopt_chronotable(%L, %L) to keep the ChronoTable under its new name.',
                                v_now.relname, v_now.nspname);
    END IF;
    p_table.schema_name := v_now.nspname;
    p_table.table_name := v_now.relname;
    p_table.owner := v_now.relowner;
    SELECT att.attname INTO p_table.time_column
      FROM pg_attribute AS att
     WHERE att.attrelid = p_table.relation AND att.attnum = p_table.time_attnum AND NOT att.attisdropped;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'Table % has no column %.', p_table.relation::regclass, p_table.time_column
            USING HINT = 'That column was its time column. Rename it back.';
    END IF;
    RETURN p_table;
END;
$$;

-- Return as text why a registry row and its table no longer match; null if they do. For reports on
-- all tables.
CREATE OR REPLACE FUNCTION lakets._identity_problem(
    p_table lakets._chronotable_registry
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM lakets._recognise(p_table);
    RETURN NULL;
EXCEPTION WHEN raise_exception THEN
    RETURN SQLERRM;
END;
$$;

-- The table of a registry row.
CREATE OR REPLACE FUNCTION lakets._relation(
    p_table lakets._chronotable_registry
) RETURNS regclass
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (lakets._recognise(p_table)).relation;
END;
$$;

-- The stored registry row with that name, whether or not its table still exists; all null if there
-- is none.
CREATE OR REPLACE FUNCTION lakets._registered(
    p_table_name  text,
    p_schema_name text
) RETURNS lakets._chronotable_registry
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table lakets._chronotable_registry;
BEGIN
    SELECT reg.* INTO v_table
      FROM lakets._chronotable_registry AS reg
     WHERE reg.table_name = p_table_name AND reg.schema_name = p_schema_name;
    IF NOT FOUND THEN  -- it may have been renamed since
        SELECT reg.* INTO v_table
          FROM lakets._chronotable_registry AS reg
         WHERE reg.relation = lakets._find_relation(p_schema_name, p_table_name) AND reg.cluster = lakets._here();
    END IF;
    RETURN v_table;
END;
$$;

-- The registry row of a ChronoTable with the current names. Raises an error if there is none.
CREATE OR REPLACE FUNCTION lakets._chronotable(
    p_table_name  text,
    p_schema_name text
) RETURNS lakets._chronotable_registry
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table lakets._chronotable_registry := lakets._registered(p_table_name, p_schema_name);
BEGIN
    IF v_table.id IS NULL THEN
        RAISE EXCEPTION '%.% is not a ChronoTable.', p_schema_name, p_table_name
            USING HINT = 'Make it one with lakets.create_chronotable, or correct the table and schema name.';
    END IF;
    RETURN lakets._recognise(v_table);
END;
$$;

-- The same by its id.
CREATE OR REPLACE FUNCTION lakets._chronotable(
    p_chronotable_id integer
) RETURNS lakets._chronotable_registry
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table lakets._chronotable_registry;
BEGIN
    SELECT reg.* INTO v_table FROM lakets._chronotable_registry AS reg WHERE reg.id = p_chronotable_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'There is no ChronoTable with id %.', p_chronotable_id
            USING HINT = 'lakets._chronotable_registry lists them.';
    END IF;
    RETURN lakets._recognise(v_table);
END;
$$;

-- The partition of a chunk; null if it was dropped or detached by hand. Found by name where oids
-- are not known: 0.1.x recorded no relation_name, and its chunk_name is the schema followed by the
-- name of the partition. A partition has one parent (inhseqno), so its oid alone finds the row in
-- the unique index; by the parent, the planner may read the rows of all chunks for each.
CREATE OR REPLACE FUNCTION lakets._chunk_relation(
    p_table lakets._chronotable_registry,
    p_chunk lakets._chunk_metadata
) RETURNS regclass
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT inh.inhrelid::regclass
          FROM pg_inherits AS inh
         WHERE inh.inhparent = p_table.relation AND inh.inhseqno = 1 AND inh.inhrelid = CASE
               WHEN p_table.cluster IS NOT NULL AND p_chunk.relation IS NOT NULL THEN p_chunk.relation
               ELSE lakets._find_relation(p_table.schema_name, coalesce(
                        p_chunk.relation_name, substr(p_chunk.chunk_name, length(p_table.schema_name) + 2))) END);
END;
$$;
