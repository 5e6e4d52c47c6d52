-- Change tracking: statement triggers with transition tables on the ChronoTable. Each statement
-- mirrors its rows into the shadow (when synced) and appends to the change log, in that order: the
-- log's WAL position must lie after the lock on the shadow (see 60_durability.sql). The trigger
-- functions are generated per table, so that Postgres keeps their plans between statements.
--
-- The trigger functions run as the table's owner (SECURITY DEFINER), who also owns the shadow. A
-- writer therefore needs no right on the shadow, on the change log or on the schemas, and cannot
-- change what the proofs rest on. They may be executed by that owner only, so nobody can put them
-- on another table. They fire in every session, whatever its session_replication_role.
--
-- A problem of the mirror never fails a write. If a row to change is not found in the shadow, or
-- the table no longer has the columns or the key that the function was written for, a gap is
-- recorded: nothing counts as durable until another call of enable_sync has repaired the shadow. A
-- row trigger that changes rows of its own statement causes such gaps too, because its change is
-- mirrored before those rows.

-- SQL text of a row, for comparing it whole.
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

-- A table's columns in order, without virtual ones, which are computed from the others.
CREATE OR REPLACE FUNCTION lakets._columns(
    p_relation regclass
) RETURNS name[]
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(att.attname ORDER BY att.attnum)
      FROM pg_attribute AS att
     WHERE att.attrelid = p_relation AND att.attnum > 0 AND NOT att.attisdropped AND att.attgenerated <> 'v';
$$;

-- The same with their types, sorted by name. A shadow must have the same columns.
CREATE OR REPLACE FUNCTION lakets._shape(
    p_relation regclass
) RETURNS text[]
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(att.attname || ' ' || format_type(att.atttypid, att.atttypmod) ORDER BY att.attname)
      FROM pg_attribute AS att
     WHERE att.attrelid = p_relation AND att.attnum > 0 AND NOT att.attisdropped AND att.attgenerated <> 'v';
$$;

-- The index of the key that identifies a row at any moment: of the replica identity, or else of the
-- primary key unless that is deferrable.
CREATE OR REPLACE FUNCTION lakets._key_index(
    p_relation oid
) RETURNS oid
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(pg_get_replica_identity_index(p_relation::regclass)::oid, (
        SELECT idx.indexrelid FROM pg_index AS idx
         WHERE idx.indrelid = p_relation AND idx.indisprimary AND idx.indimmediate AND idx.indisvalid));
$$;

-- Return whether a table still has the columns and the key (null: none was needed) that its
-- tracking was written for. Declared immutable, so that a statement with constant arguments
-- evaluates it once, when it is planned. Postgres plans a statement on a transition table again
-- after its table was altered. Only for tracking triggers: see _guarded.
CREATE OR REPLACE FUNCTION lakets._has_shape(
    p_relation oid,
    p_shape    text[],
    p_key      oid
) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN lakets._shape(p_relation) IS DISTINCT FROM p_shape THEN false  -- it has none if it is gone
                WHEN p_key IS NULL THEN true
                ELSE lakets._key_index(p_relation) IS NOT DISTINCT FROM p_key END;
$$;

-- Return whether a table still has a column with that name. Declared immutable for the same reason,
-- and for the same use only.
CREATE OR REPLACE FUNCTION lakets._has_column(
    p_relation oid,
    p_column   name
) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM pg_attribute AS att WHERE att.attrelid = p_relation AND att.attname = p_column AND NOT att.attisdropped);
$$;

