-- The proof that a chunk is in Unity Catalog. Tiering and retention depend on it.
--
-- The feed reports only committed_lsn: where the last flushed transaction of the shadow committed.
-- A writer can note only a position before its own commit. So "committed_lsn >= noted position"
-- alone proves nothing: another writer may have committed, and been flushed, between the two. Two
-- rules prove it:
--
--   Passed. Take a snapshot, then a WAL position. All that the snapshot sees committed before that
--           position. Once committed_lsn reaches it, all of that is flushed, because the
--           commits of a table are flushed in order.
--   Alone.  Let T be the writer that noted the last position. If nobody is writing now, and T saw
--           all other unproven writers committed when it noted it, then the only commit of this
--           table after the position is T's own: committed_lsn > position means that T, and hence
--           all, is flushed. This rule flags an idle table, whose committed_lsn does not advance.
--
-- If writers overlapped and then all became idle, neither rule applies. Then a fence is set: one
-- row of the shadow is updated to its own value. The commit of the fence lies after the noted
-- position, so the first rule applies once it is flushed.
--
-- Both rules require that every transaction that changes a shadow holds its lock until the change
-- is visible, and writes the change log after taking that lock. Nothing else may write to a
-- shadow.

-- Return whether each statement of this transaction sees everything committed before it.
CREATE OR REPLACE FUNCTION lakets._is_read_committed() RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN current_setting('transaction_isolation') IN ('read committed', 'read uncommitted');
END;
$$;

-- The transactions that have ended, as a snapshot. pg_current_snapshot() takes its own transaction,
-- which may still write, as ended once a later one has ended, so it is marked here as still
-- running.
CREATE OR REPLACE FUNCTION lakets._ended_now() RETURNS pg_snapshot
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_seen pg_snapshot := pg_current_snapshot();
    v_own  xid8        := pg_current_xact_id_if_assigned();
BEGIN
    IF NOT coalesce(pg_visible_in_snapshot(v_own, v_seen), false) THEN
        RETURN v_seen;
    END IF;
    RETURN format('%s:%s:%s', pg_snapshot_xmin(v_seen), pg_snapshot_xmax(v_seen), (
        SELECT string_agg(running.xid::text, ',' ORDER BY running.xid)
          FROM (SELECT pg_snapshot_xip(v_seen) UNION SELECT v_own) AS running (xid)))::pg_snapshot;
END;
$$;

-- Return what the feed reports about a shadow. No row if there is no shadow or no feed, if the feed
-- does not know the shadow, or if this role cannot read the report.
CREATE OR REPLACE FUNCTION lakets._cdf_report(
    p_shadow_name text
) RETURNS TABLE (status text, committed_lsn pg_lsn)
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- EXECUTE, because the feed may not exist when this function is created.
    RETURN QUERY EXECUTE 'SELECT feed.status::text, feed.committed_lsn FROM wal2delta.tables AS feed WHERE feed.table_oid = $1'
        USING lakets._shadow_relation(p_shadow_name)::oid;
EXCEPTION WHEN insufficient_privilege OR undefined_table OR invalid_schema_name THEN
    RETURN;
END;
$$;

-- The position that the feed of a shadow has reached; null unless it is STREAMING and can be read.
CREATE OR REPLACE FUNCTION lakets._cdf_committed_lsn(
    p_shadow_name text
) RETURNS pg_lsn
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT feed.committed_lsn FROM lakets._cdf_report(p_shadow_name) AS feed WHERE feed.status = 'STREAMING');
END;
$$;

