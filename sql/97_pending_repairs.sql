-- The problems in this database, for instance after an upgrade, and the statement that repairs
-- each. No rows mean that there is none. Printed by the install, and by `lakets doctor`.
CREATE OR REPLACE FUNCTION lakets.pending_repairs() RETURNS TABLE (object text, problem text, remedy text)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT format('ChronoTable %s.%s', tab.schema_name, tab.table_name),
               coalesce('its mirror: ' || lakets._mirror_problem(rel.oid, lakets._shadow_relation(tab.shadow_table_name)),
                        CASE WHEN lakets._shadow_relation(tab.shadow_table_name) IS NULL THEN 'it is synced, but has no shadow' END,
                        format('%s of %s chunks are not yet compared with their mirror', chunks.in_doubt, chunks.resident)),
               format('SELECT lakets.enable_sync(%L, %L);', tab.table_name, tab.schema_name)
               || CASE WHEN chunks.in_doubt > 0 THEN ' or let the tiering job compare them when they are due' ELSE '' END
          FROM lakets._chronotable_registry AS tab
         CROSS JOIN LATERAL (SELECT cls.oid::regclass FROM pg_class AS cls WHERE cls.oid = lakets._known_relation(tab)) AS rel (oid)
         CROSS JOIN LATERAL (
               SELECT count(*) FILTER (WHERE lakets._is_in_doubt(chunk)) AS in_doubt, count(*) AS resident
                 FROM lakets._chunk_metadata AS chunk WHERE chunk.chronotable_id = tab.id AND chunk.status <> 'dropped') AS chunks
         WHERE tab.sync_enabled
           AND (chunks.in_doubt > 0 OR lakets._shadow_relation(tab.shadow_table_name) IS NULL
                OR lakets._mirror_problem(rel.oid, lakets._shadow_relation(tab.shadow_table_name)) IS NOT NULL)
         ORDER BY tab.id;
    RETURN QUERY
        SELECT format('ChronoTable %s.%s', tab.schema_name, tab.table_name),
               format(kind.problem, kind.chunks, (SELECT count(*) FROM pg_inherits AS inh WHERE inh.inhparent = rel.oid)),
               format('SELECT lakets.guard_chunks(%L, %L); until it returns 0, or run `lakets install`', tab.table_name, tab.schema_name)
          FROM lakets._chronotable_registry AS tab
         CROSS JOIN LATERAL (SELECT cls.oid::regclass FROM pg_class AS cls WHERE cls.oid = lakets._known_relation(tab)) AS rel (oid)
         CROSS JOIN LATERAL (
               VALUES ('%s of %s chunks can still be written directly, and are not dropped until they are guarded',
                       cardinality(lakets._unguarded_partitions(rel.oid))),
                      ('%s of %s chunks have the guard of an older version, so TRUNCATE of the table is slow',
                       cardinality(lakets._older_guards(rel.oid)))) AS kind (problem, chunks)
         WHERE kind.chunks > 0 ORDER BY tab.id, kind.problem;
    RETURN QUERY
        SELECT format('RollUp %s', reg.name), format('its mirror %s may lack changes', gap.shadow),
               format('SELECT lakets.enable_sync(%L); or let its next refresh do it', reg.name)
          FROM lakets._rollup_registry AS reg
          JOIN (SELECT DISTINCT one.shadow FROM lakets._mirror_gap AS one) AS gap ON gap.shadow = lakets._shadow_relation(reg.shadow_table_name)
         WHERE reg.sync_enabled ORDER BY reg.id;
    RETURN QUERY
        SELECT format('RollUp %s', reg.name), 'its query was refused by the install, and cannot be refreshed',
               format('SELECT lakets.drop_rollup(%L); and create it again with a query that can be kept right', reg.name)
          FROM lakets._rollup_registry AS reg WHERE reg.definition IS NULL ORDER BY reg.id;
    RETURN QUERY
        SELECT format('lakets.%s', substr(fn.proname, 6)),
               format('%s uses %s of LakeTS 0.1.x', lakets._users_of(fn.oid), fn.oid::regprocedure),
               format('Rewrite it to use lakets.%I, then run `lakets install`.', substr(fn.proname, 6))
          FROM pg_proc AS fn
         WHERE fn.pronamespace = 'lakets'::regnamespace AND fn.proname LIKE '\_0\_1\_%' AND fn.prorettype <> 'trigger'::regtype
           AND lakets._users_of(fn.oid) IS NOT NULL
         ORDER BY fn.proname;
END;
$$;
