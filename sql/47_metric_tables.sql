-- Metric tables: a ChronoTable of tags and fields in one call, how many series a table holds, and
-- rows from JSON.

-- Make a table of tags (text) and fields (double precision) and turn it into a ChronoTable on
-- "time", one day a chunk unless p_chunk_interval says otherwise. Returns the ChronoTable's id.
CREATE OR REPLACE FUNCTION lakets.create_metric_table(
    p_table_name     text,
    p_tag_columns    text[],
    p_field_columns  text[],
    p_chunk_interval interval DEFAULT '1 day',
    p_schema_name    text     DEFAULT 'public'
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_tags    text[] := coalesce(p_tag_columns, '{}');
    v_columns text[] := v_tags || coalesce(p_field_columns, '{}');
    v_table   text   := format('%I.%I', coalesce(p_schema_name, ''), coalesce(p_table_name, ''));
    v_wrong   text   := (SELECT coalesce(quote_ident(col), 'NULL') FROM unnest(v_columns) AS col
                          GROUP BY col HAVING count(*) > 1 OR col IS NULL OR col IN ('', 'time') LIMIT 1);
BEGIN
    IF coalesce(p_table_name, '') = '' OR coalesce(p_schema_name, '') = '' THEN
        RAISE EXCEPTION 'A metric table needs a name and a schema.' USING HINT = 'Pass p_table_name, and p_schema_name or its default.';
    ELSIF v_wrong IS NOT NULL THEN
        RAISE EXCEPTION 'Column % cannot be a tag or a field of %: it is empty, named twice, or "time".', v_wrong, v_table
            USING HINT = 'Give every column a different name; this function creates "time".';
    ELSIF to_regclass(v_table) IS NOT NULL THEN
        RAISE EXCEPTION 'Relation % already exists.', v_table
            USING HINT = 'Choose another name, or make the relation a ChronoTable with lakets.create_chronotable.';
    END IF;
    EXECUTE format('CREATE TABLE %s (time timestamptz NOT NULL%s)', v_table,
                   (SELECT string_agg(format(', %I %s', col, CASE WHEN place <= cardinality(v_tags) THEN 'text NOT NULL' ELSE 'double precision' END),
                                      '' ORDER BY place)
                      FROM unnest(v_columns) WITH ORDINALITY AS u (col, place)));
    EXECUTE format('CREATE INDEX %I ON %s (%stime DESC)', lakets._free_relation_name(p_schema_name, 'idx_' || p_table_name, '_series'), v_table,
                   (SELECT string_agg(quote_ident(col) || ', ', '' ORDER BY place) FROM unnest(v_tags[:31]) WITH ORDINALITY AS u (col, place)));  -- an index has at most 32 columns
    EXECUTE format('CREATE INDEX %I ON %s USING brin (time)', lakets._free_relation_name(p_schema_name, 'idx_' || p_table_name, '_brin'), v_table);
    RETURN lakets.create_chronotable(p_table_name, 'time', p_chunk_interval, p_schema_name);
END;
$$;

-- The text columns of a table: its tags.
CREATE OR REPLACE FUNCTION lakets._tag_columns(
    p_relation regclass
) RETURNS text[]
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT ARRAY(SELECT att.attname::text FROM pg_attribute AS att
                  WHERE att.attrelid = p_relation AND att.attnum > 0 AND NOT att.attisdropped
                    AND att.atttypid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype)
                  ORDER BY att.attnum);
$$;

