-- The definition of a RollUp, derived from its query and stored in its registry row:
--
--     {"steps":   from the time of the data to the label of its bucket (78_bucket_steps.sql),
--      "times":   the same from the time column of each source that the query reads,
--      "source":  whether the ChronoTable is one of these,
--      "limited": whether window_query reads a range of source times only,
--      "reads":   the columns that the query reads, [{"relation", "column", "type", "number"}],
--      "writes":  the columns of the RollUp's table that it writes, the same}

-- The relations whose rows make up a RollUp, with their time columns and the steps from the time of
-- the data to these.
CREATE OR REPLACE FUNCTION lakets._rollup_sources(
    p_chronotable_id integer,
    p_depends_on     integer[]
) RETURNS TABLE (relation regclass, time_column text, steps jsonb)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT now.relation::regclass, now.time_column, '[]'::jsonb
          FROM lakets._chronotable_registry AS tab CROSS JOIN LATERAL lakets._recognise(tab) AS now WHERE tab.id = p_chronotable_id
        UNION ALL
        SELECT lakets._rollup_relation(up.name), up.bucket_column, up.definition -> 'steps'
          FROM lakets._rollup_registry AS up WHERE up.id = ANY (p_depends_on);
END;
$$;

-- Analyse a query: find its bucket column and the first part of its definition. Raises an error if
-- no column is a bucket that depends on its own source rows only.
CREATE OR REPLACE FUNCTION lakets._define_rollup(
    p_name            text,
    p_tree            jsonb,
    p_returns         jsonb,
    p_relations       oid[],
    p_chronotable_id  integer,
    p_depends_on      integer[],
    p_bucket_interval interval,
    p_preferred       text DEFAULT 'bucket',
    OUT bucket_column text,
    OUT definition    jsonb
)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_bases   jsonb;
    v_sources oid[];
    v_columns jsonb;
    v_width   interval;
BEGIN
    SELECT array_agg(src.relation), jsonb_object_agg(src.relation::oid, jsonb_build_object('tracked', true, 'columns', (
               SELECT jsonb_agg(CASE WHEN att.attname = src.time_column AND src.steps IS NOT NULL
                                     THEN jsonb_build_object('steps', src.steps, 'nullable', false) END ORDER BY att.attnum)
                 FROM pg_attribute AS att WHERE att.attrelid = src.relation AND att.attnum > 0)))
      INTO v_sources, v_bases
      FROM lakets._rollup_sources(p_chronotable_id, p_depends_on) AS src;
    PERFORM lakets._check_relations(p_name, p_relations, v_sources);

    v_columns := lakets._query_labels(p_tree, v_bases) -> 'columns';
    SELECT ret ->> 'column', label -> 'steps', width INTO bucket_column, definition, v_width
      FROM jsonb_array_elements(p_returns) WITH ORDINALITY AS r (ret, position)
     CROSS JOIN LATERAL (SELECT v_columns -> (position - 1)::integer AS label) AS l
     CROSS JOIN LATERAL (SELECT lakets._bucket_width(label -> 'steps') AS width) AS w
     WHERE ret ->> 'type' ~ '^(timestamp.*[^]]|date)$' AND label ->> 'nullable' = 'false'
     ORDER BY coalesce(width <= p_bucket_interval, true) DESC, ret ->> 'column' = p_preferred DESC, width = p_bucket_interval DESC, width DESC, position
     LIMIT 1;
    IF NOT FOUND THEN
        PERFORM lakets._refuse_query(p_name, p_returns, v_columns);
    ELSIF v_width > p_bucket_interval THEN
        RAISE EXCEPTION 'The buckets of RollUp % are longer than %: its column % holds buckets of %.',
            p_name, p_bucket_interval, bucket_column, v_width
            USING HINT = format('Create it with p_bucket_interval => %L.', v_width);
    END IF;
    definition := jsonb_build_object(
        'steps', definition,
        'times', (SELECT jsonb_agg(DISTINCT lakets._steps_between(src.steps, definition))
                    FROM lakets._rollup_sources(p_chronotable_id, p_depends_on) AS src WHERE src.relation::oid = ANY (p_relations)),
        'source', EXISTS (SELECT FROM lakets._rollup_sources(p_chronotable_id, '{}') AS src WHERE src.relation::oid = ANY (p_relations)),
        'reads', lakets._columns_read(p_tree));
END;
$$;

-- Raise the error that no column of a query is its bucket, with the reasons.
CREATE OR REPLACE FUNCTION lakets._refuse_query(
    p_name    text,
    p_returns jsonb,
    p_columns jsonb
) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_reasons text := (
        SELECT string_agg(format('%s: %s', ret ->> 'column', coalesce(p_columns -> (position - 1)::integer ->> 'why', 'an outer join makes rows without it')),
                          '; ' ORDER BY position)
          FROM jsonb_array_elements(p_returns) WITH ORDINALITY AS r (ret, position) WHERE ret ->> 'type' ~ '^(timestamp.*[^]]|date)$');
BEGIN
    IF v_reasons IS NULL THEN
        RAISE EXCEPTION 'The query of RollUp % returns no bucket: none of its columns (%) is a timestamptz, timestamp or date.',
            p_name, (SELECT string_agg(ret ->> 'column', ', ') FROM jsonb_array_elements(p_returns) AS ret)
            USING HINT = 'Select lakets.time_bucket(interval, time_column) AS bucket and group by it.';
    END IF;
    RAISE EXCEPTION 'The query of RollUp % has no bucket column whose rows depend on the source rows of their own bucket only (%).', p_name, v_reasons
        USING HINT = 'Make the bucket of the source''s time column by lakets.time_bucket, date_trunc or date_bin, with constants. Group by it, and join,'
                     ' PARTITION BY and DISTINCT ON it as well. Put expressions that look at other buckets into a query that reads the RollUp.';
END;
$$;

-- The columns that a query reads, with their types.
CREATE OR REPLACE FUNCTION lakets._columns_read(
    p_tree jsonb
) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT jsonb_agg(jsonb_build_object('relation', att.attrelid::regclass, 'column', att.attname,
                                            'type', format_type(att.atttypid, att.atttypmod), 'number', att.attnum))
          FROM pg_attribute AS att
         WHERE att.attnum > 0 AND NOT att.attisdropped AND (att.attrelid, att.attnum) IN (
               SELECT (info ->> 'relid')::oid, CASE WHEN bit = '7' THEN every.attnum ELSE bit::integer - 7 END
                 FROM jsonb_path_query(p_tree, '$.**.rteperminfos[*]') AS info
                CROSS JOIN jsonb_array_elements_text((info -> 'selectedCols') - 0) AS bit  -- attribute numbers from -7 on
                 LEFT JOIN pg_attribute AS every ON bit = '7' AND every.attrelid = (info ->> 'relid')::oid));
