-- The tables of partitions: their names, owners, storage parameters and replica identity, and the
-- default partition.

-- A free name for a partition: table, then suffix, cut to the 63 bytes of a name in Postgres.
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
    -- Cut a long name, or one that another relation or type has, and add a digest of the whole
    -- name.
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

-- The foreign keys that act when a row of a relation is deleted, with their tables; null if there
-- are none. Read from the triggers, because pg_constraint has no index on the referenced table.
CREATE OR REPLACE FUNCTION lakets._foreign_keys_to(
    p_relation regclass
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE key (oid) AS (  -- those of partitions, up to the one that was written
        SELECT con.oid FROM pg_trigger AS trg JOIN pg_constraint AS con ON con.oid = trg.tgconstraint
         WHERE trg.tgrelid = p_relation AND con.confrelid = p_relation AND con.contype = 'f'
        UNION
        SELECT con.conparentid FROM key JOIN pg_constraint AS con USING (oid)
    )
    SELECT string_agg(format('%s on %s', con.conname, con.conrelid::regclass), ', ' ORDER BY con.conname, con.conrelid)
      FROM key JOIN pg_constraint AS con USING (oid) WHERE con.conparentid = 0;
$$;

-- Let the tracking triggers see the generated columns of rows inserted into a partition. Where the
-- columns of a partition are at other places than those of its table, for example because one was
-- dropped there, Postgres keeps a new row for the triggers before it computes these columns, unless
-- the partition has a row trigger BEFORE INSERT. This one is never called.
CREATE OR REPLACE FUNCTION lakets._show_generated(
    p_relation  regclass,
    p_partition regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_attribute AS att WHERE att.attrelid = p_relation AND att.attnum > 0 AND att.attgenerated = 's')
       AND (SELECT count(DISTINCT place.names) > 1
              FROM (SELECT array_agg(CASE WHEN att.attisdropped THEN '' ELSE att.attname END ORDER BY att.attnum) AS names
                      FROM pg_attribute AS att WHERE att.attrelid IN (p_relation, p_partition) AND att.attnum > 0
                     GROUP BY att.attrelid) AS place)
       AND NOT EXISTS (SELECT FROM pg_trigger AS trg WHERE trg.tgrelid = p_partition AND trg.tgname = 'lakets_generated') THEN
        EXECUTE format('CREATE TRIGGER lakets_generated BEFORE INSERT ON %s FOR EACH ROW WHEN (false)'
                       ' EXECUTE FUNCTION lakets._refuse_direct_write()', p_partition);
    END IF;
END;
$$;

-- Create a table that can become a partition, or create it as one if p_bounds is FOR VALUES ...,
-- which locks the parent. It is used through its parent only, so it needs no grants.
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
    v_owner oid;  -- the owner to set; null if it is the owner already
    v_acl   aclitem[];
    v_set   text;
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
    -- Asked first, because reading the settings costs a tenth of a new chunk, and usually there are
    -- none.
    IF EXISTS (SELECT FROM pg_attribute AS att WHERE att.attrelid = p_relation AND att.attnum > 0 AND (att.attstattarget >= 0 OR att.attoptions IS NOT NULL)) THEN
        FOR v_set IN SELECT lakets._column_settings(p_relation, v_new::text, false) LOOP
            EXECUTE v_set;
        END LOOP;
    END IF;
    PERFORM lakets._guard_partition(v_new);
    PERFORM lakets._show_generated(p_relation, v_new);
    RETURN v_new;
END;
$$;

-- Give a partition the replica identity of its table, which Postgres does not inherit. Rows move
-- from the default partition to chunks, and a publication refuses this without an identity: if the
-- table has neither an identity nor a key, the default partition gets FULL.
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
                 JOIN pg_inherits AS inh ON inh.inhparent = idx.indexrelid AND inh.inhseqno = 1
                 JOIN pg_index AS own ON own.indexrelid = inh.inhrelid AND own.indrelid = p_partition AND NOT own.indisreplident
                 JOIN pg_class AS part ON part.oid = own.indexrelid
                WHERE idx.indrelid = p_relation AND idx.indisreplident) END
      INTO v_identity FROM pg_class AS cls WHERE cls.oid = p_relation;
    IF v_identity IS NOT NULL THEN
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY %s', p_partition, v_identity);
    END IF;
END;
$$;

-- The same for new chunks. Nothing is done if the table has the default identity, as new chunks do.
CREATE OR REPLACE FUNCTION lakets._match_identities(
    p_relation regclass,
    p_chunks   regclass[]
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (SELECT cls.relreplident <> 'd' FROM pg_class AS cls WHERE cls.oid = p_relation) THEN
        PERFORM lakets._match_identity(p_relation, chunk) FROM unnest(p_chunks) AS chunk;
    END IF;
END;
$$;

-- The partition that holds rows outside every chunk (too early, too late, infinite, without a
-- time), so that no row is refused. _ensure_partitions moves them into a chunk once it exists. New
-- chunks get its storage parameters.
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
