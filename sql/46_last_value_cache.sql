-- The last value cache: <schema>._lvc_<table> holds the newest row of each key, so that a dashboard
-- reads the current state of every series without searching the table.
--
-- Statement triggers maintain it. Each statement finds its newest row for each key and upserts
-- these in one statement, in the order of the keys: concurrent statements wait for each other, but
-- cannot deadlock. Transactions of several statements can deadlock, as with any rows that they
-- share; they should write keys in one order, or in one statement.
--
-- last_updated is the time of the row, not of the write. A row replaces a cached value unless it is
-- older; at equal times the row written last wins. INSERT and UPDATE update the cache. DELETE,
-- TRUNCATE and retention leave it as it is: a value stays after its row is gone. An UPDATE that
-- makes the newest row older, or gives it another key, leaves the old value too. Rows without a
-- finite time, or with NULL in a key column, belong to no series and are not cached.
--
-- The trigger functions run as the table's owner (SECURITY DEFINER), who owns the cache: a writer
-- needs no right on it and cannot change it by itself. Nobody else may execute them, so nobody can
-- put them on another table.
--
-- A problem of the cache never fails a write. If a cached column was dropped, renamed or given
-- another type, the next write empties the cache and warns, so that nobody takes old values for the
-- newest. If somebody put a trigger on the cache that can discard rows (24_plain_tables.sql),
-- writes leave the cache alone and record it, as for a mirror. lvc_stats and latest_values report
-- the problem.

-- The numbers of these columns of a table (null: of all), as "name #number"; with the oid of its
-- expression if a column is generated. They change if a column is dropped and added again, or if it
-- gets another expression.
CREATE OR REPLACE FUNCTION lakets._numbered(
    p_relation oid,
    p_columns  text[] DEFAULT NULL
) RETURNS text[]
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(
        SELECT att.attname || ' #' || att.attnum || coalesce('.' || def.oid, '')
          FROM pg_attribute AS att
          LEFT JOIN pg_attrdef AS def ON def.adrelid = att.attrelid AND def.adnum = att.attnum AND att.attgenerated <> ''
         WHERE att.attrelid = p_relation AND att.attnum > 0 AND NOT att.attisdropped AND (att.attname = ANY (p_columns)) IS NOT FALSE
         ORDER BY att.attname);
$$;

-- Return whether a table has these columns with these types (as in _shape) or numbers (as in
-- _numbered). Declared immutable, so that a statement with constant arguments evaluates it once,
-- when it is planned; see _has_shape.
CREATE OR REPLACE FUNCTION lakets._has_columns(
    p_relation oid,
    p_columns  text[]
) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p_columns <@ (coalesce(lakets._shape(p_relation), '{}') || lakets._numbered(p_relation));
$$;

-- The cache of a ChronoTable; null when it was dropped by hand.
CREATE OR REPLACE FUNCTION lakets._lvc_relation(
    p_table lakets._chronotable_registry,
    p_lvc   lakets._lvc_registry
) RETURNS regclass
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN to_regclass(format('%I.%I', p_table.schema_name, p_lvc.cache_table_name));
END;
$$;

-- Return the columns that a cache copies from its table, in the form of _shape.
CREATE OR REPLACE FUNCTION lakets._lvc_shape(
    p_cache       regclass,
    p_lvc         lakets._lvc_registry,
    p_relation    regclass,
    p_time_column text
) RETURNS text[]
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(
        SELECT att.attname || ' ' || format_type(att.atttypid, att.atttypmod)
          FROM pg_attribute AS att
         WHERE att.attrelid = p_cache AND att.attname = ANY (p_lvc.key_columns || p_lvc.value_columns) AND NOT att.attisdropped
        UNION
        SELECT att.attname || ' ' || format_type(att.atttypid, att.atttypmod)
          FROM pg_attribute AS att
         WHERE att.attrelid = p_relation AND att.attname = p_time_column AND NOT att.attisdropped);
$$;