END;
$$;

-- The columns of a definition's "returns", as SQL text.
CREATE OR REPLACE FUNCTION lakets._column_list(
    p_returns jsonb
) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT string_agg(quote_ident(ret ->> 'column'), ', ' ORDER BY position)
              FROM jsonb_array_elements(p_returns) WITH ORDINALITY AS r (ret, position));
END;
$$;

-- Store the definition of a RollUp and return its row. The RollUp's table must have the columns
-- that the query returns.
CREATE OR REPLACE FUNCTION lakets._store_definition(
    p_rollup    lakets._rollup_registry,
    p_query     text,
    p_tree      jsonb,
    p_relations oid[],
    p_returns   jsonb
) RETURNS lakets._rollup_registry
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := lakets._rollup_relation(p_rollup.name);
    v_found    record;
    v_limited  text;
BEGIN
    SELECT * INTO v_found
      FROM lakets._define_rollup(p_rollup.name, p_tree, p_returns, p_relations, p_rollup.source_chronotable_id, p_rollup.depends_on,
                                 p_rollup.bucket_interval, coalesce(p_rollup.bucket_column, 'bucket'));
    v_limited := lakets._window_query(p_rollup.name, p_query, p_relations, p_returns, p_rollup.source_chronotable_id, p_rollup.depends_on);
    UPDATE lakets._rollup_registry AS reg
       SET query_text = p_query,
           window_query = coalesce(v_limited, p_query),
           bucket_column = v_found.bucket_column,
           definition = v_found.definition || jsonb_build_object('limited', v_limited IS NOT NULL, 'writes', (
               SELECT jsonb_agg(ret || jsonb_build_object('relation', v_relation, 'number', att.attnum) ORDER BY position)
                 FROM jsonb_array_elements(p_returns) WITH ORDINALITY AS r (ret, position)
                 JOIN pg_attribute AS att ON att.attrelid = v_relation AND att.attname = ret ->> 'column' AND NOT att.attisdropped))
     WHERE reg.id = p_rollup.id
    RETURNING reg.* INTO p_rollup;
    PERFORM lakets._write_fill(p_rollup);
    RETURN p_rollup;
