-- Turn an ordinary table into a partitioned one that its users cannot distinguish from it.

-- Before anything changes, refuse keys that a partitioned table cannot have.
CREATE OR REPLACE FUNCTION lakets._check_keys(
    p_relation    regclass,
    p_time_column text
) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_found text;
BEGIN
    SELECT string_agg(format('%s (%s)', cls.relname, coalesce(pg_get_constraintdef(con.oid), pg_get_indexdef(cls.oid))), ', ')
      INTO v_found
      FROM pg_index AS idx
      JOIN pg_class AS cls ON cls.oid = idx.indexrelid
      LEFT JOIN pg_constraint AS con ON con.conindid = idx.indexrelid AND con.conrelid = idx.indrelid
     WHERE idx.indrelid = p_relation AND (idx.indisunique OR idx.indisexclusion)
       AND NOT EXISTS (
           SELECT FROM pg_attribute AS att
            WHERE att.attrelid = p_relation AND att.attname = p_time_column
              AND att.attnum = ANY ((idx.indkey::int2[])[0:idx.indnkeyatts - 1]));
    IF v_found IS NOT NULL THEN
        RAISE EXCEPTION 'Table % cannot be partitioned on %: these keys do not contain that column: %.',
            p_relation, p_time_column, v_found
            USING HINT = 'Postgres enforces a key within one partition only: add the time column to the key, or drop the key.';
    END IF;

    SELECT string_agg(con.conname, ', ') INTO v_found
      FROM pg_constraint AS con
     WHERE con.conrelid = p_relation AND con.contype = 'x' AND current_setting('server_version_num')::integer < 170000;
    IF v_found IS NOT NULL THEN
        RAISE EXCEPTION 'Table % cannot be partitioned with exclusion constraints: %.', p_relation, v_found
            USING HINT = 'Postgres 16 does not support them on partitioned tables: drop them first.';
    END IF;

    SELECT string_agg(format('%s on %s', con.conname, con.conrelid::regclass), ', ') INTO v_found
      FROM pg_constraint AS con WHERE con.confrelid = p_relation AND con.contype = 'f';
    IF v_found IS NOT NULL THEN
        RAISE EXCEPTION 'Table % cannot be partitioned while foreign keys point at it: %.', p_relation, v_found
            USING HINT = 'Drop them first: a chunk whose rows are referenced could never be dropped.';
    END IF;
END;
$$;

-- Return the objects that depend on a table or its row type and that would not follow to the table
-- that replaces it.
CREATE OR REPLACE FUNCTION lakets._dependants(
    p_relation regclass
) RETURNS SETOF text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH target AS (
        SELECT cls.oid, cls.reltype, typ.typarray
          FROM pg_class AS cls JOIN pg_type AS typ ON typ.oid = cls.reltype WHERE cls.oid = p_relation
    )
    SELECT DISTINCT CASE WHEN rule.ev_class <> p_relation THEN 'view ' || rule.ev_class::regclass
                         ELSE pg_describe_object(dep.classid, dep.objid, 0) END
      FROM target AS t
      JOIN pg_depend AS dep ON (dep.refclassid = 'pg_class'::regclass AND dep.refobjid = t.oid)
                            OR (dep.refclassid = 'pg_type'::regclass AND dep.refobjid IN (t.reltype, t.typarray))
      LEFT JOIN pg_rewrite AS rule ON dep.classid = 'pg_rewrite'::regclass AND rule.oid = dep.objid
     WHERE CASE dep.classid
               WHEN 'pg_rewrite'::regclass THEN true
               WHEN 'pg_proc'::regclass THEN true
               WHEN 'pg_publication_rel'::regclass THEN true
               WHEN 'pg_class'::regclass THEN dep.deptype = 'n' AND NOT EXISTS (
                    SELECT FROM pg_index AS idx WHERE idx.indexrelid = dep.objid AND idx.indrelid = t.oid)
               WHEN 'pg_policy'::regclass THEN NOT EXISTS (SELECT FROM pg_policy AS pol WHERE pol.oid = dep.objid AND pol.polrelid = t.oid)
               WHEN 'pg_type'::regclass THEN dep.deptype = 'n'
               ELSE false END;
