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
-- A problem of the mirror never fails a write. If a row to change is not found in the shadow, if
-- the table no longer has the columns or the key that the function was written for, or if somebody
-- put a trigger on the shadow that can discard rows (24_plain_tables.sql), a gap is recorded:
-- nothing counts as durable until another call of enable_sync has repaired the shadow. A row
-- trigger that changes rows of its own statement causes such gaps too, because its change is
-- mirrored before those rows.

-- The rights that the owner of a table lacks for its trigger functions, which run as that owner.
-- The rights on the change log cover only the columns that they fill: position, transaction and
-- snapshot always get their defaults.
CREATE OR REPLACE FUNCTION lakets._missing_grants(
    p_relation regclass
) RETURNS text[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_owner oid := (SELECT cls.relowner FROM pg_class AS cls WHERE cls.oid = p_relation);
BEGIN
    RETURN ARRAY(
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
            (has_function_privilege(v_owner, 'lakets._shape(regclass)', 'EXECUTE'), 'EXECUTE ON FUNCTION lakets._shape(regclass)'),
            (has_function_privilege(v_owner, 'lakets._has_columns(oid, text[])', 'EXECUTE'),
             'EXECUTE ON FUNCTION lakets._has_columns(oid, text[])'),
            (has_function_privilege(v_owner, 'lakets._numbered(oid, text[])', 'EXECUTE'),
             'EXECUTE ON FUNCTION lakets._numbered(oid, text[])'),
            (has_function_privilege(v_owner, 'lakets._is_plain(regclass)', 'EXECUTE'), 'EXECUTE ON FUNCTION lakets._is_plain(regclass)'),
            (has_function_privilege(v_owner, 'lakets._interference_now(regclass)', 'EXECUTE'),
             'EXECUTE ON FUNCTION lakets._interference_now(regclass)'),
            (has_function_privilege(v_owner, 'lakets._interference(regclass)', 'EXECUTE'),
             'EXECUTE ON FUNCTION lakets._interference(regclass)')
          ) AS need (is_held, what)
         WHERE NOT need.is_held);
END;
$$;

-- Grant the owner of a table the rights that its trigger functions need, or report them.
CREATE OR REPLACE FUNCTION lakets._grant_tracking(
    p_relation regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_owner   oid     := (SELECT cls.relowner FROM pg_class AS cls WHERE cls.oid = p_relation);
    v_can     boolean := (SELECT pg_has_role(cls.relowner, 'USAGE') FROM pg_class AS cls WHERE cls.oid = 'lakets._change_log'::regclass);
    v_missing text[]  := lakets._missing_grants(p_relation);
    v_what    text;
BEGIN
    IF v_missing <> '{}' AND NOT v_can THEN
        RAISE EXCEPTION 'Changes to % cannot be tracked: its owner % lacks %.', p_relation, v_owner::regrole, array_to_string(v_missing, ', ')
            USING ERRCODE = 'insufficient_privilege',
                  HINT = format('Let the owner of LakeTS run: %s', (
                      SELECT string_agg(format('GRANT %s TO %s;', what, v_owner::regrole), ' ') FROM unnest(v_missing) AS what));
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
    v_name    text := CASE WHEN p_trigger LIKE 'AFTER UPDATE OF %' THEN 'lakets_moved' ELSE 'lakets_track_' || lower(v_event) END;
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
        ELSE '' END
        -- Late rows that a policy hides from the table's owner would stay in the shadow.
        || CASE WHEN v_event = 'TRUNCATE' THEN ' SET row_security = off' ELSE '' END,
        format(E'%s\n#variable_conflict use_column\nDECLARE\n    v_mirrored bigint;\nBEGIN\n    %s\n    RETURN NULL;\nEND;', p_mark, p_body));
    EXECUTE format('REVOKE ALL ON FUNCTION lakets.%I() FROM PUBLIC', p_function);
    -- The table's owner and its members can replace it.
    IF EXISTS (SELECT FROM pg_proc AS fn
                WHERE fn.oid = to_regprocedure(format('lakets.%I()', p_function)) AND fn.proowner <> v_owner) THEN
        EXECUTE format('ALTER FUNCTION lakets.%I() OWNER TO %I', p_function, pg_get_userbyid(v_owner));
    END IF;
    SELECT trg.tgenabled INTO v_enabled FROM pg_trigger AS trg WHERE trg.tgrelid = p_relation AND trg.tgname = v_name;
    IF NOT FOUND THEN
        EXECUTE format('CREATE TRIGGER %I %s FOR EACH STATEMENT EXECUTE FUNCTION lakets.%I()',
                       v_name, replace(p_trigger, ' ON %', ' ON ' || p_relation), p_function);
    END IF;
    IF v_enabled IS DISTINCT FROM 'A' THEN
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', p_relation, v_name);
    END IF;
