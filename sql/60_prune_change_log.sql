-- Prune the change log.

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
    v_is_fresh boolean := false;  -- the knowledge of the feed was just deleted
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
