-- Trimming: a shadow keeps the rows of dropped chunks, so dropping them gives only half of the
-- space back. Where a retention policy says so (p_trim_shadow), they are removed from the shadow as
-- well, after the drop.
--
-- What a trim must not do, and what prevents it:
--
--   - Lose a row. A dropped chunk is trimmed once every change in its range is proved flushed, as
--     for tiering, however it was dropped, and only while the feed streams the log of trims.
--     Otherwise the trim is deferred.
--   - Erase history. The feed streams a trim as deletes. Each trim writes its transaction id to
--     lakets_cdf._trim_log in the same transaction, and the feed streams that too; the view of
--     lakets.history_view_sql leaves those deletes out. The transaction of a trim may therefore
--     make no other change to the table: this is checked when it commits.
--   - Remove a row that the table has. A row that came late for a dropped range is in a partition
--     that is no chunk. A trim locks these partitions against writers: each such row keeps one copy
--     in the shadow, and equal rows that were dropped are removed. Nobody else looks for a row of
--     that range meanwhile, and writers of the chunks are not blocked.
--   - Weaken the proof (60_durability.sql). A trim locks the shadow, then adds itself to the change
--     log, like every writer. Its range there is null, which touches no chunk.
--
-- A call is one transaction and removes a limited number of rows. If it fails, the next call
-- continues. VACUUM makes the space of these rows reusable: the shadow stops growing, but does not
-- shrink on disk.

-- Return whether a table's retention policy asks for trimming.
CREATE OR REPLACE FUNCTION lakets._trims(
    p_table lakets._chronotable_registry
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM lakets._policy_registry AS pol
         WHERE pol.chronotable_id = p_table.id AND pol.enabled AND pol.policy_type IN ('retention', 'tiered_retention')
           AND (pol.config ->> 'trim_shadow')::boolean);
END;
$$;

