-- Turning an ordinary table into a partitioned one that looks the same to everybody who uses it.

-- Refuse, before anything is touched, what a partitioned table cannot have.
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
    SELECT string_agg(format('%s (%s)', con.conname, pg_get_constraintdef(con.oid)), ', ') INTO v_found
      FROM pg_index AS idx
      LEFT JOIN pg_constraint AS con ON con.conindid = idx.indexrelid AND con.conrelid = idx.indrelid
     WHERE idx.indrelid = p_relation AND (idx.indisunique OR idx.indisexclusion)
       AND NOT EXISTS (
           SELECT FROM pg_attribute AS att
            WHERE att.attrelid = p_relation AND att.attname = p_time_column AND att.attnum = ANY (idx.indkey::int2[]));
    IF v_found IS NOT NULL THEN
        RAISE EXCEPTION 'Table % cannot be partitioned on %: these keys do not contain that column: %.',
            p_relation, p_time_column, v_found
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'Postgres enforces a key within one partition only: add the time column to the key, or drop the key.';
    END IF;

    SELECT string_agg(format('%s on %s', con.conname, con.conrelid::regclass), ', ') INTO v_found
      FROM pg_constraint AS con WHERE con.confrelid = p_relation AND con.contype = 'f';
    IF v_found IS NOT NULL THEN
        RAISE EXCEPTION 'Table % cannot be partitioned while foreign keys point at it: %.', p_relation, v_found
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'Drop them first: a chunk whose rows are referenced could never be dropped.';
    END IF;

    SELECT string_agg(DISTINCT rule.ev_class::regclass::text, ', ') INTO v_found
      FROM pg_depend AS dep
      JOIN pg_rewrite AS rule ON rule.oid = dep.objid
     WHERE dep.classid = 'pg_rewrite'::regclass AND dep.refobjid = p_relation AND rule.ev_class <> p_relation;
    IF v_found IS NOT NULL THEN
        RAISE EXCEPTION 'Table % cannot be partitioned while views read it: %.', p_relation, v_found
            USING ERRCODE = 'dependent_objects_still_exist',
                  HINT = 'Drop the views, create the ChronoTable, and create the views again.';
    END IF;
END;
$$;

