-- The state of the change feed as Lakebase shows it, and the tables of the local feed itself
-- (wal2delta_local). Safe to run again; a right that was revoked since is not granted again.

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
--   starts_at   position of the first rows in the feed: they contain all changes streamed before
--   reading     number of this reading of them, which is also in the Delta commit that holds them
--   first_rows  the snapshot that read them: changes that it sees are not streamed again
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

-- Postgres refuses to update a published table that has no key and whose replica identity is not FULL;
-- with a real feed such updates succeed. So a table leaves the publication in the same transaction that
-- changes its identity, and its writers are not affected. SECURITY DEFINER: any owner may alter a table.
CREATE OR REPLACE FUNCTION wal2delta_local.unpublish_unless_full() RETURNS event_trigger
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_table regclass;
BEGIN
    FOR v_table IN
        SELECT DISTINCT cls.oid::regclass
          FROM pg_event_trigger_ddl_commands() AS cmd
          JOIN pg_class AS cls ON cls.oid = cmd.objid AND cmd.classid = 'pg_class'::regclass
          JOIN pg_publication_rel AS rel ON rel.prrelid = cls.oid
          JOIN pg_publication AS pub ON pub.oid = rel.prpubid AND pub.pubname = 'wal2delta'
         WHERE cls.relreplident <> 'f'
    LOOP
        EXECUTE format('ALTER PUBLICATION wal2delta DROP TABLE ONLY %s', v_table);
    END LOOP;
END;
$$;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger AS trg WHERE trg.evtname = 'wal2delta_unpublish') THEN
        CREATE EVENT TRIGGER wal2delta_unpublish ON ddl_command_end WHEN TAG IN ('ALTER TABLE')
            EXECUTE FUNCTION wal2delta_local.unpublish_unless_full();
    END IF;
END
$$;