-- The columns of that key, each with its type's own equality operator; no rows without such a key.
CREATE OR REPLACE FUNCTION lakets._key_columns(
    p_relation regclass
) RETURNS TABLE (key_column name, equals text)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT att.attname, format('OPERATOR(%I.%s)', nsp.nspname, opr.oprname)
          FROM pg_index AS idx
         CROSS JOIN LATERAL unnest(idx.indkey::int2[], idx.indclass::oid[]) WITH ORDINALITY AS k (attnum, opclass, position)
          JOIN pg_attribute AS att ON att.attrelid = idx.indrelid AND att.attnum = k.attnum
          JOIN pg_opclass AS cls ON cls.oid = k.opclass
          JOIN pg_amop AS amop ON amop.amopfamily = cls.opcfamily AND amop.amopstrategy = 3
                              AND amop.amoplefttype = cls.opcintype AND amop.amoprighttype = cls.opcintype
          JOIN pg_operator AS opr ON opr.oid = amop.amopopr
          JOIN pg_namespace AS nsp ON nsp.oid = opr.oprnamespace
         WHERE idx.indexrelid = lakets._key_index(p_relation) AND k.position <= idx.indnkeyatts
         ORDER BY k.position;
END;
$$;

-- For a table without a key: two SQL expressions that find the copies of a row by index, its time
-- and a hash of the columns that can be hashed.
CREATE OR REPLACE FUNCTION lakets._find_by(
    p_relation    regclass,
    p_alias       text,
    p_time_column text,
    OUT at        text,
    OUT hash      text
)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    SELECT format('coalesce(%s.%I, %L::%s)', p_alias, p_time_column, 'infinity', lakets._column_type(p_relation, p_time_column)),
           format('hash_record_extended(%s, 0)', lakets._row_image(p_alias, array_agg(att.attname ORDER BY att.attnum)))
      INTO at, hash
      FROM pg_attribute AS att
      JOIN pg_type AS typ ON typ.oid = att.atttypid
     WHERE att.attrelid = p_relation AND att.attname = ANY (lakets._columns(p_relation))
       AND (att.atttypid = 'varchar'::regtype OR typ.typtype = 'e' OR EXISTS (
            SELECT FROM pg_opclass AS cls
              JOIN pg_am AS am ON am.oid = cls.opcmethod AND am.amname = 'hash'
              JOIN pg_amproc AS fn ON fn.amprocfamily = cls.opcfamily AND fn.amprocnum = 2 AND fn.amproclefttype = cls.opcintype
             WHERE cls.opcdefault AND cls.opcintype = att.atttypid AND typ.typtype = 'b' AND typ.typelem = 0));
END;
$$;

