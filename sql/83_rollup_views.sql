-- The view of a RollUp that shows live rows in the buckets that are not settled.

-- The labels of a RollUp's settled buckets, whose rows are in its table if they have any: those up
-- to its watermark, and those of which rows are dropped that the view's query reads, which can no
-- longer be computed.
CREATE OR REPLACE FUNCTION lakets._settled_labels(
    p_name           text,
    p_chronotable_id integer  -- the table that the view's query reads; null if it reads only RollUps
) RETURNS tstzmultirange
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_rollup  lakets._rollup_registry;
    v_settled tstzmultirange := '{}';
    v_live    timestamptz;
    v_dropped tstzmultirange;
BEGIN
    SELECT reg.* INTO v_rollup FROM lakets._rollup_registry AS reg WHERE reg.name = p_name;
    IF v_rollup.watermark IS NOT NULL THEN
        v_settled := tstzmultirange(tstzrange(NULL, v_rollup.watermark, '[]'));
    END IF;
    IF p_chronotable_id IS NOT NULL AND v_rollup.definition IS NOT NULL THEN
        v_live := lakets._live_from(p_name, v_rollup.definition -> 'steps');
        SELECT range_agg(tstzrange(chunk.range_start, chunk.range_end)) INTO v_dropped
          FROM lakets._chunk_metadata AS chunk
         WHERE chunk.chronotable_id = p_chronotable_id AND chunk.status = 'dropped' AND chunk.range_end > v_live;
        v_settled := v_settled + coalesce(
            (SELECT range_agg(lakets._labels_of(v_rollup.definition -> 'steps', gone)) FROM unnest(v_dropped) AS gone), '{}');
    END IF;
    RETURN v_settled;
END;
$$;

-- The source time from which rows can be in buckets above a RollUp's watermark.
CREATE OR REPLACE FUNCTION lakets._live_from(
    p_name  text,
    p_steps jsonb  -- from the source's time column to the label
) RETURNS timestamptz
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN coalesce(lower(lakets._times_of(p_steps, tstzrange(
        lakets._reachable_from(lakets._rollup_watermark(p_name)) + interval '1 microsecond', NULL))), '-infinity');
END;
$$;

-- The live part of the view: the query limited to source rows above the watermark, or the whole
-- query if its text cannot be limited. Raises an error if its buckets are not those of the RollUp.
CREATE OR REPLACE FUNCTION lakets._live_query(
    p_rollup    lakets._rollup_registry,
    p_query     text,
    p_tree      jsonb,
    p_relations oid[],
    p_returns   jsonb
) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- The query may read the table itself where the RollUp reads another RollUp.
    v_table    integer   := coalesce(p_rollup.source_chronotable_id, (
        SELECT min(reg.id) FROM lakets._chronotable_registry AS reg
         WHERE lakets._known_relation(reg) = ANY (p_relations)));
    v_rollups  integer[] := ARRAY(SELECT reg.id FROM lakets._rollup_registry AS reg
                                   WHERE to_regclass(format('public.%I', '_rollup_' || reg.name))::oid = ANY (p_relations));
    v_query    text      := p_query;
    v_found    record;
    v_source   record;
BEGIN
    SELECT * INTO v_found
      FROM lakets._define_rollup(p_rollup.name, p_tree, p_returns, p_relations, v_table, v_rollups, p_rollup.bucket_interval, p_rollup.bucket_column);
    IF v_found.bucket_column <> p_rollup.bucket_column OR v_found.definition -> 'steps' <> p_rollup.definition -> 'steps' THEN
        RAISE EXCEPTION 'The view of RollUp % must have its buckets in column %, as the RollUp has; the query has others.', p_rollup.name, p_rollup.bucket_column
            USING HINT = 'Make the bucket as the query of the RollUp does.';
    END IF;
    FOR v_source IN SELECT src.* FROM lakets._rollup_sources(v_table, v_rollups) AS src WHERE src.relation::oid = ANY (p_relations) LOOP
        -- This condition lets Postgres prune old chunks. In a SELECT of its own, it is evaluated
        -- once, and neither for each row nor for each chunk that is planned.
        v_query := lakets._limit_relation(v_query, v_source.relation, p_relations, format(
            'lakets_source.%I >= %s', v_source.time_column,
            lakets._comparable(format('(SELECT lakets._live_from(%L, %L))', p_rollup.name, lakets._steps_between(v_source.steps, v_found.definition -> 'steps')),
                               lakets._column_type(v_source.relation, v_source.time_column))));
    END LOOP;
    IF lakets._fits_table(v_query, lakets._rollup_relation(p_rollup.name), lakets._column_list(p_returns)) THEN
        RETURN v_query;
    END IF;
    RAISE WARNING 'The view of RollUp % cannot be limited to live rows: each query will read all of its source.', p_rollup.name
        USING HINT = 'Name the source directly in FROM or JOIN, and its columns rather than its whole row.';
    RETURN p_query;
