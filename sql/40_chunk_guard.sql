-- Rows reach a chunk through its ChronoTable only.

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
