-- When a registry row and a table no longer match, an administrator states here that they belong
-- together.

-- Set the name in a registry row. If another row has that name, set the current name of its table
-- there.
CREATE OR REPLACE FUNCTION lakets._take_name(
    p_table       lakets._chronotable_registry,
    p_schema_name text,
    p_table_name  text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_other lakets._chronotable_registry;
    v_name  record;
BEGIN
    SELECT reg.* INTO v_other
      FROM lakets._chronotable_registry AS reg
     WHERE reg.schema_name = p_schema_name AND reg.table_name = p_table_name AND reg.id <> p_table.id;
    IF FOUND THEN
        SELECT nsp.nspname, cls.relname INTO v_name
          FROM pg_class AS cls JOIN pg_namespace AS nsp ON nsp.oid = cls.relnamespace
         WHERE cls.oid = v_other.relation AND v_other.cluster = lakets._here();
        IF NOT FOUND THEN
            RAISE EXCEPTION '%.% is also the name of a ChronoTable that was dropped.', p_schema_name, p_table_name
                USING HINT = 'Call lakets.forget_chronotable for that one first.';
        END IF;
        -- Give each a temporary name first: two tables may have exchanged their names.
        UPDATE lakets._chronotable_registry AS reg SET table_name = format('%s %s', reg.table_name, reg.id) WHERE reg.id = p_table.id;
        PERFORM lakets._take_name(v_other, v_name.nspname, v_name.relname);
    END IF;
    UPDATE lakets._chronotable_registry AS reg
       SET schema_name = p_schema_name, table_name = p_table_name WHERE reg.id = p_table.id;
END;
$$;

-- State that the table with this name is the ChronoTable: it was renamed and another table got its
-- old name, or it was restored after the table was dropped by hand. In the second case earlier
-- proofs and absorbed changes no longer count, its RollUps are computed again, and a synced table
-- needs lakets.enable_sync.
CREATE OR REPLACE FUNCTION lakets.adopt_chronotable(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_relation regclass := lakets._relation(p_schema_name, p_table_name);
    v_table    lakets._chronotable_registry;
BEGIN
    -- Lock order: (1) advisory (lakets, relation), (2) parent.
    PERFORM lakets._lock_maintenance(v_relation);
    SELECT reg.* INTO v_table FROM lakets._chronotable_registry AS reg WHERE reg.relation = v_relation AND reg.cluster = lakets._here();
    IF FOUND THEN
        PERFORM lakets._take_name(v_table, p_schema_name, p_table_name);
        RETURN (lakets._follow(v_table)).id;
    END IF;
    SELECT reg.* INTO v_table
      FROM lakets._chronotable_registry AS reg WHERE reg.schema_name = p_schema_name AND reg.table_name = p_table_name;
    IF NOT FOUND THEN
        PERFORM lakets._chronotable(p_table_name, p_schema_name);  -- raises
    ELSIF lakets._still_stands(v_table) THEN
        PERFORM lakets._recognise(v_table);  -- raises: the table of the registry row has another name
    ELSIF NOT EXISTS (
        SELECT FROM pg_partitioned_table AS part
          JOIN pg_attribute AS att ON att.attrelid = part.partrelid AND att.attname = v_table.time_column
         WHERE part.partrelid = v_relation AND part.partstrat = 'r' AND part.partattrs::text = att.attnum::text) THEN
        RAISE EXCEPTION '% cannot be ChronoTable %.%: it is not partitioned by range of %.',
            v_relation, v_table.schema_name, v_table.table_name, v_table.time_column
            USING HINT = 'Call lakets.forget_chronotable, and make this table a ChronoTable with lakets.create_chronotable.';
    END IF;
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', v_relation);
    -- As after a restore, where only the name is known.
    UPDATE lakets._chronotable_registry AS reg SET cluster = '-' WHERE reg.id = v_table.id RETURNING reg.* INTO v_table;
    RETURN (lakets._follow(v_table)).id;
END;
$$;