END;
$$;

-- Put the live part of a view into a function that fixes the settings of its query. Postgres parses
-- the query here, like that of a view: it follows when a source or a column is renamed.
CREATE OR REPLACE FUNCTION lakets._create_live_function(
    p_rollup_id integer,
    p_query     text,
    p_returns   jsonb
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC' SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres'
AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION lakets.%I() RETURNS TABLE (%s) LANGUAGE sql STABLE PARALLEL SAFE %s BEGIN ATOMIC %s; END',
                   '_rollup_live_' || p_rollup_id,
                   (SELECT string_agg(format('%I %s', ret ->> 'column', ret ->> 'type'), ', ' ORDER BY position)
                      FROM jsonb_array_elements(p_returns) WITH ORDINALITY AS r (ret, position)), lakets._query_settings() || lakets._zone_settings(p_query), p_query);
END;
$$;

-- Create the view public._rollup_rt_<name>: the rows of its settled buckets and, for all others,
-- the current result of p_raw_query. A query whose result depends on settings of the session is put
-- into a function that fixes these settings, as a refresh does.
CREATE OR REPLACE FUNCTION lakets._create_rollup_view(
    p_name        text,
    p_raw_query   text,
    p_search_path text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_rollup lakets._rollup_registry := lakets._current_definition(lakets._rollup(p_name));
    v_type   regtype := lakets._column_type(lakets._rollup_relation(p_name), v_rollup.bucket_column);
    v_list   text := lakets._column_list(v_rollup.definition -> 'writes');
    -- Labels without a zone are read as UTC, whatever the zone of the session.
    v_label  text := format(CASE v_type WHEN 'timestamptz'::regtype THEN '%I' ELSE '(%I::timestamp AT TIME ZONE ''UTC'')' END,
                            v_rollup.bucket_column);
    v_mark   text;
    v_query  record;
    v_live   text;
BEGIN
    IF (SELECT cls.relkind <> 'v' FROM pg_class AS cls WHERE cls.oid = lakets._find_relation('public', '_rollup_rt_' || p_name)) THEN
        RAISE EXCEPTION 'The view of RollUp % would be public.%, but a relation with that name exists.', p_name, '_rollup_rt_' || p_name
            USING HINT = 'Rename or drop that relation. If it is the table of another RollUp, give one of the two another name.';
    END IF;
    PERFORM lakets._check_one_query(p_name, p_raw_query, p_search_path);
    SELECT * INTO v_query FROM lakets._read_query(p_name, p_raw_query, p_search_path);
    v_live := lakets._live_query(v_rollup, v_query.query, v_query.tree, v_query.relations, v_query.returns);
    v_mark := format('lakets._settled_labels(%L, %L)', p_name, (
        SELECT min(reg.id) FROM lakets._chronotable_registry AS reg
         WHERE lakets._known_relation(reg) = ANY (v_query.relations) AND reg.id = coalesce(v_rollup.source_chronotable_id, reg.id)));
    IF NOT v_query.is_settled THEN
        BEGIN
            PERFORM lakets._create_live_function(v_rollup.id, v_live, v_query.returns);
        EXCEPTION WHEN invalid_function_definition THEN  -- it has other columns now; the view loses the rights granted on it
            EXECUTE format('DROP VIEW IF EXISTS public.%I', '_rollup_rt_' || p_name);
            EXECUTE format('DROP FUNCTION lakets.%I()', '_rollup_live_' || v_rollup.id);
            PERFORM lakets._create_live_function(v_rollup.id, v_live, v_query.returns);
        END;
        v_live := format('SELECT * FROM lakets.%I()', '_rollup_live_' || v_rollup.id);
    END IF;
    -- Each in a SELECT of its own, which is evaluated once and not for each row. With NOT, since
    -- Postgres takes for granted that few rows meet <@ and that most do not.
    EXECUTE format('CREATE OR REPLACE VIEW public.%1$I AS '
                   'SELECT %2$s FROM public.%3$I WHERE NOT %4$s <@ (SELECT ''{(,)}''::tstzmultirange - %5$s) '
                   'UNION ALL SELECT %2$s FROM (%6$s) AS live WHERE NOT %4$s <@ (SELECT %5$s) AND isfinite(%7$I)',
                   '_rollup_rt_' || p_name, v_list, '_rollup_' || p_name, v_label, v_mark, v_live, v_rollup.bucket_column);
    UPDATE lakets._rollup_registry AS reg SET realtime_view = '_rollup_rt_' || p_name WHERE reg.id = v_rollup.id;
END;
$$;

-- The same, parsed under the caller's search_path, so it has no SET clause.
CREATE OR REPLACE FUNCTION lakets.create_rollup_view(
    p_name      text,
    p_raw_query text
) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
    SELECT lakets._create_rollup_view(p_name, p_raw_query, pg_catalog.current_setting('search_path'));
$$;

