-- Row by row, whatever its time: an older row that comes late replaces a newer one.
CREATE FUNCTION lakets._lvc_trigger_fn() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_table lakets._chronotable_registry := lakets._table_of_trigger(TG_RELID);
    v_cache lakets._lvc_registry;
    v_columns text;
BEGIN
    SELECT * INTO v_cache FROM lakets._lvc_registry WHERE chronotable_id = v_table.id;
    IF v_cache.id IS NULL THEN RETURN NULL; END IF;
    SELECT string_agg(quote_ident(c), ', ') INTO v_columns FROM unnest(v_cache.key_columns || v_cache.value_columns) c;
    EXECUTE format('INSERT INTO %I.%I (%s, last_updated) SELECT %s, now() ON CONFLICT (%s) DO UPDATE SET last_updated = now()%s',
        v_table.schema_name, v_cache.cache_table_name, v_columns,
        (SELECT string_agg(format('($1).%I', c), ', ') FROM unnest(v_cache.key_columns || v_cache.value_columns) c),
        (SELECT string_agg(quote_ident(c), ', ') FROM unnest(v_cache.key_columns) c),
        (SELECT string_agg(format(', %I = EXCLUDED.%1$I', c), '') FROM unnest(v_cache.value_columns) c)) USING NEW;
    RETURN NULL;
END $$;

-- Loads nothing: a key is cached from its next row on.
CREATE FUNCTION lakets.enable_lvc(p_table_name text, p_key_columns text[], p_value_columns text[],
    p_schema_name text DEFAULT 'public') RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_id int := lakets._table_id(p_table_name, p_schema_name);
    v_relation regclass := format('%I.%I', p_schema_name, p_table_name)::regclass;
BEGIN
    IF EXISTS (SELECT FROM lakets._lvc_registry WHERE chronotable_id = v_id) THEN
        RAISE EXCEPTION 'LVC already enabled for %.%', p_schema_name, p_table_name;
    END IF;
    EXECUTE format('CREATE TABLE %I.%I (%s, last_updated timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (%s))',
        p_schema_name, '_lvc_' || p_table_name,
        (SELECT string_agg(format('%I %s%s', c, format_type(a.atttypid, a.atttypmod),
                                  CASE WHEN c = ANY (p_key_columns) THEN ' NOT NULL' ELSE '' END), ', ' ORDER BY n)
           FROM unnest(p_key_columns || p_value_columns) WITH ORDINALITY u (c, n)
           JOIN pg_attribute a ON a.attrelid = v_relation AND a.attname = c),
        (SELECT string_agg(quote_ident(c), ', ' ORDER BY n) FROM unnest(p_key_columns) WITH ORDINALITY u (c, n)));
    EXECUTE format('CREATE OR REPLACE TRIGGER trg_lakets_lvc AFTER INSERT ON %s
                    FOR EACH ROW EXECUTE FUNCTION lakets._lvc_trigger_fn()', v_relation);
    INSERT INTO lakets._lvc_registry (chronotable_id, cache_table_name, key_columns, value_columns)
    VALUES (v_id, '_lvc_' || p_table_name, p_key_columns, p_value_columns);
END $$;

CREATE FUNCTION lakets._cache_name(p_table_name text, p_schema_name text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    v_name text := (SELECT cache_table_name FROM lakets._lvc_registry
                     WHERE chronotable_id = lakets._table_id(p_table_name, p_schema_name));
BEGIN
    IF v_name IS NULL THEN RAISE EXCEPTION 'LVC not enabled for %.%', p_schema_name, p_table_name; END IF;
    RETURN v_name;
END $$;

CREATE FUNCTION lakets.disable_lvc(p_table_name text, p_schema_name text DEFAULT 'public') RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    v_cache text := lakets._cache_name(p_table_name, p_schema_name);
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS trg_lakets_lvc ON %I.%I', p_schema_name, p_table_name);
    EXECUTE format('DROP TABLE IF EXISTS %I.%I', p_schema_name, v_cache);
    DELETE FROM lakets._lvc_registry WHERE chronotable_id = lakets._table_id(p_table_name, p_schema_name);
END $$;

CREATE FUNCTION lakets.latest_values(p_table_name text, p_schema_name text DEFAULT 'public') RETURNS SETOF record
    LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE format('SELECT * FROM %I.%I ORDER BY last_updated DESC',
                                p_schema_name, lakets._cache_name(p_table_name, p_schema_name));
END $$;

CREATE FUNCTION lakets.lvc_stats() RETURNS TABLE (chronotable text, cache_table text, cached_series bigint,
    key_columns text, value_columns text, enabled boolean) LANGUAGE plpgsql AS $$
DECLARE
    v_row record;
BEGIN
    FOR v_row IN SELECT t.schema_name, t.table_name, l.* FROM lakets._lvc_registry l
                   JOIN lakets._chronotable_registry t ON t.id = l.chronotable_id LOOP
        EXECUTE format('SELECT count(*) FROM %I.%I', v_row.schema_name, v_row.cache_table_name) INTO cached_series;
        chronotable := v_row.schema_name || '.' || v_row.table_name;
        cache_table := v_row.cache_table_name;
        key_columns := array_to_string(v_row.key_columns, ', ');
        value_columns := array_to_string(v_row.value_columns, ', ');
        enabled := v_row.enabled;
        RETURN NEXT;
    END LOOP;
END $$;