-- The columns or expressions of the shadow's index: the key, or the two above.
CREATE OR REPLACE FUNCTION lakets._shadow_index_columns(
    p_relation    regclass,
    p_shadow      regclass,
    p_time_column text
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN coalesce((SELECT string_agg(quote_ident(key.key_column), ', ') FROM lakets._key_columns(p_relation) AS key),
                    (SELECT format('(%s), (%s)', find.at, find.hash)
                       FROM pg_class AS cls, lakets._find_by(p_relation, quote_ident(cls.relname), p_time_column) AS find
                      WHERE cls.oid = p_shadow));
END;
$$;

-- SQL text that records a gap if `p_query` (the text after SELECT ... FROM) returns a row. One gap
-- is enough, but an old snapshot may show one that has been repaired since.
CREATE OR REPLACE FUNCTION lakets._note_gap(
    p_shadow regclass,
    p_query  text
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('INSERT INTO lakets._mirror_gap (shadow) SELECT %1$L::regclass FROM %2$s '
                  'AND (current_setting(''transaction_isolation'') NOT IN (''read committed'', ''read uncommitted'') '
                  'OR NOT EXISTS (SELECT FROM lakets._mirror_gap AS gap WHERE gap.shadow = %1$L::regclass)) LIMIT 1',
                  p_shadow, p_query);
$$;

-- SQL text of CTEs that delete old_rows from the shadow: hit (the rows that were found; tids reads
-- their places) and gone. A row is found by index, must be equal in every bit, and no more are
-- taken than there were: the shadow may also hold evicted rows that look the same, and without a
-- key another session may be deleting a row just like it.
CREATE OR REPLACE FUNCTION lakets._mirror_delete(
    p_relation    regclass,
    p_shadow      regclass,
    p_time_column text,
    OUT hit       text,
    OUT tids      text,
    OUT ctes      text,
    OUT missed    text
)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_columns name[] := lakets._columns(p_relation);
    v_key     text   := (SELECT string_agg(format('c.%1$I %2$s old_row.%1$I', key.key_column, key.equals), ' AND ')
                           FROM lakets._key_columns(p_relation) AS key);
    v_shadow  record := lakets._find_by(p_relation, 'c', p_time_column);
    v_old     record := lakets._find_by(p_relation, 'o', p_time_column);
BEGIN
    IF v_key IS NOT NULL THEN
        hit := format(
            $sql$hit AS MATERIALIZED (
        SELECT (SELECT c.ctid FROM %1$s AS c
                 WHERE %2$s AND %3$s::record OPERATOR(pg_catalog.*=) %4$s::record LIMIT 1) AS tid
          FROM old_rows AS old_row
    )$sql$,
            p_shadow, v_key, lakets._row_image('c', v_columns), lakets._row_image('old_row', v_columns));
        tids := 'SELECT hit.tid FROM hit';
        missed := lakets._note_gap(p_shadow, 'hit WHERE hit.tid IS NULL');
    ELSE
        hit := format(
            $sql$hit AS MATERIALIZED (
        SELECT old_row.copies,
               ARRAY(SELECT c.ctid FROM %1$s AS c
                      WHERE %2$s = old_row.at AND %3$s = old_row.hash AND %4$s::text = old_row.image
                      LIMIT old_row.copies FOR UPDATE SKIP LOCKED) AS tids
          FROM (SELECT %5$s AS at, %6$s AS hash, %7$s::text AS image, count(*) AS copies
                  FROM old_rows AS o GROUP BY 1, 2, 3) AS old_row
    )$sql$,
            p_shadow, v_shadow.at, v_shadow.hash, lakets._row_image('c', v_columns),
            v_old.at, v_old.hash, lakets._row_image('o', v_columns));
        tids := 'SELECT unnest(hit.tids) AS tid FROM hit';
        missed := lakets._note_gap(p_shadow, 'hit WHERE cardinality(hit.tids) < hit.copies');
    END IF;
    -- Visiting a list of tuple ids takes a third of the time of a join, but the list is held in
    -- memory.
    ctes := format(
        $sql$%1$s, gone AS (
        DELETE FROM %2$s AS s WHERE s.ctid = ANY (ARRAY(%3$s LIMIT 1000000))
    ), gone_too AS (
        DELETE FROM %2$s AS s USING (%3$s OFFSET 1000000) AS found WHERE s.ctid = found.tid
    )$sql$, hit, p_shadow, tids);
END;
$$;

-- SQL text that applies an UPDATE of a table with a key to the shadow. A row whose key changes is
-- deleted and inserted. FULL JOIN can only be hashed or merged: a plan kept from a small statement
-- cannot become a quadratic nested loop in a large one.
CREATE OR REPLACE FUNCTION lakets._mirror_update(
    p_relation regclass,
    p_shadow   regclass
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_columns name[] := lakets._columns(p_relation);
    v_list    text   := (SELECT string_agg(quote_ident(col), ', ') FROM unnest(v_columns) AS col);
    v_join    text;
    v_find    text;
BEGIN
    SELECT string_agg(format('lakets_new.%1$I %2$s lakets_old.%1$I', key.key_column, key.equals), ' AND '),
           string_agg(format('c.%1$I %2$s lakets_old.%1$I', key.key_column, key.equals), ' AND ')
      INTO v_join, v_find
      FROM lakets._key_columns(p_relation) AS key;
    RETURN format(
        $sql$WITH pair AS MATERIALIZED (
        SELECT lakets_new AS new_row, lakets_old IS DISTINCT FROM NULL AS had, lakets_new IS DISTINCT FROM NULL AS has,
               CASE WHEN lakets_old IS DISTINCT FROM NULL THEN (
                   SELECT c.ctid FROM %1$s AS c
                    WHERE %2$s AND %3$s::record OPERATOR(pg_catalog.*=) %4$s::record LIMIT 1) END AS tid
          FROM old_rows AS lakets_old FULL JOIN new_rows AS lakets_new ON %5$s
    ), changed AS (
        UPDATE %1$s AS s SET (%6$s) = ROW(%7$s) FROM pair WHERE pair.has AND s.ctid = pair.tid
    ), gone AS (
        DELETE FROM %1$s AS s USING pair WHERE NOT pair.has AND s.ctid = pair.tid
    ), missed AS (
        %8$s
    )
    INSERT INTO %1$s (%6$s) SELECT %7$s FROM pair WHERE pair.has AND pair.tid IS NULL;$sql$,
        p_shadow, v_find, lakets._row_image('c', v_columns), lakets._row_image('lakets_old', v_columns), v_join, v_list,
        (SELECT string_agg(format('(pair.new_row).%I', col), ', ') FROM unnest(v_columns) AS col),
        lakets._note_gap(p_shadow, 'pair WHERE pair.had AND pair.tid IS NULL'));
END;
$$;

-- SQL text of the condition that a time is in a dropped chunk of a ChronoTable. There the shadow
-- keeps rows that the table no longer has.
CREATE OR REPLACE FUNCTION lakets._is_evicted(
    p_chronotable_id integer,
    p_time           text
) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('coalesce((SELECT range_agg(tstzrange(chunk.range_start, chunk.range_end)) FROM lakets._chunk_metadata AS chunk '
                  'WHERE chunk.chronotable_id = %s AND chunk.status = ''dropped'') @> %s, false)', p_chronotable_id, p_time);
$$;

-- SQL text that empties the shadow before a TRUNCATE, except for the rows of dropped chunks. Rows
-- that came late for such a chunk are still in the table, and are deleted one by one.
CREATE OR REPLACE FUNCTION lakets._mirror_truncate(
    p_relation       regclass,
    p_shadow         regclass,
    p_time_column    text,
    p_chronotable_id integer
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_type   regtype := lakets._column_type(p_relation, p_time_column);
    v_delete record  := lakets._mirror_delete(p_relation, p_shadow, p_time_column);
BEGIN
    IF p_chronotable_id IS NULL THEN
        RETURN format('DELETE FROM %s;', p_shadow);
    END IF;
    RETURN format(
        $sql$IF EXISTS (SELECT FROM lakets._chunk_metadata AS chunk WHERE chunk.chronotable_id = %s AND chunk.status = 'dropped') THEN
        WITH old_rows AS MATERIALIZED (SELECT r.* FROM %s AS r WHERE %s), %s
        %s;
    END IF;
    DELETE FROM %s AS s WHERE NOT %s;$sql$,
        p_chronotable_id, p_relation, lakets._is_evicted(p_chronotable_id, lakets._as_instant(format('r.%I', p_time_column), v_type)),
        v_delete.ctes, v_delete.missed,
        p_shadow, lakets._is_evicted(p_chronotable_id, lakets._as_instant(format('s.%I', p_time_column), v_type)));
END;
$$;

-- SQL text that appends to the change log: one row per hour of data touched, with its exact extent.
-- A log row without a time range means that everything may have been touched.
CREATE OR REPLACE FUNCTION lakets._log_statement(
    p_chronotable_id integer,
    p_relation       regclass,
    p_time_column    text,
    p_rows           text[]
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN p_chronotable_id IS NULL THEN ''
        WHEN p_time_column IS NULL THEN format(
            'INSERT INTO lakets._change_log (chronotable_id, min_time, max_time) VALUES (%s, ''-infinity'', ''infinity'');',
            p_chronotable_id)
        ELSE format(
            $sql$INSERT INTO lakets._change_log (chronotable_id, min_time, max_time)
    SELECT %s, min(hit.at), max(hit.at) FROM (%s) AS hit
     GROUP BY date_bin('1 hour', hit.at, '2000-01-01 00:00:00+00'::timestamptz);$sql$,
            p_chronotable_id,
            (SELECT string_agg(format('SELECT %s AS at FROM %I AS r', lakets._as_instant(
                        format('r.%I', p_time_column), lakets._column_type(p_relation, p_time_column)), rows), ' UNION ALL ')
               FROM unnest(p_rows) AS rows)) END;
$$;

-- Check that the owner of a table has the rights that its trigger functions need, because they run
-- as that owner. The rights on the change log cover only the columns that they fill: position,
-- transaction and snapshot always get their defaults.
CREATE OR REPLACE FUNCTION lakets._grant_tracking(
    p_relation regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_owner   oid     := (SELECT cls.relowner FROM pg_class AS cls WHERE cls.oid = p_relation);
    v_can     boolean := (SELECT pg_has_role(cls.relowner, 'USAGE') FROM pg_class AS cls WHERE cls.oid = 'lakets._change_log'::regclass);
    v_missing text[]  := ARRAY(
        SELECT need.what
          FROM (VALUES
            (has_schema_privilege(v_owner, 'lakets', 'USAGE'), 'USAGE ON SCHEMA lakets'),
            (has_schema_privilege(v_owner, 'lakets_cdf', 'USAGE'), 'USAGE ON SCHEMA lakets_cdf'),
            (has_column_privilege(v_owner, 'lakets._change_log', 'chronotable_id', 'INSERT')
                 AND has_column_privilege(v_owner, 'lakets._change_log', 'min_time', 'INSERT')
                 AND has_column_privilege(v_owner, 'lakets._change_log', 'max_time', 'INSERT'),
             'INSERT (chronotable_id, min_time, max_time) ON lakets._change_log'),
            (has_column_privilege(v_owner, 'lakets._mirror_gap', 'shadow', 'INSERT')
                 AND has_column_privilege(v_owner, 'lakets._mirror_gap', 'shadow', 'SELECT'),
             'SELECT (shadow), INSERT (shadow) ON lakets._mirror_gap'),
            (has_table_privilege(v_owner, 'lakets._chunk_metadata', 'SELECT'), 'SELECT ON lakets._chunk_metadata'),
            (has_function_privilege(v_owner, 'lakets._has_shape(oid, text[], oid)', 'EXECUTE'),
             'EXECUTE ON FUNCTION lakets._has_shape(oid, text[], oid)'),
            (has_function_privilege(v_owner, 'lakets._has_column(oid, name)', 'EXECUTE'),
             'EXECUTE ON FUNCTION lakets._has_column(oid, name)'),
            (has_function_privilege(v_owner, 'lakets._key_index(oid)', 'EXECUTE'), 'EXECUTE ON FUNCTION lakets._key_index(oid)'),
            (has_function_privilege(v_owner, 'lakets._shape(regclass)', 'EXECUTE'), 'EXECUTE ON FUNCTION lakets._shape(regclass)')
          ) AS need (is_held, what)
         WHERE NOT need.is_held);
    v_what    text;
BEGIN
    IF v_missing <> '{}' AND NOT v_can THEN
        RAISE EXCEPTION 'Changes to % cannot be tracked: its owner % lacks % .', p_relation, v_owner::regrole, array_to_string(v_missing, ', ')
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('Let the owner of LakeTS run: GRANT %s TO %s.', v_missing[1], v_owner::regrole);
    END IF;
    FOREACH v_what IN ARRAY v_missing LOOP
        EXECUTE format('GRANT %s TO %s', v_what, v_owner::regrole);
    END LOOP;
END;
$$;

-- Write one trigger function and, unless it is there, its trigger ('AFTER INSERT ON % ...').
CREATE OR REPLACE FUNCTION lakets._write_tracker(
    p_relation regclass,
    p_function text,
    p_mark     text,
    p_trigger  text,
    p_body     text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_event   text := split_part(p_trigger, ' ', 2);
    v_owner   oid  := (SELECT cls.relowner FROM pg_class AS cls WHERE cls.oid = p_relation);
    v_name    text := 'lakets_track_' || lower(v_event);
    v_enabled "char";
BEGIN
    -- The settings make plans find old rows in the shadow by index and tuple id, even if it was
    -- small when the plan was made, and print floats exactly. SECURITY DEFINER: see the top of
    -- this file.
    EXECUTE format(
        $sql$CREATE OR REPLACE FUNCTION lakets.%I() RETURNS trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp%s
AS %L$sql$,
        p_function,
        CASE WHEN v_event <> 'INSERT' THEN
            ' SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET extra_float_digits = 1'
        ELSE '' END,
        format(E'%s\nBEGIN\n    %s\n    RETURN NULL;\nEND;', p_mark, p_body));
    EXECUTE format('REVOKE ALL ON FUNCTION lakets.%I() FROM PUBLIC', p_function);
    -- The table's owner and its members can replace it.
    IF EXISTS (SELECT FROM pg_proc AS fn
                WHERE fn.oid = to_regprocedure(format('lakets.%I()', p_function)) AND fn.proowner <> v_owner) THEN
        EXECUTE format('ALTER FUNCTION lakets.%I() OWNER TO %I', p_function, pg_get_userbyid(v_owner));
    END IF;
    SELECT trg.tgenabled INTO v_enabled FROM pg_trigger AS trg WHERE trg.tgrelid = p_relation AND trg.tgname = v_name;
    IF NOT FOUND THEN
        EXECUTE format('CREATE TRIGGER %I %s FOR EACH STATEMENT EXECUTE FUNCTION lakets.%I()',
                       v_name, replace(p_trigger, '%', p_relation::text), p_function);
    END IF;
    IF v_enabled IS NULL OR v_enabled = 'O' THEN  -- enable_sync enables one that was disabled by hand
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', p_relation, v_name);
    END IF;
END;
$$;

-- Runs at the end of a TRUNCATE of a whole table. From here on its chunks refuse a TRUNCATE of
-- their own again.
CREATE OR REPLACE FUNCTION lakets._end_truncate() RETURNS trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM set_config('lakets.truncating', array_to_string(
        array_remove(string_to_array(current_setting('lakets.truncating', true), ' '), TG_RELID::text), ' '), true);
    RETURN NULL;
END;
$$;

-- SQL text that runs the mirroring statements only while table, key, shadow and the name of the
-- time column are those for which they were written. p_rows: the transition table that has a row
-- if anything happened; null for TRUNCATE, which has none.
--
-- The check runs at planning time where possible: a check for each statement costs more than the
-- insert of a single row. The result is kept with the plan, so it must not come from an old
-- snapshot, which shows the table as it was. After a restore into another database the table has
-- another oid.
CREATE OR REPLACE FUNCTION lakets._guarded(
    p_relation    regclass,
    p_shadow      regclass,
    p_time_column text,
    p_rows        text,
    p_mirror      text,
    p_log         text,
    p_log_all     text
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_gap    text := CASE WHEN p_shadow IS NOT NULL THEN lakets._note_gap(p_shadow, '(VALUES (1)) AS one WHERE true') || ';' END;
    v_some   text := coalesce('EXISTS (SELECT FROM ' || p_rows || ')', 'true');
    v_asks   text := CASE WHEN p_shadow IS NULL THEN format('_has_column(%s, %L)', chr(1), p_time_column)
                          ELSE format('_has_shape(%s, %L, %s)', chr(1), lakets._shape(p_relation),
                                      coalesce(lakets._key_index(p_relation)::text, 'NULL')) END;
    v_now    text := 'lakets.' || replace(v_asks, chr(1), 'TG_RELID');
    v_once   text := format('TG_RELID = %1$s AND EXISTS (SELECT FROM %2$s WHERE lakets.%3$s)', p_relation::oid, p_rows,
                            replace(v_asks, chr(1), p_relation::oid::text));
BEGIN
    IF p_shadow IS NULL AND p_rows IS NULL THEN
        RETURN p_log;
    ELSIF p_shadow IS NOT NULL AND NOT lakets._shape(p_relation) <@ lakets._shape(p_shadow) THEN
        RETURN v_gap || E'\n    ' || p_log;
    END IF;
    RETURN format(
        $sql$DECLARE
        v_fits boolean;
    BEGIN
    IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
        v_fits := %s;
    ELSE
        v_fits := %s;
    END IF;
    IF v_fits THEN
    %s
    %s
    ELSIF %s THEN
    %s
    %s
    END IF;
    END;$sql$,
        CASE WHEN p_rows IS NULL THEN v_now ELSE v_once END, v_now, CASE WHEN p_shadow IS NOT NULL THEN p_mirror END,
        p_log, v_some, v_gap, p_log_all);
END;
$$;

-- A digest of everything that the trigger functions of a relation are written from: the table, its
-- key and shadow, and the functions that write them. It is their first line, and they are not
-- written again while it is the same.
CREATE OR REPLACE FUNCTION lakets._tracking_mark(
    p_relation       regclass,
    p_time_column    text,
    p_shadow         regclass,
    p_chronotable_id integer
) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('-- written from %s', md5(ROW(
        p_relation::oid, p_relation, p_time_column, p_shadow::oid, p_shadow, p_chronotable_id, lakets._columns(p_relation),
        lakets._shape(p_relation), lakets._shape(p_shadow), lakets._key_index(p_relation), lakets._writers_mark())::text));
END;
$$;

-- A digest of the functions that write them: all of LakeTS except those written for one table or
-- RollUp. Kept until the transaction ends, because an install needs it for each table.
CREATE OR REPLACE FUNCTION lakets._writers_mark() RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_mark text := nullif(current_setting('lakets.writers_mark', true), '');
BEGIN
    IF v_mark IS NULL THEN
        SELECT md5(string_agg(md5(fn.prosrc), '' ORDER BY fn.oid)) INTO v_mark
          FROM pg_proc AS fn
         WHERE fn.pronamespace = 'lakets'::regnamespace AND fn.proname !~ '^_(track|lvc|fill|0_1|rollup_live)_';
        PERFORM set_config('lakets.writers_mark', v_mark, true);
    END IF;
    RETURN v_mark;
END;
$$;

-- Return whether the tracking of one relation is complete and has that digest.
CREATE OR REPLACE FUNCTION lakets._is_written(
    p_relation regclass,
    p_stem     text,
    p_mark     text
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (SELECT FROM pg_trigger AS trg WHERE trg.tgrelid = p_relation AND trg.tgname = 'lakets_truncated')
       AND (SELECT count(*) = 4
              FROM unnest('{insert,update,delete,truncate}'::text[]) AS event
              JOIN pg_trigger AS trg ON trg.tgrelid = p_relation AND trg.tgname = 'lakets_track_' || event AND trg.tgenabled <> 'O'
              JOIN pg_proc AS fn ON fn.oid = trg.tgfoid AND fn.oid = to_regprocedure(format('lakets.%I()', p_stem || '_' || event))
                                AND starts_with(fn.prosrc, p_mark)
              JOIN pg_class AS cls ON cls.oid = p_relation AND cls.relowner = fn.proowner);
END;
$$;

-- (Re)write the tracking of one relation, unless it is as it should be. p_shadow null: nothing is
-- mirrored; p_chronotable_id null: nothing is logged (a RollUp's own table).
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
    v_list   text := (SELECT string_agg(quote_ident(col), ', ') FROM unnest(lakets._columns(p_relation)) AS col);
    v_all    text := lakets._log_statement(p_chronotable_id, p_relation, NULL, NULL);
    v_insert text;
    v_update text;
    v_delete record;
    v_mark   text := lakets._tracking_mark(p_relation, p_time_column, p_shadow, p_chronotable_id);
BEGIN
    PERFORM lakets._grant_tracking(p_relation);
    IF lakets._is_written(p_relation, p_stem, v_mark) THEN
        RETURN;
    END IF;
    v_insert := format('INSERT INTO %1$s (%2$s) SELECT %2$s FROM new_rows;', p_shadow, v_list);
    v_delete := lakets._mirror_delete(p_relation, p_shadow, p_time_column);
    v_delete.ctes := format(E'WITH %s\n    %s;', v_delete.ctes, v_delete.missed);
    v_update := CASE WHEN EXISTS (SELECT FROM lakets._key_columns(p_relation)) THEN lakets._mirror_update(p_relation, p_shadow)
                     ELSE v_delete.ctes || E'\n    ' || v_insert END;

    PERFORM lakets._write_tracker(
        p_relation, p_stem || '_insert', v_mark, 'AFTER INSERT ON % REFERENCING NEW TABLE AS new_rows',
        lakets._guarded(p_relation, p_shadow, p_time_column, 'new_rows', v_insert,
                        lakets._log_statement(p_chronotable_id, p_relation, p_time_column, '{new_rows}'), v_all));
    PERFORM lakets._write_tracker(
        p_relation, p_stem || '_update', v_mark, 'AFTER UPDATE ON % REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows',
        lakets._guarded(p_relation, p_shadow, p_time_column, 'old_rows', v_update,
                        lakets._log_statement(p_chronotable_id, p_relation, p_time_column, '{old_rows,new_rows}'), v_all));
    PERFORM lakets._write_tracker(
        p_relation, p_stem || '_delete', v_mark, 'AFTER DELETE ON % REFERENCING OLD TABLE AS old_rows',
        lakets._guarded(p_relation, p_shadow, p_time_column, 'old_rows', v_delete.ctes,
                        lakets._log_statement(p_chronotable_id, p_relation, p_time_column, '{old_rows}'), v_all));
    -- BEFORE, while the rows can still be seen. Chunks allow TRUNCATE only in the statement that
    -- truncates their table: _end_truncate removes the table from the list at its end.
    IF NOT EXISTS (SELECT FROM pg_trigger AS trg WHERE trg.tgrelid = p_relation AND trg.tgname = 'lakets_truncated') THEN
        EXECUTE format('CREATE TRIGGER lakets_truncated AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION lakets._end_truncate()',
                       p_relation);
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER lakets_truncated', p_relation);
    END IF;
    PERFORM lakets._write_tracker(
        p_relation, p_stem || '_truncate', v_mark, 'BEFORE TRUNCATE ON %',
        'PERFORM set_config(''lakets.truncating'', concat_ws('' '', current_setting(''lakets.truncating'', true), TG_RELID::text), true);'
        || E'\n    ' || lakets._guarded(
            p_relation, p_shadow, p_time_column, NULL, lakets._mirror_truncate(p_relation, p_shadow, p_time_column, p_chronotable_id),
            v_all, v_all));
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
    v_table lakets._chronotable_registry := lakets._chronotable(p_chronotable_id);
BEGIN
    PERFORM lakets._write_trackers(
        v_table.relation::regclass, format('_track_%s', v_table.id), v_table.time_column,
        CASE WHEN v_table.sync_enabled THEN lakets._shadow_relation(v_table.shadow_table_name) END, v_table.id);
    PERFORM lakets._track_lvc(v_table);
END;
$$;
