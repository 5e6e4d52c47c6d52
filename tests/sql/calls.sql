-- The database of calls.py: something of everything, with values whose text depends on settings.
CREATE TABLE public.metrics (
    id integer, ts timestamptz, device text, value double precision, local timestamp, day date, span interval DEFAULT '1 mon -1 day',
    PRIMARY KEY (id, ts), CHECK (ts > '1900-11-20 10:00+05:30')
);
INSERT INTO public.metrics
SELECT n, t, substr('abc', n % 3 + 1, 1), 0.1::float8 * n, t AT TIME ZONE 'UTC', (t AT TIME ZONE 'UTC')::date, n * interval '1 mon -1 day 00:00:00.1'
  FROM generate_series(0, 11) AS n, LATERAL (SELECT '2024-02-28 20:30+00'::timestamptz + n * interval '67 hours 13 minutes' AS t) AS at;
SELECT lakets.create_chronotable('metrics', 'ts', '1 day');
SELECT lakets.enable_sync('metrics');
SELECT lakets.enable_lvc('metrics', '{device}', '{value,ts}');
SELECT lakets.add_tiered_retention_policy('metrics', '1 mon 1 day', '1 year 2 mons 3 days 04:05:06.7', p_trim_shadow => true);
SELECT lakets.create_rollup('daily', $$
    SELECT lakets.time_bucket('1 day', ts) AS bucket, count(*) AS n, sum(value) AS total, max(value::text) AS digits, max(ts::text) AS said,
           max(span::text) AS spans, max(day::text) AS days
      FROM public.metrics WHERE ts > '2024-01-20 10:00+05:30' AND day > '2024-01-02' GROUP BY 1$$, '1 day');
SELECT lakets.set_refresh_lag('daily', '0');
SELECT lakets.create_rollup('hourly', $$
    SELECT lakets.time_bucket('1 hour', ts) AS bucket, max(value::text) AS digits, max(ts::text) AS said FROM public.metrics GROUP BY 1$$);
SELECT lakets.create_rollup('monthly', $$
    SELECT lakets.time_bucket('1 mon', bucket) AS bucket, sum(total) AS total FROM public._rollup_daily GROUP BY 1$$, '1 mon');

CREATE TABLE public.other (k text, at timestamp, v interval, PRIMARY KEY (k, at));
INSERT INTO public.other
SELECT 'k' || n % 2, '2024-03-31 00:30'::timestamp + n * interval '1 hour', n * interval '1 mon -1 day' FROM generate_series(0, 5) AS n;
SELECT lakets.create_chronotable('other', 'at', '1 day');

-- An ordinary table whose definition has constants of time in all places.
CREATE TABLE public.plain (
    ts timestamptz DEFAULT '2024-11-20 10:00+05:30', day date DEFAULT '2024-02-03', span interval DEFAULT '1 mon -1 day', value double precision,
    CHECK (ts > '1900-11-20 10:00+05:30'), CHECK (value <> 0.1::float8)
);
CREATE INDEX plain_part ON public.plain (ts) WHERE day > '2024-02-03' AND ts > '1990-11-20 10:00+05:30' AND value > 0.3::float8;
CREATE STATISTICS public.plain_stats ON (ts + interval '1 mon -1 day'), day FROM public.plain;
CREATE POLICY recent ON public.plain USING (ts > '2024-11-20 10:00+05:30' AND span < '1 mon -1 day');
CREATE FUNCTION public.watch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER watched AFTER INSERT ON public.plain FOR EACH ROW
    WHEN (NEW.ts > '2024-11-20 10:00+05:30' AND NEW.day > '2024-02-03') EXECUTE FUNCTION public.watch();
INSERT INTO public.plain (ts, day, value) VALUES ('2024-03-31 22:30+00', '2024-03-31', 0.5), ('2024-04-01 01:30+00', '2024-04-01', 0.7);

CREATE TABLE public.samples (time timestamptz, metric_name text, labels jsonb, value double precision);

-- Chunks around two instants that are both "$gap ago", in one zone or another.
CREATE TABLE public.gaps (ts timestamptz);
SELECT lakets.create_chronotable('gaps', 'ts', '10 minutes');
SELECT lakets._ensure_partitions(reg.id, p_range_start => '$old'::timestamptz - interval '1 hour', p_range_end => '$new'::timestamptz + interval '1 hour')
  FROM lakets._chronotable_registry AS reg WHERE reg.table_name = 'gaps';
INSERT INTO public.gaps SELECT generate_series('$old'::timestamptz - interval '1 hour', '$new'::timestamptz + interval '1 hour', '10 minutes');
SELECT lakets.add_retention_policy('gaps', '$gap');
SELECT lakets.refresh_rollup('daily');

CREATE SCHEMA wal2delta;
CREATE TABLE wal2delta.tables (table_oid oid PRIMARY KEY, status text NOT NULL, committed_lsn pg_lsn, last_write_time timestamptz);
INSERT INTO wal2delta.tables
SELECT cls.oid, 'STREAMING', pg_current_wal_insert_lsn(), now()
  FROM pg_class AS cls WHERE cls.relnamespace = 'lakets_cdf'::regnamespace AND cls.relkind = 'r';

-- What a session could find before what it means.
CREATE SCHEMA evil;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT 'epoch'::timestamptz$$;
CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$SELECT 'epoch'::timestamptz$$;
CREATE FUNCTION evil.date_trunc(text, timestamptz) RETURNS timestamptz LANGUAGE sql AS $$SELECT 'epoch'::timestamptz$$;
CREATE FUNCTION evil.date_bin(interval, timestamptz, timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$SELECT 'epoch'::timestamptz$$;
CREATE FUNCTION evil.format(text, VARIADIC text[]) RETURNS text LANGUAGE sql AS $$SELECT 'SELECT 1'$$;
CREATE FUNCTION evil.regexp_replace(text, text, text) RETURNS text LANGUAGE sql AS $$SELECT 'SELECT 1'$$;
CREATE FUNCTION evil.rtrim(text, text) RETURNS text LANGUAGE sql AS $$SELECT 'SELECT 1'$$;
CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text LANGUAGE sql AS $$SELECT 'SELECT 1'$$;
CREATE FUNCTION evil.to_regclass(text) RETURNS regclass LANGUAGE sql AS $$SELECT NULL::regclass$$;
CREATE FUNCTION evil.hashtext(text) RETURNS integer LANGUAGE sql AS $$SELECT 0$$;
CREATE FUNCTION evil.isfinite(timestamptz) RETURNS boolean LANGUAGE sql AS $$SELECT false$$;
CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE sql AS $$SELECT ''$$;
CREATE TABLE evil.metrics (id integer);
CREATE TABLE evil._rollup_daily (id integer);
DO $$
DECLARE
    v_type text;
    v_name text;
BEGIN
    FOREACH v_type IN ARRAY '{timestamptz,timestamp,date,interval,float8}'::text[] LOOP
        EXECUTE format('CREATE FUNCTION evil.lie(%1$s, %1$s) RETURNS boolean LANGUAGE sql AS ''SELECT false''', v_type);
        FOREACH v_name IN ARRAY '{=,<,>,<=,>=,<>}'::text[] LOOP
            EXECUTE format('CREATE OPERATOR evil.%s (LEFTARG = %s, RIGHTARG = %2$s, FUNCTION = evil.lie)', v_name, v_type);
        END LOOP;
    END LOOP;
END
$$;

SELECT lakets._note_job_run('retain', '2024-03-01 05:00+00', 1.1,
    '[{"name": "public.metrics", "outcome": "dropped", "counts": {"dropped": 2}, "bytes": 1, "seconds": 0.1}]');