END;
$$;

-- Analyse a RollUp's stored query again. Afterwards it is not known which changes the RollUp has
-- absorbed.
CREATE OR REPLACE FUNCTION lakets._redefine_rollup(
    p_rollup      lakets._rollup_registry,
    p_search_path text
) RETURNS lakets._rollup_registry
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET datestyle = 'ISO, MDY'
    SET intervalstyle = 'postgres'
    SET timezone = 'UTC'
AS $$
DECLARE
    v_relation regclass := lakets._rollup_relation(p_rollup.name);
    v_query    record;
    v_misfit   record;
BEGIN
    SELECT * INTO v_query FROM lakets._read_query(p_rollup.name, p_rollup.query_text, p_search_path);
    SELECT ret ->> 'column' AS name, ret ->> 'type' AS wanted, format_type(att.atttypid, att.atttypmod) AS is_type INTO v_misfit
      FROM jsonb_array_elements(v_query.returns) AS ret
      LEFT JOIN pg_attribute AS att ON att.attrelid = v_relation AND att.attname = ret ->> 'column' AND NOT att.attisdropped
     WHERE format_type(att.atttypid, att.atttypmod) IS DISTINCT FROM ret ->> 'type' LIMIT 1;
    IF v_misfit.is_type IS NOT NULL THEN
        RAISE EXCEPTION 'Column % of % is %, but the query of RollUp % now returns %.', v_misfit.name, v_relation, v_misfit.is_type, p_rollup.name, v_misfit.wanted
            USING HINT = format('ALTER TABLE %s ALTER COLUMN %I TYPE %s, and refresh it: what is resident is then aggregated again.', v_relation, v_misfit.name, v_misfit.wanted);
    ELSIF v_misfit.name IS NOT NULL THEN
        RAISE EXCEPTION '% has no column %, which the query of RollUp % returns.', v_relation, v_misfit.name, p_rollup.name
            USING HINT = format('ALTER TABLE %s ADD COLUMN %I %s, and refresh it: what is resident is then aggregated again.', v_relation, v_misfit.name, v_misfit.wanted);
    END IF;
    p_rollup := lakets._store_definition(p_rollup, v_query.query, v_query.tree, v_query.relations, v_query.returns);
    UPDATE lakets._rollup_registry AS reg 
       SET absorbed = NULL, watermark = CASE WHEN reg.track_changes THEN reg.watermark END
     WHERE reg.id = p_rollup.id
    RETURNING reg.* INTO p_rollup;
    RETURN p_rollup;
END;
$$;

-- Refuse a stored query from which the RollUp was not made. If there is nothing to compare it with
-- (an older RollUp that the install could not adopt, a table with a new owner), only the owner may
-- confirm it. A function of the earlier owner must be dropped first, which the new one may not do:
-- giving it to the new owner would give its text their rights.
CREATE OR REPLACE FUNCTION lakets._check_origin(
    p_rollup lakets._rollup_registry
) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_is_own boolean := lakets._has_own_query(p_rollup);
    v_owner  text    := (SELECT pg_get_userbyid(cls.relowner) FROM pg_class AS cls WHERE cls.oid = lakets._rollup_relation(p_rollup.name));
    v_former oid     := (SELECT fn.proowner FROM pg_proc AS fn WHERE fn.oid = to_regprocedure(lakets._fill_function(p_rollup.name))::oid);
    v_first  text    := '';
