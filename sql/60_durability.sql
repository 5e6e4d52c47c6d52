-- Is it in Unity Catalog? The proof on which tiering and retention rest.
--
-- All we are told is committed_lsn: where the last flushed transaction of the shadow committed. All a
-- writer can note is a position before its own commit. So "committed_lsn >= noted position" proves
-- nothing yet: another writer may have committed, and been flushed, between the two. Two rules do prove:
--
--   Passed.  Take a snapshot, then a WAL position. Whatever the snapshot sees committed before that
--            position. Once committed_lsn reaches it, all of that is flushed, since a table's commits
--            are flushed in order.
--   Alone.   Let T be the writer that noted the last position. If nobody is writing now, and T saw all
--            other unproven writers committed when it noted it, then the only commit of this table at or
--            after the position is T's own: committed_lsn >= position means that T, hence all, is flushed.
--            This is what flags an idle table, whose committed_lsn stands still.
--
-- Where writers overlapped and then all fell idle neither rule applies. Then a fence is set: one row of
-- the shadow is updated to what it is. Its commit lies after the observed position, and passes it.

-- Where the feed of a shadow stands; null unless it is STREAMING, and null when the feed cannot be read.
CREATE OR REPLACE FUNCTION lakets._cdf_committed_lsn(
    p_shadow_name text
) RETURNS pg_lsn
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_lsn pg_lsn;
BEGIN
    IF lakets._cdf_status(p_shadow_name) = 'STREAMING' THEN
        EXECUTE 'SELECT feed.committed_lsn FROM wal2delta.tables AS feed WHERE feed.table_oid = $1'
           INTO v_lsn USING lakets._shadow_relation(p_shadow_name)::oid;
    END IF;
    RETURN v_lsn;
END;
$$;

