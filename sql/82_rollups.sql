-- Create, list and drop RollUps.

-- Check a new RollUp's name and interval.
CREATE OR REPLACE FUNCTION lakets._check_new_rollup(
    p_name            text,
    p_bucket_interval interval
) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF coalesce(p_name, '') = '' OR octet_length(p_name) > 48 THEN
        RAISE EXCEPTION 'RollUp name % has % bytes; it needs 1 to 48.', quote_nullable(p_name), coalesce(octet_length(p_name), 0)
            USING HINT = 'Its tables are named after it, and Postgres keeps 63 bytes of a name.';
    ELSIF EXISTS (SELECT FROM lakets._rollup_registry AS reg WHERE reg.name = p_name) THEN
        RAISE EXCEPTION 'RollUp % already exists.', p_name
            USING HINT = 'Drop it first with lakets.drop_rollup, or choose another name.';
    ELSIF to_regclass(format('public.%I', '_rollup_' || p_name)) IS NOT NULL THEN
        RAISE EXCEPTION 'RollUp % would be stored in public.%, but a relation with that name exists.', p_name, '_rollup_' || p_name
            USING HINT = 'Rename or drop that relation, or choose another name.';
    ELSIF p_bucket_interval IS NULL OR extract(epoch FROM p_bucket_interval) <= 0 THEN
        RAISE EXCEPTION 'Bucket interval % is not usable.', coalesce(p_bucket_interval::text, 'null')
            USING HINT = 'Use the positive interval that the query buckets by.';
    END IF;
    PERFORM lakets.time_bucket(p_bucket_interval, now());  -- refuses months mixed with days
END;
$$;

-- The sources of a query: the ChronoTable (given, or the only one that it names) and the RollUps
-- (given, or read by it). A query that reads RollUps need not read the given table: then the
-- RollUps are its only sources. Raises an error if it reads neither, or not the given table.
CREATE OR REPLACE FUNCTION lakets._resolve_sources(
    p_name          text,
    p_relations     oid[],
    p_source_table  text,
    p_source_schema text,
    p_depends_on    text[],
    OUT chronotable_id integer,
    OUT depends_on     integer[]
)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_tables  integer[] := ARRAY(SELECT reg.id FROM lakets._chronotable_registry AS reg
                                  WHERE lakets._known_relation(reg) = ANY (p_relations));
    v_unknown text      := (SELECT coalesce(dep, 'null') FROM unnest(p_depends_on) AS dep
                             WHERE NOT EXISTS (SELECT FROM lakets._rollup_registry AS reg WHERE reg.name = dep) LIMIT 1);
BEGIN
    IF v_unknown IS NOT NULL THEN
        RAISE EXCEPTION 'RollUp % depends on RollUp %, which does not exist.', p_name, v_unknown
            USING HINT = 'p_depends_on takes the names of RollUps; lakets.show_rollups() lists them.';
    END IF;
    depends_on := ARRAY(
        SELECT reg.id FROM lakets._rollup_registry AS reg WHERE reg.name = ANY (p_depends_on)
        UNION
        SELECT reg.id FROM lakets._rollup_registry AS reg
         WHERE to_regclass(format('public.%I', '_rollup_' || reg.name))::oid = ANY (p_relations)
         ORDER BY 1);
    IF p_source_table IS NOT NULL THEN
        chronotable_id := (lakets._chronotable(p_source_table, p_source_schema)).id;
        IF chronotable_id = ANY (v_tables) THEN
            RETURN;
        ELSIF v_tables = '{}' AND depends_on <> '{}' THEN
            chronotable_id := NULL;
        ELSE
            RAISE EXCEPTION 'The query of RollUp % does not read its source %.%.', p_name, p_source_schema, p_source_table
                USING HINT = 'Name the ChronoTable in the query''s FROM.';
        END IF;
    ELSIF cardinality(v_tables) = 1 THEN
        chronotable_id := v_tables[1];
    ELSIF cardinality(v_tables) > 1 OR depends_on = '{}' THEN
        RAISE EXCEPTION 'RollUp % needs one source: its query reads % ChronoTables and % RollUps.',
            p_name, cardinality(v_tables), cardinality(depends_on)
            USING HINT = 'Pass p_source_table, or read a ChronoTable or other RollUps.';
    END IF;
END;
$$;

