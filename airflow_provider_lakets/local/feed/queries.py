"""What the feed asks of the catalog, and keeps in it."""

from __future__ import annotations

SCHEMA = "lakets_cdf"
PUBLICATION = "wal2delta"

WATCHED = f"""
SELECT c.oid::bigint, c.relname, c.relreplident = 'f',
       EXISTS (SELECT FROM pg_publication_rel AS r JOIN pg_publication AS p ON p.oid = r.prpubid
                WHERE p.pubname = '{PUBLICATION}' AND r.prrelid = c.oid),
       md5(string_agg(a.attname || ':' || a.atttypid || ':' || a.atttypmod, ',' ORDER BY a.attnum))
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE n.nspname = '{SCHEMA}' AND c.relkind = 'r' AND c.relpersistence = 'p' AND NOT c.relispartition
 GROUP BY c.oid
 ORDER BY c.oid
"""  # noqa: S608 - constants only

# Who may have written rows that are not yet committed. Prepared transactions count; they are "-1/...".
WRITERS = """
SELECT DISTINCT l.virtualtransaction FROM pg_locks AS l
 WHERE l.locktype = 'relation' AND l.granted AND l.relation = %s
   AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
   AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
"""

COLUMNS = """
SELECT a.attname, a.atttypid::bigint, a.atttypmod FROM pg_attribute AS a
 WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
 ORDER BY a.attnum
"""

DOMAIN_BASE = """
WITH RECURSIVE chain (oid, typmod, depth) AS (
    SELECT %(oid)s::oid, %(typmod)s::integer, 0
    UNION ALL
    SELECT t.typbasetype, CASE WHEN c.typmod < 0 THEN t.typtypmod ELSE c.typmod END, c.depth + 1
      FROM chain AS c JOIN pg_type AS t ON t.oid = c.oid AND t.typtype = 'd'
)
SELECT chain.oid::bigint, chain.typmod FROM chain ORDER BY chain.depth DESC LIMIT 1
"""

SET_STATUS = """
INSERT INTO wal2delta.tables AS t (table_oid, status, committed_lsn, last_write_time)
VALUES (%(oid)s, %(status)s, '0/0'::pg_lsn + %(committed_lsn)s::numeric,
        CASE WHEN %(wrote)s THEN clock_timestamp() END)
ON CONFLICT (table_oid) DO UPDATE SET
    status = excluded.status,
    committed_lsn = greatest(t.committed_lsn, excluded.committed_lsn),
    last_write_time = coalesce(excluded.last_write_time, t.last_write_time)
"""

SYNCED = """
SELECT s.table_oid::bigint, s.shadow, (s.starts_at - '0/0')::bigint, (s.reading - '0/0')::bigint,
       s.first_rows::text, s.is_empty, s.skipped_for, s.definition,
       t.status, (t.committed_lsn - '0/0')::bigint
  FROM wal2delta_local.sync AS s LEFT JOIN wal2delta.tables AS t USING (table_oid)
"""

SAVE_FIRST_ROWS = """
INSERT INTO wal2delta_local.sync (table_oid, shadow, starts_at, reading, first_rows, is_empty)
VALUES (%(oid)s, %(shadow)s, '0/0'::pg_lsn + %(starts_at)s::numeric, '0/0'::pg_lsn + %(reading)s::numeric,
        %(first_rows)s::pg_snapshot, %(is_empty)s)
ON CONFLICT (table_oid) DO UPDATE SET
    shadow = excluded.shadow, starts_at = excluded.starts_at, reading = excluded.reading,
    first_rows = excluded.first_rows, is_empty = excluded.is_empty, skipped_for = NULL, definition = NULL
"""

SAVE_SKIPPED = """
INSERT INTO wal2delta_local.sync (table_oid, shadow, skipped_for, definition)
VALUES (%(oid)s, %(shadow)s, %(reason)s, %(definition)s)
ON CONFLICT (table_oid) DO UPDATE SET
    shadow = excluded.shadow, starts_at = NULL, reading = NULL, first_rows = NULL, is_empty = false,
    skipped_for = excluded.skipped_for, definition = excluded.definition
"""
