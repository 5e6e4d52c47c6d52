-- What a registry row stands for, beside its name: a name can come to mean another table, and a number another
-- transaction, after a restore into another database.
ALTER TABLE lakets._chronotable_registry
    ADD COLUMN relation    oid,       -- the table, whatever it is called
    ADD COLUMN time_attnum smallint,  -- its time column, whatever that is called
    ADD COLUMN owner       oid,       -- as whom its triggers run
    ADD COLUMN cluster     text;      -- the database in which these three hold (lakets._here)
ALTER TABLE lakets._chunk_metadata
    ADD COLUMN relation oid;          -- the partition, in the same database
CREATE INDEX _chunk_metadata_by_relation ON lakets._chunk_metadata (chronotable_id, relation)
    WHERE status <> 'dropped' AND relation IS NOT NULL;
ALTER TABLE lakets._rollup_registry
    ADD COLUMN relation oid,          -- the RollUp's table
    ADD COLUMN cluster  text;         -- the database in which that holds; its cluster's transactions are those of absorbed
ALTER TABLE lakets._feed_proof
    ADD COLUMN cluster  text,         -- whose transactions and positions this row is about (lakets._lineage)
    ADD COLUMN baseline pg_lsn;       -- what the feed showed then: worth nothing until it shows something else

-- Published with everything else, these must bear being deleted from.
ALTER TABLE lakets._change_log REPLICA IDENTITY FULL;
ALTER TABLE lakets._mirror_gap REPLICA IDENTITY FULL;
ALTER TABLE lakets._version REPLICA IDENTITY FULL;

-- Its signature changes.
DROP FUNCTION IF EXISTS lakets._guarded(regclass, regclass, text, text, text, text);
