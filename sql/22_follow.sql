-- Update the registry after manual changes to a table. Called by jobs that hold the table's
-- maintenance lock, and by the install.

-- Return whether the registry, the tracking or the rights that it needs must be updated. Changes
-- nothing and waits for no lock.
CREATE OR REPLACE FUNCTION lakets._must_follow(
    p_table lakets._chronotable_registry
) RETURNS boolean
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (SELECT reg IS DISTINCT FROM p_table FROM lakets._chronotable_registry AS reg WHERE reg.id = p_table.id)
        OR NOT lakets._is_tracked(p_table.relation) OR lakets._missing_grants(p_table.relation) <> '{}'
        OR EXISTS (SELECT FROM lakets._lost_chunks(p_table));
END;
$$;

-- The chunks that are active in the registry but are no longer partitions. Uses an index, because
-- thousands of dropped chunks may be in the registry too, and EXCEPT, as _foreign_partitions does.
CREATE OR REPLACE FUNCTION lakets._lost_chunks(
    p_table lakets._chronotable_registry
) RETURNS SETOF lakets._chunk_metadata
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET enable_seqscan = off
AS $$
DECLARE
    v_lost oid[];
BEGIN
    IF p_table.cluster IS NULL THEN
        RETURN;  -- the oids in this database are not known
    END IF;
    v_lost := ARRAY(
        SELECT chunk.relation FROM lakets._chunk_metadata AS chunk
         WHERE chunk.chronotable_id = p_table.id AND chunk.relation IS NOT NULL AND chunk.status <> 'dropped'
        EXCEPT
        SELECT inh.inhrelid FROM pg_inherits AS inh WHERE inh.inhparent = p_table.relation);
    RETURN QUERY
        SELECT chunk.*
          FROM lakets._chunk_metadata AS chunk
         WHERE chunk.chronotable_id = p_table.id AND chunk.relation = ANY (v_lost) AND chunk.status <> 'dropped';
END;
$$;

-- Record the oids of a ChronoTable and its chunks in this database.
CREATE OR REPLACE FUNCTION lakets._learn(
    p_table lakets._chronotable_registry
) RETURNS lakets._chronotable_registry
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table lakets._chronotable_registry := lakets._recognise(p_table);
BEGIN
    UPDATE lakets._chunk_metadata AS chunk SET relation = lakets._chunk_relation(v_table, chunk)
     WHERE chunk.chronotable_id = v_table.id AND (v_table.cluster IS NULL OR chunk.relation IS NULL);
    v_table.cluster := lakets._here();
    UPDATE lakets._chronotable_registry AS reg
       SET schema_name = v_table.schema_name, table_name = v_table.table_name, time_column = v_table.time_column,
           relation = v_table.relation, time_attnum = v_table.time_attnum, owner = v_table.owner, cluster = v_table.cluster
     WHERE reg.id = v_table.id;
    RETURN v_table;
END;
$$;

-- Update the registry after manual changes to a table, and report them. Renames and a new owner are
-- followed. After a restore only the names identify tables, and earlier proofs and absorbed changes
-- no longer count.
CREATE OR REPLACE FUNCTION lakets._follow(
    p_table lakets._chronotable_registry
) RETURNS lakets._chronotable_registry
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_kept   lakets._chronotable_registry;
    v_now    lakets._chronotable_registry;
    v_lost   text;
BEGIN
    SELECT reg.* INTO v_kept FROM lakets._chronotable_registry AS reg WHERE reg.id = p_table.id;
    IF NOT FOUND THEN
        RAISE EXCEPTION '%.% is no longer a ChronoTable.', p_table.schema_name, p_table.table_name
            USING HINT = 'It was dropped meanwhile; lakets._chronotable_registry lists the ChronoTables.';
    END IF;
    v_now := lakets._recognise(v_kept);
    PERFORM lakets._note_subscriptions(v_now);
    IF NOT lakets._must_follow(v_now) THEN
        PERFORM lakets._follow_rewrite(v_now);
        RETURN v_now;
    END IF;
    WITH lost AS (
        UPDATE lakets._chunk_metadata AS chunk SET status = 'dropped'
         WHERE chunk.id IN (SELECT lost.id FROM lakets._lost_chunks(v_now) AS lost)
        RETURNING chunk.chunk_name, chunk.range_start
    )
    SELECT string_agg(lost.chunk_name, ', ' ORDER BY lost.range_start) INTO v_lost FROM lost;
    IF v_lost IS NOT NULL THEN
        RAISE WARNING 'These chunks of % were detached or dropped by hand, and count as dropped: %.', v_now.relation::regclass, v_lost
            USING HINT = 'RollUps and the shadow keep their rows of these chunks. To take a chunk back, attach it and call lakets.adopt_partitions.';
    END IF;
    v_now := lakets._learn(v_kept);
    IF v_kept.relation <> v_now.relation OR split_part(v_kept.cluster, '/', 1) <> lakets._cluster() THEN
        RAISE WARNING 'ChronoTable % was restored: earlier proofs and absorbed changes no longer count.', v_now.relation::regclass
            USING HINT = 'The next refresh computes its RollUps again. If it is synced, call lakets.enable_sync.';
        PERFORM lakets._forget_proofs(v_now);
    ELSIF (v_kept.schema_name, v_kept.table_name) <> (v_now.schema_name, v_now.table_name) THEN
        RAISE WARNING 'ChronoTable %.% is now called %.%.', v_kept.schema_name, v_kept.table_name, v_now.schema_name, v_now.table_name
            USING HINT = 'Queries of RollUps that use the old name fail until the table has it again or the RollUps are created again.';
    END IF;
    IF v_kept.relation IS NOT NULL AND v_kept.time_column <> v_now.time_column THEN
        PERFORM lakets._follow_time_column(v_now, v_kept.time_column);
    END IF;
    IF v_kept.owner <> v_now.owner AND NOT lakets._follow_owner(v_now) THEN
        UPDATE lakets._chronotable_registry AS reg SET owner = v_kept.owner WHERE reg.id = v_now.id;  -- so the next job continues
    END IF;
    IF v_kept.cluster IS NOT NULL THEN
        PERFORM lakets._track_chronotable(v_now.id);
    END IF;
    RETURN v_now;