-- What the feed says of a shadow (PENDING, SNAPSHOTTING, STREAMING, SKIPPED), or NONE: no shadow, no feed,
-- not known to it, or not readable for this role.
CREATE OR REPLACE FUNCTION lakets._cdf_status(
    p_shadow_name text
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_shadow regclass := lakets._shadow_relation(p_shadow_name);
    v_status text;
BEGIN
    IF v_shadow IS NOT NULL AND to_regclass('wal2delta.tables') IS NOT NULL
       AND has_schema_privilege('wal2delta', 'USAGE')
       AND has_table_privilege('wal2delta.tables', 'SELECT') THEN
        EXECUTE 'SELECT feed.status FROM wal2delta.tables AS feed WHERE feed.table_oid = $1' INTO v_status USING v_shadow::oid;
    END IF;
    RETURN coalesce(v_status, 'NONE');
END;
$$;

-- The transactions known to be flushed, as a snapshot that sees just them, by what can be read now;
-- changes nothing. Null: nothing is known to be flushed.
CREATE OR REPLACE FUNCTION lakets._proof_now(
    p_table lakets._chronotable_registry
) RETURNS pg_snapshot
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_shadow regclass := lakets._shadow_relation(p_table.shadow_table_name);
    v_lsn    pg_lsn   := lakets._cdf_committed_lsn(p_table.shadow_table_name);
    v_proof  lakets._feed_proof;
    v_now    pg_snapshot;
    v_last   record;
BEGIN
    IF v_lsn IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT proof.* INTO v_proof FROM lakets._feed_proof AS proof WHERE proof.chronotable_id = p_table.id;
    IF v_lsn >= v_proof.observed_lsn THEN
        v_proof.proven := v_proof.observed;
    END IF;
    -- The order of these statements matters: committed_lsn is read, then nobody holds the shadow, then a
    -- new snapshot sees everyone whom committed_lsn can be about. A writer lets go of its lock only after
    -- it has become visible, and the feed may be quicker than that.
    IF v_proof.proven IS NULL OR EXISTS (
        SELECT FROM pg_locks AS lck
         WHERE lck.locktype = 'relation' AND lck.relation = v_shadow AND lck.mode = 'RowExclusiveLock'
           AND lck.database = (SELECT db.oid FROM pg_database AS db WHERE db.datname = current_database())
           AND lck.pid IS DISTINCT FROM pg_backend_pid()) THEN
        RETURN v_proof.proven;
    END IF;
    v_now := pg_current_snapshot();
    SELECT log.xid, log.lsn, log.snapshot INTO v_last
      FROM lakets._unproven_changes(p_table.id, v_proof.proven) AS log
     WHERE pg_visible_in_snapshot(log.xid, v_now)
     ORDER BY log.lsn DESC LIMIT 1;
    IF NOT FOUND OR (v_lsn >= v_last.lsn AND NOT EXISTS (
        SELECT FROM lakets._unproven_changes(p_table.id, v_proof.proven) AS log
         WHERE log.xid <> v_last.xid AND pg_visible_in_snapshot(log.xid, v_now)
           AND NOT pg_visible_in_snapshot(log.xid, v_last.snapshot))) THEN
        RETURN v_now;
    END IF;
    RETURN v_proof.proven;
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

-- Learn what can be learnt now and keep it. With p_fence, set a fence where only that can settle the matter.
CREATE OR REPLACE FUNCTION lakets._prove(
    p_table lakets._chronotable_registry,
    p_fence boolean DEFAULT false
) RETURNS pg_snapshot
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_proof  lakets._feed_proof;
    v_proven pg_snapshot;
    v_now    pg_snapshot;
BEGIN
    IF lakets._cdf_committed_lsn(p_table.shadow_table_name) IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO lakets._feed_proof AS proof (chronotable_id) VALUES (p_table.id) ON CONFLICT DO NOTHING;
    SELECT proof.* INTO STRICT v_proof
      FROM lakets._feed_proof AS proof WHERE proof.chronotable_id = p_table.id FOR UPDATE;

    v_proven := lakets._proof_now(p_table);
    v_now := pg_current_snapshot();
    IF v_proven IS NOT NULL
       AND NOT EXISTS (SELECT FROM lakets._unproven_changes(p_table.id, v_proven)) THEN
        UPDATE lakets._feed_proof AS proof  -- all is flushed; nothing to wait for
           SET proven = v_proven, observed = NULL, observed_lsn = NULL, fenced = false WHERE proof.chronotable_id = p_table.id;
    ELSIF v_proof.observed IS NULL OR v_proven::text IS DISTINCT FROM v_proof.proven::text THEN
        -- In this order: the snapshot is already taken, so the position lies after all that it sees.
        UPDATE lakets._feed_proof AS proof
           SET proven = v_proven, observed = v_now, observed_lsn = pg_current_wal_insert_lsn(),
               fenced = p_fence AND lakets._fence(p_table)
         WHERE proof.chronotable_id = p_table.id;
    ELSIF p_fence AND NOT v_proof.fenced AND lakets._fence(p_table) THEN
        UPDATE lakets._feed_proof AS proof SET fenced = true WHERE proof.chronotable_id = p_table.id;
    END IF;
    RETURN v_proven;
END;
$$;

-- Change one row of the shadow to what it is, alone. False: somebody is writing (then the feed will move
-- by itself), or there is no row.
CREATE OR REPLACE FUNCTION lakets._fence(
    p_table lakets._chronotable_registry
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_shadow  regclass := lakets._shadow_relation(p_table.shadow_table_name);
    v_changed bigint;
BEGIN
    BEGIN
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE NOWAIT', v_shadow);
    EXCEPTION WHEN lock_not_available THEN
        RETURN false;
    END;
    EXECUTE format('UPDATE %1$s AS s SET %2$I = s.%2$I WHERE s.ctid = (SELECT one.ctid FROM %1$s AS one LIMIT 1)',
                   v_shadow, p_table.time_column);
    GET DIAGNOSTICS v_changed = ROW_COUNT;
    -- Logged like every change to the shadow: the rule "alone" must know of it.
    INSERT INTO lakets._change_log (chronotable_id) SELECT p_table.id WHERE v_changed > 0;
    RETURN v_changed > 0;
END;
$$;

-- Why a chunk is not (yet) proved durable, in words; null when every change to it is flushed.
CREATE OR REPLACE FUNCTION lakets._durability_gap(
    p_table  lakets._chronotable_registry,
    p_chunk  lakets._chunk_metadata,
    p_proven pg_snapshot
) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_status text := lakets._cdf_status(p_table.shadow_table_name);
BEGIN
    IF NOT p_table.sync_enabled THEN
        RETURN 'the table is not synced to Unity Catalog';
    ELSIF v_status <> 'STREAMING' THEN
        RETURN format('the change feed of %s is not streaming: %s', p_table.shadow_table_name, v_status);
    ELSIF NOT lakets._columns(lakets._relation(p_table.schema_name, p_table.table_name))
              <@ lakets._columns(lakets._shadow_relation(p_table.shadow_table_name)) THEN
        RETURN format('%s lacks columns of the table', p_table.shadow_table_name);
    ELSIF NOT lakets._is_tracked(lakets._relation(p_table.schema_name, p_table.table_name)) THEN
        RETURN 'a change tracking trigger of the table is missing or disabled';
    ELSIF p_proven IS NULL THEN
        RETURN 'the change feed has not yet passed a known position';
    ELSIF EXISTS (
        SELECT FROM lakets._unproven_changes(p_table.id, p_proven) AS log
         WHERE log.min_time < p_chunk.range_end AND log.max_time >= p_chunk.range_start) THEN
        RETURN 'changes to it are not known to be flushed yet';
    END IF;
    RETURN NULL;
END;
$$;

-- Are all four tracking triggers of a table there and firing?
CREATE OR REPLACE FUNCTION lakets._is_tracked(
    p_relation regclass
) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT count(*) = 4
      FROM pg_trigger AS trg
     WHERE trg.tgrelid = p_relation AND trg.tgname LIKE 'lakets\_track\_%' AND trg.tgenabled IN ('O', 'A');
$$;

-- Why tier_chunk would defer a chunk, in words; null when it is proved durable. Changes nothing.
CREATE OR REPLACE FUNCTION lakets.explain_durability(
    p_chunk_name text
) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_chunk lakets._chunk_metadata;
    v_table lakets._chronotable_registry;
BEGIN
    SELECT chunk.* INTO v_chunk FROM lakets._chunk_metadata AS chunk WHERE chunk.chunk_name = p_chunk_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'Chunk % does not exist.', p_chunk_name
            USING ERRCODE = 'undefined_object', HINT = 'lakets.show_chunks(table) lists the chunks.';
    END IF;
    SELECT reg.* INTO STRICT v_table FROM lakets._chronotable_registry AS reg WHERE reg.id = v_chunk.chronotable_id;
    RETURN lakets._durability_gap(v_table, v_chunk, lakets._proof_now(v_table));
END;
$$;

-- Forget changes that every RollUp has absorbed and the feed has flushed. Steps aside when a RollUp of the
-- table is being created (it has a snapshot that is not registered yet), or another session is at it.
CREATE OR REPLACE FUNCTION lakets._prune_change_log(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_floor xid8;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('lakets change log'), p_table.id) THEN
        RETURN;
    END IF;
    -- Waiting for the proof row could close a circle with retention, which has it and waits for readers.
    PERFORM FROM lakets._feed_proof AS proof WHERE proof.chronotable_id = p_table.id FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        PERFORM lakets._prove(p_table);
    END IF;
    SELECT min(coalesce(pg_snapshot_xmin(seen.snapshot), '0'::xid8)) INTO v_floor
      FROM (SELECT reg.absorbed
              FROM lakets._rollup_registry AS reg WHERE reg.source_chronotable_id = p_table.id AND reg.track_changes
            UNION ALL
            SELECT (SELECT proof.proven FROM lakets._feed_proof AS proof WHERE proof.chronotable_id = p_table.id)
             WHERE p_table.sync_enabled
            UNION ALL
            SELECT pg_current_snapshot()) AS seen (snapshot);
    DELETE FROM lakets._change_log AS log WHERE log.chronotable_id = p_table.id AND log.xid < v_floor;
END;
$$;
