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
-- time, or with NULL in a key column, belong to no series and are not cached.
--
-- The trigger functions run as the table's owner (SECURITY DEFINER), who owns the cache: a writer
-- needs no right on it and cannot change it by itself. Nobody else may execute them, so nobody can
-- put them on another table.
--
-- A problem of the cache never fails a write. If a cached column was dropped, renamed or given
-- another type, the next write empties the cache and warns, so that nobody takes old values for the
-- newest. lvc_stats and latest_values report the problem.

-- Return whether a table has these columns with these types (as in _shape). Declared immutable, so
-- that a statement with constant arguments evaluates it once, when it is planned; see _has_shape.
CREATE OR REPLACE FUNCTION lakets._has_columns(
    p_relation oid,
    p_columns  text[]
) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p_columns <@ coalesce(lakets._shape(p_relation), '{}');
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

-- The columns of a cache that its table no longer has, or has with another type; null if there are
-- none.
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
     WHERE NOT EXISTS (
           SELECT FROM pg_attribute AS att
             JOIN pg_attribute AS cached ON (cached.attname, cached.atttypid, cached.atttypmod) = (att.attname, att.atttypid, att.atttypmod)
            WHERE att.attrelid = p_relation AND cached.attrelid = p_cache AND att.attname = col
              AND NOT att.attisdropped AND NOT cached.attisdropped);
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
BEGIN
    RETURN CASE
        WHEN NOT p_lvc.enabled THEN 'it is disabled in lakets._lvc_registry'
        WHEN v_relation IS NULL THEN 'its table does not exist'
        WHEN v_cache IS NULL THEN format('its table %I.%I does not exist', p_table.schema_name, p_lvc.cache_table_name)
        WHEN v_misfits IS NOT NULL THEN format('these columns were dropped, renamed or changed: %s', v_misfits)
        WHEN (SELECT count(*) FROM pg_trigger AS trg JOIN pg_proc AS fn ON fn.oid = trg.tgfoid
               WHERE trg.tgrelid = v_relation AND trg.tgenabled IN ('O', 'A') AND fn.proname = format('_lvc_%s', p_table.id)
                 AND position(quote_literal(v_cache::text) IN fn.prosrc) > 0) < 2
            THEN 'its triggers are missing, disabled or of another schema' END;
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
     WHERE %7$s AND %5$s IS NOT NULL
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

-- Fill a cache from its table. Values in it whose rows are gone stay.
CREATE OR REPLACE FUNCTION lakets._load_lvc(
    p_table lakets._chronotable_registry,
    p_lvc   lakets._lvc_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off  -- a policy that hides rows is an error here: they would not be cached
AS $$
DECLARE
    v_relation regclass := p_table.relation;
    v_time     text     := lakets._as_instant(format('r.%I', p_table.time_column), lakets._column_type(v_relation, p_table.time_column));
BEGIN
    EXECUTE lakets._lvc_upsert(lakets._lvc_relation(p_table, p_lvc), p_lvc, v_relation::text, v_time, 'r.ctid', NULL);
END;
$$;

-- The same in an install over LakeTS 0.1.x, while every writer waits: from the newest chunks only,
-- at most 256 MB and as many as there is room to lock. A key without a row in them keeps its value.
-- 0.1.x recorded the time of the write in last_updated, not the time of the row, which is before
-- those chunks: last_updated is lowered to their start.
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
        format('(SELECT one.*, one.ctid AS lakets_place FROM %s AS one WHERE one.%I >= %s)', v_relation, p_table.time_column,
               lakets._time_literal(v_from, v_type)),
        lakets._as_instant(format('r.%I', p_table.time_column), v_type), 'r.lakets_place', NULL);
END;
$$;

