-- A LakeTS database in which every job has something to do, and in which it can be stopped in the middle.

-- Where a session stops: the step whose number it brings along as steps.stop. Counted in a sequence, which
-- is not set back when a statement fails.
CREATE SCHEMA steps;
CREATE SEQUENCE steps.taken;
CREATE FUNCTION steps.take() RETURNS void LANGUAGE plpgsql SET lock_timeout = 0 AS $$
BEGIN
    IF nextval('steps.taken')::text = current_setting('steps.stop', true) THEN
        PERFORM pg_advisory_lock(hashtext('steps'));
    END IF;
END $$;
CREATE FUNCTION steps.at_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM steps.take(); END $$;
CREATE FUNCTION steps.at_dml() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM steps.take(); RETURN NULL; END $$;

-- The feed has flushed everything, but of one table nothing yet.
CREATE SCHEMA wal2delta;
CREATE TABLE wal2delta.tables (table_oid oid PRIMARY KEY, status text, committed_lsn pg_lsn, last_write_time timestamptz);

CREATE TABLE metrics (id integer, at timestamptz, value integer, PRIMARY KEY (id, at));
CREATE SCHEMA "The Plant";
CREATE TABLE "The Plant".metrics (id integer, at timestamp, value integer);
CREATE TABLE plain (id integer, at timestamptz, value integer);
CREATE TABLE torn (id integer, at timestamptz, value integer, PRIMARY KEY (id, at));
SELECT lakets.create_chronotable(tab, 'at', '1 day', nsp)
  FROM (VALUES ('public', 'metrics'), ('The Plant', 'metrics'), ('public', 'plain'), ('public', 'torn')) AS t (nsp, tab);
SELECT lakets._ensure_partitions(id, p_range_start => '2024-01-01', p_range_end => '2024-01-06') FROM lakets._chronotable_registry;
INSERT INTO metrics SELECT n, '2024-01-01'::timestamptz + n * interval '5 hours', n FROM generate_series(0, 23) AS n;
INSERT INTO "The Plant".metrics SELECT id, at, value FROM metrics;
INSERT INTO plain SELECT * FROM metrics;
INSERT INTO torn SELECT * FROM metrics;
SELECT lakets.enable_sync('metrics'), lakets.enable_sync('metrics', 'The Plant'), lakets.enable_sync('torn');
SELECT lakets.add_tiered_retention_policy(tab, '1 day', '2 days', nsp)
  FROM (VALUES ('public', 'metrics'), ('The Plant', 'metrics')) AS t (nsp, tab);
SELECT lakets.add_retention_policy('plain', '2 days');
INSERT INTO wal2delta.tables
SELECT to_regclass(format('lakets_cdf.%I', shadow_table_name)), 'STREAMING',
       CASE schema_name WHEN 'public' THEN 'FFFFFFFF/0' ELSE '0/0' END::pg_lsn
  FROM lakets._chronotable_registry WHERE sync_enabled;
INSERT INTO wal2delta.tables VALUES ('lakets_cdf._trim_log'::regclass, 'STREAMING', 'FFFFFFFF/0');

SELECT lakets.create_rollup(kind || '_' || tab, format(
           'SELECT lakets.time_bucket(%L, at) AS bucket, sum(value) AS total, count(*) AS n FROM %I GROUP BY 1', width, tab), width)
  FROM (VALUES ('hourly', 'metrics', interval '1 hour'), ('daily', 'plain', '1 day')) AS r (kind, tab, width);
SELECT lakets.create_rollup('daily_metrics', 'SELECT lakets.time_bucket(''1 day'', bucket) AS bucket, sum(total) AS total'
                            ' FROM _rollup_hourly_metrics GROUP BY 1', '1 day');
SELECT lakets.enable_sync('hourly_metrics');
SELECT lakets.set_refresh_lag(name, '0') FROM lakets.show_rollups();

-- A job's inner steps: each definition, and each writing statement on these.
CREATE EVENT TRIGGER steps ON ddl_command_start EXECUTE FUNCTION steps.at_ddl();
DO $$
DECLARE
    v_table regclass;
BEGIN
    FOR v_table IN
        SELECT oid FROM pg_class
         WHERE relkind IN ('r', 'p') AND NOT relispartition AND (relnamespace::regnamespace::text IN ('lakets', 'lakets_cdf')
               OR relname LIKE '\_rollup\_%')
    LOOP
        EXECUTE format('CREATE TRIGGER step BEFORE INSERT OR UPDATE OR DELETE ON %s EXECUTE FUNCTION steps.at_dml()', v_table);
    END LOOP;
END $$;
