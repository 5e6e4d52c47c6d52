-- Find the chunks that are missing: in a requested range, and where rows wait in the default
-- partition.

-- Refuse a range that is empty, infinite, or would create more than 20,000 chunks.
CREATE OR REPLACE FUNCTION lakets._check_range(
    p_table lakets._chronotable_registry,
    p_from  timestamptz,
    p_to    timestamptz
) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_from IS NULL OR p_to IS NULL OR p_from > p_to
       OR p_from < '0002-01-01 00:00:00+00' OR p_to > '9999-01-01 00:00:00+00' THEN
        RAISE EXCEPTION 'Chunks cannot be created in the range from % to %.',
            coalesce(p_from::text, 'null'), coalesce(p_to::text, 'null')
            USING HINT = 'Give a start and a later end, in the years 2 to 9998.';
    ELSIF extract(epoch FROM p_to - p_from) / extract(epoch FROM p_table.chunk_interval) > 20000 THEN
        RAISE EXCEPTION 'The range from % to % would make more than 20000 chunks of % in %.%.',
            p_from, p_to, p_table.chunk_interval, p_table.schema_name, p_table.table_name
            USING HINT = 'Take a shorter range, or a longer chunk interval.';
    END IF;
END;
$$;

-- Return the ranges that chunks overlapping [p_from, p_to) cover already, of any interval, and
-- those of partitions made by hand. A dropped range counts too: its rows are in Unity Catalog, and
-- a new chunk there would appear to hold all of them.
CREATE OR REPLACE FUNCTION lakets._covered(
    p_table lakets._chronotable_registry,
    p_from  timestamptz DEFAULT '-infinity',
    p_to    timestamptz DEFAULT 'infinity'
) RETURNS tstzmultirange
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN (
        SELECT coalesce(range_agg(part.range), '{}')
          FROM (SELECT tstzrange(chunk.range_start, chunk.range_end)
                  FROM lakets._chunk_metadata AS chunk
                 WHERE chunk.chronotable_id = p_table.id AND chunk.range_end > p_from AND chunk.range_start < p_to
                UNION ALL
                SELECT hand.range FROM lakets._foreign_partitions(p_table) AS hand) AS part (range));
END;
$$;

-- The first p_limit chunks that are missing in [p_from, p_to): whole cells of the interval's grid,
-- without what is covered. They are created in the years 2 to 9998: names and client libraries fail
-- outside these years, and the time zone of a session may show one year more or less.
CREATE OR REPLACE FUNCTION lakets._missing_chunks(
    p_table   lakets._chronotable_registry,
    p_from    timestamptz,
    p_to      timestamptz,
    p_covered tstzmultirange,
    p_limit   integer DEFAULT NULL
) RETURNS TABLE (range_start timestamptz, range_end timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_wanted tstzrange := tstzrange(p_from, p_to);
    v_count  integer := 0;
    v_gap    tstzrange;
    v_cell   timestamptz;
    v_next   timestamptz;
BEGIN
    IF v_wanted <@ p_covered THEN
        RETURN;
    END IF;
    FOR v_gap IN
        SELECT gap FROM unnest(tstzmultirange(tstzrange(lakets.time_bucket(p_table.chunk_interval, p_from),
                                                        lakets._shift(p_to, p_table.chunk_interval))) - p_covered) AS gap
    LOOP
        v_next := lakets.time_bucket(p_table.chunk_interval, lower(v_gap));
        WHILE v_next < least(upper(v_gap), p_to) AND (v_count < p_limit) IS NOT FALSE LOOP
            v_cell := v_next;
            v_next := lakets._shift(v_cell, p_table.chunk_interval);
            range_start := greatest(v_cell, lower(v_gap));
            range_end := least(v_next, upper(v_gap));
            IF tstzrange(range_start, range_end) && v_wanted
               AND v_cell >= '0002-01-01 00:00:00+00' AND v_next <= '9999-01-01 00:00:00+00' THEN
                v_count := v_count + 1;
                RETURN NEXT;
            END IF;
        END LOOP;
    END LOOP;
END;
$$;

-- The chunks that rows in the default partition wait for. Looks at no more than p_limit cells of
-- the grid.
CREATE OR REPLACE FUNCTION lakets._cells_of_rows(
    p_table    lakets._chronotable_registry,
    p_relation regclass,
    p_limit    integer DEFAULT NULL
) RETURNS TABLE (range_start timestamptz, range_end timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
    SET row_security = off
AS $$
DECLARE
    v_covered tstzmultirange;
    v_time    text := lakets._as_instant(format('r.%I', p_table.time_column), lakets._column_type(p_relation, p_table.time_column));
    v_has_row boolean;
BEGIN
    EXECUTE format('SELECT EXISTS (SELECT FROM %s)', p_relation) INTO v_has_row;
    IF NOT v_has_row THEN
        RETURN;  -- most default partitions are empty, and a table can have thousands of chunks
    END IF;
    v_covered := lakets._covered(p_table);
    RETURN QUERY EXECUTE format(
        'SELECT chunk.range_start, chunk.range_end
           FROM (SELECT DISTINCT lakets.time_bucket($1, %1$s) AS start
                   FROM %2$s AS r
                  WHERE %1$s >= ''0002-01-01 00:00:00+00'' AND %1$s < ''9999-01-01 00:00:00+00'' AND NOT $2 @> %1$s
                  LIMIT $3) AS cell,
                lakets._missing_chunks($4, cell.start, lakets._shift(cell.start, $1), $2) AS chunk',
        v_time, p_relation) USING p_table.chunk_interval, v_covered, p_limit, p_table;
END;
$$;

-- The chunks that are due: the first p_limit in the requested range, and those that rows wait for
-- in the default partition.
CREATE OR REPLACE FUNCTION lakets._due_chunks(
    p_table   lakets._chronotable_registry,
    p_default regclass,
    p_from    timestamptz,
    p_to      timestamptz,
    p_limit   integer
) RETURNS TABLE (range_start timestamptz, range_end timestamptz)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
        SELECT chunk.*
          FROM lakets._missing_chunks(p_table, p_from, p_to, lakets._covered(
                   p_table, lakets.time_bucket(p_table.chunk_interval, p_from), lakets._shift(p_to, p_table.chunk_interval)), p_limit) AS chunk;
    IF p_default IS NOT NULL THEN
        RETURN QUERY SELECT chunk.* FROM lakets._cells_of_rows(p_table, p_default, 100) AS chunk;
    END IF;
END;
$$;