-- Create or replace the triggers of a ChronoTable's cache according to its registry row. Does
-- nothing if there is no cache or it does not fit the table. Fills the cache if it may lack rows: a
-- cache of 0.1.3, or one whose schema was renamed.
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
    IF lakets._lvc_misfits(v_relation, v_cache, v_lvc) IS NOT NULL THEN
        RAISE WARNING 'The last value cache of %.% is out of date: these columns were dropped, renamed or changed: %.',
            p_table.schema_name, p_table.table_name, lakets._lvc_misfits(v_relation, v_cache, v_lvc)
            USING HINT = 'Call lakets.disable_lvc, and lakets.enable_lvc with the columns as they are now.';
        RETURN;
    END IF;
    -- SECURITY DEFINER: see the top of this file. v_fits checks the columns at planning time where
    -- possible. The rest of that expression names the table, so Postgres plans it again when the
    -- table is altered.
    EXECUTE format(
        $sql$CREATE OR REPLACE FUNCTION lakets.%I() RETURNS trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS %L$sql$, v_function, format(
        $sql$#variable_conflict use_column
DECLARE
    v_fits boolean;
BEGIN
    IF to_regclass(%1$L) IS NULL THEN
        RETURN NULL;
    ELSIF TG_RELID = %2$s AND current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
        v_fits := (TG_RELID = %2$s) IS NOT DISTINCT FROM lakets._has_columns(%2$s, %3$L);
    ELSE
        v_fits := lakets._has_columns(TG_RELID, %3$L);
    END IF;
    IF v_fits THEN
    %4$s
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
        lakets._lvc_upsert(v_cache, v_lvc, 'new_rows', lakets._as_instant(
            format('r.%I', p_table.time_column), lakets._column_type(v_relation, p_table.time_column)),
            'row_number() OVER ()', 'cached.last_updated <= excluded.last_updated')));
    EXECUTE format('REVOKE ALL ON FUNCTION lakets.%I() FROM PUBLIC', v_function);
    IF EXISTS (SELECT FROM pg_proc AS fn WHERE fn.oid = to_regprocedure(format('lakets.%I()', v_function)) AND fn.proowner <> v_owner) THEN
        EXECUTE format('ALTER FUNCTION lakets.%I() OWNER TO %I', v_function, pg_get_userbyid(v_owner));
    END IF;
    IF EXISTS (SELECT FROM pg_class AS cls WHERE cls.oid = v_cache AND cls.relowner <> v_owner) THEN
        EXECUTE format('ALTER TABLE %s OWNER TO %I', v_cache, pg_get_userbyid(v_owner));
    END IF;
    FOREACH v_event IN ARRAY '{INSERT,UPDATE}'::text[] LOOP
        v_trigger := lakets._lvc_trigger(v_relation, v_event, v_function);
        IF NOT EXISTS (SELECT FROM pg_trigger AS trg WHERE trg.tgrelid = v_relation AND trg.tgname = v_trigger) THEN
            EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION lakets.%I()',
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

-- Refuse columns that cannot be cached.
CREATE OR REPLACE FUNCTION lakets._check_lvc_columns(
    p_relation      regclass,
    p_key_columns   text[],
    p_value_columns text[]
) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_unknown text := (SELECT coalesce(col, 'null') FROM unnest(p_key_columns || p_value_columns) AS col
                        WHERE (col = ANY (lakets._columns(p_relation))) IS NOT TRUE LIMIT 1);
    v_twice   text := (SELECT col FROM unnest(p_key_columns || p_value_columns) AS col GROUP BY col HAVING count(*) > 1 LIMIT 1);
    v_json    text := (SELECT col FROM unnest(p_key_columns) AS col
                        WHERE lakets._column_type(p_relation, col) IN ('json'::regtype, 'xml'::regtype, 'point'::regtype) LIMIT 1);
    v_null    text := (SELECT string_agg(att.attname, ', ' ORDER BY att.attnum) FROM pg_attribute AS att
                        WHERE att.attrelid = p_relation AND att.attname = ANY (p_key_columns) AND NOT att.attnotnull);