END;
$$;

-- SQL text of the trigger that runs after a statement that sets the time column, for a MERGE that
-- moved rows to other chunks. Postgres counts such a row as deleted and inserted, but calls the
-- triggers for that only if the MERGE has these actions; nothing else tells that the row was there.
-- Whatever is not certainly an UPDATE may be a MERGE: the statement of a function in SQL, or one
-- that was prepared by PREPARE, is not known.
CREATE OR REPLACE FUNCTION lakets._note_moves(
    p_shadow         regclass,
    p_chronotable_id integer
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        $sql$DECLARE
        v_called  text;
        v_command text;
    BEGIN
    GET DIAGNOSTICS v_called = PG_CONTEXT;
    v_called := regexp_replace(v_called, '^[^\n]*\n?', '');  -- without this function
    v_command := CASE WHEN v_called = '' THEN current_query() WHEN starts_with(v_called, 'SQL statement') THEN v_called END;
    IF coalesce(v_command ~* '\mupdate\M' AND v_command !~* '\mmerge\M', false) THEN
        RETURN NULL;
    END IF;
    %s
    %s
    END;$sql$,
        CASE WHEN p_shadow IS NOT NULL THEN lakets._note_gap(p_shadow, '(VALUES (1)) AS one WHERE true') || ';' END,
        lakets._log_statement(p_chronotable_id, NULL, NULL, NULL));
$$;

-- Runs at the end of a TRUNCATE of a whole table. Its chunks then refuse a direct TRUNCATE again.
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
-- time column are those for which they were written, and the shadow is plain. p_rows: the
-- transition table that has a row if anything happened; null for TRUNCATE, which has none.
--
-- The check runs at planning time where possible: a check for each statement costs more than the
-- insert of a single row. The result is kept with the plan, so it must not come from an old
-- snapshot, which shows the table as it was. Postgres plans again when a table changes that the
-- expression names, as a regclass. After a restore into another database the table has another oid.
-- Whether the shadow is plain is checked again after it was written: only from then on is it
-- locked, so that nobody can put a trigger on it.
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
    v_once   text := format('TG_RELID = ''%1$s''::regclass AND lakets.%2$s', p_relation::oid,
                            replace(v_asks, chr(1), p_relation::oid::text))
                     -- To mirror no rows costs little for an INSERT, not for the others.
                     || CASE WHEN p_rows = 'old_rows' THEN ' AND ' || v_some ELSE '' END;
    v_once_plain text := format('lakets._is_plain(''%s''::regclass)', p_shadow::oid);
    v_now_plain  text := format('lakets._interference_now(''%s''::regclass) IS NULL', p_shadow::oid);
