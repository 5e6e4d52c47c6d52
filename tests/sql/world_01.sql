-- A project that has lived with LakeTS 0.1.x for a while, on top of the stand-in (tests/lakets_01.sql).

-- 0.1.x tracks changes with triggers of its own: one for each row of a chunk, one for each statement.
CREATE FUNCTION lakets._capture_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE lakets._chunk_metadata SET row_count = coalesce(row_count, 0) + 1, last_write_lsn = pg_current_wal_lsn()
     WHERE chunk_name = TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME;
    EXECUTE format('INSERT INTO lakets_cdf.%I SELECT ($1).*', TG_ARGV[0]) USING NEW;
    RETURN NEW;
END $$;
CREATE FUNCTION lakets._mark_dirty() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE lakets._rollup_registry SET watermark = watermark;
    RETURN NULL;
END $$;

-- An older signature: other parameter names, fewer parameters.
CREATE FUNCTION lakets.time_bucket(bucket_width interval, ts timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE
    RETURN date_bin($1, $2, '2000-01-01+00');

CREATE TABLE metrics (ts timestamptz NOT NULL, device text NOT NULL, value numeric(10, 2));
SELECT lakets.create_chronotable('metrics', 'ts', '1 day');
SELECT lakets._ensure_partitions(1, p_range_start => now() - interval '20 days', p_range_end => now());
ALTER TABLE metrics ADD PRIMARY KEY (ts, device);
INSERT INTO metrics SELECT now() - n * interval '6 hours', 'd' || n % 3, n FROM generate_series(0, 80) AS n;
SELECT lakets.enable_sync('metrics');  -- copies nothing
CREATE TRIGGER lakets_capture AFTER INSERT ON metrics FOR EACH ROW EXECUTE FUNCTION lakets._capture_row('_shadow_metrics');
CREATE TRIGGER lakets_dirty AFTER INSERT OR UPDATE OR DELETE ON metrics EXECUTE FUNCTION lakets._mark_dirty();
INSERT INTO metrics SELECT now() - n * interval '6 hours' + interval '1 minute', 'd4', n FROM generate_series(1, 9) AS n;
SELECT lakets.add_tiered_retention_policy('metrics', '2 days', '15 days');

-- Another schema has a table of the same name, of local time, and without a key.
CREATE SCHEMA plant;
CREATE TABLE plant.metrics (at timestamp NOT NULL, value float8);
SELECT lakets.create_chronotable('metrics', 'at', '7 days', 'plant');
SELECT lakets._ensure_partitions(2, p_range_start => now() - interval '60 days', p_range_end => now());
INSERT INTO plant.metrics SELECT now() AT TIME ZONE 'UTC' - n * interval '1 day', n FROM generate_series(0, 40) AS n;
-- It is synced as well, and its chunks are tiered and never dropped.
CREATE TABLE lakets_cdf._shadow_plant_metrics (LIKE plant.metrics);
ALTER TABLE lakets_cdf._shadow_plant_metrics REPLICA IDENTITY FULL;
UPDATE lakets._chronotable_registry
   SET sync_enabled = true, tiering_enabled = true, shadow_table_name = 'lakets_cdf._shadow_plant_metrics' WHERE id = 2;
CREATE TRIGGER lakets_capture AFTER INSERT ON plant.metrics FOR EACH ROW
    EXECUTE FUNCTION lakets._capture_row('_shadow_plant_metrics');
INSERT INTO plant.metrics VALUES (now() AT TIME ZONE 'UTC' - interval '3 days', 100);
SELECT lakets.add_tiering_policy('metrics', '10 days', 'plant');

-- One is not synced: its chunks are dropped, durable or not.
CREATE TABLE plant.scratch (at timestamptz NOT NULL, value float8);
SELECT lakets.create_chronotable('scratch', 'at', '7 days', 'plant');
SELECT lakets._ensure_partitions(3, p_range_start => now() - interval '60 days', p_range_end => now());
INSERT INTO plant.scratch SELECT now() - n * interval '1 day', n FROM generate_series(0, 40) AS n;
SELECT lakets.add_retention_policy('scratch', '30 days', 'plant');

SELECT lakets.create_rollup('hourly', 'SELECT lakets.time_bucket(''1 hour'', ts) AS bucket, device, sum(value) AS total'
                            ' FROM metrics GROUP BY 1, 2', '1 hour', 'metrics');
SELECT lakets.create_rollup('daily', 'SELECT date_trunc(''day'', bucket, ''UTC'') AS bucket, sum(total) AS total'
                            ' FROM _rollup_hourly GROUP BY 1', '1 day', p_depends_on => '{hourly}');

-- The hourly RollUp is synced too.
CREATE TABLE lakets_cdf._shadow_rollup_hourly AS TABLE public._rollup_hourly;
ALTER TABLE lakets_cdf._shadow_rollup_hourly REPLICA IDENTITY FULL;
UPDATE lakets._rollup_registry
   SET sync_enabled = true, shadow_table_name = 'lakets_cdf._shadow_rollup_hourly' WHERE name = 'hourly';

-- The user's own view calls a function of 0.1.x.
CREATE VIEW by_hour AS SELECT lakets.time_bucket('1 hour', ts) AS hour, count(*) FROM metrics GROUP BY 1;

-- What time leaves behind: a tiered chunk, a dropped one, columns that were never filled.
UPDATE lakets._chunk_metadata SET status = 'tiered', tiered_at = now()
 WHERE id = (SELECT id FROM lakets._chunk_metadata WHERE chronotable_id = 1 ORDER BY range_start OFFSET 1 LIMIT 1);
DO $$
DECLARE
    v_chunk text := (SELECT chunk_name FROM lakets._chunk_metadata WHERE chronotable_id = 1 ORDER BY range_start LIMIT 1);
BEGIN
    EXECUTE format('DROP TABLE public.%I', split_part(v_chunk, '.', 2));
    UPDATE lakets._chunk_metadata SET status = 'dropped' WHERE chunk_name = v_chunk;
END $$;
UPDATE lakets._chronotable_registry SET sync_enabled = NULL, tiering_enabled = NULL WHERE id = 3;
UPDATE lakets._rollup_registry SET refresh_lag = NULL;
UPDATE lakets._rollup_registry SET sync_enabled = NULL WHERE name = 'daily';
UPDATE lakets._rollup_registry SET depends_on = NULL WHERE name = 'hourly';

-- Buckets that were marked and not refreshed yet: of each RollUp one that lags behind its source, and one whose
-- source is dropped, which keeps its value.
UPDATE public._rollup_hourly SET total = -1
 WHERE bucket < (SELECT max(range_end) FROM lakets._chunk_metadata WHERE status = 'dropped')
    OR bucket BETWEEN now() - interval '4 days' AND now() - interval '3 days';
UPDATE public._rollup_daily SET total = -1 WHERE bucket BETWEEN now() - interval '4 days' AND now() - interval '2 days';
TRUNCATE lakets_cdf._shadow_rollup_hourly;
INSERT INTO lakets_cdf._shadow_rollup_hourly TABLE public._rollup_hourly;
INSERT INTO lakets._rollup_invalidation_log (rollup_id, bucket_start)
SELECT DISTINCT 1, bucket FROM public._rollup_hourly WHERE total = -1
UNION ALL SELECT 2, bucket FROM public._rollup_daily WHERE total = -1;