-- The columns of a cache that its table no longer has, has with another type, or has anew since the
-- triggers of the cache were written; null if there are none.
CREATE OR REPLACE FUNCTION lakets._lvc_misfits(
    p_relation regclass,
    p_cache    regclass,
    p_lvc      lakets._lvc_registry
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg(col, ', ')
      FROM unnest(p_lvc.key_columns || p_lvc.value_columns) AS col
     WHERE EXISTS (
           SELECT FROM pg_proc AS fn
            WHERE fn.oid = to_regprocedure(format('lakets.%I()', '_lvc_' || p_lvc.chronotable_id))
              AND position(format('_has_columns(%s, ', p_relation::oid) IN fn.prosrc) > 0 AND fn.prosrc ~ ' #\d'
              -- Its number, as in an array that is quoted in the function.
              AND position(substring(quote_literal(lakets._numbered(p_relation, ARRAY[col])::text) FROM '\{(.*)\}') IN fn.prosrc) = 0)
        OR NOT EXISTS (
           SELECT FROM pg_attribute AS att
             JOIN pg_attribute AS cached ON (cached.attname, cached.atttypid, cached.atttypmod) = (att.attname, att.atttypid, att.atttypmod)
            WHERE att.attrelid = p_relation AND cached.attrelid = p_cache AND att.attname = col
              AND NOT att.attisdropped AND NOT cached.attisdropped);
$$;

-- Return whether another table took the place of a cache. Not known after a restore, which gives
-- the tables other oids than those in the trigger function.
CREATE OR REPLACE FUNCTION lakets._is_other_cache(
    p_table lakets._chronotable_registry,
    p_cache regclass
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM pg_proc AS fn
         CROSS JOIN LATERAL format('TG_RELID = %s AND v_cache <> ', p_table.relation::oid) AS made
         WHERE fn.oid = to_regprocedure(format('lakets.%I()', '_lvc_' || p_table.id))
           AND position(made IN fn.prosrc) > 0 AND position(made || p_cache::oid || ' ' IN fn.prosrc) = 0);
END;
$$;

-- Return as text why a cache may be out of date; null if it is current.
CREATE OR REPLACE FUNCTION lakets._lvc_problem(
    p_table lakets._chronotable_registry,
    p_lvc   lakets._lvc_registry
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation oid      := (SELECT cls.oid FROM pg_class AS cls WHERE cls.oid = lakets._known_relation(p_table));
    v_cache    regclass := lakets._lvc_relation(p_table, p_lvc);
    v_misfits  text     := lakets._lvc_misfits(v_relation, v_cache, p_lvc);
    v_has_gap  boolean  := false;
BEGIN
    IF has_column_privilege('lakets._mirror_gap', 'shadow', 'SELECT') THEN  -- readers of a cache need not have it
        v_has_gap := EXISTS (SELECT FROM lakets._mirror_gap AS gap WHERE gap.shadow = v_cache);
    END IF;
    RETURN CASE
        WHEN NOT p_lvc.enabled THEN 'it is disabled in lakets._lvc_registry'
        WHEN v_relation IS NULL THEN 'its table does not exist'
        WHEN v_cache IS NULL THEN format('its table %I.%I does not exist', p_table.schema_name, p_lvc.cache_table_name)
        WHEN lakets._is_other_cache(p_table, v_cache)
            THEN format('another table took the place of its table %I.%I', p_table.schema_name, p_lvc.cache_table_name)
        WHEN v_misfits IS NOT NULL THEN format('these columns were dropped, renamed or changed: %s', v_misfits)
        WHEN (SELECT count(*) FROM pg_trigger AS trg JOIN pg_proc AS fn ON fn.oid = trg.tgfoid
               WHERE trg.tgrelid = v_relation AND trg.tgenabled = 'A' AND fn.proname = format('_lvc_%s', p_table.id)
                 AND position(quote_literal(v_cache::text) IN fn.prosrc) > 0) < 2
            THEN 'its triggers are missing, were disabled or are of another schema'
        WHEN lakets._interference(v_cache) IS NOT NULL
            THEN format('rows written to %s can be discarded or changed by %s', v_cache, lakets._interference(v_cache))
        WHEN v_has_gap THEN format('rows written to %s could be discarded or changed for a time', v_cache) END;
END;
$$;

-- The registry row of a cache. Raises an error if there is none.
CREATE OR REPLACE FUNCTION lakets._lvc(
    p_table lakets._chronotable_registry
) RETURNS lakets._lvc_registry
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_lvc lakets._lvc_registry;
BEGIN
    SELECT reg.* INTO v_lvc FROM lakets._lvc_registry AS reg WHERE reg.chronotable_id = p_table.id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'The last value cache of %.% is not enabled.', p_table.schema_name, p_table.table_name
            USING HINT = 'Enable it with lakets.enable_lvc(table, key columns, value columns).';
    END IF;
    RETURN v_lvc;
END;
$$;

-- SQL text that upserts the newest row of each key of p_rows (an alias r is added). p_tie: SQL text
-- that orders rows of equal times. p_condition: SQL text that must be true for a cached row, called
-- cached, to be replaced.
CREATE OR REPLACE FUNCTION lakets._lvc_upsert(
    p_cache     regclass,
    p_lvc       lakets._lvc_registry,
    p_rows      text,
    p_time      text,
    p_tie       text,
    p_condition text
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format(
        $sql$INSERT INTO %1$s AS cached (%2$s, last_updated)
    SELECT DISTINCT ON (%3$s) %4$s, %5$s FROM %6$s AS r
     WHERE %7$s AND isfinite(%5$s)
     ORDER BY %3$s, %5$s DESC, %8$s DESC
    ON CONFLICT (%9$s) DO UPDATE SET %10$slast_updated = excluded.last_updated%11$s;$sql$,
        p_cache,
        string_agg(quote_ident(col), ', ' ORDER BY place),
        string_agg(format('r.%I', col), ', ' ORDER BY place) FILTER (WHERE place <= cardinality(p_lvc.key_columns)),
        string_agg(format('r.%I', col), ', ' ORDER BY place),
        p_time, p_rows,
        string_agg(format('r.%I IS NOT NULL', col), ' AND ' ORDER BY place) FILTER (WHERE place <= cardinality(p_lvc.key_columns)),
        p_tie,
        string_agg(quote_ident(col), ', ' ORDER BY place) FILTER (WHERE place <= cardinality(p_lvc.key_columns)),
        string_agg(format('%1$I = excluded.%1$I, ', col), '' ORDER BY place) FILTER (WHERE place > cardinality(p_lvc.key_columns)),
        ' WHERE ' || p_condition)
      FROM unnest(p_lvc.key_columns || p_lvc.value_columns) WITH ORDINALITY AS u (col, place);
$$;

-- SQL text of the rows of a table that a statement has written, as they are now, with their places;
-- chr(1) stands for the table. Another trigger may have changed a row that this statement inserted:
-- the triggers of that change run before those of this statement, which must not undo it. Only the
-- columns of the cache: others, such as a lakets_place, may be added to the table later.
CREATE OR REPLACE FUNCTION lakets._lvc_written(
    p_table lakets._chronotable_registry,
    p_lvc   lakets._lvc_registry
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('(SELECT %1$s FROM %2$s AS one'
                  ' WHERE one.%3$I >= (SELECT min(n.%3$I) FROM new_rows AS n) AND one.%3$I <= (SELECT max(n.%3$I) FROM new_rows AS n)'
                  ' AND (one.%3$I, %4$s) IN (SELECT n.%3$I, %5$s FROM new_rows AS n))',
                  (SELECT string_agg(DISTINCT format('one.%I', used.col), ', ') || ', one.ctid AS ' || lakets._unlike('lakets_place', array_agg(used.col))
                     FROM unnest(p_lvc.key_columns || p_lvc.value_columns || p_table.time_column) AS used (col)), chr(1), p_table.time_column,
                  -- As text: the = of a type may be in another schema.
                  string_agg(format('one.%I::text', col), ', ' ORDER BY place), string_agg(format('n.%I::text', col), ', ' ORDER BY place))
      FROM unnest(p_lvc.key_columns) WITH ORDINALITY AS u (col, place);
$$;

-- Fill a cache from its table. Values in it whose rows are gone stay.
CREATE OR REPLACE FUNCTION lakets._load_lvc(
    p_table lakets._chronotable_registry,
    p_lvc   lakets._lvc_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off  -- fail if a policy hides rows, which would not be cached
AS $$
DECLARE
    v_relation regclass := p_table.relation;
    v_time     text     := lakets._as_instant(format('r.%I', p_table.time_column), lakets._column_type(v_relation, p_table.time_column));
BEGIN
    EXECUTE lakets._lvc_upsert(lakets._lvc_relation(p_table, p_lvc), p_lvc, v_relation::text, v_time, 'r.ctid', NULL);
END;
$$;

-- Take the rows of a partition that was attached by hand into the cache, if there is one and it is
-- maintained. The caller has locked the table against writers.
CREATE OR REPLACE FUNCTION lakets._cache_partition(
    p_table     lakets._chronotable_registry,
    p_partition regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off  -- fail if a policy hides rows, which would not be cached
AS $$
DECLARE
    v_lvc lakets._lvc_registry;
BEGIN
    SELECT reg.* INTO v_lvc FROM lakets._lvc_registry AS reg WHERE reg.chronotable_id = p_table.id;
    IF FOUND AND lakets._lvc_problem(p_table, v_lvc) IS NULL THEN
        EXECUTE lakets._lvc_upsert(
            lakets._lvc_relation(p_table, v_lvc), v_lvc, p_partition::text, lakets._as_instant(
                format('r.%I', p_table.time_column), lakets._column_type(p_partition, p_table.time_column)),
            'r.ctid', 'cached.last_updated < excluded.last_updated');
    END IF;
END;
$$;

-- The same as _load_lvc in an install over LakeTS 0.1.x, while every writer waits: from the newest
-- chunks only, at most 256 MB and as many as there is room to lock. A key without a row in them
-- keeps its value. 0.1.x recorded the time of the write in last_updated, not the time of the row,
-- which is before those chunks: last_updated is lowered to their start.
CREATE OR REPLACE FUNCTION lakets._load_lvc_in_install(
    p_table lakets._chronotable_registry,
    p_lvc   lakets._lvc_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
AS $$
DECLARE
    v_relation regclass := p_table.relation;
    v_cache    regclass := lakets._lvc_relation(p_table, p_lvc);
    v_type     regtype  := lakets._column_type(v_relation, p_table.time_column);
    v_place    text     := lakets._unlike('lakets_place', lakets._columns(v_relation));
    v_room     integer  := lakets._lock_budget() / (1 + (SELECT count(*) FROM pg_index AS idx WHERE idx.indrelid = v_relation));
    v_from     timestamptz;
BEGIN
    SELECT max(chunk.range_end) INTO v_from
      FROM (SELECT chunk.range_end, row_number() OVER newest AS place,
                   sum(pg_relation_size(lakets._chunk_relation(p_table, chunk))) OVER newest AS bytes
              FROM lakets._chunk_metadata AS chunk
             WHERE chunk.chronotable_id = p_table.id AND chunk.status <> 'dropped'
            WINDOW newest AS (ORDER BY chunk.range_start DESC)) AS chunk
     WHERE chunk.place > v_room OR chunk.bytes > 256 * 2 ^ 20 AND chunk.place > 1;
    IF v_from IS NULL THEN
        PERFORM lakets._load_lvc(p_table, p_lvc);
        RETURN;
    END IF;
    EXECUTE format('UPDATE %s AS cached SET last_updated = $1 WHERE cached.last_updated > $1', v_cache) USING v_from;
    EXECUTE lakets._lvc_upsert(
        v_cache, p_lvc,
        format('(SELECT one.*, one.ctid AS %s FROM %s AS one WHERE one.%I >= %s)', v_place, v_relation, p_table.time_column,
               lakets._time_literal(v_from, v_type)),
        lakets._as_instant(format('r.%I', p_table.time_column), v_type), 'r.' || v_place, NULL);
END;
$$;

-- Create or replace the triggers of a ChronoTable's cache according to its registry row. Does
-- nothing if there is no cache or it does not fit the table. Fills the cache if it may lack rows: a
-- cache of 0.1.3, one whose schema was renamed, or one whose triggers were off.
CREATE OR REPLACE FUNCTION lakets._track_lvc(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_lvc      lakets._lvc_registry;
    v_relation regclass := p_table.relation;
    v_function text     := format('_lvc_%s', p_table.id);
    v_is_new   boolean;
    v_trigger  name;
    v_owner    oid      := (SELECT cls.relowner FROM pg_class AS cls WHERE cls.oid = v_relation);
    v_shape    text[];
    v_cache    regclass;
    v_event    text;
    v_time     text     := lakets._as_instant(format('r.%I', p_table.time_column), lakets._column_type(v_relation, p_table.time_column));
    v_place    text;
    v_newer    constant text := 'cached.last_updated <= excluded.last_updated';
BEGIN
    SELECT reg.* INTO v_lvc FROM lakets._lvc_registry AS reg WHERE reg.chronotable_id = p_table.id AND reg.enabled;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    v_cache := lakets._lvc_relation(p_table, v_lvc);
    IF v_cache IS NULL THEN
        RETURN;
    END IF;
    v_is_new := NOT EXISTS (SELECT FROM pg_proc AS fn WHERE fn.oid = to_regprocedure(format('lakets.%I()', v_function))
                               AND position(quote_literal(v_cache::text) IN fn.prosrc) > 0);
    v_shape := lakets._lvc_shape(v_cache, v_lvc, v_relation, p_table.time_column);
    v_place := lakets._unlike('lakets_place', v_lvc.key_columns || v_lvc.value_columns || p_table.time_column);
    IF lakets._lvc_misfits(v_relation, v_cache, v_lvc) IS NOT NULL THEN
        RAISE WARNING 'The last value cache of %.% is out of date: these columns were dropped, renamed or changed: %.',
            p_table.schema_name, p_table.table_name, lakets._lvc_misfits(v_relation, v_cache, v_lvc)
            USING HINT = 'Call lakets.disable_lvc, and lakets.enable_lvc with the columns as they are now.';
        RETURN;
    END IF;
    -- SECURITY DEFINER: see the top of this file. v_fits checks the columns at planning time where
    -- possible. The rest of that expression names the table, so Postgres plans it again when the
    -- table is altered. Another table with the name of the cache is left alone; after a restore,
    -- which gives the table another oid, the name identifies the cache.
    EXECUTE format(
        $sql$CREATE OR REPLACE FUNCTION lakets.%I() RETURNS trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS %L$sql$, v_function, format(
        $sql$#variable_conflict use_column
DECLARE
    v_cache constant oid := to_regclass(%1$L);
    v_is_fresh constant boolean := TG_RELID = %2$s AND current_setting('transaction_isolation') IN ('read committed', 'read uncommitted');
    v_fits     boolean;
    v_is_plain boolean;
    -- How deep in triggers this transaction has written the table: a statement further out has
    -- other triggers that have done so before this one.
    v_deepest constant integer := coalesce(nullif(current_setting('lakets.nested_%9$s', true), ''), '1');
BEGIN
    IF pg_trigger_depth() > v_deepest THEN
        PERFORM set_config('lakets.nested_%9$s', pg_trigger_depth()::text, true);
    END IF;
    IF v_cache IS NULL OR TG_RELID = %2$s AND v_cache <> %5$s THEN
        RETURN NULL;
    ELSIF v_is_fresh THEN
        v_fits := (TG_RELID = %2$s) IS NOT DISTINCT FROM lakets._has_columns(%2$s, %7$L);
        v_is_plain := lakets._is_plain('%5$s'::regclass);
    ELSE
        v_fits := lakets._has_columns(TG_RELID, (CASE WHEN TG_RELID = %2$s THEN %7$L ELSE %3$L END)::text[]);
        v_is_plain := lakets._interference_now(v_cache) IS NULL;
    END IF;
    IF v_fits THEN
    IF v_is_plain THEN
    IF v_deepest > pg_trigger_depth() AND NOT row_security_active(TG_RELID) THEN
        EXECUTE format(%8$L, TG_RELID::regclass);
    ELSE
    %4$s
    END IF;
    IF v_is_fresh THEN
        v_is_plain := lakets._is_plain('%5$s'::regclass);
    ELSE
        v_is_plain := lakets._interference_now(v_cache) IS NULL;
    END IF;
    END IF;
    IF NOT v_is_plain THEN
    %6$s;
    END IF;
    ELSIF EXISTS (SELECT FROM new_rows) THEN
        DELETE FROM %1$s AS cached WHERE cached.ctid = ANY (ARRAY(SELECT c.ctid FROM %1$s AS c FOR UPDATE SKIP LOCKED));
        IF FOUND THEN
            RAISE WARNING 'The last value cache %% is emptied: columns of its table were dropped, renamed or changed.', %1$L
                USING HINT = 'Call lakets.disable_lvc, and lakets.enable_lvc with the columns as they are now.';
        END IF;
    END IF;
    RETURN NULL;
END;$sql$,
        v_cache, v_relation::oid, v_shape,
        lakets._lvc_upsert(v_cache, v_lvc, 'new_rows', v_time, 'row_number() OVER ()', v_newer),
        v_cache::oid, lakets._note_gap(v_cache, 'new_rows WHERE true'),
        v_shape || lakets._numbered(v_relation, v_lvc.key_columns || v_lvc.value_columns),
        replace(replace(lakets._lvc_upsert(
            v_cache, v_lvc, lakets._lvc_written(p_table, v_lvc), v_time, 'r.' || v_place, v_newer), '%', '%%'), chr(1), '%s'),
        p_table.id));
    EXECUTE format('REVOKE ALL ON FUNCTION lakets.%I() FROM PUBLIC', v_function);
    IF EXISTS (SELECT FROM pg_proc AS fn WHERE fn.oid = to_regprocedure(format('lakets.%I()', v_function)) AND fn.proowner <> v_owner) THEN
        EXECUTE format('ALTER FUNCTION lakets.%I() OWNER TO %I', v_function, pg_get_userbyid(v_owner));
    END IF;
    IF EXISTS (SELECT FROM pg_class AS cls WHERE cls.oid = v_cache AND cls.relowner <> v_owner) THEN
        EXECUTE format('ALTER TABLE %s OWNER TO %I', v_cache, pg_get_userbyid(v_owner));
    END IF;
    FOREACH v_event IN ARRAY '{INSERT,UPDATE}'::text[] LOOP
        v_trigger := lakets._lvc_trigger(v_relation, v_event, v_function);
        IF NOT EXISTS (SELECT FROM pg_trigger AS trg WHERE trg.tgrelid = v_relation AND trg.tgname = v_trigger AND trg.tgenabled = 'A') THEN
            v_is_new := true;
            EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION lakets.%I()',
                           v_trigger, v_event, v_relation, v_function);
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', v_relation, v_trigger);
        END IF;
    END LOOP;
    IF v_is_new AND coalesce(current_setting('lakets.others', true), '') <> '' THEN
        PERFORM lakets._load_lvc_in_install(p_table, v_lvc);
    ELSIF v_is_new THEN
        PERFORM lakets._load_lvc(p_table, v_lvc);
    END IF;
END;
$$;

-- The name of a cache's trigger. LakeTS 0.1.3 uses the first name; while its trigger is on the
-- table, ours has the other name.
CREATE OR REPLACE FUNCTION lakets._lvc_trigger(
    p_relation regclass,
    p_event    text,
    p_function text
) RETURNS name
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
        (SELECT trg.tgname FROM pg_trigger AS trg
          WHERE trg.tgrelid = p_relation AND trg.tgfoid = to_regprocedure(format('lakets.%I()', p_function))
            AND (trg.tgtype & CASE p_event WHEN 'INSERT' THEN 4 ELSE 16 END) <> 0),
        CASE WHEN p_event = 'INSERT' AND NOT EXISTS (
            SELECT FROM pg_trigger AS trg WHERE trg.tgrelid = p_relation AND trg.tgname = 'trg_lakets_lvc') THEN 'trg_lakets_lvc'
        ELSE 'trg_lakets_lvc_' || lower(p_event) END);
$$;