-- The statements that give a new table what LIKE does not copy: keys, foreign keys, indexes, triggers,
-- row security, owner, grants, comments, sequence ownership. Read before the old table is renamed.
-- `phase` says whether a statement must wait until the rows are copied.
CREATE OR REPLACE FUNCTION lakets._table_trimmings(
    p_relation regclass
) RETURNS TABLE (phase integer, statement text)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH target AS (
        SELECT cls.*, format('%I.%I', nsp.nspname, cls.relname) AS full_name
          FROM pg_class AS cls JOIN pg_namespace AS nsp ON nsp.oid = cls.relnamespace
         WHERE cls.oid = p_relation
    )
    SELECT 1, format('ALTER TABLE %s OWNER TO %I', t.full_name, pg_get_userbyid(t.relowner))
      FROM target AS t WHERE t.relowner <> current_user::regrole
    UNION ALL
    SELECT 1, format('ALTER SEQUENCE %s OWNED BY %s.%I', dep.objid::regclass, t.full_name, att.attname)
      FROM target AS t
      JOIN pg_depend AS dep ON dep.refobjid = t.oid AND dep.refclassid = 'pg_class'::regclass
                           AND dep.classid = 'pg_class'::regclass AND dep.deptype = 'a'
      JOIN pg_class AS seq ON seq.oid = dep.objid AND seq.relkind = 'S'
      JOIN pg_attribute AS att ON att.attrelid = t.oid AND att.attnum = dep.refobjsubid
    UNION ALL
    SELECT 1, format('GRANT %s ON %s TO %s%s', acl.privilege_type, t.full_name,
                     CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END,
                     CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
      FROM target AS t, aclexplode(t.relacl) AS acl WHERE acl.grantee <> t.relowner
    UNION ALL
    SELECT 1, format('GRANT %s (%I) ON %s TO %s%s', acl.privilege_type, att.attname, t.full_name,
                     CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END,
                     CASE WHEN acl.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
      FROM target AS t
      JOIN pg_attribute AS att ON att.attrelid = t.oid AND att.attnum > 0 AND NOT att.attisdropped,
           aclexplode(att.attacl) AS acl
    UNION ALL
    SELECT 1, format('COMMENT ON TABLE %s IS %L', t.full_name, obj_description(t.oid, 'pg_class'))
      FROM target AS t WHERE obj_description(t.oid, 'pg_class') IS NOT NULL
    UNION ALL
    SELECT 1, format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', t.full_name) FROM target AS t WHERE t.relrowsecurity
    UNION ALL
    SELECT 1, format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', t.full_name) FROM target AS t WHERE t.relforcerowsecurity
    UNION ALL
    SELECT 1, format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', pol.policyname, t.full_name, pol.permissive, pol.cmd,
                     (SELECT string_agg(CASE role WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(role) END, ', ')
                        FROM unnest(pol.roles) AS role),
                     ' USING (' || pol.qual || ')', ' WITH CHECK (' || pol.with_check || ')')
      FROM target AS t JOIN pg_policies AS pol ON format('%I.%I', pol.schemaname, pol.tablename) = t.full_name
    UNION ALL  -- indexes that no constraint makes, then constraints but for those that LIKE copies
    SELECT 2, pg_get_indexdef(idx.indexrelid)
      FROM pg_index AS idx
     WHERE idx.indrelid = p_relation
       AND NOT EXISTS (SELECT FROM pg_constraint AS con WHERE con.conindid = idx.indexrelid AND con.conrelid = p_relation)
    UNION ALL
    SELECT CASE con.contype WHEN 'f' THEN 4 ELSE 3 END,
           format('ALTER TABLE %s ADD CONSTRAINT %I %s', t.full_name, con.conname, pg_get_constraintdef(con.oid))
      FROM target AS t JOIN pg_constraint AS con ON con.conrelid = t.oid
     WHERE con.contype IN ('p', 'u', 'x', 'f')
    UNION ALL
    SELECT 4, format('COMMENT ON INDEX %s IS %L', idx.indexrelid::regclass, obj_description(idx.indexrelid, 'pg_class'))
      FROM pg_index AS idx
     WHERE idx.indrelid = p_relation AND obj_description(idx.indexrelid, 'pg_class') IS NOT NULL
    UNION ALL
    SELECT 4, format('COMMENT ON CONSTRAINT %I ON %s IS %L', con.conname, t.full_name, obj_description(con.oid, 'pg_constraint'))
      FROM target AS t JOIN pg_constraint AS con ON con.conrelid = t.oid
     WHERE con.contype IN ('p', 'u', 'x', 'f') AND obj_description(con.oid, 'pg_constraint') IS NOT NULL
    UNION ALL  -- a trigger created before the copy would fire for rows that are not new
    SELECT 5, pg_get_triggerdef(trg.oid)
      FROM pg_trigger AS trg WHERE trg.tgrelid = p_relation AND NOT trg.tgisinternal
    UNION ALL
    SELECT 6, format('ALTER TABLE %s %s TRIGGER %I', t.full_name,
                     CASE trg.tgenabled WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'ENABLE ALWAYS' END,
                     trg.tgname)
      FROM target AS t JOIN pg_trigger AS trg ON trg.tgrelid = t.oid
     WHERE NOT trg.tgisinternal AND trg.tgenabled <> 'O';
$$;

-- Move the old table and its indexes out of the way; names are free for the new ones.
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

-- Identity columns of the new table go on counting where the old table's stopped.
CREATE OR REPLACE FUNCTION lakets._carry_identity(
    p_old regclass,
    p_new regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_column text;
    v_value  bigint;
    v_called boolean;
BEGIN
    FOR v_column IN
        SELECT att.attname FROM pg_attribute AS att
         WHERE att.attrelid = p_old AND att.attidentity <> '' AND NOT att.attisdropped
    LOOP
        EXECUTE format('SELECT last_value, is_called FROM %s', pg_get_serial_sequence(p_old::text, v_column))
           INTO v_value, v_called;
        PERFORM setval(pg_get_serial_sequence(p_new::text, v_column), v_value, v_called);
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
