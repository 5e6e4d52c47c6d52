-- A project that has lived with LakeTS 0.1.3 for a while, on top of the stand-in (tests/lakets_01).
SET timezone = 'UTC';

-- Rows were there before the table was made a ChronoTable, and before it was synced: 0.1.3 mirrors none of these.
CREATE TABLE metrics (ts timestamptz NOT NULL, device text NOT NULL, value numeric(10, 2));
INSERT INTO metrics SELECT now() - n * interval '6 hours', 'd' || n % 3, n FROM generate_series(0, 80) AS n;
SELECT lakets.create_chronotable('metrics', 'ts', '1 day');
ALTER TABLE metrics ADD PRIMARY KEY (ts, device);
SELECT lakets.enable_sync('metrics');
SELECT lakets.add_tiered_retention_policy('metrics', '2 days', '15 days');
SELECT lakets.enable_lvc('metrics', '{device}', '{value}');
INSERT INTO metrics SELECT now() - n * interval '6 hours' + interval '1 minute', 'd4', n FROM generate_series(1, 9) AS n;

-- A table of local time and without a key. It is synced as well, and its chunks are tiered and never dropped.
CREATE SCHEMA plant;
CREATE TABLE plant.readings (at timestamp NOT NULL, value float8);
INSERT INTO plant.readings SELECT now() AT TIME ZONE 'UTC' - n * interval '1 day', n FROM generate_series(0, 40) AS n;
SELECT lakets.create_chronotable('readings', 'at', '7 days', 'plant');
SELECT lakets.enable_sync('readings', 'plant'), lakets.add_tiering_policy('readings', '10 days', 'plant');
INSERT INTO plant.readings VALUES (now() AT TIME ZONE 'UTC' - interval '3 days', 100);

-- One is not synced: its chunks are dropped, durable or not.
CREATE TABLE plant.scratch (at timestamptz NOT NULL, value float8);
INSERT INTO plant.scratch SELECT now() - n * interval '1 day', n FROM generate_series(0, 60) AS n;
SELECT lakets.create_chronotable('scratch', 'at', '7 days', 'plant'), lakets.add_retention_policy('scratch', '30 days', 'plant');

-- The daily RollUp reads the hourly one, and names the raw table as well, since 0.1.3 wants a source.
SELECT lakets.create_rollup('hourly', 'SELECT lakets.time_bucket(''1 hour'', ts) AS bucket, device, sum(value) AS total'
                            ' FROM metrics GROUP BY 1, 2', '1 hour', 'metrics');
SELECT lakets.create_rollup('daily', 'SELECT date_trunc(''day'', bucket, ''UTC'') AS bucket, sum(total) AS total'
                            ' FROM _rollup_hourly GROUP BY 1', '1 day', 'metrics', p_depends_on => '{hourly}');
SELECT lakets.enable_rollup_invalidation('hourly'), lakets.create_rollup_view('hourly',
    'SELECT lakets.time_bucket(''1 hour'', ts), device, sum(value) FROM metrics'
    ' WHERE ts >= lakets._rollup_watermark(''hourly'') + interval ''1 hour'' GROUP BY 1, 2');
SELECT lakets.enable_sync('hourly');

-- What others built on it.
CREATE VIEW by_hour AS
    SELECT lakets.time_bucket('1 hour', ts) AS hour, count(*), lakets.first(value::float8, ts), lakets.last(value::float8, ts)
      FROM metrics GROUP BY 1;
CREATE VIEW growth AS
    SELECT lakets.delta(value::float8, lag(value::float8) OVER w), lakets.rate(value::float8, lag(value::float8) OVER w, ts, lag(ts) OVER w),
           lakets.locf(NULL, value::float8), lakets.histogram(value::float8, 0, 100, 10)
      FROM metrics WINDOW w AS (ORDER BY ts);
CREATE VIEW chunks AS SELECT * FROM lakets.show_chunks('metrics');
CREATE VIEW rollups AS SELECT * FROM lakets.show_rollups();
CREATE VIEW tiering AS SELECT * FROM lakets.show_tiering_status();
CREATE VIEW gauges AS SELECT * FROM lakets.lakets_metrics();
CREATE VIEW hours AS SELECT lakets.time_bucket_gapfill('1 hour', now() - interval '1 day', now()) AS hour;
CREATE TABLE hourly_facts (
    ts timestamptz DEFAULT lakets.time_bucket('1 hour', now()), CHECK (lakets.time_bucket('1 minute', ts) <= ts),
    day timestamptz GENERATED ALWAYS AS (lakets.time_bucket('1 day', ts)) STORED
);
CREATE INDEX ON hourly_facts (lakets.time_bucket('1 day', ts));
CREATE FUNCTION refresh_all() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM lakets.refresh_rollup_cascade()';
CREATE FUNCTION refresh_hourly() RETURNS boolean LANGUAGE sql BEGIN ATOMIC SELECT lakets.refresh_rollup('hourly'); END;
CREATE FUNCTION chunks_of(p_table text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT count(*) FROM lakets.show_chunks(p_table_name => p_table));
EXCEPTION WHEN raise_exception THEN
    RETURN 0;
END $$;

-- Somebody keeps things of his own in the schema.
CREATE TABLE lakets.my_settings (name text);
CREATE FUNCTION lakets.my_function(p_value int) RETURNS int LANGUAGE sql AS 'SELECT p_value + 1';
CREATE FUNCTION lakets._my_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER mine BEFORE INSERT ON hourly_facts FOR EACH ROW EXECUTE FUNCTION lakets._my_trigger();

-- What time leaves behind: a tiered chunk, a dropped one, columns that were never filled.
UPDATE lakets._chunk_metadata SET status = 'tiered', tiered_at = now()
 WHERE id = (SELECT id FROM lakets._chunk_metadata WHERE chronotable_id = 1 ORDER BY range_start OFFSET 1 LIMIT 1);
SELECT lakets._drop_chunk(c) FROM (SELECT * FROM lakets._chunk_metadata WHERE chronotable_id = 1 ORDER BY range_start LIMIT 1) AS c;
UPDATE lakets._chronotable_registry SET sync_enabled = NULL, tiering_enabled = NULL WHERE id = 3;
UPDATE lakets._rollup_registry SET refresh_lag = NULL, last_refreshed_at = now() - interval '2 hours';
UPDATE lakets._rollup_registry SET depends_on = NULL WHERE name = 'hourly';

-- Buckets that were marked and not refreshed yet: of each RollUp one that lags behind its source, and one whose
-- source is dropped, which keeps its value.
UPDATE public._rollup_hourly SET total = -1
 WHERE bucket < (SELECT max(range_end) FROM lakets._chunk_metadata WHERE status = 'dropped')
    OR bucket BETWEEN now() - interval '4 days' AND now() - interval '3 days';
UPDATE public._rollup_daily SET total = -1 WHERE bucket BETWEEN now() - interval '4 days' AND now() - interval '2 days';
INSERT INTO lakets._rollup_invalidation_log (rollup_id, bucket_start)
SELECT DISTINCT 1, bucket FROM public._rollup_hourly WHERE total = -1
UNION ALL SELECT 2, bucket FROM public._rollup_daily WHERE total = -1
    ON CONFLICT DO NOTHING;
