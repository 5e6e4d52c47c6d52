-- Look up objects by name, and write instants as literals, in the same way everywhere.
--
-- Functions that jobs call often are PL/pgSQL in all modules, even those with a single SELECT: up
-- to Postgres 17, an SQL function that cannot be inlined is parsed and planned again by each
-- statement that calls it.

-- The relation with that name. Raises an error if there is none.
CREATE OR REPLACE FUNCTION lakets._relation(
    p_schema_name text,
    p_table_name  text
) RETURNS regclass
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_relation regclass := CASE WHEN p_schema_name IS NOT NULL AND p_table_name IS NOT NULL
                                THEN to_regclass(format('%I.%I', p_schema_name, p_table_name)) END;
BEGIN
    IF v_relation IS NULL THEN
        RAISE EXCEPTION 'Table %.% does not exist.', p_schema_name, p_table_name
            USING HINT = 'Check the table and schema name; both are taken as written.';
    END IF;
    RETURN v_relation;
END;
$$;

-- The registry row of a RollUp. Raises an error if there is none.
CREATE OR REPLACE FUNCTION lakets._rollup(
    p_name text
) RETURNS lakets._rollup_registry
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_rollup lakets._rollup_registry;
BEGIN
    SELECT reg.* INTO v_rollup FROM lakets._rollup_registry AS reg WHERE reg.name = p_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'RollUp % does not exist.', p_name
            USING HINT = 'lakets.show_rollups() lists them; create one with lakets.create_rollup.';
    END IF;
    RETURN v_rollup;
END;
$$;

-- The metadata row of a chunk, locked until the transaction ends. Raises an error if there is none.
CREATE OR REPLACE FUNCTION lakets._lock_chunk(
    p_chunk_name text
) RETURNS lakets._chunk_metadata
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_chunk lakets._chunk_metadata;
BEGIN
    SELECT chunk.* INTO v_chunk
      FROM lakets._chunk_metadata AS chunk WHERE chunk.chunk_name = p_chunk_name FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'Chunk % does not exist.', p_chunk_name
            USING HINT = 'lakets.show_chunks(table) lists the chunks.';
    END IF;
    RETURN v_chunk;
END;
$$;

-- The default partition, which holds the rows outside every chunk. Null for a table of 0.1.x until
-- the first _ensure_partitions.
CREATE OR REPLACE FUNCTION lakets._default_partition(
    p_relation regclass
) RETURNS regclass
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT part.partdefid::regclass
          FROM pg_partitioned_table AS part WHERE part.partrelid = p_relation AND part.partdefid <> 0);
END;
$$;

-- The table that holds a RollUp's rows. Raises an error if it does not exist or if another table
-- has its name.
CREATE OR REPLACE FUNCTION lakets._rollup_relation(
    p_name text
) RETURNS regclass
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_named   regclass := to_regclass(format('public.%I', '_rollup_' || p_name));
    v_known   oid      := (SELECT reg.relation FROM lakets._rollup_registry AS reg WHERE reg.name = p_name);
    v_problem text;
BEGIN
    IF v_named = v_known THEN
        RETURN v_named;
    END IF;
    v_problem := lakets._rollup_problem(p_name);
    IF v_problem IS NOT NULL THEN
        RAISE EXCEPTION '%.', v_problem
            USING HINT = 'Give the table of the RollUp its name back, or call lakets.drop_rollup and create the RollUp again.';
    END IF;
    RETURN v_named;
END;
$$;

-- Return as text what is wrong with a RollUp's table; null if it exists under its name. After a
-- restore into another database only the name identifies it.
CREATE OR REPLACE FUNCTION lakets._rollup_problem(
    p_name text
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_named  regclass := to_regclass(format('public.%I', '_rollup_' || p_name));
    v_rollup lakets._rollup_registry;
    v_now    text;
BEGIN
    SELECT reg.* INTO v_rollup FROM lakets._rollup_registry AS reg WHERE reg.name = p_name;
    IF v_rollup.relation IS NULL OR v_rollup.cluster IS DISTINCT FROM lakets._here() THEN
        RETURN CASE WHEN v_named IS NULL THEN format('The table of RollUp %s, public.%I, does not exist', p_name, '_rollup_' || p_name) END;
    ELSIF v_rollup.relation = v_named THEN
        RETURN NULL;
    END IF;
    v_now := (SELECT cls.oid::regclass::text FROM pg_class AS cls WHERE cls.oid = v_rollup.relation);
    RETURN format('The table of RollUp %s %s%s', p_name, coalesce('is now called ' || v_now, 'was dropped'),
                  CASE WHEN v_named IS NOT NULL THEN format(', and %s is another one', v_named) END);
END;
$$;

-- The shadow with that name, with or without its schema; null if there is none.
CREATE OR REPLACE FUNCTION lakets._shadow_relation(
    p_shadow_name text
) RETURNS regclass
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN to_regclass('lakets_cdf.' || quote_ident(regexp_replace(p_shadow_name, '^lakets_cdf\.', '')));
END;
$$;

-- A column's type, or null if there is no such column.
CREATE OR REPLACE FUNCTION lakets._column_type(
    p_relation regclass,
    p_column   text
) RETURNS regtype
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT att.atttypid::regtype
          FROM pg_attribute AS att
         WHERE att.attrelid = p_relation AND att.attname = p_column AND att.attnum > 0 AND NOT att.attisdropped);
