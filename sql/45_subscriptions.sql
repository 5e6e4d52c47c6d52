-- Tables that receive rows by logical replication. It applies each row by itself and fires no
-- statement trigger, so neither the tracking of a table nor the guard of a chunk sees the row. Such
-- a table is not mirrored completely, and RollUps of it lack rows.

-- The subscriptions that write to a table or to one of its partitions; null if there are none.
CREATE OR REPLACE FUNCTION lakets._subscriptions_of(
    p_relation regclass
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT string_agg(DISTINCT quote_ident(sub.subname), ', ')
          FROM pg_subscription_rel AS rel JOIN pg_subscription AS sub ON sub.oid = rel.srsubid
         WHERE rel.srrelid = p_relation OR rel.srrelid IN (SELECT inh.inhrelid FROM pg_inherits AS inh WHERE inh.inhparent = p_relation));
END;
$$;

-- Return as text why changes of a table with subscriptions are not tracked; null without.
CREATE OR REPLACE FUNCTION lakets._subscription_problem(
    p_relation regclass
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('%s receives rows from the subscription %s, and those are not tracked; take it out of the subscription, '
                  'and call lakets.enable_sync again if it is synced', p_relation, lakets._subscriptions_of(p_relation))
     WHERE lakets._subscriptions_of(p_relation) IS NOT NULL;
END;
$$;

-- Record that a table with subscriptions may have changes that were not tracked: its shadow may
-- lack them until it is compared, and all its rows count as changed.
CREATE OR REPLACE FUNCTION lakets._note_subscriptions(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_problem text     := lakets._subscription_problem(p_table.relation);
    v_shadow  regclass := CASE WHEN p_table.sync_enabled THEN lakets._shadow_relation(p_table.shadow_table_name) END;
BEGIN
    IF v_problem IS NULL OR v_shadow IS NULL AND NOT EXISTS (
        SELECT FROM lakets._rollup_registry AS reg WHERE reg.source_chronotable_id = p_table.id) THEN
        RETURN;
    END IF;
    RAISE WARNING '%.', v_problem
        USING HINT = 'Until then no chunk counts as durable, and RollUps are computed again after each partition job.';
    INSERT INTO lakets._mirror_gap (shadow)
    SELECT v_shadow WHERE v_shadow IS NOT NULL AND NOT EXISTS (SELECT FROM lakets._mirror_gap AS gap WHERE gap.shadow = v_shadow);
    INSERT INTO lakets._change_log (chronotable_id, min_time, max_time) VALUES (p_table.id, '-infinity', 'infinity');
END;
$$;

-- Refuse to mirror a table with subscriptions.
CREATE OR REPLACE FUNCTION lakets._check_subscriptions(
    p_relation regclass
) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF lakets._subscriptions_of(p_relation) IS NOT NULL THEN
        RAISE EXCEPTION '% cannot be mirrored: it receives rows from the subscription %, which fires no trigger that tracks changes.',
            p_relation, lakets._subscriptions_of(p_relation)
            USING HINT = 'Drop the subscription, or take the table and its partitions out of its publication and call '
                         'ALTER SUBSCRIPTION ... REFRESH PUBLICATION; then call this again.';
    END IF;
END;
$$;
