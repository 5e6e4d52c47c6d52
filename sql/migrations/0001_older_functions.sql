-- Over LakeTS 0.1.x. Its triggers work row by row: they do nothing from here on, and 99_finish.sql puts ours in their place
-- before anybody can write. Those that chunks have, too, go later (48_older_triggers.sql), since that takes a lock for each
-- chunk. Its functions are set aside as _0_1_<name>; once ours are there, 96_successors.sql puts each of ours in the
-- place of the one that it succeeds, under which the views, the functions and the grants of others go on. Whatever else
-- is in the schema is somebody's own and stays as it is.
DO $$
DECLARE
    v_timeout  text := pg_catalog.current_setting('lock_timeout');
    v_patience interval := v_timeout::interval;
    v_began    timestamptz;
    v_tables   text[] := '{}';
    v_table    text;
    v_trigger  record;
    v_routines oid[] := '{}';
    v_called   oid[];
    v_routine  record;
BEGIN
    IF pg_catalog.to_regclass('lakets._rollup_registry') IS NULL THEN
        RETURN;
    END IF;

    -- Every table is locked at once or none, and an attempt is over before deadlock_timeout: a writer of two tables who
    -- meets the install halfway would wait longest, and so be the one whom Postgres ends.
    EXECUTE $query$
        SELECT coalesce(pg_catalog.array_agg(used.relation::text), '{}')
          FROM (SELECT pg_catalog.to_regclass(pg_catalog.format('%I.%I', tab.schema_name, tab.table_name)) AS relation
                  FROM lakets._chronotable_registry AS tab
                UNION
                SELECT pg_catalog.to_regclass(pg_catalog.format('public.%I', '_rollup_' || up.name))
                  FROM lakets._rollup_registry AS up) AS used
         WHERE used.relation IS NOT NULL $query$ INTO v_tables;
    v_tables := v_tables || ARRAY(  -- the registries too: later migrations alter them
        SELECT cls.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class AS cls
         WHERE cls.relnamespace = 'lakets'::pg_catalog.regnamespace AND cls.relkind = 'r'
           AND cls.relname IN ('_chronotable_registry', '_chunk_metadata', '_lvc_registry', '_policy_registry',
                               '_rollup_invalidation_log', '_rollup_registry', '_version'));
    v_patience := v_patience + (pg_catalog.clock_timestamp() - pg_catalog.now());
    PERFORM pg_catalog.set_config('lock_timeout', '100ms', true);
    LOOP
        BEGIN
            v_began := pg_catalog.clock_timestamp();
            FOREACH v_table IN ARRAY v_tables LOOP
                EXECUTE pg_catalog.format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', v_table);
                IF pg_catalog.clock_timestamp() - v_began > interval '400 milliseconds' THEN
                    RAISE lock_not_available;
                END IF;
            END LOOP;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF pg_catalog.clock_timestamp() - pg_catalog.now() > v_patience THEN
                RAISE;
            END IF;
            PERFORM pg_catalog.pg_sleep(0.1);
        END;
    END LOOP;
    PERFORM pg_catalog.set_config('lock_timeout', v_timeout, true);

    FOR v_trigger IN
        SELECT trg.tgname, trg.tgrelid::pg_catalog.regclass AS relation, trg.tgfoid, cls.relispartition AS is_on_chunk,
               cls.relkind = 'p' AND trg.tgtype % 2 = 1 AS is_cloned
          FROM pg_catalog.pg_trigger AS trg
          JOIN pg_catalog.pg_class AS cls ON cls.oid = trg.tgrelid
          JOIN pg_catalog.pg_proc AS fn ON fn.oid = trg.tgfoid
         WHERE fn.pronamespace = 'lakets'::pg_catalog.regnamespace
           AND (trg.tgname LIKE 'trg\_lakets\_%' OR trg.tgname = 'trg_validate_rollup_deps')
           AND NOT trg.tgisinternal AND trg.tgparentid = 0
    LOOP
        v_routines := v_routines || v_trigger.tgfoid;
        IF v_trigger.is_on_chunk THEN
            NULL;
        ELSIF v_trigger.is_cloned THEN  -- chunks to come get it disabled
            EXECUTE pg_catalog.format('ALTER TABLE ONLY %s DISABLE TRIGGER %I', v_trigger.relation, v_trigger.tgname);
        ELSE
            EXECUTE pg_catalog.format('DROP TRIGGER %I ON %s', v_trigger.tgname, v_trigger.relation);
        END IF;
    END LOOP;

    v_routines := v_routines || ARRAY(
        SELECT pg_catalog.to_regprocedure('lakets.' || public_one.signature)
          FROM pg_catalog.unnest(ARRAY[
               '_build_rollup_dag(integer[])', '_cdf_committed_lsn(text)', '_get_chunks_to_tier(text,text)',
               '_ensure_partitions(integer,integer,integer,timestamptz,timestamptz)', '_rollup_watermark(text)',
               '_get_dirty_chunks(integer,timestamptz)',
               'add_retention_policy(text,interval,text)', 'add_tiered_retention_policy(text,interval,interval,text)',
               'add_tiering_policy(text,interval,text)', 'alert_check(text,text,text)',
               'alert_deadman(text,text,text,interval,text)', 'cardinality_check(text,bigint,text)',
               'cardinality_stats(text,text)', 'chunk_health()', 'create_chronotable(text,text,interval,text,boolean)',
               'create_metric_table(text,text[],text[],interval,text)',
               'create_rollup(text,text,interval,text,text,text[])', 'create_rollup(text,text,interval,text,text,text,text[])',
               'create_rollup_view(text,text)', 'delta(float8,float8,boolean)', 'disable_lvc(text,text)',
               'disable_rollup_invalidation(text)', 'disable_sync(text,text)', 'drop_chronotable(text,text)',
               'drop_chunks(text,interval,text)', 'drop_rollup(text)', 'enable_lvc(text,text[],text[],text)',
               'enable_rollup_invalidation(text)', 'enable_sync(text,text)', 'execute_retention(text,text)',
               'execute_retention(text,text,boolean)', 'first(float8,timestamptz)', 'histogram(float8,float8,float8,integer)',
               'ingest_batch(text,jsonb,text)', 'ingest_prometheus(text,text,jsonb,float8,timestamptz,text)',
               'interpolate(float8,float8,float8,timestamptz,timestamptz,timestamptz)',
               'invalidate_rollup_range(text,timestamptz,timestamptz)',
               'invalidate_rollup_range(text,timestamptz,timestamptz,text)', 'lakets_metrics()', 'last(float8,timestamptz)',
               'latest_values(text,text)', 'locf(float8,float8)', 'lvc_stats()', 'query_stats(integer)',
               'rate(float8,float8,timestamptz,timestamptz,boolean)', 'refresh_rollup(text)', 'refresh_rollup_cascade(text)',
               'remove_retention_policy(text,text)', 'remove_tiering_policy(text,text)',
               'set_chunk_interval(text,interval,text)', 'show_chunks(text,interval,interval,text)',
               'show_retention_policy(text,text)', 'show_rollup_dag()', 'show_rollups()', 'show_tiering_policy(text,text)',
               'show_tiering_status(text,text)', 'tier_chunk(text)', 'time_bucket(interval,timestamptz,timestamptz)',
               'time_bucket_gapfill(interval,timestamptz,timestamptz)', 'untier_chunk(text)']) AS public_one (signature));
    LOOP  -- and what those call that is not for others, in whichever release
        v_called := ARRAY(
            SELECT DISTINCT called.oid
              FROM pg_catalog.pg_proc AS fn
             CROSS JOIN LATERAL pg_catalog.regexp_matches(fn.prosrc, 'lakets\.(_\w+)', 'g') AS name (parts)
              JOIN pg_catalog.pg_proc AS called ON called.proname = name.parts[1]
             WHERE fn.oid = ANY (v_routines) AND called.pronamespace = 'lakets'::pg_catalog.regnamespace
            UNION
            SELECT part.oid FROM pg_catalog.pg_aggregate AS agg
              JOIN pg_catalog.pg_proc AS part ON part.oid IN (agg.aggtransfn, agg.aggfinalfn)
             WHERE agg.aggfnoid = ANY (v_routines) AND part.pronamespace = 'lakets'::pg_catalog.regnamespace);
        EXIT WHEN v_called <@ v_routines;
        v_routines := v_routines || v_called;
    END LOOP;
    FOR v_routine IN
        SELECT fn.oid::pg_catalog.regprocedure AS signature, fn.proname, fn.prorettype = 'trigger'::pg_catalog.regtype AS is_trigger
          FROM pg_catalog.pg_proc AS fn
         WHERE fn.pronamespace = 'lakets'::pg_catalog.regnamespace AND fn.oid = ANY (v_routines)
    LOOP
        EXECUTE pg_catalog.format('ALTER ROUTINE %s RENAME TO %I', v_routine.signature, '_0_1_' || v_routine.proname);
        IF v_routine.is_trigger THEN
            EXECUTE pg_catalog.format('CREATE OR REPLACE FUNCTION lakets.%I() RETURNS trigger LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE'
                                      ' SET search_path = pg_catalog, pg_temp AS %L',
                                      '_0_1_' || v_routine.proname, 'BEGIN IF TG_OP = ''DELETE'' THEN RETURN OLD; END IF; RETURN NEW; END;');
        END IF;
    END LOOP;

    -- What others have in the schema must be the same afterwards: 96_successors.sql looks.
    PERFORM pg_catalog.set_config('lakets.others', coalesce(
        (SELECT pg_catalog.json_object_agg(fn.oid, pg_catalog.md5(fn.prosrc)) FROM pg_catalog.pg_proc AS fn
          WHERE fn.pronamespace = 'lakets'::pg_catalog.regnamespace AND fn.proname NOT LIKE '\_0\_1\_%')::text, '{}'), true);
END
$$;
