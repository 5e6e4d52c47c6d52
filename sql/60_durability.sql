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
    -- Not known to this function when it is made: the feed may come and go.
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
-- somebody is writing; then the feed advances by itself. Writers wait until the transaction ends,
-- and they may hold the table, so the caller must lock nothing after this.
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
    EXECUTE format('UPDATE %1$s AS s SET %2$I = s.%2$I WHERE s.ctid = (SELECT one.ctid FROM %1$s AS one LIMIT 1)',
                   v_shadow, p_table.time_column);
    GET DIAGNOSTICS v_changed = ROW_COUNT;
    IF v_changed = 0 THEN
        EXECUTE format('INSERT INTO %s DEFAULT VALUES RETURNING ctid', v_shadow) INTO v_row;
        EXECUTE format('DELETE FROM %s AS s WHERE s.ctid = $1', v_shadow) USING v_row;
    END IF;
    -- Logged like every change to the shadow: the rule "alone" must know of it.
    INSERT INTO lakets._change_log (chronotable_id) VALUES (p_table.id);
    RETURN true;
EXCEPTION WHEN integrity_constraint_violation THEN  -- a shadow of 0.1.x may demand values
    RETURN false;
END;
$$;

-- Return as text why no chunk of a table can be proved durable; null if it depends on the chunk.
CREATE OR REPLACE FUNCTION lakets._sync_gap(
    p_table  lakets._chronotable_registry,
    p_proven pg_snapshot
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_status text := lakets._cdf_status(p_table.shadow_table_name);
BEGIN
    IF NOT p_table.sync_enabled THEN
        RETURN 'the table is not synced to Unity Catalog';
    ELSIF p_table.cluster IS NULL THEN
        RETURN 'the table was restored, and its mirror may lack changes; the next partition job or lakets.enable_sync repairs it';
    ELSIF v_status <> 'STREAMING' THEN
        RETURN format('the change feed of %s is not streaming: %s', p_table.shadow_table_name, v_status);
    END IF;
    RETURN coalesce(
        lakets._mirror_problem(lakets._relation(p_table),
                               lakets._shadow_relation(p_table.shadow_table_name)),
        CASE WHEN p_proven IS NULL THEN 'the change feed has not yet passed a known position' END);
END;
$$;

-- Return as text why each of these chunks (ids) is not proved durable; chunks that are proved are
-- left out. The state of the table and the times not flushed are read once, however many chunks
-- there are.
CREATE OR REPLACE FUNCTION lakets._durability_gaps(
    p_table  lakets._chronotable_registry,
    p_chunks bigint[],
    p_proven pg_snapshot
) RETURNS TABLE (chunk_id bigint, gap text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_gap   text := lakets._sync_gap(p_table, p_proven);
    v_span  tstzrange;
    v_doubt tstzmultirange;
    v_open  tstzmultirange;
BEGIN
    IF v_gap IS NOT NULL THEN
        RETURN QUERY SELECT id, v_gap FROM unnest(p_chunks) AS id;
        RETURN;
    END IF;
    SELECT tstzrange(min(chunk.range_start), max(chunk.range_end)) INTO v_span
      FROM lakets._chunk_metadata AS chunk WHERE chunk.id = ANY (p_chunks);
    SELECT '{(,)}'::tstzmultirange - chk.compared INTO v_doubt FROM lakets._mirror_check AS chk WHERE chk.chronotable_id = p_table.id;
    SELECT range_agg(tstzrange(log.min_time, log.max_time, '[]')) INTO v_open
      FROM lakets._unproven_changes(p_table.id, p_proven) AS log
     WHERE log.min_time < upper(v_span) AND log.max_time >= lower(v_span);
    RETURN QUERY
        SELECT chunk.id::bigint,
               CASE WHEN v_doubt && tstzrange(chunk.range_start, chunk.range_end)
                    THEN 'it is not yet compared with its mirror; the next tiering run or lakets.enable_sync does so'
                    ELSE 'changes to it are not known to be flushed yet' END
          FROM lakets._chunk_metadata AS chunk
         WHERE chunk.id = ANY (p_chunks)
           AND coalesce(v_doubt, '{}') + coalesce(v_open, '{}') && tstzrange(chunk.range_start, chunk.range_end);
END;
$$;

-- The same for one chunk; null if every change to it is flushed.
CREATE OR REPLACE FUNCTION lakets._durability_gap(
    p_table  lakets._chronotable_registry,
    p_chunk  lakets._chunk_metadata,
    p_proven pg_snapshot
) RETURNS text
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT found.gap FROM lakets._durability_gaps(p_table, ARRAY[p_chunk.id::bigint], p_proven) AS found);
END;
$$;

-- Return whether all four tracking triggers of a table exist and are enabled.
CREATE OR REPLACE FUNCTION lakets._is_tracked(
    p_relation regclass
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT count(*) = 4
          FROM pg_trigger AS trg
         WHERE trg.tgrelid = p_relation AND trg.tgname LIKE 'lakets\_track\_%' AND trg.tgenabled IN ('O', 'A'));
END;
$$;

-- Return as text why tier_chunk would defer a chunk; null if it is proved durable. A dropped chunk
-- is if it was proved when it was dropped. Changes nothing.
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
            USING HINT = 'lakets.show_chunks(table) lists the chunks.';
    END IF;
    IF v_chunk.status = 'dropped' THEN
        RETURN CASE WHEN v_chunk.tiered_at IS NULL THEN 'it was dropped from Lakebase before it was proved durable' END;
    END IF;
    v_table := lakets._chronotable(v_chunk.chronotable_id);
    RETURN lakets._durability_gap(v_table, v_chunk, lakets._proof_now(v_table));
END;
$$;

-- Delete changes that every RollUp has absorbed and the feed has flushed, once the RollUps no
-- longer need p_at_least of them. Does nothing while a RollUp of the table is being created (its
-- snapshot is not registered yet) or while another session prunes.
--
-- Without a feed nothing is flushed, and the log would grow without end. Once it has grown, the
-- knowledge of the feed is deleted, and the log with it: the next proof begins with a snapshot that
-- sees all of these changes.
CREATE OR REPLACE FUNCTION lakets._prune_change_log(
    p_table    lakets._chronotable_registry,
    p_at_least integer DEFAULT 1
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_floor    xid8;
    v_is_fresh boolean := false;  -- nothing is known of the feed, nor waited for, and we keep it so
BEGIN
    IF NOT lakets._is_read_committed() OR NOT pg_try_advisory_xact_lock(hashtext('lakets change log'), p_table.id) THEN
        RETURN;
    END IF;
    -- Changes with a transaction id of another cluster that is beyond ours count as made now: no
    -- snapshot would ever see such an id, so they would be neither absorbed nor flushed.
    WITH foreigner AS (
        DELETE FROM lakets._change_log AS log
         WHERE log.chronotable_id = p_table.id AND log.xid >= pg_snapshot_xmax(pg_current_snapshot())
           AND log.xid IS DISTINCT FROM pg_current_xact_id_if_assigned()
        RETURNING log.min_time, log.max_time
    )
    INSERT INTO lakets._change_log (chronotable_id, min_time, max_time)
    SELECT p_table.id, foreigner.min_time, foreigner.max_time FROM foreigner;
    -- Usually the RollUps still need every change; then the feed need not be read.
    SELECT min(coalesce(pg_snapshot_xmin(seen.snapshot), '0'::xid8)) INTO v_floor
      FROM (SELECT reg.absorbed
              FROM lakets._rollup_registry AS reg WHERE reg.source_chronotable_id = p_table.id AND reg.track_changes
            UNION ALL
            SELECT pg_current_snapshot()) AS seen (snapshot);
    IF (SELECT count(*) FROM (SELECT FROM lakets._change_log AS log WHERE log.chronotable_id = p_table.id AND log.xid < v_floor
                               LIMIT p_at_least) AS first) < p_at_least THEN
        RETURN;
    END IF;
    -- Waiting for the proof row could deadlock with retention, which holds it and waits for
    -- readers.
    PERFORM FROM lakets._feed_proof AS proof WHERE proof.chronotable_id = p_table.id FOR UPDATE SKIP LOCKED;
    IF FOUND AND lakets._cdf_committed_lsn(p_table.shadow_table_name) IS NOT NULL THEN
        PERFORM lakets._prove(p_table);
    ELSIF FOUND AND (SELECT count(*) FROM (
            SELECT FROM lakets._change_log AS log WHERE log.chronotable_id = p_table.id LIMIT 10000) AS first) = 10000 THEN
        UPDATE lakets._feed_proof AS proof
           SET proven = NULL, observed = NULL, observed_lsn = NULL, fenced = false WHERE proof.chronotable_id = p_table.id;
        v_is_fresh := true;
    END IF;
    -- In one statement, so that all readers of the log are seen at the same moment.
    SELECT min(coalesce(pg_snapshot_xmin(seen.snapshot), '0'::xid8)) INTO v_floor
      FROM (SELECT reg.absorbed
              FROM lakets._rollup_registry AS reg WHERE reg.source_chronotable_id = p_table.id AND reg.track_changes
            UNION ALL
            SELECT proof.proven
              FROM lakets._chronotable_registry AS tab
              LEFT JOIN lakets._feed_proof AS proof ON proof.chronotable_id = tab.id
             WHERE tab.id = p_table.id AND tab.sync_enabled AND NOT v_is_fresh
            UNION ALL
            SELECT pg_current_snapshot()) AS seen (snapshot);
    DELETE FROM lakets._change_log AS log WHERE log.chronotable_id = p_table.id AND log.xid < v_floor;
END;
$$;
