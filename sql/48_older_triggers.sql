-- The part of an install over LakeTS 0.1.x that runs afterwards. Changing thousands of chunks takes
-- one lock for each, more than Postgres can hold in one transaction, while every writer waits. The
-- install itself empties the old trigger functions and puts ours on the tables. Afterwards chunks
-- are guarded in batches, each in a transaction of its own, by lakets.guard_chunks or by the
-- tiering and retention jobs. Until a chunk is guarded it can be written directly, as with 0.1.x,
-- and such a write is not tracked. Guarding a chunk therefore counts as a change to all of it, and
-- no chunk counts as durable or is dropped before it is guarded.

-- Guard the given partitions that nobody is writing to, at most p_most; return those that were
-- guarded.
CREATE OR REPLACE FUNCTION lakets._guard_unused(
    p_partitions regclass[],
    p_most       integer
) RETURNS regclass[]
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_guarded   regclass[] := '{}';
    v_partition regclass;
BEGIN
    FOREACH v_partition IN ARRAY p_partitions LOOP
        EXIT WHEN cardinality(v_guarded) >= p_most;
        IF lakets._lock_now(v_partition, 'SHARE ROW EXCLUSIVE') THEN
            PERFORM lakets._guard_partition(v_partition);
            v_guarded := v_guarded || v_partition;
        END IF;
    END LOOP;
    RETURN v_guarded;
END;
$$;