BEGIN
    IF coalesce(cardinality(p_key_columns), 0) = 0 THEN
        RAISE EXCEPTION 'A last value cache needs a key column.'
            USING HINT = 'Pass p_key_columns: the columns that tell one series from another, such as ARRAY[''device''].';
    ELSIF v_unknown IS NOT NULL THEN
        RAISE EXCEPTION 'Table % has no column % that can be cached.', p_relation, v_unknown
            USING HINT = 'Name columns of the table in p_key_columns and p_value_columns, as they are written.';
    ELSIF v_twice IS NOT NULL THEN
        RAISE EXCEPTION 'Column % is named twice.', v_twice
            USING HINT = 'A column is either a key or a value of the cache.';
    ELSIF 'last_updated' = ANY (p_key_columns || p_value_columns) THEN
        RAISE EXCEPTION 'Column last_updated of % cannot be cached: the cache has a column of its own of that name.', p_relation
            USING HINT = 'Rename the column, or leave it out: last_updated of the cache is the time of the row.';
    ELSIF v_json IS NOT NULL THEN
        RAISE EXCEPTION 'Column % of % cannot be a key: its type % has no order.', v_json, p_relation, lakets._column_type(p_relation, v_json)
            USING HINT = 'Cache it as a value, or take another column as the key.';
    ELSIF v_null IS NOT NULL THEN
        RAISE NOTICE 'Rows with NULL in a key column (%) are not cached.', v_null;
    END IF;
END;
$$;