-- Return the state of a shadow in the feed (PENDING, SNAPSHOTTING, STREAMING, SKIPPED), or NONE if
-- the feed reports none.
CREATE OR REPLACE FUNCTION lakets._cdf_status(
    p_shadow_name text
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN coalesce((SELECT feed.status FROM lakets._cdf_report(p_shadow_name) AS feed), 'NONE');
END;
$$;

-- Return whether another session is changing a relation. When this returns false, every earlier
-- change is visible.
CREATE OR REPLACE FUNCTION lakets._is_being_written(
    p_relation regclass
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM pg_locks AS lck
         WHERE lck.locktype = 'relation' AND lck.relation = p_relation AND lck.mode = 'RowExclusiveLock'
           AND lck.database = (SELECT db.oid FROM pg_database AS db WHERE db.datname = current_database())
           AND lck.pid IS DISTINCT FROM pg_backend_pid());
END;
$$;

-- Return what is known of the feed. Null if it was recorded in another database or on another
-- timeline, where the same numbers identify other transactions and positions.
CREATE OR REPLACE FUNCTION lakets._known_proof(
    p_chronotable_id integer
) RETURNS lakets._feed_proof
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_proof lakets._feed_proof;
BEGIN
    SELECT proof.* INTO v_proof
      FROM lakets._feed_proof AS proof
     WHERE proof.chronotable_id = p_chronotable_id AND proof.cluster = lakets._lineage()
       AND pg_snapshot_xmax(coalesce(proof.observed, proof.proven)) <= pg_snapshot_xmax(pg_current_snapshot());
    RETURN v_proof;
END;
$$;

-- Forget what is known of the feed. Its current position may have been copied with the database, so
-- it proves nothing until it changes.
CREATE OR REPLACE FUNCTION lakets._restart_proof(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE lakets._feed_proof AS proof
       SET proven = NULL, observed = NULL, observed_lsn = NULL, fenced = false, cluster = lakets._lineage(),
           baseline = CASE WHEN proof.cluster IS NOT NULL THEN lakets._cdf_committed_lsn(p_table.shadow_table_name) END
     WHERE proof.chronotable_id = p_table.id;
END;
$$;

-- The transactions that can be proved flushed now, as a snapshot in which exactly these are
-- visible; changes nothing. Null if none can be proved.
CREATE OR REPLACE FUNCTION lakets._proof_now(
    p_table lakets._chronotable_registry
) RETURNS pg_snapshot
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_lsn    pg_lsn := lakets._cdf_committed_lsn(p_table.shadow_table_name);
    v_proof  lakets._feed_proof := lakets._known_proof(p_table.id);
    v_proven pg_snapshot := CASE WHEN v_lsn >= v_proof.observed_lsn THEN v_proof.observed ELSE v_proof.proven END;
    v_now    pg_snapshot;
    v_last   record;
BEGIN
    -- Passed
    IF v_lsn IS NULL OR v_lsn = v_proof.baseline OR v_proven IS NULL THEN
        RETURN NULL;
    END IF;
    -- Alone. The order of statements matters: committed_lsn is read, then the shadow is seen to be
    -- free of locks, then a new snapshot sees every writer that committed_lsn can belong to. A
    -- writer releases its lock only after it has become visible, and the feed may be faster than
    -- that. Other isolation levels take no new snapshot.
    IF NOT lakets._is_read_committed() OR lakets._is_being_written(lakets._shadow_relation(p_table.shadow_table_name)) THEN
        RETURN v_proven;
    END IF;
    v_now := lakets._ended_now();
    SELECT log.xid, log.lsn, log.snapshot INTO v_last
      FROM lakets._unproven_changes(p_table.id, v_proven) AS log
     WHERE pg_visible_in_snapshot(log.xid, v_now)
     ORDER BY log.lsn DESC LIMIT 1;
    IF NOT FOUND OR (v_lsn > v_last.lsn AND NOT EXISTS (
        SELECT FROM lakets._unproven_changes(p_table.id, v_proven) AS log
         WHERE log.xid <> v_last.xid AND pg_visible_in_snapshot(log.xid, v_now)
           AND NOT pg_visible_in_snapshot(log.xid, v_last.snapshot))) THEN
        RETURN v_now;
    END IF;
    RETURN v_proven;
END;
$$;

-- The log rows of transactions not known to be flushed.
CREATE OR REPLACE FUNCTION lakets._unproven_changes(
    p_chronotable_id integer,
    p_proven         pg_snapshot
) RETURNS SETOF lakets._change_log
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT log.*
      FROM lakets._change_log AS log
     WHERE log.chronotable_id = p_chronotable_id
       AND log.xid >= coalesce(pg_snapshot_xmin(p_proven), '0'::xid8)
       AND NOT coalesce(pg_visible_in_snapshot(log.xid, p_proven), false);
$$;

-- Record what can be proved now, and return it.
CREATE OR REPLACE FUNCTION lakets._prove(
    p_table lakets._chronotable_registry
) RETURNS pg_snapshot
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_proof  lakets._feed_proof;
    v_proven pg_snapshot;
    v_now    pg_snapshot;
BEGIN
    PERFORM lakets._require_read_committed();
    IF lakets._cdf_committed_lsn(p_table.shadow_table_name) IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT proof.* INTO v_proof FROM lakets._feed_proof AS proof WHERE proof.chronotable_id = p_table.id FOR UPDATE;
    IF NOT FOUND THEN
        -- Checked here rather than by the foreign key, to report that the table was dropped
        -- meanwhile.
        INSERT INTO lakets._feed_proof AS proof (chronotable_id)
        SELECT reg.id FROM lakets._chronotable_registry AS reg WHERE reg.id = p_table.id FOR KEY SHARE
            ON CONFLICT DO NOTHING;
        SELECT proof.* INTO v_proof FROM lakets._feed_proof AS proof WHERE proof.chronotable_id = p_table.id FOR UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'ChronoTable %.% was dropped meanwhile.', p_table.schema_name, p_table.table_name
                USING HINT = 'lakets._chronotable_registry lists those that there are.';
        END IF;
    END IF;

    IF v_proof.cluster IS DISTINCT FROM lakets._lineage() THEN
        PERFORM lakets._restart_proof(p_table);
        SELECT proof.* INTO v_proof FROM lakets._feed_proof AS proof WHERE proof.chronotable_id = p_table.id;
    END IF;

    v_proven := lakets._proof_now(p_table);
    v_now := lakets._ended_now();
    IF v_proven IS NOT NULL
       AND NOT EXISTS (SELECT FROM lakets._unproven_changes(p_table.id, v_proven)) THEN
        UPDATE lakets._feed_proof AS proof  -- all is flushed; nothing to wait for
           SET proven = v_proven, observed = NULL, observed_lsn = NULL, fenced = false WHERE proof.chronotable_id = p_table.id;
    ELSIF v_proof.observed IS NULL OR v_proven::text IS DISTINCT FROM v_proof.proven::text THEN
        -- In this order: the snapshot is already taken, so the position lies after all that it
        -- sees.
        UPDATE lakets._feed_proof AS proof
           SET proven = v_proven, observed = v_now, observed_lsn = pg_current_wal_insert_lsn(), fenced = false
         WHERE proof.chronotable_id = p_table.id;
    END IF;
    RETURN v_proven;
END;
$$;

-- Set a fence if a proof waits for the feed to advance; the caller has run _prove.
CREATE OR REPLACE FUNCTION lakets._move_feed(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF lakets._cdf_committed_lsn(p_table.shadow_table_name) IS NOT NULL
       AND EXISTS (SELECT FROM lakets._feed_proof AS proof
                    WHERE proof.chronotable_id = p_table.id AND proof.observed IS NOT NULL AND NOT proof.fenced)
       AND lakets._fence(p_table) THEN
        UPDATE lakets._feed_proof AS proof SET fenced = true WHERE proof.chronotable_id = p_table.id;
    END IF;
END;
$$;

-- Update one row of the shadow to its own value, while nobody writes: a concurrent writer would not
-- find the row that it looks for. In an empty shadow, insert a row and delete it. Returns false if
-- somebody is writing (then the feed advances by itself), or if the shadow is not plain. Writers
-- wait until the transaction ends, and they may hold the table, so the caller must lock nothing
-- after this.
CREATE OR REPLACE FUNCTION lakets._fence(
    p_table lakets._chronotable_registry
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_shadow  regclass := lakets._shadow_relation(p_table.shadow_table_name);
    v_changed bigint;
    v_row     tid;
BEGIN
    BEGIN
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE NOWAIT', v_shadow);
    EXCEPTION WHEN lock_not_available THEN
        RETURN false;
    END;
    IF lakets._interference(v_shadow) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('UPDATE ONLY %1$s AS s SET %2$I = s.%2$I WHERE s.ctid = (SELECT one.ctid FROM ONLY %1$s AS one LIMIT 1)',
                   v_shadow, p_table.time_column);
    GET DIAGNOSTICS v_changed = ROW_COUNT;
    IF v_changed = 0 THEN
        EXECUTE format('INSERT INTO %s DEFAULT VALUES RETURNING ctid', v_shadow) INTO v_row;
        EXECUTE format('DELETE FROM ONLY %s AS s WHERE s.ctid = $1', v_shadow) USING v_row;
    END IF;
    -- Logged like every change to the shadow: the rule "alone" must know of it.
    INSERT INTO lakets._change_log (chronotable_id) VALUES (p_table.id);
    RETURN true;
EXCEPTION WHEN integrity_constraint_violation THEN  -- a shadow of 0.1.x may have NOT NULL columns
    RETURN false;
END;
$$;
