-- How many locks one transaction may take, and how to take one without waiting. Postgres keeps the
-- locks of all sessions in one table of fixed size. When it is full, every session that needs a
-- lock fails with "out of shared memory".

-- Return how many locks this transaction may take: half of those that are free. The other half is
-- left to other sessions.
CREATE OR REPLACE FUNCTION lakets._lock_budget() RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (current_setting('max_locks_per_transaction')::integer
                * (current_setting('max_connections')::integer + current_setting('max_prepared_transactions')::integer)
            - (SELECT count(*) FROM (SELECT DISTINCT lck.locktype, lck.database, lck.relation, lck.classid, lck.objid, lck.objsubid
                                       FROM pg_locks AS lck WHERE lck.granted AND NOT lck.fastpath) AS held)) / 2;
END;
$$;

-- Return how many locks it takes to drop a table: one for each object dropped with it, such as
-- partitions, indexes, types, triggers and constraints.
CREATE OR REPLACE FUNCTION lakets._locks_to_drop(
    p_relation regclass
) RETURNS integer
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        WITH RECURSIVE thing (classid, objid) AS (
            SELECT 'pg_class'::regclass::oid, p_relation::oid
            UNION
            SELECT dep.classid, dep.objid
              FROM thing JOIN pg_depend AS dep ON dep.refclassid = thing.classid AND dep.refobjid = thing.objid
             WHERE dep.deptype IN ('a', 'i', 'P', 'S'))
        SELECT count(*) FROM thing);
END;
$$;

-- Return how many partitions of this table one transaction has room to create.
CREATE OR REPLACE FUNCTION lakets._chunks_to_make(
    p_relation regclass
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN greatest(lakets._lock_budget() / lakets._locks_to_drop(p_relation), 10);  -- those around now are always tried
END;
$$;

-- Lock a partition in the given mode, such as SHARE ROW EXCLUSIVE, if that needs no wait. Returns
-- whether it is locked. A function that needs many partitions of a table locks them in this way:
-- a writer may hold one of them and wait for another.
CREATE OR REPLACE FUNCTION lakets._lock_now(
    p_partition regclass,
    p_mode      text
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format('LOCK TABLE %s IN %s MODE NOWAIT', p_partition, p_mode);
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END;
$$;