-- Drop the triggers of 0.1.x of a locked table and of its partitions, all of which are guarded.
-- Returns false if that takes more locks than there is room for, or if somebody uses a partition;
-- the triggers then stay, disabled.
CREATE OR REPLACE FUNCTION lakets._drop_older_triggers(
    p_relation regclass
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relations regclass[] := ARRAY(SELECT p_relation UNION ALL SELECT inh.inhrelid::regclass FROM pg_inherits AS inh
                                     WHERE inh.inhparent = p_relation ORDER BY 1);
    v_triggers  integer    := (SELECT count(*) FROM lakets._older_triggers(v_relations));
    v_partition regclass;
    v_old       record;
BEGIN
    IF v_triggers = 0 THEN
        RETURN true;
    ELSIF v_triggers + cardinality(v_relations) > lakets._lock_budget() THEN
        RETURN false;
    END IF;
    FOREACH v_partition IN ARRAY v_relations LOOP
        IF v_partition <> p_relation AND NOT lakets._lock_now(v_partition, 'ACCESS EXCLUSIVE') THEN
            RETURN false;
        END IF;
    END LOOP;
    FOR v_old IN SELECT old.relation, old.name FROM lakets._older_triggers(v_relations) AS old WHERE old.is_root LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', v_old.name, v_old.relation);
    END LOOP;
    FOR v_old IN
        SELECT fn.oid::regprocedure AS routine FROM unnest(lakets._older_trigger_functions()) AS fn (oid)
         WHERE NOT lakets._is_used(fn.oid)
    LOOP
        EXECUTE format('DROP FUNCTION %s', v_old.routine);
    END LOOP;
    RETURN true;
END;
$$;

-- Guard the chunks of a table in the install itself, as far as there is room for the locks. The
-- table is locked against everybody, so this waits for nothing: chunks that somebody uses by their
-- own names are left for later.
CREATE OR REPLACE FUNCTION lakets._guard_in_install(
    p_relation regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_unguarded regclass[] := lakets._unguarded_partitions(p_relation);
BEGIN
    IF 2 * cardinality(v_unguarded) > lakets._lock_budget() THEN
        RETURN;
    END IF;
    BEGIN
        IF cardinality(lakets._guard_unused(v_unguarded, cardinality(v_unguarded))) < cardinality(v_unguarded)
           OR NOT lakets._drop_older_triggers(p_relation) THEN
            RAISE lock_not_available;
        END IF;
    EXCEPTION WHEN lock_not_available THEN
        NULL;  -- the whole table is left for later, and the locks are released
    END;
END;
$$;

-- Guard the chunks of a table that can still be written directly, as after an install over LakeTS
-- 0.1.x, then those that have the guard of an older version, at most p_max_chunks in this
-- transaction; returns how many. Call it until it returns 0. A chunk that is being written is
-- skipped until it is the last; then this waits at most 2 s for its writers and fails as contended
-- (55P03).
CREATE OR REPLACE FUNCTION lakets.guard_chunks(
    p_table_name  text,
    p_schema_name text    DEFAULT 'public',
    p_max_chunks  integer DEFAULT 100
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_table     lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_relation  regclass := v_table.relation;
    v_unguarded regclass[];
    v_due       regclass[];
    v_guarded   regclass[];
BEGIN
    PERFORM lakets._check_max_chunks(p_max_chunks);
    PERFORM lakets._require_read_committed();
    -- Lock order: (1) advisory (lakets, relation), (2) partitions, without waiting, or one alone;
    -- where all are guarded, (2) parent, (3) partitions, without waiting.
    PERFORM lakets._lock_maintenance(v_relation);
    v_unguarded := lakets._unguarded_partitions(v_relation);
    v_due := v_unguarded || lakets._older_guards(v_relation);
    IF v_due = '{}' THEN
        IF EXISTS (SELECT FROM lakets._older_triggers(ARRAY[v_relation])) THEN
            EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', v_relation);
            PERFORM lakets._drop_older_triggers(v_relation);
        END IF;
        RETURN 0;
    END IF;
    v_guarded := lakets._guard_unused(v_due, least(p_max_chunks, greatest(lakets._lock_budget() / 8, 1)));
    IF v_guarded = '{}' THEN
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', v_due[1]);  -- one lock only, which cannot deadlock
        PERFORM lakets._guard_partition(v_due[1]);
        v_guarded := v_due[1:1];
    END IF;
    PERFORM lakets._log_guarded(v_table, ARRAY(SELECT one FROM unnest(v_guarded) AS one WHERE one = ANY (v_unguarded)));
    RETURN cardinality(v_guarded);
END;
$$;

-- A guarded chunk may have been written before without tracking: all of it counts as changed, and
-- its mirror must be compared. If it has no range (the default partition), the whole mirror must.
CREATE OR REPLACE FUNCTION lakets._log_guarded(
    p_table      lakets._chronotable_registry,
    p_partitions regclass[]
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_shadow regclass    := CASE WHEN p_table.sync_enabled THEN lakets._shadow_relation(p_table.shadow_table_name) END;
    v_ranges tstzrange[] := ARRAY(SELECT lakets._partition_range(guarded) FROM unnest(p_partitions) AS guarded);
BEGIN
    INSERT INTO lakets._change_log (chronotable_id, min_time, max_time)
    SELECT p_table.id, coalesce(lower(part), '-infinity'), coalesce(upper(part) - interval '1 microsecond', 'infinity')
      FROM unnest(v_ranges) AS part;
    IF v_shadow IS NULL OR v_ranges = '{}' THEN
        RETURN;
    END IF;
    INSERT INTO lakets._mirror_gap (shadow) SELECT v_shadow WHERE array_position(v_ranges, NULL) IS NOT NULL;
    INSERT INTO lakets._mirror_check AS chk (chronotable_id, compared)
    SELECT p_table.id, '{(,)}'::tstzmultirange - coalesce(range_agg(part), '{}') FROM unnest(v_ranges) AS part HAVING count(part) > 0
        ON CONFLICT (chronotable_id) DO UPDATE SET compared = chk.compared - ('{(,)}'::tstzmultirange - excluded.compared);
END;
$$;

-- The given chunks (ids) that can still be written directly.
CREATE OR REPLACE FUNCTION lakets._unguarded_chunks(
    p_table  lakets._chronotable_registry,
    p_chunks bigint[]
) RETURNS bigint[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        WITH part AS MATERIALIZED (
            SELECT chunk.id, chunk.range_start, inh.inhrelid::regclass AS relation
              FROM lakets._chunk_metadata AS chunk
              JOIN pg_inherits AS inh ON inh.inhparent = p_table.relation AND inh.inhrelid = CASE
                   WHEN p_table.cluster IS NOT NULL AND chunk.relation IS NOT NULL THEN chunk.relation
                   ELSE lakets._chunk_relation(p_table, chunk)::oid END
             WHERE chunk.id = ANY (p_chunks)
        )
        SELECT part.id
          FROM part JOIN lakets._guards(ARRAY(SELECT one.relation FROM part AS one)) AS guard ON guard.partition = part.relation
         WHERE NOT guard.is_guarded ORDER BY part.range_start);
END;
$$;

-- Guard the given chunks that nobody is writing to, before they are dropped; returns how many.
CREATE OR REPLACE FUNCTION lakets._guard_chunks(
    p_table  lakets._chronotable_registry,
    p_chunks bigint[]
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_guarded regclass[];
BEGIN
    IF p_chunks = '{}' THEN
        RETURN 0;
    END IF;
    v_guarded := lakets._guard_unused(ARRAY(
        SELECT lakets._chunk_relation(p_table, chunk) FROM lakets._chunk_metadata AS chunk
         WHERE chunk.id = ANY (p_chunks) ORDER BY chunk.range_start), greatest(lakets._lock_budget() / 8, 1));
    PERFORM lakets._log_guarded(p_table, v_guarded);
    RETURN cardinality(v_guarded);
END;
$$;