BEGIN
    IF p_shadow IS NULL AND p_rows IS NULL THEN
        RETURN p_log;
    ELSIF p_shadow IS NOT NULL AND NOT lakets._shape(p_relation) <@ lakets._shape(p_shadow) THEN
        RETURN v_gap || E'\n    ' || p_log;
    END IF;
    RETURN format(
        $sql$DECLARE
        v_is_fresh constant boolean := current_setting('transaction_isolation') IN ('read committed', 'read uncommitted');
        v_fits     boolean;
        v_is_plain boolean;
    BEGIN
    IF v_is_fresh THEN
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
        CASE WHEN p_rows IS NULL THEN v_now ELSE v_once END, v_now,
        CASE WHEN p_shadow IS NOT NULL THEN format(
            $sql$IF v_is_fresh THEN
        v_is_plain := %1$s;
    ELSE
        v_is_plain := %2$s;
    END IF;
    IF v_is_plain THEN
    %3$s
    IF v_is_fresh THEN
        v_is_plain := %1$s;
    ELSE
        v_is_plain := %2$s;
    END IF;
    END IF;
    IF NOT v_is_plain THEN
    %4$s
    END IF;$sql$, v_once_plain, v_now_plain, p_mirror, v_gap) END,
        p_log, v_some, v_gap, p_log_all);
END;
$$;

-- Two digests that are the first lines of the trigger functions of a relation: one of everything
-- that they are written from (the table, its key and shadow, and the functions that write them),
-- and one of its columns. They are not written again while both are the same.
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
    RETURN format(E'-- written from %s\n-- columns %s', md5(ROW(
        p_relation::oid, p_relation, p_time_column, p_shadow::oid, p_shadow, p_chronotable_id, lakets._columns(p_relation),
        lakets._shape(p_relation), lakets._shape(p_shadow), lakets._key_index(p_relation), lakets._writers_mark())::text),
        lakets._columns_mark(p_relation));
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
    RETURN EXISTS (SELECT FROM pg_trigger AS trg
                    WHERE trg.tgrelid = p_relation AND trg.tgname = 'lakets_truncated' AND trg.tgenabled = 'A')
       AND (EXISTS (SELECT FROM pg_trigger AS trg WHERE trg.tgrelid = p_relation AND trg.tgname = 'lakets_moved' AND trg.tgenabled = 'A')
            OR NOT EXISTS (SELECT FROM pg_partitioned_table AS part WHERE part.partrelid = p_relation))
       AND (SELECT count(*) = 4
              FROM unnest('{insert,update,delete,truncate}'::text[]) AS event
              JOIN pg_trigger AS trg ON trg.tgrelid = p_relation AND trg.tgname = 'lakets_track_' || event AND trg.tgenabled = 'A'
              JOIN pg_proc AS fn ON fn.oid = trg.tgfoid AND fn.oid = to_regprocedure(format('lakets.%I()', p_stem || '_' || event))
                                AND starts_with(fn.prosrc, p_mark)
              JOIN pg_class AS cls ON cls.oid = p_relation AND cls.relowner = fn.proowner);
END;
$$;

-- Return whether the trigger functions of a relation write to a shadow. Those of a synced table do
-- not if they were written while the shadow was missing, for example because it had another name.
-- Null if there are none.
CREATE OR REPLACE FUNCTION lakets._knows_shadow(
    p_relation regclass
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT position('lakets_cdf.' IN fn.prosrc) > 0
          FROM pg_trigger AS trg JOIN pg_proc AS fn ON fn.oid = trg.tgfoid
         WHERE trg.tgrelid = p_relation AND trg.tgname = 'lakets_track_insert');
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
    -- The triggers are ENABLE ALWAYS from the start: one that is not was off for a time.
    v_was_off boolean := to_regprocedure(format('lakets.%I()', p_stem || '_insert')) IS NOT NULL AND NOT lakets._is_tracked(p_relation);
