-- What a role without rights tries, one after a title each; {id} is the ChronoTable's.

-- forge a position
INSERT INTO lakets._change_log (chronotable_id, lsn) VALUES ({id}, '0/1')

-- forge a change
INSERT INTO lakets._change_log (chronotable_id, min_time, max_time) VALUES ({id}, '-infinity', 'infinity')

-- forge a transaction
INSERT INTO lakets._change_log (chronotable_id, xid, snapshot) VALUES ({id}, '3', '1:1:')

-- forge a proof
UPDATE lakets._feed_proof SET proven = '9999:9999:'

-- begin a proof
INSERT INTO lakets._feed_proof (chronotable_id, proven) VALUES ({id}, '9999:9999:')

-- forge a gap
INSERT INTO lakets._mirror_gap (shadow) VALUES ('lakets_cdf._shadow_m')

-- mend a gap
DELETE FROM lakets._mirror_gap

-- forge a chunk
INSERT INTO lakets._chunk_metadata (chronotable_id, chunk_name, range_start, range_end) VALUES ({id}, 'x', '2000-01-01', '2000-01-02')

-- flag a chunk
UPDATE lakets._chunk_metadata SET status = 'tiered'

-- call it dropped
UPDATE lakets._chunk_metadata SET status = 'dropped'

-- forge a table
INSERT INTO lakets._chronotable_registry (table_name, time_column) VALUES ('pg_class', 'x')

-- point at another table
UPDATE lakets._chronotable_registry SET table_name = 'other'

-- forge a policy
UPDATE lakets._policy_registry SET config = '{"drop_after": "1 second"}'

-- forge a RollUp
UPDATE lakets._rollup_registry SET query_text = 'DELETE FROM m', window_query = 'DELETE FROM m'

-- forge what is absorbed
UPDATE lakets._rollup_registry SET absorbed = '9999:9999:'

-- mark a bucket
INSERT INTO lakets._rollup_invalidation_log (rollup_id, bucket_start) VALUES (1, '-infinity')

-- unmark buckets
DELETE FROM lakets._rollup_invalidation_log

-- forge a version
INSERT INTO lakets._version (version) VALUES ('9.9.9')

-- forge a migration
DELETE FROM lakets.migration

-- forge a trim
INSERT INTO lakets_cdf._trim_log (shadow, xid, row_count) VALUES ('_shadow_m', 1, 1)

-- forge a mirrored row
INSERT INTO lakets_cdf._shadow_m VALUES (9, '2024-01-01', 9, 'forged')

-- change a mirrored row
UPDATE lakets_cdf._shadow_m SET v = 9

-- delete mirrored rows
DELETE FROM lakets_cdf._shadow_m

-- empty the shadow
TRUNCATE lakets_cdf._shadow_m

-- take over a trigger function
CREATE TEMP TABLE mine (id int, ts timestamptz, v int, secret text); CREATE TRIGGER t AFTER INSERT ON mine REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION lakets._track_{id}_insert(); INSERT INTO mine VALUES (9, '2024-01-01', 9, 'forged')

-- replace a trigger function
CREATE OR REPLACE FUNCTION lakets._track_{id}_insert() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'

-- disable a trigger
ALTER TABLE m DISABLE TRIGGER lakets_track_update

-- drop a trigger
DROP TRIGGER lakets_track_update ON m

-- read the shadow
DO $$ BEGIN PERFORM FROM lakets_cdf._shadow_m; RAISE 'read'; END $$

-- copy the shadow
COPY lakets_cdf._shadow_m TO STDOUT

-- read a chunk
DO $$ BEGIN PERFORM secret FROM m_20240101_000000; RAISE 'read'; END $$

-- read the RollUp
DO $$ BEGIN PERFORM FROM _rollup_daily; RAISE 'read'; END $$

-- read another column
DO $$ BEGIN PERFORM secret FROM m; RAISE 'read'; END $$

-- read the registry
DO $$ BEGIN PERFORM FROM lakets._chronotable_registry; RAISE 'read'; END $$

-- write another column
UPDATE m SET secret = 'forged'

-- write a chunk
UPDATE m_20240101_000000 SET v = 9

-- drop the table
DROP TABLE m

-- drop a chunk
DROP TABLE m_20240101_000000

-- detach a chunk
ALTER TABLE m DETACH PARTITION m_20240101_000000

-- attach a partition
CREATE TABLE forged PARTITION OF m FOR VALUES FROM ('1999-01-01') TO ('1999-01-02')

-- truncate the table
TRUNCATE m

-- truncate a chunk
SELECT set_config('lakets.truncating', 'm'::regclass::oid::text, true); TRUNCATE m_20240101_000000

-- drop chunks
SELECT lakets.drop_chunks('m', '1 day')

-- drop the ChronoTable
SELECT lakets.drop_chronotable('m')

-- force retention
SELECT lakets.execute_retention('m', p_force => true)

-- drop the RollUp
SELECT lakets.drop_rollup('daily')

-- end the sync
SELECT lakets.disable_sync('m')

-- flag by function
SELECT lakets.tier_chunk('public.m_20240101_000000')

-- make a function of the same name
CREATE FUNCTION lakets._relation(text, name) RETURNS regclass LANGUAGE sql AS 'SELECT 1::regclass'

-- hide a table
CREATE TABLE lakets_cdf.mine (v int)

-- stall a job
LOCK TABLE lakets._chunk_metadata

-- stall writers
LOCK TABLE m IN ACCESS EXCLUSIVE MODE

-- stall the feed
LOCK TABLE lakets_cdf._shadow_m

-- lock a registry row
SELECT FROM lakets._chronotable_registry FOR UPDATE

-- write under another role
SET LOCAL ROLE keeper

-- lie about names
CREATE TEMP TABLE new_rows (id int, ts timestamptz, v int, secret text); CREATE TEMP TABLE _change_log (v int)

-- drop chunks for good
SELECT lakets.drop_chronotable_chunks('m')

-- forget the ChronoTable
SELECT lakets.forget_chronotable('m')

-- take a name
SELECT lakets.adopt_chronotable('m')

-- trim the shadow
SELECT lakets.trim_shadow('m')

-- mark everything
SELECT lakets.invalidate_rollup_range('daily', '1900-01-01', '2100-01-01')

-- fill the RollUp
SELECT lakets._fill_daily('-infinity', 'infinity', '-infinity', 'infinity', '-infinity', 'infinity')

-- read by way of a function
DO $$ BEGIN PERFORM lakets.show_chunks('m'); RAISE 'read'; END $$

-- read by way of an alert
DO $$ BEGIN PERFORM lakets.alert_check('a', 'SELECT secret FROM m'); RAISE 'read'; END $$