BEGIN
    IF NOT pg_has_role(v_owner, v_former, 'USAGE') THEN
        v_first := format('Let %s or the owner of LakeTS run DROP FUNCTION %s. ', pg_get_userbyid(v_former), lakets._fill_function(p_rollup.name));
    END IF;
    IF NOT v_is_own THEN
        RAISE EXCEPTION 'RollUp % was not made from its stored query: lakets._rollup_registry was changed by hand.', p_rollup.name
            USING HINT = 'Drop the RollUp and create it again.';
    ELSIF v_is_own IS NULL AND v_owner <> current_user THEN
        RAISE EXCEPTION 'The stored query of RollUp % was not confirmed by its owner, and % does not own it.', p_rollup.name, current_user
            USING HINT = format('%sRefresh it once as %s, or drop it and create it again.', v_first, v_owner);
    ELSIF v_is_own IS NULL AND v_first <> '' THEN
        RAISE EXCEPTION 'The function that fills RollUp % belongs to %, but its table to %.', p_rollup.name, pg_get_userbyid(v_former), v_owner
            USING HINT = format('%sRefresh it once as %s.', v_first, v_owner);
    END IF;
    PERFORM lakets._check_stored_query(p_rollup.name, p_rollup.query_text);
END;
$$;

-- Return as text what happened to a column that a RollUp's query reads and that no longer exists.
CREATE OR REPLACE FUNCTION lakets._new_name(
    p_rollup   lakets._rollup_registry,
    p_relation text,
    p_number   smallint
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- A name that no longer exists is the old name of the source, if the source was renamed.
    v_relation oid  := coalesce(to_regclass(p_relation), (SELECT reg.relation FROM lakets._chronotable_registry AS reg
                                                            WHERE reg.id = p_rollup.source_chronotable_id AND reg.cluster = lakets._here()));
    v_column   text := (SELECT att.attname FROM pg_attribute AS att
                         WHERE att.attrelid = v_relation AND att.attnum = p_number AND NOT att.attisdropped);
BEGIN
    RETURN coalesce('now called ' || quote_ident(v_column) || ' of ' || v_relation::regclass, 'not there any more');
END;
$$;

-- A column that has changed and that a RollUp's query reads or its table has, with its old name and
-- number; all null if there is none.
CREATE OR REPLACE FUNCTION lakets._changed_column(
    p_rollup        lakets._rollup_registry,
    OUT of_relation text,
    OUT was_called  name,
    OUT was_number  smallint,
    OUT is_gone     boolean
)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- The name is compared outside of the search: with it there, the planner reads its statistics.
    -- As text: to compare rows, the operators of each column's type would be looked up.
    SELECT col.relation, col."column", col.number INTO of_relation, was_called, was_number
      FROM jsonb_to_recordset((p_rollup.definition -> 'reads') || (p_rollup.definition -> 'writes'))
           AS col (relation text, "column" name, type text, number smallint)
     WHERE (SELECT format('%s %I %s', att.attisdropped, att.attname, format_type(att.atttypid, att.atttypmod))
              FROM pg_attribute AS att
             WHERE att.attrelid = to_regclass(col.relation)::oid AND att.attnum = col.number)
           IS DISTINCT FROM format('%s %I %s', false, col."column", col.type)
     LIMIT 1;
    IF FOUND THEN
        is_gone := NOT EXISTS (SELECT FROM pg_attribute AS att
                                WHERE att.attrelid = to_regclass(of_relation) AND att.attname = was_called AND NOT att.attisdropped);
    END IF;
END;
$$;

-- The current row of a RollUp for a refresh. Its query is analysed again if a column that it reads,
-- or a column of the RollUp's table, has changed.
CREATE OR REPLACE FUNCTION lakets._current_definition(
    p_rollup lakets._rollup_registry
) RETURNS lakets._rollup_registry
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_changed record;
BEGIN
    IF p_rollup.definition IS NULL OR lakets._has_own_query(p_rollup) IS NOT TRUE THEN
        PERFORM lakets._check_origin(p_rollup);
        RETURN lakets._redefine_rollup(p_rollup, 'public, lakets');
    END IF;
    v_changed := lakets._changed_column(p_rollup);
    IF v_changed.was_number IS NULL THEN
        RETURN p_rollup;
    ELSIF v_changed.is_gone AND to_regclass(v_changed.of_relation) IS DISTINCT FROM lakets._rollup_relation(p_rollup.name) THEN
        RAISE EXCEPTION 'Column % of %, which the query of RollUp % reads, is %.', v_changed.was_called, v_changed.of_relation, p_rollup.name,
            lakets._new_name(p_rollup, v_changed.of_relation, v_changed.was_number)
            USING HINT = 'Give the table or the column its name back, or drop the RollUp and create it again.';
    END IF;
    RETURN lakets._redefine_rollup(p_rollup, 'pg_catalog, pg_temp');
END;
$$;
