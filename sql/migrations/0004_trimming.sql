-- Evicted rows may be removed from a shadow, without the history in Unity Catalog losing them (75_trim.sql).

-- The transactions that did so: streamed like a shadow, and read by the view of 76_history_view.sql. A row without a
-- shadow is there for the feed, which takes no empty table up.
CREATE TABLE lakets_cdf._trim_log (
    shadow      text        NOT NULL,
    xid         bigint      NOT NULL,  -- all 64 bits; the feed may tell the lower 32 only
    trimmed_at  timestamptz NOT NULL DEFAULT pg_catalog.now(),
    row_count   bigint      NOT NULL,
    range_start timestamptz,
    range_end   timestamptz
);
ALTER TABLE lakets_cdf._trim_log REPLICA IDENTITY FULL;
CREATE INDEX _trim_log_by_xid ON lakets_cdf._trim_log (xid);

ALTER TABLE lakets._chunk_metadata
    ADD COLUMN trimmed_at timestamptz;  -- since then the shadow has none of the rows that were dropped with the chunk
CREATE INDEX _chunk_metadata_untrimmed ON lakets._chunk_metadata (chronotable_id, range_start)
    WHERE status = 'dropped' AND trimmed_at IS NULL;

-- Their signatures change.
DROP FUNCTION IF EXISTS lakets.add_retention_policy(text, interval, text);
DROP FUNCTION IF EXISTS lakets.add_tiered_retention_policy(text, interval, interval, text);
DROP FUNCTION IF EXISTS lakets._mirror_delete(regclass, regclass, text);