BEGIN
    PERFORM lakets._grant_tracking(p_relation);
    IF lakets._is_written(p_relation, p_stem, v_mark) THEN
        RETURN;
    ELSIF v_was_off OR NOT lakets._knows_columns(p_relation) OR p_shadow IS NOT NULL AND NOT lakets._knows_shadow(p_relation) THEN
        INSERT INTO lakets._mirror_gap (shadow) SELECT p_shadow WHERE p_shadow IS NOT NULL;
        INSERT INTO lakets._change_log (chronotable_id, min_time, max_time)
        SELECT p_chronotable_id, '-infinity', 'infinity' WHERE p_chronotable_id IS NOT NULL;
    END IF;
    IF v_was_off THEN
        RAISE WARNING 'Changes to % were not tracked for a time: its triggers were disabled or dropped.', p_relation
            USING HINT = 'RollUps of it are computed again. If it is synced, lakets.enable_sync, or the jobs, compare it with its mirror.';
    END IF;
    v_insert := format(E'INSERT INTO %1$s (%2$s) SELECT %2$s FROM new_rows;', p_shadow, v_list);
    v_delete := lakets._mirror_delete(p_relation, p_shadow, p_time_column);
    v_delete.ctes := format(E'WITH %s\n    %s;', v_delete.ctes, v_delete.missed);
    v_update := CASE WHEN EXISTS (SELECT FROM lakets._key_columns(p_relation)) THEN lakets._mirror_update(p_relation, p_shadow)
                     ELSE v_delete.ctes || E'\n    ' || v_insert END;

    PERFORM lakets._write_tracker(
        p_relation, p_stem || '_insert', v_mark, 'AFTER INSERT ON % REFERENCING NEW TABLE AS new_rows',
        lakets._guarded(p_relation, p_shadow, p_time_column, 'new_rows', v_insert || E'\n    GET DIAGNOSTICS v_mirrored = ROW_COUNT;',
                        lakets._log_statement(p_chronotable_id, p_relation, p_time_column, '{new_rows}'), v_all));
    PERFORM lakets._write_tracker(
        p_relation, p_stem || '_update', v_mark, 'AFTER UPDATE ON % REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows',
        lakets._guarded(p_relation, p_shadow, p_time_column, 'old_rows', v_update,
                        lakets._log_statement(p_chronotable_id, p_relation, p_time_column, '{old_rows,new_rows}'), v_all));
    PERFORM lakets._write_tracker(
        p_relation, p_stem || '_delete', v_mark, 'AFTER DELETE ON % REFERENCING OLD TABLE AS old_rows',
        lakets._guarded(p_relation, p_shadow, p_time_column, 'old_rows', v_delete.ctes,
                        lakets._log_statement(p_chronotable_id, p_relation, p_time_column, '{old_rows}'), v_all));
    IF p_chronotable_id IS NOT NULL THEN
        PERFORM lakets._write_tracker(
            p_relation, p_stem || '_move', v_mark, format('AFTER UPDATE OF %I ON %%', p_time_column),
            lakets._note_moves(p_shadow, p_chronotable_id));
    END IF;
    -- BEFORE, while the rows can still be seen. Chunks allow TRUNCATE only in the statement that
    -- truncates their table: _end_truncate removes the table from the list at its end.
    IF NOT EXISTS (SELECT FROM pg_trigger AS trg
                    WHERE trg.tgrelid = p_relation AND trg.tgname = 'lakets_truncated' AND trg.tgenabled = 'A') THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER lakets_truncated AFTER TRUNCATE ON %s'
                       ' FOR EACH STATEMENT EXECUTE FUNCTION lakets._end_truncate()', p_relation);
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

-- Take in that values of a table may have been rewritten (see _columns_mark): its mirror is in
-- doubt, and its RollUps are aggregated again. A role that may not do so leaves it to another.
CREATE OR REPLACE FUNCTION lakets._follow_rewrite(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT lakets._knows_columns(p_table.relation)
       AND (SELECT pg_has_role(cls.relowner, 'USAGE') FROM pg_class AS cls WHERE cls.oid = p_table.relation) THEN
        PERFORM lakets._lock_maintenance(p_table.relation);
        PERFORM lakets._track_chronotable(p_table.id);
    END IF;
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
    IF EXISTS (SELECT FROM pg_attribute AS att WHERE att.attrelid = v_table.relation AND att.attnum > 0 AND att.attgenerated = 's') THEN
        PERFORM lakets._show_generated(v_table.relation, part.relation)
           FROM (SELECT inh.inhrelid::regclass AS relation FROM pg_inherits AS inh WHERE inh.inhparent = v_table.relation ORDER BY inh.inhrelid) AS part;
    END IF;
END;
$$;