END;
$$;

-- Record the state after a restore: nothing is known of the feed, every row counts as changed, and
-- the shadow may lack changes.
CREATE OR REPLACE FUNCTION lakets._forget_proofs(
    p_table lakets._chronotable_registry
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_shadow regclass := lakets._shadow_relation(p_table.shadow_table_name);
BEGIN
    UPDATE lakets._chunk_metadata AS chunk SET status = 'active', tiered_at = NULL
     WHERE chunk.chronotable_id = p_table.id AND chunk.status = 'tiered';
    UPDATE lakets._rollup_registry AS reg SET absorbed = NULL WHERE reg.source_chronotable_id = p_table.id;
    PERFORM lakets._restart_proof(p_table);
    -- Transaction ids of another database would be taken for those of this one.
    DELETE FROM lakets._change_log AS log WHERE log.chronotable_id = p_table.id;
    INSERT INTO lakets._change_log (chronotable_id, min_time, max_time) VALUES (p_table.id, '-infinity', 'infinity');
    IF p_table.sync_enabled AND v_shadow IS NOT NULL THEN
        INSERT INTO lakets._mirror_gap (shadow) VALUES (v_shadow);
    END IF;
END;
$$;

-- The time column was renamed: rename it in the shadow too, where rows of dropped chunks have their
-- times.
CREATE OR REPLACE FUNCTION lakets._follow_time_column(
    p_table    lakets._chronotable_registry,
    p_old_name text
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_shadow regclass := lakets._shadow_relation(p_table.shadow_table_name);
BEGIN
    RAISE WARNING 'The time column of % is now called %.', p_table.relation::regclass, p_table.time_column
        USING HINT = format('Queries of RollUps that use the name %s fail until the RollUps are created again.', p_old_name);
    IF p_table.sync_enabled AND v_shadow IS NOT NULL
       AND lakets._column_type(v_shadow, p_old_name) IS NOT NULL AND lakets._column_type(v_shadow, p_table.time_column) IS NULL THEN
        -- No writer is active while the shadow changes. Rows written since the rename may be
        -- missing in it.
        EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', p_table.relation::regclass);
        EXECUTE format('ALTER TABLE %s RENAME COLUMN %I TO %I', v_shadow, p_old_name, p_table.time_column);
    END IF;
    UPDATE lakets._rollup_registry AS reg SET source_time_column = p_table.time_column
     WHERE reg.source_chronotable_id = p_table.id AND reg.source_time_column = p_old_name;
END;
$$;

-- The table has a new owner: give it the shadow and the partitions, as many as one transaction has
-- room to lock. Returns true if these were all. The shadow is first: the trigger functions get the
-- new owner in the same transaction, and write to it.
CREATE OR REPLACE FUNCTION lakets._follow_owner(
    p_table lakets._chronotable_registry
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_budget   integer  := lakets._lock_budget();
    v_shadow   regclass := lakets._shadow_relation(p_table.shadow_table_name);
    v_relation regclass;
BEGIN
    FOR v_relation IN
        SELECT cls.oid
          FROM pg_class AS cls
         WHERE cls.relowner <> p_table.owner
           AND (cls.oid = v_shadow
                OR cls.oid IN (SELECT inh.inhrelid FROM pg_inherits AS inh WHERE inh.inhparent = p_table.relation))
         ORDER BY cls.oid IS DISTINCT FROM v_shadow, cls.oid
    LOOP
        IF v_budget < 0 THEN
            RETURN false;
        END IF;
        v_budget := v_budget - lakets._locks_to_drop(v_relation);
        EXECUTE format('ALTER TABLE %s OWNER TO %s', v_relation, p_table.owner::regrole);
    END LOOP;
    RETURN true;
END;
$$;