-- Return whether the shadow needs an index to find a time range. It needs none if the index of the
-- triggers begins with the time.
CREATE OR REPLACE FUNCTION lakets._lacks_time_index(
    p_table lakets._chronotable_registry
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN coalesce((
        SELECT key.key_column <> p_table.time_column
          FROM lakets._key_columns(lakets._relation(p_table)) AS key LIMIT 1), false);
END;
$$;

-- Create or drop the index that trimming needs, according to the table's policy. Writers wait while
-- the index is built, so it is built when an administrator asks for trimming or syncing, never by a
-- job.
CREATE OR REPLACE FUNCTION lakets._prepare_trimming(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_shadow regclass := lakets._shadow_relation(p_table.shadow_table_name);
    v_index  text     := '_time_' || v_shadow::oid;
    v_is     regclass := to_regclass('lakets_cdf.' || v_index);
BEGIN
    IF lakets._trims(p_table) THEN
        INSERT INTO lakets_cdf._trim_log (shadow, xid, row_count)
        SELECT '', 0, 0 WHERE NOT EXISTS (SELECT FROM lakets_cdf._trim_log);
    END IF;
    IF v_shadow IS NULL OR (lakets._trims(p_table) AND lakets._lacks_time_index(p_table)) = (v_is IS NOT NULL) THEN
        RETURN;
    END IF;
    -- Lock order: (1) advisory (lakets, relation), (2) shadow.
    PERFORM lakets._lock_maintenance(lakets._relation(p_table));
    IF v_is IS NOT NULL THEN
        EXECUTE format('DROP INDEX %s', v_is);
    ELSE
        EXECUTE format('CREATE INDEX %I ON %s (%I)', v_index, v_shadow, p_table.time_column);
    END IF;
END;
$$;

-- Return as text why the rows of each of these dropped chunks (ids) may not be removed from the
-- shadow now; chunks that may be trimmed are left out.
CREATE OR REPLACE FUNCTION lakets._trim_gaps(
    p_table  lakets._chronotable_registry,
    p_chunks bigint[],
    p_proven pg_snapshot
) RETURNS TABLE (chunk_id bigint, gap text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_status text := lakets._cdf_status('_trim_log');
    v_what   text := lakets._interference('lakets_cdf._trim_log');
BEGIN
    IF v_status <> 'STREAMING' THEN
        RETURN QUERY SELECT id, 'the change feed of lakets_cdf._trim_log is not streaming: ' || v_status FROM unnest(p_chunks) AS id;
    ELSIF v_what IS NOT NULL THEN
        RETURN QUERY SELECT id, format('rows written to lakets_cdf._trim_log can be discarded or changed by %s; remove that', v_what)
                       FROM unnest(p_chunks) AS id;
    ELSE
        RETURN QUERY SELECT found.chunk_id, 'not durable: ' || found.gap FROM lakets._durability_gaps(p_table, p_chunks, p_proven) AS found;
    END IF;
END;
$$;

-- The given dropped chunks (ids, oldest first) that may be trimmed now.
CREATE OR REPLACE FUNCTION lakets._trimmable(
    p_table  lakets._chronotable_registry,
    p_chunks bigint[],
    p_proven pg_snapshot
) RETURNS bigint[]
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN ARRAY(
        SELECT chunk.id
          FROM unnest(p_chunks) WITH ORDINALITY AS chunk (id, position)
          LEFT JOIN lakets._trim_gaps(p_table, p_chunks, p_proven) AS found ON found.chunk_id = chunk.id
         WHERE found.gap IS NULL
         ORDER BY chunk.position);
END;
$$;

-- The dropped chunks whose rows the shadow may still have, oldest first. blocked_by is null if
-- trim_shadow would remove them now, else the reason why not. Changes nothing.
CREATE OR REPLACE FUNCTION lakets.trim_report(
    p_table_name  text,
    p_schema_name text DEFAULT 'public'
) RETURNS TABLE (chunk_name text, range_start timestamptz, range_end timestamptz, blocked_by text)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table  lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_trims  boolean  := lakets._trims(v_table);
    v_chunks bigint[] := ARRAY(SELECT chunk.id FROM lakets._chunk_metadata AS chunk
                                WHERE chunk.chronotable_id = v_table.id AND chunk.status = 'dropped' AND chunk.trimmed_at IS NULL
                                  AND v_table.sync_enabled);
BEGIN
    RETURN QUERY
        SELECT chunk.chunk_name, chunk.range_start, chunk.range_end,
               CASE WHEN v_trims THEN found.gap ELSE 'its retention policy does not have p_trim_shadow' END
          FROM lakets._chunk_metadata AS chunk
          LEFT JOIN lakets._trim_gaps(v_table, v_chunks, lakets._proof_now(v_table)) AS found ON found.chunk_id = chunk.id
         WHERE chunk.id = ANY (v_chunks)
         ORDER BY chunk.range_start;
END;
$$;

-- Lock the partitions that are no chunks, to which rows of dropped ranges go, against writers. Then
-- lock the shadow.
CREATE OR REPLACE FUNCTION lakets._lock_evicted(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_parent    regclass := lakets._relation(p_table);
    v_partition regclass;
BEGIN
    EXECUTE format('LOCK TABLE ONLY %s IN ACCESS SHARE MODE', v_parent);
    FOR v_partition IN
        SELECT inh.inhrelid FROM pg_inherits AS inh WHERE inh.inhparent = v_parent
        EXCEPT
        SELECT chunk.relation FROM lakets._chunk_metadata AS chunk
         WHERE chunk.chronotable_id = p_table.id AND chunk.relation IS NOT NULL AND chunk.status <> 'dropped'
         ORDER BY 1
    LOOP
        EXECUTE format('LOCK TABLE %s IN SHARE MODE', v_partition);
    END LOOP;
    EXECUTE format('LOCK TABLE %s IN ROW EXCLUSIVE MODE', lakets._shadow_relation(p_table.shadow_table_name));
END;
$$;

-- Remove at most p_max_rows rows of a dropped range from the shadow, except those that the table
-- has; returns how many. The caller has called _lock_evicted.
CREATE OR REPLACE FUNCTION lakets._trim_range(
    p_table    lakets._chronotable_registry,
    p_range    tstzrange,
    p_max_rows integer
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off  -- fail if a policy hides late rows, which would lose their copies
    SET extra_float_digits = 1
    SET enable_seqscan = off SET enable_bitmapscan = off  -- otherwise each batch would scan the rows that earlier ones removed
AS $$
DECLARE
    v_relation regclass := lakets._relation(p_table);
    v_shadow   regclass := lakets._shadow_relation(p_table.shadow_table_name);
    v_type     regtype  := lakets._column_type(v_relation, p_table.time_column);
    v_late     record   := lakets._mirror_delete(v_relation, v_shadow, p_table.time_column);
    v_is_keyed boolean  := EXISTS (SELECT FROM lakets._key_columns(v_relation));
    v_removed  integer;
BEGIN
    -- By the index on the time column or, without a key, on the expressions of _find_by.
    EXECUTE format(
        'WITH old_rows AS MATERIALIZED (SELECT r.* FROM %1$s AS r WHERE r.%2$I >= %3$s AND r.%2$I < %4$s), %5$s
         DELETE FROM ONLY %6$s AS s
          WHERE s.ctid = ANY (ARRAY(
                SELECT c.ctid FROM ONLY %6$s AS c
                 WHERE %7$s >= %3$s AND %7$s < %4$s AND NOT EXISTS (SELECT FROM (%8$s) AS kept WHERE kept.tid = c.ctid)
                 LIMIT %9$s))',
        v_relation, p_table.time_column, lakets._time_literal(lower(p_range), v_type),
        lakets._time_literal(upper(p_range), v_type), v_late.hit, v_shadow,
        CASE WHEN v_is_keyed THEN format('c.%I', p_table.time_column)
             ELSE (lakets._find_by(v_relation, 'c', p_table.time_column)).at END,
        v_late.tids, p_max_rows);
    GET DIAGNOSTICS v_removed = ROW_COUNT;
    RETURN v_removed;
END;
$$;

-- Remove rows of dropped chunks from the shadow, oldest first, at most p_max_rows in this
-- transaction, which must do nothing else; returns how many. 0 means that nothing is left, or
-- trim_report says why not. A lock not granted within 2 s fails as contended (55P03).
CREATE OR REPLACE FUNCTION lakets.trim_shadow(
    p_table_name  text,
    p_schema_name text    DEFAULT 'public',
    p_max_rows    integer DEFAULT 10000
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_table    lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_relation regclass := v_table.relation;
    v_chunks   bigint[];
    v_ranges   tstzmultirange;
    v_range    tstzrange;
    v_removed  integer := 0;
BEGIN
    IF p_max_rows IS NULL OR p_max_rows < 1 THEN
        RAISE EXCEPTION 'p_max_rows must be 1 or more, not %.', coalesce(p_max_rows::text, 'null')
            USING HINT = 'It limits one transaction; call again until it returns 0.';
    END IF;
    PERFORM lakets._require_read_committed();
    -- Lock order: (1) advisory (lakets, relation), (2) proof row, (3) chunk metadata, (4) parent,
    -- (5) partitions that are no chunks, (6) shadow.
    PERFORM lakets._lock_maintenance(v_relation);
    v_table := lakets._follow(v_table);  -- read again under the lock
    v_chunks := ARRAY(
        SELECT chunk.id
          FROM lakets._chunk_metadata AS chunk
         WHERE chunk.chronotable_id = v_table.id AND chunk.status = 'dropped' AND chunk.trimmed_at IS NULL
         ORDER BY chunk.range_start);
    IF v_chunks = '{}' OR NOT v_table.sync_enabled OR NOT lakets._trims(v_table) THEN
        RETURN 0;
    END IF;
    v_chunks := lakets._trimmable(v_table, v_chunks, lakets._prove(v_table));
    IF v_chunks = '{}' THEN
        PERFORM lakets._move_feed(v_table);
        RETURN 0;
    END IF;

    PERFORM FROM lakets._chunk_metadata AS chunk WHERE chunk.id = ANY (v_chunks) ORDER BY chunk.range_start FOR UPDATE;
    PERFORM lakets._lock_evicted(v_table);
    -- Everything committed before is visible to the statements below, which check again.
    v_chunks := lakets._trimmable(v_table, v_chunks, lakets._proof_now(v_table));
    SELECT coalesce(range_agg(tstzrange(chunk.range_start, chunk.range_end)), '{}') INTO v_ranges
      FROM lakets._chunk_metadata AS chunk WHERE chunk.id = ANY (v_chunks);
    FOR v_range IN SELECT one FROM unnest(v_ranges) AS one LOOP
        v_removed := v_removed + lakets._trim_range(v_table, v_range, p_max_rows - v_removed);
        EXIT WHEN v_removed >= p_max_rows;
    END LOOP;
    PERFORM lakets._note_trim(v_table, v_ranges, v_removed);
    IF v_removed < p_max_rows THEN
        UPDATE lakets._chunk_metadata AS chunk SET trimmed_at = now() WHERE chunk.id = ANY (v_chunks);
    END IF;
    RETURN v_removed;
END;
$$;

-- Record a trim in the log that the feed streams, and in the change log.
CREATE OR REPLACE FUNCTION lakets._note_trim(
    p_table  lakets._chronotable_registry,
    p_ranges tstzmultirange,
    p_rows   integer
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_rows > 0 THEN
        INSERT INTO lakets._change_log (chronotable_id) VALUES (p_table.id);
        INSERT INTO lakets_cdf._trim_log (shadow, xid, row_count, range_start, range_end)
        SELECT cls.relname, pg_current_xact_id()::text::bigint, p_rows, lower(p_ranges), upper(p_ranges)
          FROM pg_class AS cls WHERE cls.oid = lakets._shadow_relation(p_table.shadow_table_name);
    END IF;
END;
$$;

-- Checked when a trim commits: every change of this transaction to that table must be a trim, since
-- the view cannot distinguish them.
CREATE OR REPLACE FUNCTION lakets._check_trim_alone() RETURNS trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_trims   bigint := (SELECT count(*) FROM lakets_cdf._trim_log AS trim WHERE trim.shadow = NEW.shadow AND trim.xid = NEW.xid);
    v_changes bigint := (
        SELECT count(*)
          FROM lakets._chronotable_registry AS reg
          JOIN lakets._change_log AS log ON log.chronotable_id = reg.id AND log.xid = pg_current_xact_id()
         WHERE lakets._shadow_relation(reg.shadow_table_name) = lakets._shadow_relation(NEW.shadow));
BEGIN
    IF v_changes > v_trims THEN
        RAISE EXCEPTION 'This transaction trimmed %, and changed its table too.', NEW.shadow
            USING HINT = 'Call lakets.trim_shadow in a transaction of its own.';
    END IF;
    RETURN NULL;
END;
$$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_trigger AS trg
                    WHERE trg.tgrelid = 'lakets_cdf._trim_log'::pg_catalog.regclass AND trg.tgname = 'lakets_alone') THEN
        CREATE CONSTRAINT TRIGGER lakets_alone AFTER INSERT ON lakets_cdf._trim_log
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.row_count > 0)
            EXECUTE FUNCTION lakets._check_trim_alone();
    END IF;
END
$$;