END;
$$;

-- Refuse a limit on one transaction that lets a job do nothing.
CREATE OR REPLACE FUNCTION lakets._check_max_chunks(
    p_max_chunks integer
) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_max_chunks < 1 THEN
        RAISE EXCEPTION 'p_max_chunks must be 1 or more, not %.', p_max_chunks
            USING HINT = 'Leave it out to do everything that is due in one transaction.';
    END IF;
END;
$$;

-- Refuse a count that is null, or out of these bounds.
CREATE OR REPLACE FUNCTION lakets._check_count(
    p_name  text,
    p_count integer,
    p_least integer,
    p_most  integer
) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF (p_count BETWEEN p_least AND p_most) IS NOT TRUE THEN
        RAISE EXCEPTION '% must be from % to %, not %.', p_name, p_least, p_most, coalesce(p_count::text, 'null')
            USING HINT = 'Leave it out for the default.';
    END IF;
END;
$$;

-- An instant as SQL text in a time column's own type, whatever the session's time zone and
-- DateStyle. Columns without a zone are read as UTC.
CREATE OR REPLACE FUNCTION lakets._time_literal(
    p_at   timestamptz,
    p_type regtype
) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format('%L::%s',
        CASE WHEN isfinite(p_at) THEN to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US BC')
                 || CASE WHEN p_type = 'timestamptz'::regtype THEN ' +00' ELSE '' END
             WHEN p_at > 'epoch' THEN 'infinity' ELSE '-infinity' END,
        p_type);
END;
$$;

-- SQL text that reads an expression of a time type as an instant (a zone-less one as UTC).
CREATE OR REPLACE FUNCTION lakets._as_instant(
    p_expression text,
    p_type       regtype
) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE p_type
        WHEN 'timestamptz'::regtype THEN p_expression
        WHEN 'timestamp'::regtype THEN format('(%s AT TIME ZONE ''UTC'')', p_expression)
        WHEN 'date'::regtype THEN format('(%s::pg_catalog.timestamp AT TIME ZONE ''UTC'')', p_expression)
    END;
END;
$$;

-- SQL text that makes an instant comparable with a column of a time type, in a way its index can
-- use.
CREATE OR REPLACE FUNCTION lakets._comparable(
    p_expression text,
    p_type       regtype
) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE p_type WHEN 'timestamptz'::regtype THEN p_expression ELSE format('(%s AT TIME ZONE ''UTC'')', p_expression) END;
END;
$$;

-- An instant moved by n intervals on the UTC calendar. The session's time zone has no effect.
CREATE OR REPLACE FUNCTION lakets._shift(
    p_at       timestamptz,
    p_interval interval,
    p_times    integer DEFAULT 1
) RETURNS timestamptz
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN isfinite(p_at) THEN ((p_at AT TIME ZONE 'UTC') + p_interval * p_times) AT TIME ZONE 'UTC' ELSE p_at END;
END;
$$;

-- The instant that is so old now, on the UTC calendar. Infinite where Postgres has no timestamps:
-- nothing is older than 10,000 years.
CREATE OR REPLACE FUNCTION lakets._ago(
    p_age interval
) RETURNS timestamptz
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN CASE WHEN p_age >= '6000 years' THEN '-infinity'
                WHEN p_age <= '-6000 years' THEN 'infinity'
                ELSE ((now() AT TIME ZONE 'UTC') - p_age) AT TIME ZONE 'UTC' END;
END;
$$;

-- Jobs check again after they have a lock. This requires that each statement sees everything
-- committed before it.
CREATE OR REPLACE FUNCTION lakets._require_read_committed() RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'LakeTS jobs run at isolation level read committed; this transaction is %.',
            current_setting('transaction_isolation')
            USING HINT = 'Call the job in a transaction of its own, at the default isolation level.';
    END IF;
END;
$$;

-- One session at a time maintains a relation; a second one waits at most lock_timeout. Any role can
-- take an advisory lock, so the error names the session that holds it.
CREATE OR REPLACE FUNCTION lakets._lock_maintenance(
    p_relation regclass
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_class  integer := hashtext('lakets');
    v_object integer := p_relation::oid::bigint - 2147483648;
BEGIN
    PERFORM pg_advisory_xact_lock(v_class, v_object);
EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'Maintenance of % is held by another session (%).', p_relation, (
        SELECT coalesce(string_agg(format('pid %s, role %s', lck.pid, coalesce(act.usename, '?')), '; '), 'which has just ended')
          FROM pg_locks AS lck
          LEFT JOIN pg_stat_activity AS act ON act.pid = lck.pid
         WHERE lck.locktype = 'advisory' AND lck.granted AND lck.objsubid = 2
           AND lck.classid = (v_class::bigint & 4294967295)::oid AND lck.objid = (v_object::bigint & 4294967295)::oid
           AND lck.database = (SELECT db.oid FROM pg_database AS db WHERE db.datname = current_database()))
        USING ERRCODE = 'lock_not_available',
              HINT = 'Try again when it is done. If it is none of LakeTS'' jobs, end it with pg_terminate_backend.';
END;
$$;
