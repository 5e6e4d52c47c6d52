-- Databricks SQL that reads the whole history of a ChronoTable in Unity Catalog: the rows that
-- Lakebase has, and those whose chunks were dropped.

-- A name in Databricks SQL.
CREATE OR REPLACE FUNCTION lakets._databricks_name(
    VARIADIC p_parts text[]
) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg('`' || replace(part, '`', '``') || '`', '.' ORDER BY ord)
      FROM unnest(p_parts) WITH ORDINALITY AS u (part, ord) WHERE part IS NOT NULL;
$$;

-- A string in Databricks SQL, where a backslash escapes.
CREATE OR REPLACE FUNCTION lakets._databricks_string(
    p_text text
) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT '''' || replace(replace(p_text, '\', '\\'), '''', '\''') || '''';
$$;

-- Return in Databricks SQL how an entry of the history changes the number of copies of its row.
-- Rows that trimming removed count as kept. Before p_since only these count: all others were read
-- again.
CREATE OR REPLACE FUNCTION lakets._databricks_weight(
    p_has_trims boolean,
    p_since     timestamptz
) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT concat('CASE',
                  CASE WHEN p_has_trims THEN ' WHEN trimmed.`xid` IS NOT NULL THEN ' || coalesce('CAST(' || early || ' AS INT)', '0') END,
                  ' WHEN ' || early || ' THEN 0',
                  ' WHEN entry.`_pg_change_type` IN (''delete'', ''update_preimage'') THEN -1 ELSE 1 END')
      FROM (VALUES ('entry.`_timestamp` < TIMESTAMP ''' || to_char(p_since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00:00''')) AS v (early);
$$;

-- A statement that creates this view in Databricks. It counts rows, because a table need not have a
-- key: the number of inserts of a row minus the number of its deletes, without those of trims
-- (75_trim.sql). A trim is identified by its transaction id and its time, because the feed may show
-- only 32 bits of the id, and these repeat after 4 billion transactions.
--
-- p_catalog and p_uc_schema: where the feed writes, by default the current ones. p_view_name: by
-- default the table's name and _history. p_since: if the feed started the shadow again (it was
-- skipped, or sync was disabled and enabled), its history has all earlier rows twice. Pass the time
-- of that start to leave the first copy out.
--
-- Call it again when the table's columns change, when sync is enabled again, and when a policy has
-- p_trim_shadow for the first time in a database: before that there is no log to read.
CREATE OR REPLACE FUNCTION lakets.history_view_sql(
    p_table_name  text,
    p_schema_name text        DEFAULT 'public',
    p_catalog     text        DEFAULT NULL,
    p_uc_schema   text        DEFAULT NULL,
    p_view_name   text        DEFAULT NULL,
    p_since       timestamptz DEFAULT NULL
) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table   lakets._chronotable_registry := lakets._chronotable(p_table_name, p_schema_name);
    v_shadow  regclass := lakets._shadow_relation(v_table.shadow_table_name);
    v_name    text     := (SELECT cls.relname FROM pg_class AS cls WHERE cls.oid = v_shadow);
    v_trims   boolean  := EXISTS (SELECT FROM lakets_cdf._trim_log);
    v_columns text;
    v_entries text;
BEGIN
    IF v_name IS NULL THEN
        RAISE EXCEPTION '%.% is not synced to Unity Catalog.', p_schema_name, p_table_name
            USING HINT = 'Call lakets.enable_sync first; a history begins there.';
    ELSIF p_catalog IS NOT NULL AND p_uc_schema IS NULL THEN
        RAISE EXCEPTION 'A catalog is given, %, but no schema in it.', p_catalog
            USING HINT = 'Give p_uc_schema too: the schema that the feed writes to.';
    ELSIF '' IN (p_catalog, p_uc_schema, p_view_name) THEN
        RAISE EXCEPTION 'p_catalog, p_uc_schema and p_view_name must not be empty.'
            USING HINT = 'Leave out what shall have its default.';
    END IF;
    SELECT string_agg(lakets._databricks_name(col), ', ' ORDER BY ord), string_agg('entry.' || lakets._databricks_name(col), ', ' ORDER BY ord)
      INTO v_columns, v_entries
      FROM unnest(lakets._columns(v_shadow)) WITH ORDINALITY AS u (col, ord);
    RETURN format(
        $sql$CREATE OR REPLACE VIEW %1$s AS
SELECT %2$s
  FROM (
    SELECT %3$s,
           CAST(sum(%4$s) AS INT) AS `_lakets_copies`
      FROM %5$s AS entry%6$s
     GROUP BY %3$s
    HAVING `_lakets_copies` > 0
  ) AS counted
LATERAL VIEW explode(sequence(1, counted.`_lakets_copies`)) copies AS `_lakets_copy`
$sql$,
        lakets._databricks_name(p_catalog, p_uc_schema, coalesce(p_view_name, p_table_name || '_history')),
        v_columns, v_entries, lakets._databricks_weight(v_trims, p_since),
        lakets._databricks_name(p_catalog, p_uc_schema, format('lb_%s_history', v_name)),
        CASE WHEN v_trims THEN format(
            $sql$
      LEFT JOIN (
        SELECT `xid`, min(`trimmed_at`) AS `trimmed_at` FROM %s WHERE `shadow` = %s GROUP BY `xid`
      ) AS trimmed
        ON entry.`_pg_change_type` = 'delete'
       AND pmod(CAST(entry.`_pg_xid` AS BIGINT), 4294967296) = pmod(trimmed.`xid`, 4294967296)
       AND entry.`_timestamp` >= trimmed.`trimmed_at` - INTERVAL '1' DAY
       AND entry.`_timestamp` < trimmed.`trimmed_at` + INTERVAL '30' DAY$sql$,
            lakets._databricks_name(p_catalog, p_uc_schema, 'lb__trim_log_history'), lakets._databricks_string(v_name)) END);
END;
$$;