$$;

-- Before anything changes, refuse what would be lost or broken.
CREATE OR REPLACE FUNCTION lakets._check_convertible(
    p_relation    regclass,
    p_time_column text
) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_found text;
BEGIN
    PERFORM lakets._check_keys(p_relation, p_time_column);
    SELECT string_agg(dep, ', ' ORDER BY dep) INTO v_found FROM lakets._dependants(p_relation) AS dep;
    IF v_found IS NOT NULL THEN
        RAISE EXCEPTION 'Table % cannot be partitioned while other objects depend on it: %.', p_relation, v_found
            USING HINT = 'Drop them, create the ChronoTable, and create them again.';
    END IF;
END;
$$;

-- The statements that repeat the grants on a table and its columns to roles other than the owner.
CREATE OR REPLACE FUNCTION lakets._grant_statements(
    p_relation regclass
) RETURNS SETOF text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('GRANT %s%s ON %s TO %s%s', acl.privilege_type, ' (' || quote_ident(acl.attname) || ')', p_relation,
                  CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END,
                  CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
      FROM pg_class AS cls
     CROSS JOIN LATERAL (
           SELECT tab.*, NULL::name AS attname FROM aclexplode(cls.relacl) AS tab
           UNION ALL
           SELECT col.*, att.attname
             FROM pg_attribute AS att, aclexplode(att.attacl) AS col WHERE att.attrelid = cls.oid AND NOT att.attisdropped) AS acl
     WHERE cls.oid = p_relation AND acl.grantee <> cls.relowner;
$$;

-- The statements that repeat the comments on a table's indexes, keys, triggers and policies. LIKE
-- copies the others.
CREATE OR REPLACE FUNCTION lakets._comment_statements(
    p_relation regclass
) RETURNS SETOF text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('COMMENT ON %s IS %L', item.what, item.comment)
      FROM (SELECT 'INDEX ' || idx.indexrelid::regclass, obj_description(idx.indexrelid, 'pg_class')
              FROM pg_index AS idx WHERE idx.indrelid = p_relation
            UNION ALL
            SELECT format('CONSTRAINT %I ON %s', con.conname, p_relation), obj_description(con.oid, 'pg_constraint')
              FROM pg_constraint AS con WHERE con.conrelid = p_relation AND con.contype IN ('p', 'u', 'x', 'f')
            UNION ALL
            SELECT format('TRIGGER %I ON %s', trg.tgname, p_relation), obj_description(trg.oid, 'pg_trigger')
              FROM pg_trigger AS trg WHERE trg.tgrelid = p_relation AND NOT trg.tgisinternal
            UNION ALL
            SELECT format('POLICY %I ON %s', pol.polname, p_relation), obj_description(pol.oid, 'pg_policy')
              FROM pg_policy AS pol WHERE pol.polrelid = p_relation) AS item (what, comment)
     WHERE item.comment IS NOT NULL;
$$;

-- The storage parameters of a table or an index, as in WITH (...); empty if it has none.
CREATE OR REPLACE FUNCTION lakets._storage_options(
    p_relation regclass
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce('WITH (' || string_agg(format('%I = %L', opt.option_name, opt.option_value), ', ') || ')', '')
      FROM pg_class AS cls, pg_options_to_table(cls.reloptions) AS opt WHERE cls.oid = p_relation;
$$;

-- The statements that give a table the statistics targets and options of another's columns.
-- Postgres uses n_distinct for the rows of one table, and n_distinct_inherited for those of all
-- partitions (p_is_partitioned).
CREATE OR REPLACE FUNCTION lakets._column_settings(
    p_relation       regclass,
    p_name           text,
    p_is_partitioned boolean
) RETURNS SETOF text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('ALTER TABLE %s ALTER COLUMN %I SET %s', p_name, att.attname, setting.what)
      FROM pg_attribute AS att
     CROSS JOIN LATERAL (
           SELECT 'STATISTICS ' || att.attstattarget WHERE att.attstattarget >= 0
           UNION ALL
           SELECT format('(%s)', string_agg(format('%I = %L', opt.name, opt.value), ', '))
             FROM (SELECT given.option_name AS name, given.option_value AS value FROM pg_options_to_table(att.attoptions) AS given
                   UNION ALL
                   SELECT 'n_distinct_inherited', given.option_value FROM pg_options_to_table(att.attoptions) AS given
                    WHERE p_is_partitioned AND given.option_name = 'n_distinct'
                      AND NOT EXISTS (SELECT FROM pg_options_to_table(att.attoptions) AS other WHERE other.option_name = 'n_distinct_inherited')
                  ) AS opt
           HAVING count(*) > 0) AS setting (what)
     WHERE att.attrelid = p_relation AND att.attnum > 0 AND NOT att.attisdropped;
$$;

-- The statements that give a new table what LIKE does not copy, in order. Read before the old table
-- is set aside. Phase 1 comes before the rows are copied; 2 after, so that indexes are built once,
-- policies hide no row and triggers do not fire for existing rows; 3 once the old table is gone,
-- for names that it held.
CREATE OR REPLACE FUNCTION lakets._table_trimmings(
    p_relation regclass
) RETURNS TABLE (phase integer, statement text)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    -- Write constants in indexes, policies and triggers so that they read back as the same values.
    SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET extra_float_digits = 1
AS $$
    WITH target AS (
        SELECT cls.*, format('%I.%I', nsp.nspname, cls.relname) AS full_name
          FROM pg_class AS cls JOIN pg_namespace AS nsp ON nsp.oid = cls.relnamespace
         WHERE cls.oid = p_relation
    ), trimming (phase, position, statement) AS (
        SELECT 1, 1, format('ALTER TABLE %s OWNER TO %I', t.full_name, pg_get_userbyid(t.relowner))
          FROM target AS t WHERE t.relowner <> current_user::regrole
        UNION ALL
        SELECT 1, 2, format('ALTER SEQUENCE %s OWNED BY %s.%I', dep.objid::regclass, t.full_name, att.attname)
          FROM target AS t
          JOIN pg_depend AS dep ON dep.refobjid = t.oid AND dep.refclassid = 'pg_class'::regclass
                               AND dep.classid = 'pg_class'::regclass AND dep.deptype = 'a'
          JOIN pg_class AS seq ON seq.oid = dep.objid AND seq.relkind = 'S'
          JOIN pg_attribute AS att ON att.attrelid = t.oid AND att.attnum = dep.refobjsubid
        UNION ALL
        SELECT 1, 3, format('COMMENT ON TABLE %s IS %L', t.full_name, obj_description(t.oid, 'pg_class'))
          FROM target AS t WHERE obj_description(t.oid, 'pg_class') IS NOT NULL
        UNION ALL
        SELECT 1, 4, setting.statement FROM target AS t, lakets._column_settings(p_relation, t.full_name, true) AS setting (statement)
        UNION ALL
        SELECT 1, 5, grants.statement FROM lakets._grant_statements(p_relation) AS grants (statement)
        UNION ALL  -- the sequences of identity columns, which have their old names again
        SELECT 1, 6, item.statement
          FROM pg_depend AS dep
          JOIN pg_class AS seq ON seq.oid = dep.objid AND seq.relkind = 'S'
         CROSS JOIN LATERAL (
               SELECT lakets._grant_statements(seq.oid::regclass)
               UNION ALL
               SELECT format('COMMENT ON SEQUENCE %s IS %L', seq.oid::regclass, obj_description(seq.oid, 'pg_class'))
                WHERE obj_description(seq.oid, 'pg_class') IS NOT NULL) AS item (statement)
         WHERE dep.refobjid = p_relation AND dep.refclassid = 'pg_class'::regclass AND dep.classid = 'pg_class'::regclass AND dep.deptype = 'i'
        UNION ALL  -- indexes that belong to no constraint, then constraints except those that LIKE copies
        SELECT 2, 1, pg_get_indexdef(idx.indexrelid)
          FROM pg_index AS idx
         WHERE idx.indrelid = p_relation
           AND NOT EXISTS (SELECT FROM pg_constraint AS con WHERE con.conindid = idx.indexrelid AND con.conrelid = p_relation)
        UNION ALL
        SELECT 2, CASE con.contype WHEN 'f' THEN 3 ELSE 2 END,
               format('ALTER TABLE %s ADD CONSTRAINT %I %s', t.full_name, con.conname,
                      CASE WHEN con.contype IN ('p', 'u')
                      THEN regexp_replace(pg_get_constraintdef(con.oid), '((?: DEFERRABLE)?(?: INITIALLY DEFERRED)?)$',
                                          replace(coalesce(nullif(' ' || lakets._storage_options(con.conindid), ' '), ''), '\', '\\') || '\1')
                      -- Copying the rows validates a constraint that was NOT VALID: a partitioned
                      -- table cannot have one.
                      ELSE regexp_replace(pg_get_constraintdef(con.oid), ' NOT VALID$', '') END)
          FROM target AS t JOIN pg_constraint AS con ON con.conrelid = t.oid
         WHERE con.contype IN ('p', 'u', 'x', 'f')
        UNION ALL
        SELECT 2, 4, format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', pol.policyname, t.full_name, pol.permissive, pol.cmd,
                            (SELECT string_agg(CASE role WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(role) END, ', ')
                               FROM unnest(pol.roles) AS role),
                            ' USING (' || pol.qual || ')', ' WITH CHECK (' || pol.with_check || ')')
          FROM target AS t JOIN pg_policies AS pol ON format('%I.%I', pol.schemaname, pol.tablename) = t.full_name
        UNION ALL
        SELECT 2, 5, format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', t.full_name) FROM target AS t WHERE t.relrowsecurity
        UNION ALL
        SELECT 2, 5, format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', t.full_name) FROM target AS t WHERE t.relforcerowsecurity
        UNION ALL
        SELECT 2, 6, pg_get_triggerdef(trg.oid)
          FROM pg_trigger AS trg WHERE trg.tgrelid = p_relation AND NOT trg.tgisinternal
        UNION ALL
        SELECT 2, 7, format('ALTER TABLE %s %s TRIGGER %I', t.full_name,
                            CASE trg.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END,
                            trg.tgname)
          FROM target AS t JOIN pg_trigger AS trg ON trg.tgrelid = t.oid
         WHERE NOT trg.tgisinternal AND trg.tgenabled <> 'O'
        UNION ALL
        SELECT 2, 8, format('ALTER TABLE %s REPLICA IDENTITY %s', t.full_name, CASE t.relreplident WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING'
                            ELSE 'USING INDEX ' || (SELECT quote_ident(cls.relname) FROM pg_index AS idx JOIN pg_class AS cls ON cls.oid = idx.indexrelid
                                                     WHERE idx.indrelid = t.oid AND idx.indisreplident) END)
          FROM target AS t WHERE t.relreplident <> 'd'
        UNION ALL
        SELECT 2, 9, comments.statement FROM lakets._comment_statements(p_relation) AS comments (statement)
        UNION ALL
        SELECT 3, 1, pg_get_statisticsobjdef(ext.oid) FROM pg_statistic_ext AS ext WHERE ext.stxrelid = p_relation
        UNION ALL
        SELECT 3, 2, format('COMMENT ON STATISTICS %I.%I IS %L', nsp.nspname, ext.stxname, obj_description(ext.oid, 'pg_statistic_ext'))
          FROM pg_statistic_ext AS ext JOIN pg_namespace AS nsp ON nsp.oid = ext.stxnamespace
         WHERE ext.stxrelid = p_relation AND obj_description(ext.oid, 'pg_statistic_ext') IS NOT NULL
        UNION ALL
        SELECT 3, 2, format('ALTER STATISTICS %I.%I SET STATISTICS %s', nsp.nspname, ext.stxname, ext.stxstattarget)
          FROM pg_statistic_ext AS ext JOIN pg_namespace AS nsp ON nsp.oid = ext.stxnamespace
         WHERE ext.stxrelid = p_relation AND ext.stxstattarget >= 0
        UNION ALL  -- rights that were taken from the owner, except the one to create the triggers of LakeTS
        SELECT 3, 3, format('REVOKE %s ON %s FROM %I', usual.privilege_type, t.full_name, pg_get_userbyid(t.relowner))
          FROM target AS t
         CROSS JOIN LATERAL aclexplode(acldefault('r', t.relowner)) AS usual
         WHERE t.relacl IS NOT NULL AND usual.privilege_type <> 'TRIGGER'
           AND NOT EXISTS (SELECT FROM aclexplode(t.relacl) AS acl WHERE acl.grantee = t.relowner AND acl.privilege_type = usual.privilege_type)
    )
    SELECT trimming.phase, trimming.statement FROM trimming ORDER BY trimming.phase, trimming.position;
$$;

-- Revoke what default privileges granted on a new table or sequence.
CREATE OR REPLACE FUNCTION lakets._revoke_all(
    p_relation regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_grantee text;
BEGIN
    FOR v_grantee IN
        SELECT DISTINCT CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END
          FROM pg_class AS cls, aclexplode(cls.relacl) AS acl WHERE cls.oid = p_relation AND acl.grantee <> cls.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %s', p_relation, v_grantee);
    END LOOP;
END;
$$;

-- Rename the old table and its indexes, so that their names are free for the new ones.
CREATE OR REPLACE FUNCTION lakets._set_aside(
    p_relation regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_index regclass;
BEGIN
    FOR v_index IN SELECT idx.indexrelid FROM pg_index AS idx WHERE idx.indrelid = p_relation LOOP
        EXECUTE format('ALTER INDEX %s RENAME TO %I', v_index, '_lakets_old_' || v_index::oid);
    END LOOP;
    EXECUTE format('ALTER TABLE %s RENAME TO %I', p_relation, '_lakets_old_' || p_relation::oid);
END;
$$;

-- Identity columns of the new table continue where those of the old table stopped, in sequences
-- with the old names.
CREATE OR REPLACE FUNCTION lakets._carry_identity(
    p_old regclass,
    p_new regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_column text;
    v_old    regclass;
    v_new    regclass;
    v_name   name;
    v_value  bigint;
    v_called boolean;
BEGIN
    FOR v_column IN
        SELECT att.attname FROM pg_attribute AS att
         WHERE att.attrelid = p_old AND att.attidentity <> '' AND NOT att.attisdropped
    LOOP
        v_old := pg_get_serial_sequence(p_old::text, v_column);
        v_new := pg_get_serial_sequence(p_new::text, v_column);
        v_name := (SELECT cls.relname FROM pg_class AS cls WHERE cls.oid = v_old);
        EXECUTE format('SELECT last_value, is_called FROM %s', v_old) INTO v_value, v_called;
        PERFORM setval(v_new, v_value, v_called);
        EXECUTE format('ALTER SEQUENCE %s RENAME TO %I', v_old, '_lakets_old_' || v_old::oid);
        EXECUTE format('ALTER SEQUENCE %s RENAME TO %I', v_new, v_name);
        -- LIKE makes it a sequence of bigint. With the column's type, ALTER COLUMN TYPE adapts it.
        EXECUTE format('ALTER SEQUENCE %s AS %s', v_new, (SELECT seq.seqtypid::regtype FROM pg_sequence AS seq WHERE seq.seqrelid = v_old));
        PERFORM lakets._revoke_all(v_new);
    END LOOP;
END;
$$;

-- The columns that can be written, quoted and comma separated: all but generated ones.
CREATE OR REPLACE FUNCTION lakets._writable_columns(
    p_relation regclass
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(quote_ident(att.attname), ', ' ORDER BY att.attnum)
      FROM pg_attribute AS att
     WHERE att.attrelid = p_relation AND att.attnum > 0 AND NOT att.attisdropped AND att.attgenerated = '';
$$;