-- Cache the newest value columns of each key, from the existing rows and from now on. Writers wait
-- while the rows are read.
CREATE OR REPLACE FUNCTION lakets.enable_lvc(
    p_table_name    text,
    p_key_columns   text[],
    p_value_columns text[],
    p_schema_name   text DEFAULT 'public'
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_table    lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_relation regclass := v_table.relation;
    v_name     text     := '_lvc_' || v_table.table_name;
    v_cache    regclass;
    v_problem  text;
BEGIN
    PERFORM lakets._require_read_committed();  -- an older snapshot would miss rows to load
    -- Lock order: (1) advisory (lakets, relation), (2) parent: no writer is active while the
    -- triggers are created.
    PERFORM lakets._lock_maintenance(v_relation);
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', v_relation);
    SELECT coalesce(' Now ' || lakets._lvc_problem(v_table, reg) || '.', '') INTO v_problem
      FROM lakets._lvc_registry AS reg WHERE reg.chronotable_id = v_table.id;
    IF FOUND THEN
        RAISE EXCEPTION 'The last value cache of %.% is already enabled.%', p_schema_name, p_table_name, v_problem
            USING HINT = 'For other columns call lakets.disable_lvc first.';
    END IF;
    p_value_columns := coalesce(p_value_columns, '{}');
    PERFORM lakets._check_lvc_columns(v_relation, p_key_columns, p_value_columns);
    IF octet_length(v_name) > 63 THEN
        v_name := lakets._free_relation_name(v_table.schema_name, v_name, '');
    ELSIF to_regclass(format('%I.%I', v_table.schema_name, v_name)) IS NOT NULL THEN
        RAISE EXCEPTION 'The cache would be %.%, but a relation with that name exists.', v_table.schema_name, v_name
            USING HINT = 'Rename or drop that relation.';
    END IF;

    EXECUTE format('CREATE TABLE %1$I.%2$I WITH (fillfactor = 70) AS SELECT %3$s, NULL::timestamptz AS last_updated FROM %4$s WITH NO DATA',
                   v_table.schema_name, v_name, (SELECT string_agg(quote_ident(col), ', ' ORDER BY place)
                                             FROM unnest(p_key_columns || p_value_columns) WITH ORDINALITY AS u (col, place)), v_relation);
    v_cache := lakets._relation(v_table.schema_name, v_name);
    EXECUTE format('ALTER TABLE %s ALTER COLUMN last_updated SET NOT NULL, ADD PRIMARY KEY (%s)', v_cache,
                   (SELECT string_agg(quote_ident(col), ', ' ORDER BY place) FROM unnest(p_key_columns) WITH ORDINALITY AS u (col, place)));
    INSERT INTO lakets._lvc_registry (chronotable_id, cache_table_name, key_columns, value_columns)
    VALUES (v_table.id, v_name, p_key_columns, p_value_columns);
    PERFORM lakets._track_lvc(v_table);
END;
$$;

-- Stop maintaining a ChronoTable's cache, if it has one, and keep the cache. The caller has locked
-- the table, if it still exists.
CREATE OR REPLACE FUNCTION lakets._untrack_lvc(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_trigger record;
BEGIN
    FOR v_trigger IN SELECT trg.tgname AS name, trg.tgrelid::regclass AS relation FROM pg_trigger AS trg
                      WHERE trg.tgfoid = to_regprocedure(format('lakets._lvc_%s()', p_table.id)) AND trg.tgparentid = 0 LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', v_trigger.name, v_trigger.relation);
    END LOOP;
    EXECUTE format('DROP FUNCTION IF EXISTS lakets.%I()', format('_lvc_%s', p_table.id));
    DELETE FROM lakets._lvc_registry AS reg WHERE reg.chronotable_id = p_table.id;
END;
$$;

-- The same, and drop it.
CREATE OR REPLACE FUNCTION lakets._drop_lvc(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_cache regclass := (SELECT lakets._lvc_relation(p_table, reg) FROM lakets._lvc_registry AS reg WHERE reg.chronotable_id = p_table.id);
BEGIN
    PERFORM lakets._untrack_lvc(p_table);
    IF v_cache IS NOT NULL THEN
        EXECUTE format('DROP TABLE %s', v_cache);
    END IF;
END;
$$;

-- Stop caching, and drop the cache.
CREATE OR REPLACE FUNCTION lakets.disable_lvc(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_table lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
BEGIN
    -- Lock order: (1) advisory (lakets, relation), (2) parent, (3) cache.
    PERFORM lakets._lock_maintenance(v_table.relation);
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', v_table.relation::regclass);
    PERFORM lakets._lvc(v_table);
    PERFORM lakets._drop_lvc(v_table);
END;
$$;

-- The cache of a table, newest first: key columns, value columns, last_updated. Call it with a
-- column list, as latest_values('metrics') AS (device text, value double precision, last_updated
-- timestamptz).
CREATE OR REPLACE FUNCTION lakets.latest_values(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS SETOF record
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table   lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_lvc     lakets._lvc_registry := lakets._lvc(v_table);
    v_problem text := lakets._lvc_problem(v_table, v_lvc);
BEGIN
    IF v_problem IS NOT NULL THEN
        RAISE EXCEPTION 'The last value cache of %.% is out of date: %.', p_schema_name, p_table_name, v_problem
            USING HINT = 'Call lakets.disable_lvc, and lakets.enable_lvc with the columns as they are now.';
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT %s, last_updated FROM %s ORDER BY last_updated DESC, %s',
        (SELECT string_agg(quote_ident(col), ', ' ORDER BY place) FROM unnest(v_lvc.key_columns || v_lvc.value_columns) WITH ORDINALITY AS u (col, place)),
        lakets._lvc_relation(v_table, v_lvc),
        (SELECT string_agg(quote_ident(col), ', ' ORDER BY place) FROM unnest(v_lvc.key_columns) WITH ORDINALITY AS u (col, place)));
END;
$$;

-- Every cache: how many keys it holds, and whether it is maintained (enabled). cached_series is
-- null if the cache is gone or this role may not read it.
CREATE OR REPLACE FUNCTION lakets.lvc_stats()
    RETURNS TABLE (chronotable text, cache_table text, cached_series bigint, key_columns text, value_columns text, enabled boolean)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table lakets._chronotable_registry;
    v_lvc   lakets._lvc_registry;
BEGIN
    FOR v_table IN
        SELECT tab.* FROM lakets._lvc_registry AS reg JOIN lakets._chronotable_registry AS tab ON tab.id = reg.chronotable_id
         ORDER BY tab.schema_name, tab.table_name
    LOOP
        v_lvc := lakets._lvc(v_table);
        chronotable := v_table.schema_name || '.' || v_table.table_name;
        cache_table := v_lvc.cache_table_name;
        key_columns := array_to_string(v_lvc.key_columns, ', ');
        value_columns := array_to_string(v_lvc.value_columns, ', ');
        enabled := lakets._lvc_problem(v_table, v_lvc) IS NULL;
        cached_series := NULL;
        IF has_table_privilege(lakets._lvc_relation(v_table, v_lvc), 'SELECT') THEN
            EXECUTE format('SELECT count(*) FROM %s', lakets._lvc_relation(v_table, v_lvc)) INTO cached_series;
        END IF;
        RETURN NEXT;
    END LOOP;
END;
$$;
