-- The SQL text of the tracking triggers (see 45_tracking.sql): statements that apply a change of a
-- table to its shadow and append it to the change log. They say ONLY, since somebody may have
-- created a table that inherits from the shadow.

-- SQL text that records a gap if `p_query` (the text after SELECT ... FROM) returns a row. One gap
-- is enough, but an old snapshot may show one that has been repaired since.
CREATE OR REPLACE FUNCTION lakets._note_gap(
    p_shadow regclass,
    p_query  text
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('INSERT INTO lakets._mirror_gap (shadow) SELECT %1$L::regclass FROM %2$s '
                  'AND (current_setting(''transaction_isolation'') NOT IN (''read committed'', ''read uncommitted'') '
                  'OR NOT EXISTS (SELECT FROM lakets._mirror_gap AS gap WHERE gap.shadow = %1$L::regclass)) LIMIT 1',
                  p_shadow, p_query);
$$;

-- SQL text of CTEs that delete old_rows from the shadow: hit (the rows that were found; tids reads
-- their places) and gone. A row is found by index, must be equal in every bit, and no more are
-- taken than there were: the shadow may also hold evicted rows that look the same, and without a
-- key another session may be deleting a row just like it.
CREATE OR REPLACE FUNCTION lakets._mirror_delete(
    p_relation    regclass,
    p_shadow      regclass,
    p_time_column text,
    OUT hit       text,
    OUT tids      text,
    OUT ctes      text,
    OUT missed    text
)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_columns name[] := lakets._columns(p_relation);
    v_key     text   := (SELECT string_agg(format('c.%1$I %2$s old_row.%1$I', key.key_column, key.equals), ' AND ')
                           FROM lakets._key_columns(p_relation) AS key);
    v_shadow  record := lakets._find_by(p_relation, 'c', p_time_column);
    v_old     record := lakets._find_by(p_relation, 'o', p_time_column);
BEGIN
    IF v_key IS NOT NULL THEN
        hit := format(
            $sql$hit AS MATERIALIZED (
        SELECT (SELECT c.ctid FROM ONLY %1$s AS c
                 WHERE %2$s AND %3$s::record OPERATOR(pg_catalog.*=) %4$s::record LIMIT 1) AS tid
          FROM old_rows AS old_row
    )$sql$,
            p_shadow, v_key, lakets._row_image('c', v_columns), lakets._row_image('old_row', v_columns));
        tids := 'SELECT hit.tid FROM hit';
        missed := lakets._note_gap(p_shadow, 'hit WHERE hit.tid IS NULL');
    ELSE
        hit := format(
            $sql$hit AS MATERIALIZED (
        SELECT old_row.copies,
               ARRAY(SELECT c.ctid FROM ONLY %1$s AS c
                      WHERE %2$s = old_row.at AND %3$s = old_row.hash AND %4$s::text = old_row.image
                      LIMIT old_row.copies FOR UPDATE SKIP LOCKED) AS tids
          FROM (SELECT %5$s AS at, %6$s AS hash, %7$s::text AS image, count(*) AS copies
                  FROM old_rows AS o GROUP BY 1, 2, 3) AS old_row
    )$sql$,
            p_shadow, v_shadow.at, v_shadow.hash, lakets._row_image('c', v_columns),
            v_old.at, v_old.hash, lakets._row_image('o', v_columns));
        tids := 'SELECT unnest(hit.tids) AS tid FROM hit';
        missed := lakets._note_gap(p_shadow, 'hit WHERE cardinality(hit.tids) < hit.copies');
    END IF;
    -- Visiting a list of tuple ids takes a third of the time of a join, but the list is held in
    -- memory.
    ctes := format(
        $sql$%1$s, gone AS (
        DELETE FROM ONLY %2$s AS s WHERE s.ctid = ANY (ARRAY(%3$s LIMIT 1000000))
    ), gone_too AS (
        DELETE FROM ONLY %2$s AS s USING (%3$s OFFSET 1000000) AS found WHERE s.ctid = found.tid
    )$sql$, hit, p_shadow, tids);
END;
$$;

-- SQL text that applies an UPDATE of a table with a key to the shadow. A row whose key changes is
-- deleted and inserted. FULL JOIN can only be hashed or merged: a plan kept from a small statement
-- cannot become a quadratic nested loop in a large one. The old and new rows are named as a whole,
-- so no column may have the name of their alias, and their columns are listed: in a whole row of a
-- transition table Postgres confuses the columns after a dropped one.
CREATE OR REPLACE FUNCTION lakets._mirror_update(
    p_relation regclass,
    p_shadow   regclass
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_columns name[] := lakets._columns(p_relation);
    v_list    text   := (SELECT string_agg(quote_ident(col), ', ') FROM unnest(v_columns) AS col);
    v_old     text   := lakets._unlike('lakets_old', v_columns);
    v_new     text   := lakets._unlike('lakets_new', v_columns);
    v_join    text;
    v_find    text;
BEGIN
    SELECT string_agg(format('%3$s.%1$I %2$s %4$s.%1$I', key.key_column, key.equals, v_new, v_old), ' AND '),
           string_agg(format('c.%1$I %2$s %3$s.%1$I', key.key_column, key.equals, v_old), ' AND ')
      INTO v_join, v_find
      FROM lakets._key_columns(p_relation) AS key;
    RETURN format(
        $sql$WITH pair AS MATERIALIZED (
        SELECT %10$s AS new_row, %9$s IS DISTINCT FROM NULL AS had, %10$s IS DISTINCT FROM NULL AS has,
               CASE WHEN %9$s IS DISTINCT FROM NULL THEN (
                   SELECT c.ctid FROM ONLY %1$s AS c
                    WHERE %2$s AND %3$s::record OPERATOR(pg_catalog.*=) %4$s::record LIMIT 1) END AS tid
          FROM (SELECT %6$s FROM old_rows) AS %9$s FULL JOIN (SELECT %6$s FROM new_rows) AS %10$s ON %5$s
    ), changed AS (
        UPDATE ONLY %1$s AS s SET (%6$s) = ROW(%7$s) FROM pair WHERE pair.has AND s.ctid = pair.tid
    ), gone AS (
        DELETE FROM ONLY %1$s AS s USING pair WHERE NOT pair.has AND s.ctid = pair.tid
    ), missed AS (
        %8$s
    )
    INSERT INTO %1$s (%6$s) SELECT %7$s FROM pair WHERE pair.has AND pair.tid IS NULL;$sql$,
        p_shadow, v_find, lakets._row_image('c', v_columns), lakets._row_image(v_old, v_columns), v_join, v_list,
        (SELECT string_agg(format('(pair.new_row).%I', col), ', ') FROM unnest(v_columns) AS col),
        lakets._note_gap(p_shadow, 'pair WHERE pair.had AND pair.tid IS NULL'), v_old, v_new);
END;
$$;

-- SQL text of whether a chunk (an alias of _chunk_metadata) is no partition of its table: it was
-- dropped, or detached or dropped by hand, which no job may have noticed yet.
CREATE OR REPLACE FUNCTION lakets._is_gone() RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT '(chunk.status = ''dropped'' OR chunk.relation IS NOT NULL AND NOT EXISTS '
           '(SELECT FROM pg_inherits AS inh WHERE inh.inhrelid = chunk.relation AND inh.inhseqno = 1))';
$$;

-- SQL text of the condition that a time is in a dropped chunk of a ChronoTable. There the shadow
-- keeps rows that the table no longer has.
CREATE OR REPLACE FUNCTION lakets._is_evicted(
    p_chronotable_id integer,
    p_time           text
) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT format('coalesce((SELECT range_agg(tstzrange(chunk.range_start, chunk.range_end)) FROM lakets._chunk_metadata AS chunk '
                  'WHERE chunk.chronotable_id = %s AND %s) @> %s, false)', p_chronotable_id, lakets._is_gone(), p_time);
$$;

-- SQL text that empties the shadow before a TRUNCATE, except for the rows of dropped chunks. Rows
-- that came late for such a chunk are still in the table, and are deleted one by one. The table is
-- found by TG_RELID: it may have been renamed, and another table may have its name.
CREATE OR REPLACE FUNCTION lakets._mirror_truncate(
    p_relation       regclass,
    p_shadow         regclass,
    p_time_column    text,
    p_chronotable_id integer
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_type   regtype := lakets._column_type(p_relation, p_time_column);
    v_delete record  := lakets._mirror_delete(p_relation, p_shadow, p_time_column);
BEGIN
    IF p_chronotable_id IS NULL THEN
        RETURN format('DELETE FROM ONLY %s;', p_shadow);
    END IF;
    RETURN format(
        $sql$IF EXISTS (SELECT FROM lakets._chunk_metadata AS chunk WHERE chunk.chronotable_id = %s AND %s) THEN
        EXECUTE 'WITH old_rows AS MATERIALIZED (SELECT r.* FROM ' || TG_RELID::regclass || %L;
    END IF;
    DELETE FROM ONLY %s AS s WHERE NOT %s;$sql$,
        p_chronotable_id, lakets._is_gone(),
        format(' AS r WHERE %s), %s %s', lakets._is_evicted(p_chronotable_id, lakets._as_instant(format('r.%I', p_time_column), v_type)),
               v_delete.ctes, v_delete.missed),
        p_shadow, lakets._is_evicted(p_chronotable_id, lakets._as_instant(format('s.%I', p_time_column), v_type)));
END;
$$;

-- SQL text that appends to the change log: one row per hour of data touched, with its exact extent.
-- A log row without a time range means that everything may have been touched. After an INSERT of a
-- single row (v_mirrored is 1), as most clients send it, the time is logged without grouping, which
-- costs as much as the rest.
CREATE OR REPLACE FUNCTION lakets._log_statement(
    p_chronotable_id integer,
    p_relation       regclass,
    p_time_column    text,
    p_rows           text[]
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN p_chronotable_id IS NULL THEN ''
        WHEN p_time_column IS NULL THEN format(
            'INSERT INTO lakets._change_log (chronotable_id, min_time, max_time) VALUES (%s, ''-infinity'', ''infinity'');',
            p_chronotable_id)
        ELSE format(
            CASE WHEN p_rows = '{new_rows}' THEN $sql$IF v_mirrored = 1 THEN
    INSERT INTO lakets._change_log (chronotable_id, min_time, max_time) SELECT %1$s, hit.at, hit.at FROM (%2$s) AS hit;
    ELSE
    $sql$ ELSE '' END ||
            $sql$INSERT INTO lakets._change_log (chronotable_id, min_time, max_time)
    SELECT %1$s, min(hit.at), max(hit.at) FROM (%2$s) AS hit
     GROUP BY date_bin('1 hour', hit.at, '2000-01-01 00:00:00+00'::timestamptz);$sql$ ||
            CASE WHEN p_rows = '{new_rows}' THEN $sql$
    END IF;$sql$ ELSE '' END,
            p_chronotable_id,
            (SELECT string_agg(format('SELECT %s AS at FROM %I AS r', lakets._as_instant(
                        format('r.%I', p_time_column), lakets._column_type(p_relation, p_time_column)), rows), ' UNION ALL ')
               FROM unnest(p_rows) AS rows)) END;
$$;
