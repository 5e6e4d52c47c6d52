-- The last value cache: enable it, read it, drop it. See 46_last_value_cache.sql for its
-- maintenance.

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
    PERFORM lakets._check_plain(v_cache);  -- a tool may add a trigger to every new table
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
    DELETE FROM lakets._mirror_gap AS gap
     WHERE gap.shadow = (SELECT lakets._lvc_relation(p_table, reg) FROM lakets._lvc_registry AS reg WHERE reg.chronotable_id = p_table.id);
    DELETE FROM lakets._lvc_registry AS reg WHERE reg.chronotable_id = p_table.id;
END;
$$;

-- The same, and drop it. A table that took its place stays.
CREATE OR REPLACE FUNCTION lakets._drop_lvc(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_cache    regclass := (SELECT lakets._lvc_relation(p_table, reg) FROM lakets._lvc_registry AS reg WHERE reg.chronotable_id = p_table.id);
    v_is_other boolean  := lakets._is_other_cache(p_table, v_cache);
BEGIN
    PERFORM lakets._untrack_lvc(p_table);
    IF v_cache IS NOT NULL AND NOT v_is_other THEN
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
