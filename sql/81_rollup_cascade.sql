-- The order of RollUps, and the refresh of all of them in it.

-- The RollUps in p_root_ids and all that depend on them (null: every RollUp), in the order of
-- refresh. RollUps with the same refresh_order do not depend on each other. Raises an error for a
-- cycle.
CREATE OR REPLACE FUNCTION lakets._rollup_order(
    p_root_ids integer[] DEFAULT NULL
) RETURNS TABLE (rollup_id integer, rollup_name text, depends_on_names text[], refresh_order integer,
                 bucket_interval interval, last_refreshed timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_waiting integer[] := ARRAY(
        WITH RECURSIVE reached (id) AS (
            SELECT reg.id FROM lakets._rollup_registry AS reg WHERE p_root_ids IS NULL OR reg.id = ANY (p_root_ids)
            UNION
            SELECT reg.id FROM lakets._rollup_registry AS reg JOIN reached ON reached.id = ANY (reg.depends_on)
        ) SELECT reached.id FROM reached);
    v_ready   integer[];
    v_order   integer := 0;
BEGIN
    WHILE v_waiting <> '{}' LOOP
        v_ready := ARRAY(SELECT reg.id FROM lakets._rollup_registry AS reg
                          WHERE reg.id = ANY (v_waiting) AND NOT reg.depends_on && v_waiting);
        IF v_ready = '{}' THEN
            RAISE EXCEPTION 'These RollUps depend on each other in a circle: %.',
                (SELECT string_agg(reg.name, ', ' ORDER BY reg.name) FROM lakets._rollup_registry AS reg WHERE reg.id = ANY (v_waiting))
                USING HINT = 'Correct depends_on in lakets._rollup_registry.';
        END IF;
        v_order := v_order + 1;
        RETURN QUERY
            SELECT reg.id, reg.name, ARRAY(SELECT up.name FROM lakets._rollup_registry AS up WHERE up.id = ANY (reg.depends_on) ORDER BY up.name),
                   v_order, reg.bucket_interval, reg.last_refreshed_at
              FROM lakets._rollup_registry AS reg WHERE reg.id = ANY (v_ready) ORDER BY reg.name;
        v_waiting := ARRAY(SELECT id FROM unnest(v_waiting) AS id WHERE id <> ALL (v_ready));
    END LOOP;
END;
$$;

-- The same as ids only.
CREATE OR REPLACE FUNCTION lakets._build_rollup_dag(
    p_root_ids integer[] DEFAULT NULL
) RETURNS integer[]
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(array_agg(dag.rollup_id ORDER BY dag.refresh_order, dag.rollup_name), '{}')
      FROM lakets._rollup_order(p_root_ids) AS dag;
$$;

-- Job 4. Refresh a RollUp, the RollUps that it depends on and those that depend on it (null: every
-- RollUp), dependencies first. A RollUp that fails is reported with a warning and refreshed =
-- false, and so are those that depend on it; the others are refreshed. This is one transaction:
-- callers should refresh each RollUp in a transaction of its own where they can.
CREATE OR REPLACE FUNCTION lakets.refresh_rollup_cascade(
    p_name text DEFAULT NULL
) RETURNS TABLE (rollup_name text, refreshed boolean, refresh_ms double precision)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_root    lakets._rollup_registry;
    v_wanted  integer[];
    v_failed  text[] := '{}';
    v_next    record;
    v_started timestamptz;
BEGIN
    IF p_name IS NOT NULL THEN
        v_root := lakets._rollup(p_name);
        v_wanted := ARRAY(
            WITH RECURSIVE upstream (id) AS (
                SELECT unnest(v_root.depends_on)
                UNION
                SELECT unnest(reg.depends_on) FROM lakets._rollup_registry AS reg JOIN upstream ON upstream.id = reg.id
            )
            SELECT upstream.id FROM upstream
            UNION
            SELECT dag.rollup_id FROM lakets._rollup_order(ARRAY[v_root.id]) AS dag);
    END IF;
    FOR v_next IN
        SELECT dag.* FROM lakets._rollup_order() AS dag WHERE v_wanted IS NULL OR dag.rollup_id = ANY (v_wanted)
    LOOP
        rollup_name := v_next.rollup_name;
        refreshed := false;
        v_started := clock_timestamp();
        IF v_next.depends_on_names && v_failed THEN
            RAISE WARNING 'RollUp % is skipped: it depends on one that failed.', v_next.rollup_name;
            v_failed := v_failed || v_next.rollup_name;
        ELSE
            BEGIN
                refreshed := lakets.refresh_rollup(v_next.rollup_name);
            EXCEPTION WHEN OTHERS THEN  -- a RollUp's query is the user's own and can fail in any way; it must not stop the others
                RAISE WARNING 'RollUp % failed: %', v_next.rollup_name, SQLERRM USING ERRCODE = SQLSTATE;
                v_failed := v_failed || v_next.rollup_name;
            END;
        END IF;
        refresh_ms := extract(epoch FROM clock_timestamp() - v_started) * 1000;
        RETURN NEXT;
    END LOOP;
END;
$$;
