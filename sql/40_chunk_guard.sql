-- Rows reach a chunk through its ChronoTable only.

-- Rows go through the ChronoTable: a statement that names a chunk would bypass change tracking, and
-- what it wrote would be missing from the shadow and the RollUps.
CREATE OR REPLACE FUNCTION lakets._refuse_direct_write() RETURNS trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- Guards of older versions call this also when the whole table is truncated.
    IF TG_OP = 'TRUNCATE'
       AND pg_partition_root(TG_RELID)::oid::text = ANY (string_to_array(current_setting('lakets.truncating', true), ' ')) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '%.% is a chunk of a ChronoTable and cannot be written directly.', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING HINT = 'Write to the ChronoTable itself, so that RollUps and the change feed see the change.';
END;
$$;

-- The trigger functions of LakeTS 0.1.x that are still in use; usually there are none. The install
-- empties them and renames them to _0_1_<name>; 48_older_triggers.sql drops the triggers.
CREATE OR REPLACE FUNCTION lakets._older_trigger_functions() RETURNS oid[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(SELECT fn.oid FROM pg_proc AS fn
                  WHERE fn.proname LIKE '\_0\_1\_%' AND fn.pronamespace = 'lakets'::regnamespace AND fn.prorettype = 'trigger'::regtype);
END;
$$;

-- The triggers of some relations that call these functions.
CREATE OR REPLACE FUNCTION lakets._older_triggers(
    p_relations regclass[]
) RETURNS TABLE (relation regclass, name name, is_root boolean, is_enabled boolean)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_functions oid[] := lakets._older_trigger_functions();
BEGIN
    IF v_functions <> '{}' THEN
        RETURN QUERY
            SELECT trg.tgrelid::regclass, trg.tgname, trg.tgparentid = 0, trg.tgenabled <> 'D'
              FROM pg_trigger AS trg WHERE trg.tgrelid = ANY (p_relations) AND trg.tgfoid = ANY (v_functions);
    END IF;
END;
$$;

-- Return for each of some partitions whether every statement that names it is refused, and whether
-- it has the triggers of this version. A partition where triggers of LakeTS 0.1.x still fire is not
-- guarded. Nor is one whose guard is not ENABLE ALWAYS: DISABLE and ENABLE TRIGGER leave it so, and
-- the partition may have been written in between. Uses an index, as _lost_chunks does.
CREATE OR REPLACE FUNCTION lakets._guards(
    p_partitions regclass[]
) RETURNS TABLE (partition regclass, is_guarded boolean, is_current boolean)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
AS $$
DECLARE
    v_functions oid[] := lakets._older_trigger_functions();
    v_events constant smallint := 4 + 8 + 16 + 32;  -- INSERT, DELETE, UPDATE and TRUNCATE in tgtype
BEGIN
    RETURN QUERY
        SELECT part, coalesce(guard.events & v_events = v_events, false)
                     AND NOT (v_functions <> '{}' AND EXISTS (
                         SELECT FROM pg_trigger AS trg WHERE trg.tgrelid = part AND trg.tgfoid = ANY (v_functions) AND trg.tgenabled <> 'D')),
               guard.triggers = 2
          FROM unnest(p_partitions) AS part
         CROSS JOIN LATERAL (
               SELECT count(*) AS triggers, bit_or(trg.tgtype) FILTER (WHERE trg.tgenabled = 'A') AS events FROM pg_trigger AS trg
                -- A range, so that the index is searched once and not for each name.
                WHERE trg.tgrelid = part AND trg.tgname BETWEEN 'lakets_no_direct_truncate' AND 'lakets_no_direct_write') AS guard;
END;
$$;

-- The partitions of a table that can be written directly, oldest first.
CREATE OR REPLACE FUNCTION lakets._unguarded_partitions(
    p_relation regclass
) RETURNS regclass[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT guard.partition
          FROM lakets._guards(ARRAY(SELECT inh.inhrelid::regclass FROM pg_inherits AS inh WHERE inh.inhparent = p_relation)) AS guard
         WHERE NOT guard.is_guarded ORDER BY guard.partition);
END;
$$;

-- The partitions of a table with the guard of an older version, which makes TRUNCATE of thousands
-- of chunks slow, oldest first.
CREATE OR REPLACE FUNCTION lakets._older_guards(
    p_relation regclass
) RETURNS regclass[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT guard.partition
          FROM lakets._guards(ARRAY(SELECT inh.inhrelid::regclass FROM pg_inherits AS inh WHERE inh.inhparent = p_relation)) AS guard
         WHERE guard.is_guarded AND NOT guard.is_current ORDER BY guard.partition);
END;
$$;

-- Return whether a partition is guarded.
CREATE OR REPLACE FUNCTION lakets._is_guarded(
    p_partition regclass
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT guard.is_guarded FROM lakets._guards(ARRAY[p_partition]) AS guard);
END;
$$;

-- Guard one partition.
--
-- TRUNCATE of the whole table visits every chunk. It would compile a trigger function for each and
-- keep a plan for it. Postgres checks all plans for each file that it replaces, so the time would
-- grow with the square of the number of chunks. So TRUNCATE has a trigger of its own, whose
-- condition is true unless the table is being truncated, and is evaluated without a plan.
CREATE OR REPLACE FUNCTION lakets._guard_partition(
    p_partition regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_functions oid[] := lakets._older_trigger_functions();
    v_trigger   record;
BEGIN
    IF (SELECT count(*) < 2 FROM pg_trigger AS trg
         WHERE trg.tgrelid = p_partition AND trg.tgname = ANY ('{lakets_no_direct_write,lakets_no_direct_truncate}')
           AND trg.tgenabled = 'A') THEN
        EXECUTE format(
            $sql$CREATE OR REPLACE TRIGGER lakets_no_direct_write BEFORE INSERT OR UPDATE OR DELETE ON %1$s
                FOR EACH STATEMENT EXECUTE FUNCTION lakets._refuse_direct_write();
            CREATE OR REPLACE TRIGGER lakets_no_direct_truncate BEFORE TRUNCATE ON %1$s FOR EACH STATEMENT
                WHEN ((pg_partition_root(%1$L::regclass)::oid::text = ANY (string_to_array(current_setting('lakets.truncating', true), ' '))) IS NOT TRUE)
                EXECUTE FUNCTION lakets._refuse_direct_write();
            ALTER TABLE %1$s ENABLE ALWAYS TRIGGER lakets_no_direct_write, ENABLE ALWAYS TRIGGER lakets_no_direct_truncate$sql$, p_partition);
    END IF;
    IF v_functions <> '{}' THEN
        FOR v_trigger IN SELECT old.name FROM lakets._older_triggers(ARRAY[p_partition]) AS old WHERE old.is_enabled LOOP
            EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', p_partition, v_trigger.name);
        END LOOP;
    END IF;
END;
$$;

-- Guard all partitions of a table; return how many could be written directly. If one transaction
-- has no room for that many locks, raises an error and guards none.
CREATE OR REPLACE FUNCTION lakets._guard_partitions(
    p_relation regclass
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_partitions regclass[] := lakets._unguarded_partitions(p_relation);
    v_partition  regclass;
BEGIN
    IF cardinality(v_partitions) > greatest(lakets._lock_budget() / 4, 10) THEN
        RAISE EXCEPTION '% partitions of % can be written directly, and there is room for the locks of % only.',
            cardinality(v_partitions), p_relation, greatest(lakets._lock_budget() / 4, 10)
            USING HINT = 'Call lakets.guard_chunks for the table until it returns 0, each time in a transaction of its own, and then this again;'
                         ' or raise max_locks_per_transaction.';
    END IF;
    FOREACH v_partition IN ARRAY v_partitions LOOP
        PERFORM lakets._guard_partition(v_partition);
    END LOOP;
    RETURN cardinality(v_partitions);
END;
$$;
