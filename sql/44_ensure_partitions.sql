-- Job 1: create chunks before their rows arrive.

-- Lock a table and its default partition against everybody, if nobody uses the table and no row
-- waits for a chunk. Returns false for a table with foreign keys, in either direction: waiting for
-- the locks on other tables would block its users.
CREATE OR REPLACE FUNCTION lakets._lock_unused(
    p_relation regclass,
    p_default  regclass
) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_has_row boolean;
BEGIN
    IF EXISTS (SELECT FROM pg_constraint AS con WHERE con.conrelid = p_relation AND con.contype = 'f')
       OR lakets._foreign_keys_to(p_relation) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('LOCK TABLE ONLY %s, %s IN ACCESS EXCLUSIVE MODE NOWAIT', p_relation, p_default);
    EXECUTE format('SELECT EXISTS (SELECT FROM %s)', p_default) INTO v_has_row;
    IF v_has_row THEN
        RAISE lock_not_available;  -- which releases the locks
    END IF;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END;
$$;

-- Job 1. Create the chunks from p_past_count intervals before now to p_future_count after it, or of
-- an explicit range (a backfill), and those that rows wait for in the default partition. Returns
-- how many were created; 0 means none was due. p_max_chunks limits one call and the time that it
-- holds locks: call again until it returns 0. The room in the lock table is a limit too; without
-- p_max_chunks a warning reports it. Waits at most 2 s for a lock, then fails as contended (55P03).
-- If foreign keys point at the table, chunks that rows wait for cannot be created: a warning names
-- the foreign keys, or an error if no other chunk is due. The same for rules.
CREATE OR REPLACE FUNCTION lakets._ensure_partitions(
    p_chronotable_id integer,
    p_past_count     integer     DEFAULT 1,
    p_future_count   integer     DEFAULT 3,
    p_range_start    timestamptz DEFAULT NULL,
    p_range_end      timestamptz DEFAULT NULL,
    p_max_chunks     integer     DEFAULT NULL
) RETURNS integer
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
    SET lock_timeout = '2s'
AS $$
DECLARE
    v_table     lakets._chronotable_registry;
    v_relation  regclass;
    v_default   regclass;
    v_from      timestamptz := p_range_start;
    v_to        timestamptz := p_range_end;
    v_due       tstzrange[];
    v_blocked   tstzrange[] := '{}';
    v_most      integer;
    v_in_place  boolean;
    v_chunks    regclass[];
    v_open      regclass[];
    v_obstacles text;
BEGIN
    PERFORM lakets._check_max_chunks(p_max_chunks);
    PERFORM lakets._check_count('p_past_count', p_past_count, 0, 20000) WHERE p_range_start IS NULL;
    PERFORM lakets._check_count('p_future_count', p_future_count, 0, 20000) WHERE p_range_end IS NULL;
    v_table := lakets._chronotable(p_chronotable_id);
    v_from := coalesce(v_from, lakets._shift(lakets.time_bucket(v_table.chunk_interval, now()), v_table.chunk_interval, -p_past_count));
    v_to := coalesce(v_to, lakets._shift(lakets.time_bucket(v_table.chunk_interval, now()), v_table.chunk_interval, p_future_count + 1));
    PERFORM lakets._check_range(v_table, v_from, v_to);

    v_relation := v_table.relation;
    v_default := lakets._default_partition(v_relation);
    PERFORM lakets._warn_of_foreign_partitions(v_table);
    BEGIN
        IF v_default IS NOT NULL AND NOT lakets._must_follow(v_table) AND lakets._unguarded_partitions(v_relation) = '{}'
           AND lakets._subscriptions_of(v_relation) IS NULL AND lakets._knows_columns(v_relation)
           AND NOT EXISTS (SELECT FROM lakets._due_chunks(v_table, v_default, v_from, v_to, 1)) THEN
            RETURN 0;  -- the usual case waits for nobody
        END IF;
        -- Release the lock on the default partition, which was read: the session that maintains the
        -- table now may be about to lock it.
        RAISE lock_not_available;
    EXCEPTION WHEN lock_not_available THEN
        NULL;
    END;

    PERFORM lakets._require_read_committed();
    -- Lock order: (1) advisory (lakets, relation), (2) parent, (3) default partition, (4) tables
    -- that it references, or that reference it, (5) partitions that can be written directly,
    -- without waiting.
    PERFORM lakets._lock_maintenance(v_relation);
    v_table := lakets._follow(v_table);  -- raises if it was dropped meanwhile
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE UPDATE EXCLUSIVE MODE', v_relation);
    v_default := coalesce(lakets._default_partition(v_relation), lakets._create_default_partition(v_table));
    v_most := least(p_max_chunks, lakets._chunks_to_make(v_default));
    v_obstacles := lakets._move_obstacles(v_default);
    IF v_obstacles IS NOT NULL THEN
        v_blocked := ARRAY(SELECT tstzrange(cell.range_start, cell.range_end) FROM lakets._cells_of_rows(v_table, v_default) AS cell);
    END IF;
    v_due := ARRAY(SELECT DISTINCT tstzrange(due.range_start, due.range_end)
                     FROM lakets._due_chunks(v_table, v_default, v_from, v_to, v_most + 1 + cardinality(v_blocked)) AS due
                    WHERE tstzrange(due.range_start, due.range_end) <> ALL (v_blocked) ORDER BY 1 LIMIT v_most + 1);
    IF v_blocked <> '{}' AND v_due = '{}' THEN
        PERFORM lakets._check_movable(v_default, NULL);  -- raises
    ELSIF v_blocked <> '{}' THEN
        RAISE WARNING 'Rows of % stay in its default partition because of: %.', v_relation, v_obstacles
            USING HINT = 'Drop these foreign keys or rules; the next call then moves the rows to their chunks.';
    END IF;
    IF p_max_chunks IS NULL AND cardinality(v_due) > v_most THEN
        RAISE WARNING '% chunks of %.% are made; more do not fit into one transaction.', v_most, v_table.schema_name, v_table.table_name
            USING HINT = 'Call this again, each time in a transaction of its own, until it returns 0.';
    END IF;
    v_due := v_due[1:v_most];
    -- At most 100, so that sessions that arrive meanwhile wait only briefly.
    v_in_place := cardinality(v_due) <= 100 AND lakets._lock_unused(v_relation, v_default);
    v_chunks := lakets._create_chunk_tables(v_table, v_due, v_in_place);
    IF NOT v_in_place THEN
        -- From here on readers of the default partition wait, and rows cannot get into it.
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', v_default);
        PERFORM lakets._attach_chunks(v_table, v_chunks, v_due);
    END IF;
    PERFORM lakets._register_chunks(v_table, v_chunks, v_due);
    v_open := lakets._guard_unused(lakets._unguarded_partitions(v_relation), greatest(lakets._lock_budget() / 8, 1));
    PERFORM lakets._log_guarded(v_table, v_open);
    RETURN cardinality(v_due);
END;
$$;
