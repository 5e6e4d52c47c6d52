-- Bring what exists under this version: tracking of every ChronoTable and RollUp, queries of older RollUps.
DO $$
DECLARE
    v_table  lakets._chronotable_registry;
    v_rollup lakets._rollup_registry;
BEGIN
    FOR v_table IN SELECT reg.* FROM lakets._chronotable_registry AS reg ORDER BY reg.id LOOP
        PERFORM lakets._track_chronotable(v_table.id);
    END LOOP;
    FOR v_rollup IN SELECT reg.* FROM lakets._rollup_registry AS reg ORDER BY reg.id LOOP
        IF v_rollup.sync_enabled THEN
            PERFORM lakets._write_trackers(lakets._rollup_relation(v_rollup.name), pg_catalog.format('_track_rollup_%s', v_rollup.id),
                                           v_rollup.bucket_column, lakets._shadow_relation(v_rollup.shadow_table_name), NULL);
        END IF;
        UPDATE lakets._rollup_registry AS reg
           SET query_text = (qualified).query,
               window_query = lakets._window_query(v_rollup.name, (qualified).query, v_rollup.bucket_column,
                                                   v_rollup.source_chronotable_id, v_rollup.depends_on)
          FROM (SELECT lakets._qualified_query(v_rollup.query_text, 'public') AS qualified) AS q
         WHERE reg.id = v_rollup.id AND reg.window_query IS NULL;
    END LOOP;
    INSERT INTO lakets._version (version)
    SELECT pg_catalog.current_setting('lakets.version')
     WHERE pg_catalog.current_setting('lakets.version') IS DISTINCT FROM
           (SELECT ver.version FROM lakets._version AS ver ORDER BY ver.installed_at DESC LIMIT 1);
END
$$;