-- One row per text column: its distinct values, the table's rows, and the first as a percentage of
-- the second. Reads the whole table.
CREATE OR REPLACE FUNCTION lakets.cardinality_stats(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS TABLE (column_name text, distinct_values bigint, total_rows bigint, pct_of_rows numeric)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._relation(p_schema_name, p_table_name);
    v_tag      text;
BEGIN
    FOREACH v_tag IN ARRAY lakets._tag_columns(v_relation) LOOP
        RETURN QUERY EXECUTE format(
            'SELECT %1$L::text, count(DISTINCT %1$I), count(*), coalesce(round(100.0 * count(DISTINCT %1$I) / nullif(count(*), 0), 3), 0) FROM %2$s',
            v_tag, v_relation);
    END LOOP;
END;
$$;

-- Return how many series a table holds: distinct combinations of all its text columns. CRITICAL
-- above p_max_series, WARNING above 80 % of it, else OK. Reads the whole table.
CREATE OR REPLACE FUNCTION lakets.cardinality_check(
    p_table_name  text,
    p_max_series  bigint DEFAULT 100000,
    p_schema_name text   DEFAULT 'public'
) RETURNS TABLE (status text, combined_cardinality bigint, max_allowed bigint, tag_columns text)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._relation(p_schema_name, p_table_name);
    v_tags     text[]   := lakets._tag_columns(v_relation);
BEGIN
    IF p_max_series IS NULL OR p_max_series < 0 THEN
        RAISE EXCEPTION 'p_max_series must be a number of series, not %.', coalesce(p_max_series::text, 'NULL')
            USING HINT = 'Pass 0 or more.';
    END IF;
    combined_cardinality := 0;
    IF v_tags <> '{}' THEN
        EXECUTE format('SELECT count(*) FROM (SELECT DISTINCT %s FROM %s) AS series',
                       (SELECT string_agg(quote_ident(tag), ', ') FROM unnest(v_tags) AS tag), v_relation) INTO combined_cardinality;
    END IF;
    status := CASE WHEN combined_cardinality > p_max_series THEN 'CRITICAL'
                   WHEN combined_cardinality > 0.8 * p_max_series THEN 'WARNING' ELSE 'OK' END;
    max_allowed := p_max_series;
    tag_columns := array_to_string(v_tags, ', ');
    RETURN NEXT;
END;
$$;

-- Insert JSON objects that all name the same columns, in one statement, and return how many.
CREATE OR REPLACE FUNCTION lakets._insert_objects(
    p_relation regclass,
    p_keys     text[],
    p_objects  jsonb
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres'  -- how the texts in the objects are read
AS $$
DECLARE
    v_unknown text := (SELECT key FROM unnest(p_keys) AS key
                        WHERE NOT EXISTS (SELECT FROM pg_attribute AS att WHERE att.attrelid = p_relation AND att.attname = key
                                             AND att.attnum > 0 AND NOT att.attisdropped) LIMIT 1);
    v_count   integer;
BEGIN
    IF v_unknown IS NOT NULL THEN
        RAISE EXCEPTION 'Table % has no column %.', p_relation, v_unknown
            USING HINT = 'The keys of the objects are the columns of the table, as they are written.';
    ELSIF p_keys = '{}' THEN
        RAISE EXCEPTION 'An object for % names no column.', p_relation USING HINT = 'Leave out objects without keys.';
    END IF;
    EXECUTE format('INSERT INTO %1$s (%2$s) SELECT %3$s FROM jsonb_populate_recordset(NULL::%1$s, $1) AS item', p_relation,
                   (SELECT string_agg(quote_ident(key), ', ') FROM unnest(p_keys) AS key),
                   (SELECT string_agg(format('item.%I', key), ', ') FROM unnest(p_keys) AS key)) USING p_objects;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END;
$$;

-- Insert an array of JSON objects, and return how many. Keys are columns; a column that an object
-- does not name gets its default. Times without a zone are in UTC. One statement for all objects
-- that name the same columns: usually one.
CREATE OR REPLACE FUNCTION lakets.ingest_batch(
    p_table_name  text,
    p_data        jsonb,
    p_schema_name text DEFAULT 'public'
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._relation(p_schema_name, p_table_name);
    v_keys     text[];
BEGIN
    IF jsonb_typeof(p_data) IS DISTINCT FROM 'array' OR jsonb_path_exists(p_data, 'strict $[*] ? (@.type() != "object")') THEN
        RAISE EXCEPTION 'The rows for % are not an array of JSON objects.', v_relation
            USING HINT = 'Pass p_data as [{"column": value, ...}, ...].';
    ELSIF p_data = '[]' THEN
        RETURN 0;
    END IF;
    -- Sorting the objects by their keys takes longer than inserting them, so check first whether it
    -- is needed.
    v_keys := ARRAY(SELECT jsonb_object_keys(p_data -> 0));
    IF NOT EXISTS (SELECT FROM jsonb_array_elements(p_data) AS item WHERE NOT item ?& v_keys OR item - v_keys <> '{}') THEN
        RETURN lakets._insert_objects(v_relation, v_keys, p_data);
    END IF;
    RETURN (
        SELECT sum(lakets._insert_objects(v_relation, same.keys, same.items))
          FROM (SELECT named.keys, jsonb_agg(named.item ORDER BY named.place) AS items
                  FROM (SELECT item, place, ARRAY(SELECT jsonb_object_keys(item) ORDER BY 1) AS keys
                          FROM jsonb_array_elements(p_data) WITH ORDINALITY AS u (item, place)) AS named
                 GROUP BY named.keys ORDER BY min(named.place)) AS same);
END;
$$;

-- Insert one sample in the form of Prometheus into a table with the columns time, metric_name,
-- labels and value.
CREATE OR REPLACE FUNCTION lakets.ingest_prometheus(
    p_table_name  text,
    p_metric_name text,
    p_labels      jsonb,
    p_value       double precision,
    p_timestamp   timestamptz DEFAULT now(),
    p_schema_name text        DEFAULT 'public'
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('INSERT INTO %s (time, metric_name, labels, value) VALUES ($1, $2, $3, $4)', lakets._relation(p_schema_name, p_table_name))
      USING p_timestamp, p_metric_name, p_labels, p_value;
END;
$$;