-- create_rollup with the search_path under which the caller meant the query.
CREATE OR REPLACE FUNCTION lakets._create_rollup(
    p_name            text,
    p_query           text,
    p_bucket_interval interval,
    p_source_table    text,
    p_source_schema   text,
    p_depends_on      text[],
    p_search_path     text
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_query   record;
    v_source  record;
    v_rollup  lakets._rollup_registry;
BEGIN
    -- Lock order: (1) advisory on the name, (2) advisory on the change log, against pruning what
    -- the snapshot below does not see, (3) advisory (lakets, RollUp) of each RollUp it reads, which
    -- then cannot change unnoticed, (4) sources in ACCESS SHARE mode.
    PERFORM lakets._require_read_committed();
    PERFORM pg_advisory_xact_lock(hashtext('lakets rollup'), hashtext(p_name));
    PERFORM lakets._check_new_rollup(p_name, p_bucket_interval);
    PERFORM lakets._check_one_query(p_name, p_query, p_search_path);
    SELECT * INTO v_query FROM lakets._read_query(p_name, p_query, p_search_path);
    SELECT * INTO v_source FROM lakets._resolve_sources(p_name, v_query.relations, p_source_table, p_source_schema, p_depends_on);

    PERFORM pg_advisory_xact_lock_shared(hashtext('lakets change log'), v_source.chronotable_id);
    PERFORM lakets._lock_maintenance(lakets._rollup_relation(up.name))
       FROM (SELECT reg.name FROM lakets._rollup_registry AS reg WHERE reg.id = ANY (v_source.depends_on) ORDER BY reg.id) AS up;
    PERFORM lakets._lock_sources(v_source.chronotable_id, v_source.depends_on);

    EXECUTE format('CREATE TABLE public.%I AS SELECT * FROM (%s) AS fresh WITH NO DATA', '_rollup_' || p_name, v_query.query);
    -- It has no key, and a publication of all tables would refuse the deletes of a refresh.
    EXECUTE format('ALTER TABLE public.%I REPLICA IDENTITY FULL', '_rollup_' || p_name);
    INSERT INTO lakets._rollup_registry AS reg (
        name, source_chronotable_id, rollup_table, bucket_interval, query_text, source_time_column, depends_on, absorbed,
        relation, cluster)
    SELECT p_name, v_source.chronotable_id, '_rollup_' || p_name, p_bucket_interval, v_query.query,
           (SELECT src.time_column FROM lakets._rollup_sources(v_source.chronotable_id, v_source.depends_on) AS src LIMIT 1),
           v_source.depends_on, lakets._ended_now(), lakets._find_relation('public', '_rollup_' || p_name), lakets._here()
    RETURNING reg.* INTO v_rollup;
    v_rollup := lakets._store_definition(v_rollup, v_query.query, v_query.tree, v_query.relations, v_query.returns);
    PERFORM lakets._check_plain(v_rollup.relation);  -- a tool may add a trigger to every new table
    PERFORM lakets._recompute(v_rollup, tstzrange('-infinity', 'infinity'));
    -- After the load: building an index costs less than inserting into it.
    EXECUTE format('CREATE INDEX ON public.%I (%I)', '_rollup_' || p_name, v_rollup.bucket_column);
    PERFORM lakets._note_refresh(v_rollup, v_rollup.absorbed);
    PERFORM lakets._keep_dirty(v_rollup, '{(,)}');
    PERFORM lakets._warn_of_partial_buckets(v_rollup);
    -- The first load does not count as a refresh: the first refresh need not wait for refresh_lag.
    UPDATE lakets._rollup_registry AS reg SET last_refreshed_at = NULL WHERE reg.id = v_rollup.id;
    RETURN v_rollup.id;
END;
$$;

-- Prevent chunks of a RollUp's sources from being dropped while they are read.
CREATE OR REPLACE FUNCTION lakets._lock_sources(
    p_chronotable_id integer,
    p_depends_on     integer[]
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_known   oid;
    v_source  regclass;
    v_sources regclass[] := '{}';
BEGIN
    SELECT tab.relation, to_regclass(format('%I.%I', tab.schema_name, tab.table_name)) INTO v_known, v_source
      FROM lakets._chronotable_registry AS tab WHERE tab.id = p_chronotable_id;
    IF FOUND THEN
        IF v_source::oid IS DISTINCT FROM v_known THEN  -- renamed, gone, or another table
            v_source := (lakets._recognise(tab)).relation FROM lakets._chronotable_registry AS tab WHERE tab.id = p_chronotable_id;
        END IF;
        v_sources := ARRAY[v_source];
    END IF;
    IF cardinality(p_depends_on) > 0 THEN
        v_sources := v_sources || ARRAY(SELECT lakets._rollup_relation(up.name) FROM lakets._rollup_registry AS up WHERE up.id = ANY (p_depends_on));
    END IF;
    FOREACH v_source IN ARRAY v_sources LOOP
        EXECUTE format('LOCK TABLE ONLY %s IN ACCESS SHARE MODE', v_source);
    END LOOP;
END;
$$;

-- Warn of the loaded buckets that lack rows because these were dropped before.
CREATE OR REPLACE FUNCTION lakets._warn_of_partial_buckets(
    p_rollup lakets._rollup_registry
) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC' SET datestyle = 'ISO, MDY'
AS $$
DECLARE
    v_frozen  tstzmultirange := lakets._frozen_buckets(p_rollup, '{(,)}');
    v_partial record;
BEGIN
    IF isempty(v_frozen) THEN
        RETURN;
    END IF;
    EXECUTE format('SELECT min(%1$I)::text AS first, max(%1$I)::text AS last FROM %2$s WHERE %1$I::timestamptz <@ $1',
                   p_rollup.bucket_column, p_rollup.relation::regclass) INTO v_partial USING v_frozen;
    IF v_partial.first IS NOT NULL THEN
        RAISE WARNING 'Buckets of RollUp % (the first is %, the last %) lack rows of the source that were dropped before.',
            p_rollup.name, v_partial.first, v_partial.last
            USING HINT = 'No refresh computes them again: correct them in the table of the RollUp, or delete them from it.';
    END IF;
END;
$$;

-- Create public._rollup_<name> from a query that groups by time_bucket, load it and track changes
-- for it from now on; returns its id. Each of its buckets must depend on source rows within that
-- bucket only. p_depends_on: the names of the RollUps that it reads, if the query does not name
-- them itself. No SET clause: the query is parsed under the caller's search_path, and stored with
-- qualified names.
CREATE OR REPLACE FUNCTION lakets.create_rollup(
    p_name            text,
    p_query           text,
    p_bucket_interval interval DEFAULT '1 hour',
    p_source_table    text     DEFAULT NULL,
    p_source_schema   text     DEFAULT 'public',
    p_depends_on      text[]   DEFAULT '{}'
) RETURNS integer
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
AS $$
    SELECT lakets._create_rollup(p_name, p_query, p_bucket_interval, p_source_table, p_source_schema, p_depends_on,
                                 pg_catalog.current_setting('search_path'));
$$;

-- Set how long after a refresh of a RollUp the next one is skipped.
CREATE OR REPLACE FUNCTION lakets.set_refresh_lag(
    p_name        text,
    p_refresh_lag interval
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_rollup lakets._rollup_registry := lakets._rollup(p_name);
BEGIN
    IF p_refresh_lag IS NULL OR p_refresh_lag < interval '0' OR p_refresh_lag > interval '100 years' THEN
        RAISE EXCEPTION 'refresh_lag must be zero or a positive interval of at most 100 years, not %.', coalesce(p_refresh_lag::text, 'null')
            USING HINT = 'Zero refreshes at every call.';
    END IF;
    UPDATE lakets._rollup_registry AS reg SET refresh_lag = p_refresh_lag WHERE reg.id = v_rollup.id;
END;
$$;

-- The newest materialised bucket of a RollUp that is not in the future; null if there is none.
CREATE OR REPLACE FUNCTION lakets._rollup_watermark(
    p_name text
) RETURNS timestamptz
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT reg.watermark FROM lakets._rollup_registry AS reg WHERE reg.name = p_name;
$$;

-- Remove a RollUp from the registries. Foreign keys delete its marks, but not when
-- session_replication_role is replica, so they are deleted here.
CREATE OR REPLACE FUNCTION lakets._unregister_rollup(
    p_name text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM lakets._rollup_invalidation_log AS mark
     WHERE mark.rollup_id IN (SELECT reg.id FROM lakets._rollup_registry AS reg WHERE reg.name = p_name);
    DELETE FROM lakets._rollup_registry AS reg WHERE reg.name = p_name;
END;
$$;

-- Drop a RollUp, its table, view and shadow. Raises an error while other RollUps read it. A table
-- that was renamed stays, and so does another table that got its name.
CREATE OR REPLACE FUNCTION lakets.drop_rollup(
    p_name text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_rollup     lakets._rollup_registry := lakets._rollup(p_name);
    v_problem    text := lakets._rollup_problem(p_name);
    v_dependants text;
BEGIN
    -- Lock order: (1) advisory (lakets, RollUp's table), (2) view, table, shadow.
    IF v_problem IS NULL THEN
        PERFORM lakets._lock_maintenance(lakets._rollup_relation(p_name));
    END IF;
    SELECT string_agg(reg.name, ', ' ORDER BY reg.name) INTO v_dependants
      FROM lakets._rollup_registry AS reg WHERE v_rollup.id = ANY (reg.depends_on);
    IF v_dependants IS NOT NULL THEN
        RAISE EXCEPTION 'RollUp % cannot be dropped: these RollUps depend on it: %.', p_name, v_dependants
            USING HINT = 'Drop them first.';
    END IF;
    -- RollUp rt_<name> has a table with the name that the view would have.
    IF (SELECT cls.relkind = 'v' FROM pg_class AS cls WHERE cls.oid = lakets._find_relation('public', '_rollup_rt_' || p_name)) THEN
        EXECUTE format('DROP VIEW public.%I', '_rollup_rt_' || p_name);
    END IF;
    EXECUTE format('DROP FUNCTION IF EXISTS lakets.%I()', '_rollup_live_' || v_rollup.id);
    EXECUTE format('DROP FUNCTION IF EXISTS %s', lakets._fill_function(p_name));
    IF v_problem IS NULL THEN
        EXECUTE format('DROP TABLE %s', lakets._rollup_relation(p_name));
    ELSE
        RAISE NOTICE '%. No table is dropped.', v_problem;
        PERFORM lakets._untrack_rollup(cls.oid) FROM pg_class AS cls WHERE cls.oid = v_rollup.relation AND v_rollup.cluster = lakets._here();
    END IF;
    PERFORM lakets._drop_mirror('rollup', v_rollup.id, v_rollup.shadow_table_name);
    PERFORM lakets._unregister_rollup(p_name);
END;
$$;

-- Every RollUp and its state. source_table: the ChronoTable that its rows come from, directly or
-- through other RollUps, if there is exactly one; else N/A, as in 0.1.3.
CREATE OR REPLACE FUNCTION lakets.show_rollups()
    RETURNS TABLE (name text, rollup_table text, realtime_view text, bucket_interval interval, refresh_lag interval,
                   watermark timestamptz, last_refreshed_at timestamptz, source_table text, bucket_column text, depends_on integer[])
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE reads AS (
        SELECT reg.id, reg.source_chronotable_id AS source, reg.depends_on FROM lakets._rollup_registry AS reg
        UNION
        SELECT reads.id, up.source_chronotable_id, up.depends_on
          FROM reads JOIN lakets._rollup_registry AS up ON up.id = ANY (reads.depends_on) WHERE reads.source IS NULL
    )
    SELECT reg.name, reg.rollup_table, reg.realtime_view, reg.bucket_interval, reg.refresh_lag, reg.watermark,
           reg.last_refreshed_at, coalesce(
               (SELECT min(tab.schema_name || '.' || tab.table_name)
                  FROM reads JOIN lakets._chronotable_registry AS tab ON tab.id = reads.source
                 WHERE reads.id = reg.id HAVING count(DISTINCT tab.id) = 1), 'N/A'),
           reg.bucket_column, reg.depends_on
      FROM lakets._rollup_registry AS reg
     ORDER BY reg.name;
$$;

-- Every RollUp in refresh order.
CREATE OR REPLACE FUNCTION lakets.show_rollup_dag()
    RETURNS TABLE (rollup_name text, depends_on_names text[], refresh_order integer, bucket_interval interval, last_refreshed timestamptz)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT dag.rollup_name, dag.depends_on_names, dag.refresh_order, dag.bucket_interval, dag.last_refreshed
      FROM lakets._rollup_order() AS dag;
$$;
