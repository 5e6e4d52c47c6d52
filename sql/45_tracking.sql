-- Change tracking: statement triggers with transition tables on the ChronoTable. Each statement mirrors
-- its rows into the shadow (when synced) and appends to the change log, in that order: the log's WAL
-- position must lie after the lock on the shadow (see 60_durability.sql). The trigger functions are
-- generated per table, so that their plans are kept from one statement to the next.

-- SQL text of a row as one text, for tables without a key: two rows are the same if they print the same.
CREATE OR REPLACE FUNCTION lakets._row_image(
    p_alias   text,
    p_columns name[]
) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('ROW(%s)', string_agg(format('%s.%I', p_alias, col), ', ' ORDER BY ord))
      FROM unnest(p_columns) WITH ORDINALITY AS u (col, ord);
$$;

-- A table's columns in order.
CREATE OR REPLACE FUNCTION lakets._columns(
    p_relation regclass
) RETURNS name[]
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(att.attname ORDER BY att.attnum)
      FROM pg_attribute AS att WHERE att.attrelid = p_relation AND att.attnum > 0 AND NOT att.attisdropped;
$$;

-- The columns of the primary key, each with its type's own equality operator; no rows without a key.
CREATE OR REPLACE FUNCTION lakets._key_columns(
    p_relation regclass
) RETURNS TABLE (key_column name, equals text)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT att.attname, format('OPERATOR(%I.%s)', nsp.nspname, opr.oprname)
      FROM pg_index AS idx
     CROSS JOIN LATERAL unnest(idx.indkey::int2[], idx.indclass::oid[]) WITH ORDINALITY AS k (attnum, opclass, position)
      JOIN pg_attribute AS att ON att.attrelid = idx.indrelid AND att.attnum = k.attnum
      JOIN pg_opclass AS cls ON cls.oid = k.opclass
      JOIN pg_amop AS amop ON amop.amopfamily = cls.opcfamily AND amop.amopstrategy = 3
                          AND amop.amoplefttype = cls.opcintype AND amop.amoprighttype = cls.opcintype
      JOIN pg_operator AS opr ON opr.oid = amop.amopopr
      JOIN pg_namespace AS nsp ON nsp.oid = opr.oprnamespace
     WHERE idx.indrelid = p_relation AND idx.indisprimary AND k.position <= idx.indnkeyatts
     ORDER BY k.position;
$$;

