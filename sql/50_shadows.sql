-- Shadows: create, repair and drop the unpartitioned mirror of a table.

-- Give a shadow replica identity FULL, so that the feed accepts it, an index, so that the triggers
-- find old rows, and the table's owner, as whom the triggers run. Other roles lose the right to
-- write.
CREATE OR REPLACE FUNCTION lakets._dress_shadow(
    p_relation    regclass,
    p_shadow      regclass,
    p_time_column text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_columns text := lakets._shadow_index_columns(p_relation, p_shadow, p_time_column);
    v_index   text := format('_find_%s_%s', p_shadow::oid, left(md5(v_columns), 8));
    v_owner   oid  := (SELECT cls.relowner FROM pg_class AS cls WHERE cls.oid = p_relation);
    v_older   regclass;
    v_revoke  text;
BEGIN
    IF EXISTS (SELECT FROM pg_class AS cls WHERE cls.oid = p_shadow AND cls.relreplident <> 'f') THEN
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', p_shadow);
    END IF;
    IF to_regclass(format('lakets_cdf.%I', v_index)) IS NULL THEN
        EXECUTE format('CREATE INDEX %I ON %s (%s)', v_index, p_shadow, v_columns);
    END IF;
    -- Those for other columns, or of a shadow that was restored, would only cost the writers.
    FOR v_older IN SELECT idx.indexrelid FROM pg_index AS idx JOIN pg_class AS cls ON cls.oid = idx.indexrelid
                    WHERE idx.indrelid = p_shadow AND starts_with(cls.relname, '_find_') AND cls.relname <> v_index LOOP
        EXECUTE format('DROP INDEX %s', v_older);
    END LOOP;
    IF EXISTS (SELECT FROM pg_class AS cls WHERE cls.oid = p_shadow AND cls.relowner <> v_owner) THEN
        EXECUTE format('ALTER TABLE %s OWNER TO %I', p_shadow, pg_get_userbyid(v_owner));
    END IF;
    FOR v_revoke IN SELECT lakets._shadow_revokes(p_shadow) LOOP
        EXECUTE v_revoke;
    END LOOP;
END;
$$;

-- The statements that revoke the rights on a shadow from roles other than its owner: a direct write
-- would be streamed but not logged. Older versions granted these rights, and SELECT, to the table's
-- writers.
CREATE OR REPLACE FUNCTION lakets._shadow_revokes(
    p_shadow regclass
) RETURNS SETOF text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT format('REVOKE ALL ON %s FROM %s', p_shadow,
                      CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END)
          FROM pg_class AS cls
         CROSS JOIN LATERAL aclexplode(cls.relacl) AS acl
         WHERE cls.oid = p_shadow AND acl.grantee <> cls.relowner
         GROUP BY acl.grantee
        HAVING bool_or(acl.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER', 'REFERENCES'));
END;
$$;

-- Create the empty shadow of a relation. It has no constraints, because it also keeps rows that the
-- table no longer has.
CREATE OR REPLACE FUNCTION lakets._create_shadow(
    p_relation    regclass,
    p_shadow_name text,
    p_time_column text
) RETURNS regclass
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_list text := (SELECT string_agg(quote_ident(col), ', ') FROM unnest(lakets._columns(p_relation)) AS col);
BEGIN
    EXECUTE format('CREATE TABLE lakets_cdf.%I AS SELECT %s FROM %s WITH NO DATA', p_shadow_name, v_list, p_relation);
    PERFORM lakets._dress_shadow(p_relation, lakets._shadow_relation(p_shadow_name), p_time_column);
    RETURN lakets._shadow_relation(p_shadow_name);
END;
$$;

-- Give a shadow the columns that its table has now. A column that was dropped from the table stays,
-- for the rows of dropped chunks. Its history in Unity Catalog stays in any case.
CREATE OR REPLACE FUNCTION lakets._reshape_shadow(
    p_relation regclass,
    p_shadow   regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_column record;
BEGIN
    FOR v_column IN
        SELECT att.attname AS name, format_type(att.atttypid, att.atttypmod) AS type, lakets._column_type(p_shadow, att.attname) AS old_type
          FROM pg_attribute AS att
         WHERE att.attrelid = p_relation AND att.attname = ANY (lakets._columns(p_relation))
           AND NOT att.attname || ' ' || format_type(att.atttypid, att.atttypmod) = ANY (lakets._shape(p_shadow))
         ORDER BY att.attnum
    LOOP
        IF v_column.old_type IS NOT NULL THEN
            BEGIN
                EXECUTE format('ALTER TABLE %1$s ALTER COLUMN %2$I TYPE %3$s USING %2$I::%3$s', p_shadow, v_column.name, v_column.type);
                CONTINUE;
            EXCEPTION WHEN data_exception OR cannot_coerce OR datatype_mismatch OR check_violation THEN
                EXECUTE format('ALTER TABLE %s DROP COLUMN %I', p_shadow, v_column.name);  -- its values do not fit the new type
            END;
        END IF;
        EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s', p_shadow, v_column.name, v_column.type);
    END LOOP;
END;
$$;

-- Make a shadow hold the rows that its table holds, each as often, and otherwise only rows of
-- dropped chunks (`p_evicted`: SQL text that is true for those, for a row s of the shadow).
CREATE OR REPLACE FUNCTION lakets._realign_shadow(
    p_relation regclass,
    p_shadow   regclass,
    p_evicted  text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
    SET extra_float_digits = 1
AS $$
DECLARE
    v_columns name[] := lakets._columns(p_relation);
    v_list    text   := (SELECT string_agg(quote_ident(col), ', ') FROM unnest(v_columns) AS col);
BEGIN
    EXECUTE format(
        'WITH held AS (SELECT %1$s::text AS image, count(*) AS copies FROM %2$s AS r GROUP BY 1)
         DELETE FROM ONLY %3$s AS old
          USING (SELECT s.ctid AS tid, %4$s::text AS image, row_number() OVER (PARTITION BY %4$s::text) AS copy
                   FROM ONLY %3$s AS s WHERE NOT %5$s) AS s
           LEFT JOIN held ON held.image = s.image
          WHERE old.ctid = s.tid AND s.copy > coalesce(held.copies, 0)',
        lakets._row_image('r', v_columns), p_relation, p_shadow, lakets._row_image('s', v_columns), p_evicted);
    EXECUTE format(
        'WITH held AS (SELECT %1$s::text AS image, count(*) AS copies FROM ONLY %2$s AS s GROUP BY 1)
         INSERT INTO %2$s (%3$s)
         SELECT %6$s FROM (SELECT %6$s, %4$s::text AS %7$s, row_number() OVER (PARTITION BY %4$s::text) AS %8$s
                             FROM %5$s AS r) AS r
           LEFT JOIN held ON held.image = r.%7$s
          WHERE r.%8$s > coalesce(held.copies, 0)',
        lakets._row_image('s', v_columns), p_shadow, v_list, lakets._row_image('r', v_columns), p_relation,
        (SELECT string_agg(format('r.%I', col), ', ') FROM unnest(v_columns) AS col),
        lakets._unlike('lakets_image', v_columns), lakets._unlike('lakets_copy', v_columns));
END;
$$;

-- Return as text why a shadow may lack a change of its table; null if it is complete.
CREATE OR REPLACE FUNCTION lakets._mirror_problem(
    p_relation regclass,
    p_shadow   regclass
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE
        WHEN lakets._interference(p_shadow) IS NOT NULL
            THEN format('rows written to %s can be discarded or changed by %s; remove that, and the next tiering run or '
                        'lakets.enable_sync compares the rows', p_shadow, lakets._interference(p_shadow))
        WHEN NOT lakets._shape(p_relation) <@ lakets._shape(p_shadow)
            THEN format('the columns of %s differ from the table''s; call lakets.enable_sync again', p_shadow)
        WHEN lakets._subscriptions_of(p_relation) IS NOT NULL
            THEN lakets._subscription_problem(p_relation)
        WHEN EXISTS (SELECT FROM lakets._mirror_gap AS gap WHERE gap.shadow = p_shadow)
            THEN format('%s may lack changes; call lakets.enable_sync again to repair it', p_shadow)
        WHEN NOT lakets._knows_columns(p_relation)
            THEN 'values of the table may have been rewritten; the next tiering run or lakets.enable_sync compares them'
        WHEN NOT lakets._is_tracked(p_relation)
            THEN 'a change tracking trigger of the table is missing or was disabled; call lakets.enable_sync again'
        WHEN NOT lakets._knows_shadow(p_relation)
            THEN format('the triggers of the table do not write to %s; call lakets.enable_sync again', p_shadow) END;
END;
$$;

-- A free name for a shadow: two schemas may have a table with the same name, and be synced at the
-- same time.
CREATE OR REPLACE FUNCTION lakets._shadow_name(
    p_stem   text,
    p_schema text
) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_name text := '_shadow_' || p_stem;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('lakets shadow'), hashtext(p_stem));
    IF octet_length(v_name) <= 63 AND to_regclass(format('lakets_cdf.%I', v_name)) IS NULL THEN
        RETURN v_name;
    END IF;
    RETURN lakets._free_relation_name('lakets_cdf', v_name, '_' || left(md5(p_schema), 8));
END;
$$;

-- Drop a shadow, if it exists.
CREATE OR REPLACE FUNCTION lakets._drop_shadow(
    p_shadow_name text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_shadow regclass := lakets._shadow_relation(p_shadow_name);
BEGIN
    IF v_shadow IS NOT NULL THEN
        DELETE FROM lakets._mirror_gap AS gap WHERE gap.shadow = v_shadow;
        EXECUTE format('DROP TABLE %s', v_shadow);
    END IF;
END;
$$;

-- Drop a shadow and the generated trigger functions of one relation (whose triggers are gone
-- already).
CREATE OR REPLACE FUNCTION lakets._drop_mirror(
    p_kind        text,
    p_id          integer,
    p_shadow_name text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_event text;
BEGIN
    PERFORM lakets._drop_shadow(p_shadow_name);
    FOREACH v_event IN ARRAY '{insert,update,move,delete,truncate}'::text[] LOOP
        EXECUTE format('DROP FUNCTION IF EXISTS lakets.%I()',
                       format('%s_%s_%s', CASE p_kind WHEN 'rollup' THEN '_track_rollup' ELSE '_track' END, p_id, v_event));
    END LOOP;
END;
$$;
