-- What this engine adds to the registries of 0.1.x.

-- One row per statement and hour of data that it touched, appended by the writer's own transaction;
-- nothing here is ever updated, so writers never wait for each other. A null range touches no chunk and
-- no bucket: rows without a time, and fences (60_durability.sql).
CREATE TABLE lakets._change_log (
    chronotable_id integer     NOT NULL,  -- no foreign key: checking it would lock the registry row
    min_time       timestamptz,
    max_time       timestamptz,
    xid            xid8        NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    lsn            pg_lsn      NOT NULL DEFAULT pg_catalog.pg_current_wal_insert_lsn(),
    snapshot       pg_snapshot NOT NULL DEFAULT pg_catalog.pg_current_snapshot()
);
CREATE INDEX _change_log_by_xid ON lakets._change_log (chronotable_id, xid);

-- How far the change feed is known to have come, per ChronoTable (60_durability.sql).
CREATE TABLE lakets._feed_proof (
    chronotable_id integer PRIMARY KEY REFERENCES lakets._chronotable_registry (id) ON DELETE CASCADE,
    proven         pg_snapshot,  -- every transaction visible in it is flushed to Unity Catalog
    observed       pg_snapshot,  -- every transaction visible in it is flushed once the feed passes observed_lsn
    observed_lsn   pg_lsn,
    fenced         boolean NOT NULL DEFAULT false  -- a change was made after observed_lsn, so it will be passed
);

-- Shadows known to have missed a change: nothing is taken for durable until enable_sync has brought them in line.
-- Also appended to by writers. What 0.1.x mirrored, and whether it missed anything, is not known.
CREATE TABLE lakets._mirror_gap (
    shadow   regclass    NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
INSERT INTO lakets._mirror_gap (shadow)
SELECT pg_catalog.to_regclass('lakets_cdf.' || pg_catalog.quote_ident(pg_catalog.regexp_replace(old.shadow, '^lakets_cdf\.', '')))
  FROM (SELECT tab.shadow_table_name FROM lakets._chronotable_registry AS tab WHERE tab.sync_enabled
        UNION
        SELECT up.shadow_table_name FROM lakets._rollup_registry AS up WHERE up.sync_enabled) AS old (shadow)
 WHERE pg_catalog.to_regclass('lakets_cdf.' || pg_catalog.quote_ident(pg_catalog.regexp_replace(old.shadow, '^lakets_cdf\.', ''))) IS NOT NULL;

ALTER TABLE lakets._chunk_metadata
    ADD COLUMN relation_name text;  -- the partition's own name, where it is not the tail of chunk_name
CREATE INDEX _chunk_metadata_by_end ON lakets._chunk_metadata (chronotable_id, range_end);

ALTER TABLE lakets._rollup_registry
    ADD COLUMN track_changes boolean NOT NULL DEFAULT true,
    ADD COLUMN absorbed      pg_snapshot,  -- every change visible in it is in the RollUp
    ADD COLUMN window_query  text,         -- query_text limited to source times in [$1, $2)
    ADD COLUMN bucket_origin timestamptz,  -- a bucket's start that all others are counted from
    ADD COLUMN on_grid       boolean NOT NULL DEFAULT true;  -- false: buckets of uneven length, such as local days
CREATE INDEX _rollup_invalidation_log_by_bucket ON lakets._rollup_invalidation_log (rollup_id, bucket_start);

-- A writer's trigger runs with the writer's own rights.
GRANT USAGE ON SCHEMA lakets, lakets_cdf TO PUBLIC;
GRANT INSERT ON lakets._change_log TO PUBLIC;
GRANT SELECT, INSERT ON lakets._mirror_gap TO PUBLIC;
GRANT SELECT ON lakets._chunk_metadata TO PUBLIC;  -- TRUNCATE asks which ranges are dropped