-- SQL text of the statements that bring a shadow in line with old_rows and new_rows: {insert, update, delete}.
-- Rows are found by index and must be equal in every column, and no more are taken than there were:
-- the shadow may still hold evicted rows that look like a new one.
CREATE OR REPLACE FUNCTION lakets._mirror_statements(
    p_relation regclass,
    p_shadow   regclass,
    p_index_on text
) RETURNS text[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_columns name[] := lakets._columns(p_relation);
    v_list    text   := (SELECT string_agg(quote_ident(col), ', ') FROM unnest(v_columns) AS col);
    v_insert  text   := format('INSERT INTO %1$s (%2$s) SELECT %2$s FROM new_rows;', p_shadow, v_list);
    v_join    text   := (SELECT string_agg(format('lakets_new.%1$I %2$s lakets_old.%1$I', key.key_column, key.equals), ' AND ')
                           FROM lakets._key_columns(p_relation) AS key);
    v_find    text   := (SELECT string_agg(format('c.%1$I %2$s lakets_old.%1$I', key.key_column, key.equals), ' AND ')
                           FROM lakets._key_columns(p_relation) AS key);
    v_delete  text;
    v_update  text;
BEGIN
    IF v_join IS NULL THEN
        v_delete := format(
            $sql$DELETE FROM %1$s AS s
                  USING (SELECT unnest(ARRAY(
                                   SELECT c.ctid FROM %1$s AS c
                                    WHERE (c.%2$I = o.at OR (c.%2$I IS NULL AND o.at IS NULL))
                                      AND %3$s::text = o.image
                                    LIMIT o.copies FOR UPDATE SKIP LOCKED)) AS tid
                           FROM (SELECT o.%2$I AS at, %4$s::text AS image, count(*) AS copies
                                   FROM old_rows AS o GROUP BY 1, 2) AS o) AS hit
                  WHERE s.ctid = hit.tid;$sql$,
            p_shadow, p_index_on, lakets._row_image('c', v_columns), lakets._row_image('o', v_columns));
        RETURN ARRAY[v_insert, v_delete || E'\n    ' || v_insert, v_delete];
    END IF;

    v_find := format('(SELECT c.ctid FROM %s AS c WHERE %s AND %s::record OPERATOR(pg_catalog.*=) %s::record LIMIT 1)',
                     p_shadow, v_find, lakets._row_image('c', v_columns), lakets._row_image('lakets_old', v_columns));
    v_delete := format('DELETE FROM %s AS s USING (SELECT %s AS tid FROM old_rows AS lakets_old) AS hit WHERE s.ctid = hit.tid;',
                       p_shadow, v_find);
    -- A row whose key changes is one row less and one row more. FULL JOIN can only be hashed or merged:
    -- a plan kept from a small statement cannot become a quadratic nested loop in a large one.
    v_update := format(
        $sql$WITH pair AS MATERIALIZED (
             SELECT lakets_new AS new_row, lakets_old IS DISTINCT FROM NULL AS had, lakets_new IS DISTINCT FROM NULL AS has,
                    CASE WHEN lakets_old IS DISTINCT FROM NULL THEN %1$s END AS tid
               FROM old_rows AS lakets_old FULL JOIN new_rows AS lakets_new ON %2$s
         ), changed AS (
             UPDATE %3$s AS s SET (%4$s) = ROW(%5$s) FROM pair WHERE pair.had AND pair.has AND s.ctid = pair.tid
         ), gone AS (
             DELETE FROM %3$s AS s USING pair WHERE NOT pair.has AND s.ctid = pair.tid
         )
         INSERT INTO %3$s (%4$s) SELECT %5$s FROM pair WHERE NOT pair.had;$sql$,
        v_find, v_join, p_shadow, v_list,
        (SELECT string_agg(format('(pair.new_row).%I', col), ', ') FROM unnest(v_columns) AS col));
    RETURN ARRAY[v_insert, v_update, v_delete];
END;
$$;

-- SQL text that appends to the change log: one row per hour of data touched, with its exact extent.
CREATE OR REPLACE FUNCTION lakets._log_statement(
    p_chronotable_id integer,
    p_relation       regclass,
    p_time_column    text,
    p_rows           text[]
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        $sql$INSERT INTO lakets._change_log (chronotable_id, min_time, max_time)
    SELECT %s, min(hit.at), max(hit.at) FROM (%s) AS hit
     GROUP BY date_bin('1 hour', hit.at, '2000-01-01 00:00:00+00'::timestamptz);$sql$,
        p_chronotable_id,
        string_agg(format('SELECT %s AS at FROM %I AS r',
                          lakets._as_instant(format('r.%I', p_time_column), lakets._column_type(p_relation, p_time_column)),
                          rows), ' UNION ALL '))
      FROM unnest(p_rows) AS rows;
$$;

-- Write one trigger function and, unless it is there, its trigger.
CREATE OR REPLACE FUNCTION lakets._write_tracker(
    p_relation   regclass,
    p_function   text,
    p_event      text,
    p_referencing text,
    p_statements text[]
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_owner name := (SELECT pg_get_userbyid(cls.relowner) FROM pg_class AS cls WHERE cls.oid = p_relation);
BEGIN
    -- Settings: old rows are found in the shadow by index and tuple id however small it was when the
    -- plan was made; and floats print exactly.
    EXECUTE format(
        $sql$CREATE OR REPLACE FUNCTION lakets.%I() RETURNS trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp%s
AS %L$sql$,
        p_function,
        CASE WHEN p_event IN ('UPDATE', 'DELETE') THEN
            ' SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET extra_float_digits = 1'
        ELSE '' END,
        format(E'BEGIN\n    %s\n    RETURN NULL;\nEND;', array_to_string(p_statements, E'\n    ')));
    IF v_owner <> current_user THEN  -- whoever may change the table may change its tracking
        EXECUTE format('ALTER FUNCTION lakets.%I() OWNER TO %I', p_function, v_owner);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_trigger AS trg WHERE trg.tgrelid = p_relation AND trg.tgname = 'lakets_track_' || lower(p_event)) THEN
        EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION lakets.%I()',
                       'lakets_track_' || lower(p_event), p_event, p_relation, p_referencing, p_function);
    END IF;
