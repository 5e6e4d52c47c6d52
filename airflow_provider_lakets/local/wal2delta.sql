-- What a Lakebase offers to read of its change feed, and (wal2delta_local) what the local feed keeps for
-- itself. Safe to run again; a right that was taken away since is not given back.

DO $$
BEGIN
    IF to_regnamespace('wal2delta') IS NULL THEN
        CREATE SCHEMA wal2delta;
        GRANT USAGE ON SCHEMA wal2delta TO PUBLIC;
    END IF;
    IF to_regclass('wal2delta.tables') IS NULL THEN
        CREATE TABLE wal2delta.tables (
            table_oid       oid PRIMARY KEY,
            status          text NOT NULL
                            CHECK (status IN ('PENDING', 'SNAPSHOTTING', 'STREAMING', 'SKIPPED')),
            committed_lsn   pg_lsn,
            last_write_time timestamptz
        ) WITH (fillfactor = 50);
        GRANT SELECT ON wal2delta.tables TO PUBLIC;
    END IF;
END
$$;

CREATE SCHEMA IF NOT EXISTS wal2delta_local;

-- One row for each table whose first rows have been read, or that is skipped.
--   starts_at   position in the feed of the first rows: whatever was streamed before is among them
--   reading     which reading of them this is: the Delta commit that holds them bears the same number
--   first_rows  who was visible to the first rows: their changes are not streamed again
CREATE TABLE IF NOT EXISTS wal2delta_local.sync (
    table_oid      oid PRIMARY KEY,
    shadow         text NOT NULL,
    starts_at      pg_lsn,
    reading        pg_lsn,
    first_rows     pg_snapshot,
    is_empty       boolean NOT NULL DEFAULT false,
    skipped_for    text,
    definition     text
);

CREATE TABLE IF NOT EXISTS wal2delta_local.control (
    is_paused boolean NOT NULL DEFAULT false
);
INSERT INTO wal2delta_local.control (is_paused)
SELECT false WHERE NOT EXISTS (SELECT FROM wal2delta_local.control);

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication AS pub WHERE pub.pubname = 'wal2delta') THEN
        CREATE PUBLICATION wal2delta WITH (publish = 'insert, update, delete, truncate');
    END IF;
END
$$;