END;
$$;

-- (Re)write the tracking of one relation. p_shadow null: nothing is mirrored; p_chronotable_id null: nothing
-- is logged (a RollUp's own table).
CREATE OR REPLACE FUNCTION lakets._write_trackers(
    p_relation       regclass,
    p_stem           text,
    p_time_column    text,
    p_shadow         regclass,
    p_chronotable_id integer
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_mirror text[] := CASE WHEN p_shadow IS NOT NULL THEN lakets._mirror_statements(p_relation, p_shadow, p_time_column) END;
    v_trim   text;
    v_log    text;
BEGIN
    PERFORM lakets._write_tracker(p_relation, p_stem || '_insert', 'INSERT', 'REFERENCING NEW TABLE AS new_rows',
        ARRAY[v_mirror[1], CASE WHEN p_chronotable_id IS NOT NULL THEN
              lakets._log_statement(p_chronotable_id, p_relation, p_time_column, '{new_rows}') END]);
    PERFORM lakets._write_tracker(p_relation, p_stem || '_update', 'UPDATE',
        'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows',
        ARRAY[v_mirror[2], CASE WHEN p_chronotable_id IS NOT NULL THEN
              lakets._log_statement(p_chronotable_id, p_relation, p_time_column, '{old_rows,new_rows}') END]);
    PERFORM lakets._write_tracker(p_relation, p_stem || '_delete', 'DELETE', 'REFERENCING OLD TABLE AS old_rows',
        ARRAY[v_mirror[3], CASE WHEN p_chronotable_id IS NOT NULL THEN
              lakets._log_statement(p_chronotable_id, p_relation, p_time_column, '{old_rows}') END]);

    -- TRUNCATE empties what is resident: rows of dropped chunks stay in the shadow.
    IF p_shadow IS NOT NULL THEN
        v_trim := format('DELETE FROM %s', p_shadow);
        IF p_chronotable_id IS NOT NULL THEN
            v_trim := v_trim || format(
                ' AS s WHERE NOT EXISTS (SELECT FROM lakets._chunk_metadata AS chunk WHERE chunk.chronotable_id = %1$s '
                'AND chunk.status = ''dropped'' AND chunk.range_start <= %2$s AND chunk.range_end > %2$s)',
                p_chronotable_id, lakets._as_instant(format('s.%I', p_time_column), lakets._column_type(p_relation, p_time_column)));
        END IF;
        v_trim := v_trim || ';';
    END IF;
    IF p_chronotable_id IS NOT NULL THEN
        v_log := format('INSERT INTO lakets._change_log (chronotable_id, min_time, max_time) VALUES (%s, ''-infinity'', ''infinity'');',
                        p_chronotable_id);
    END IF;
    PERFORM lakets._write_tracker(p_relation, p_stem || '_truncate', 'TRUNCATE', '', ARRAY[v_trim, v_log]);
END;
$$;

-- (Re)write the tracking of a ChronoTable as its registry row says.
CREATE OR REPLACE FUNCTION lakets._track_chronotable(
    p_chronotable_id integer
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table lakets._chronotable_registry;
BEGIN
    SELECT reg.* INTO STRICT v_table FROM lakets._chronotable_registry AS reg WHERE reg.id = p_chronotable_id;
    PERFORM lakets._write_trackers(
        lakets._relation(v_table.schema_name, v_table.table_name), format('_track_%s', v_table.id), v_table.time_column,
        CASE WHEN v_table.sync_enabled THEN lakets._shadow_relation(v_table.shadow_table_name) END, v_table.id);
END;
$$;
