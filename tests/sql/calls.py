"""A call of each public function of LakeTS, for the tests with other session settings."""

from __future__ import annotations

# In the database of `calls.sql`. $gap stands for an interval of months that is counted back from
# now to different instants in two time zones; $middle for one between these.
CALLS: dict[str, str] = {
    # Buckets and values
    "time_bucket(interval,timestamp with time zone,timestamp with time zone)": (
        "SELECT lakets.time_bucket('1 mon', ts), lakets.time_bucket('1 week', ts, '2024-01-03 05:00+05:30'),"
        " lakets.time_bucket('1 day', ts) FROM public.metrics ORDER BY ts, id"
    ),
    "time_bucket(interval,timestamp without time zone,timestamp without time zone)": (
        "SELECT lakets.time_bucket('1 year 2 mons', local), lakets.time_bucket('7 hours', local)"
        " FROM public.metrics ORDER BY ts, id"
    ),
    "time_bucket(interval,date,date)": (
        "SELECT lakets.time_bucket('1 mon', day), lakets.time_bucket('3 days', day, '2000-01-02'::date)"
        " FROM public.metrics ORDER BY ts, id"
    ),
    "time_bucket_gapfill(interval,timestamp with time zone,timestamp with time zone,"
    "timestamp with time zone)": (
        "SELECT * FROM lakets.time_bucket_gapfill('1 day'::interval, '2024-03-08 05:00+00'::timestamptz,"
        " '2024-04-02 05:00+00'::timestamptz) UNION ALL"
        " SELECT * FROM lakets.time_bucket_gapfill('1 mon'::interval, '2024-01-31 20:00+00'::timestamptz,"
        " '2024-12-02 05:00+00'::timestamptz, '2024-01-31 12:00-11'::timestamptz)"
    ),
    "time_bucket_gapfill(interval,timestamp without time zone,timestamp without time zone,"
    "timestamp without time zone)": (
        "SELECT * FROM lakets.time_bucket_gapfill('6 hours'::interval, '2024-03-30 05:00'::timestamp,"
        " '2024-04-01'::timestamp)"
    ),
    "time_bucket_gapfill(interval,date,date,date)": (
        "SELECT * FROM lakets.time_bucket_gapfill('1 week'::interval, '2024-03-30'::date, '2024-06-01'::date)"
    ),
    **{
        f"{name}({kind},{time})": (
            f"SELECT device, {values} FROM public.metrics GROUP BY device ORDER BY device"
        )
        for name in ("first", "last")
        for time, column in (
            ("timestamp with time zone", "ts"),
            ("timestamp without time zone", "local"),
            ("date", "day"),
        )
        for kind, values in (
            ("double precision", f"lakets.{name}(value, {column} ORDER BY id)"),
            ("numeric", f"lakets.{name}(id::numeric / 7, {column} ORDER BY id)"),
            (
                "anyelement",
                ", ".join(
                    f"lakets.{name}({value}, {column} ORDER BY id)"
                    for value in (
                        "ts",
                        "local",
                        "day",
                        "span",
                        "value::real",
                        "device",
                        "ARRAY[ts, ts + '1 hour']",
                        "tstzrange(ts, ts + '1 hour')",
                        "ARRAY[value]",
                    )
                ),
            ),
        )
    },
    **{
        f"delta_agg(anyelement,{time})": (
            f"SELECT device, lakets.delta_agg(value, {column}), lakets.delta_agg(value::real, {column}),"
            f" lakets.delta_agg(id, {column}) FROM public.metrics GROUP BY device ORDER BY device"
        )
        for time, column in (
            ("timestamp with time zone", "ts"),
            ("timestamp without time zone", "local"),
            ("date", "day"),
        )
    },
    **{
        f"rate_agg(double precision,{time})": (
            f"SELECT device, lakets.rate_agg(value, {column} ORDER BY {column}, id)"
            " FROM public.metrics GROUP BY device ORDER BY device"
        )
        for time, column in (
            ("timestamp with time zone", "ts"),
            ("timestamp without time zone", "local"),
            ("date", "day"),
        )
    },
    "histogram_agg(double precision,double precision,double precision,integer)": (
        "SELECT lakets.histogram_agg(value, 0, 2, 4) FROM public.metrics"
    ),
    "locf_agg(anyelement)": "SELECT lakets.locf_agg(ts) OVER (ORDER BY ts, id) FROM public.metrics",
    "delta(double precision,double precision,boolean)": (
        "SELECT lakets.delta(value, 0.3::float8) FROM public.metrics ORDER BY ts, id"
    ),
    "histogram(double precision,double precision,double precision,integer)": (
        "SELECT lakets.histogram(value, 0, 2, 4) FROM public.metrics ORDER BY ts, id"
    ),
    "interpolate(double precision,double precision,double precision,timestamp with time zone,"
    "timestamp with time zone,timestamp with time zone)": (
        "SELECT lakets.interpolate(NULL, value, 3, ts, ts + '23 hours', ts + '47 hours')"
        " FROM public.metrics ORDER BY ts, id"
    ),
    "locf(double precision,double precision)": (
        "SELECT lakets.locf(NULL, value) FROM public.metrics ORDER BY ts, id"
    ),
    "rate(double precision,double precision,timestamp with time zone,timestamp with time zone,boolean)": (
        "SELECT lakets.rate(value, 0.3::float8, ts, ts + '-25 hours'::interval)"
        " FROM public.metrics ORDER BY ts, id"
    ),
    # ChronoTables
    "create_chronotable(text,text,interval,text,boolean)": (
        "SELECT lakets.create_chronotable('plain', 'ts', '1 mon')"
    ),
    "adopt_chronotable(text,text)": (
        "ALTER TABLE public.other RENAME TO renamed; SELECT lakets.adopt_chronotable('renamed')"
    ),
    "adopt_partitions(text,text)": (
        "CREATE TABLE public.hand PARTITION OF public.other"
        " FOR VALUES FROM ('2030-03-31 00:00') TO ('2030-04-01 00:00');"
        " SELECT lakets.adopt_partitions('other')"
    ),
    "forget_chronotable(text,text)": "DROP TABLE public.other; SELECT lakets.forget_chronotable('other')",
    "drop_chronotable(text,text)": "SELECT lakets.drop_chronotable('metrics')",
    "set_chunk_interval(text,interval,text)": (
        "SELECT lakets.set_chunk_interval('metrics', '1 mon');"
        " SELECT lakets._ensure_partitions(id, p_range_start => '2031-01-31 20:00+00',"
        " p_range_end => '2031-03-31 20:00+00') FROM lakets._chronotable_registry"
        " WHERE table_name = 'metrics'"
    ),
    "_ensure_partitions(integer,integer,integer,timestamp with time zone,timestamp with time zone,integer)": (
        "SELECT lakets._ensure_partitions(id, 3, 5) FROM lakets._chronotable_registry ORDER BY id"
    ),
    "show_chunks(text,interval,interval,text)": (
        "SELECT * FROM lakets.show_chunks('gaps', $gap) UNION ALL"
        " SELECT * FROM lakets.show_chunks('gaps', NULL, $gap)"
    ),
    "drop_chunks(text,interval,text,integer)": "SELECT lakets.drop_chunks('gaps', $gap)",
    "drop_chronotable_chunks(text,text,integer)": (
        "SELECT lakets.drop_chronotable_chunks('gaps', p_max_chunks => 3)"
    ),
    "chunk_health()": "SELECT * FROM lakets.chunk_health()",
    "create_metric_table(text,text[],text[],interval,text)": (
        "SELECT lakets.create_metric_table('fresh', '{host}', '{load}', '1 mon')"
    ),
    "ingest_batch(text,jsonb,text)": (
        'SELECT lakets.ingest_batch(\'metrics\', \'[{"id": 90, "ts": "2024-03-04 05:06:07",'
        ' "day": "04/03/2024",'
        ' "local": "2024-04-03 01:02", "span": "1-2", "value": 0.1}]\')'
    ),
    "ingest_prometheus(text,text,jsonb,double precision,timestamp with time zone,text)": (
        "SELECT lakets.ingest_prometheus('samples', 'up', '{\"a\": 0.1}', 0.3, '2024-03-04 05:06:07+00')"
    ),
    "cardinality_check(text,bigint,text)": "SELECT * FROM lakets.cardinality_check('metrics', 2)",
    "cardinality_stats(text,text)": "SELECT * FROM lakets.cardinality_stats('metrics')",
    # The last value cache
    "enable_lvc(text,text[],text[],text)": "SELECT lakets.enable_lvc('other', '{k}', '{v}')",
    "disable_lvc(text,text)": "SELECT lakets.disable_lvc('metrics')",
    "latest_values(text,text)": (
        "SELECT * FROM lakets.latest_values('metrics') AS (device text, value float8, ts timestamptz,"
        " last_updated timestamptz)"
    ),
    "lvc_stats()": "SELECT * FROM lakets.lvc_stats()",
    # Sync and tiering
    "enable_sync(text,text)": (
        "SELECT lakets.enable_sync('other'); UPDATE public.other SET v = v + '1 day';"
        " SELECT lakets.enable_sync('metrics'); DELETE FROM public.metrics WHERE id % 2 = 0"
    ),
    "disable_sync(text,text)": "SELECT lakets.disable_sync('metrics')",
    "add_tiering_policy(text,interval,text)": (
        "SELECT lakets.add_tiering_policy('other', '1 year 2 mons 3 days 04:05:06.7')"
    ),
    "remove_tiering_policy(text,text)": (
        "SELECT lakets.add_tiering_policy('other', '1 day'); SELECT lakets.remove_tiering_policy('other')"
    ),
    "show_tiering_policy(text,text)": "SELECT * FROM lakets.show_tiering_policy('metrics')",
    "show_tiering_status(text,text)": "SELECT * FROM lakets.show_tiering_status()",
    "explain_durability(text)": "SELECT lakets.explain_durability('public.metrics_20240302_000000')",
    "tier_chunk(text)": "SELECT lakets.tier_chunk('public.metrics_20240302_000000')",
    "untier_chunk(text)": (
        "UPDATE lakets._chunk_metadata SET status = 'tiered';"
        " SELECT lakets.untier_chunk('public.metrics_20240302_000000')"
    ),
    "history_view_sql(text,text,text,text,text,timestamp with time zone)": (
        "SELECT lakets.history_view_sql('metrics', p_since => '2024-03-31 02:30+02')"
    ),
    "trim_report(text,text)": "SELECT * FROM lakets.trim_report('metrics')",
    "trim_shadow(text,text,integer)": "SELECT lakets.trim_shadow('metrics')",
    "_cdf_committed_lsn(text)": "SELECT lakets._cdf_committed_lsn('_shadow_metrics') IS NOT NULL",
    "_get_chunks_to_tier(text,text)": (
        "SELECT lakets.add_tiering_policy('gaps', $gap); SELECT lakets.enable_sync('gaps');"
        " INSERT INTO wal2delta.tables VALUES ('lakets_cdf._shadow_gaps'::regclass, 'STREAMING', '0/0');"
        " SELECT chunk_name, range_start, range_end, 0 FROM lakets._get_chunks_to_tier('gaps')"
        " UNION ALL SELECT after, NULL, NULL, pending_chunks FROM lakets.show_tiering_status('gaps')"
    ),
    # Retention
    "add_retention_policy(text,interval,text,boolean)": (
        "SELECT lakets.add_retention_policy('other', '1 year 2 mons 3 days 04:05:06.7')"
    ),
    "add_tiered_retention_policy(text,interval,interval,text,boolean)": (
        "SELECT lakets.add_tiered_retention_policy('other', '1 mon 1 day', '14 mons 00:00:01')"
    ),
    "remove_retention_policy(text,text)": "SELECT lakets.remove_retention_policy('gaps')",
    "show_retention_policy(text,text)": "SELECT * FROM lakets.show_retention_policy('metrics')",
    "retention_report(text,text)": "SELECT * FROM lakets.retention_report('gaps')",
    "execute_retention(text,text,boolean,integer)": "SELECT lakets.execute_retention('gaps')",
    # RollUps
    "create_rollup(text,text,interval,text,text,text[])": (
        "SELECT lakets.create_rollup('fresh', $$SELECT pg_catalog.date_trunc('day', ts) AS bucket,"
        " pg_catalog.max(ts::text) AS said, pg_catalog.max(value::text) AS digits"
        " FROM public.metrics GROUP BY 1$$,"
        " '1 day')"
    ),
    "create_rollup_view(text,text)": (
        "SELECT lakets.create_rollup_view('hourly', (SELECT query_text FROM lakets._rollup_registry"
        " WHERE name = 'hourly')); INSERT INTO public.metrics (id, ts, device, value)"
        " VALUES (99, '2024-06-01 23:30+00', 'z', 0.1);"
        " SELECT * FROM public._rollup_rt_hourly ORDER BY bucket"
    ),
    "refresh_rollup(text,boolean)": (
        "UPDATE public.metrics SET value = value / 3; SELECT lakets.refresh_rollup('daily', true)"
    ),
    "refresh_rollup_cascade(text)": (
        "INSERT INTO public.metrics (id, ts, value) VALUES (99, '2024-03-31 23:30+00', 0.1);"
        " SELECT rollup_name, refreshed FROM lakets.refresh_rollup_cascade()"
    ),
    "invalidate_rollup_range(text,timestamp with time zone,timestamp with time zone)": (
        "SELECT lakets.invalidate_rollup_range('daily', '2024-03-30 22:00+00', '2024-04-02 01:00+00')"
    ),
    "set_refresh_lag(text,interval)": (
        "SELECT lakets.set_refresh_lag('daily', $gap);"
        " UPDATE lakets._rollup_registry SET last_refreshed_at = $middle WHERE name = 'daily';"
        " SELECT lakets.refresh_rollup('daily')"
    ),
    "enable_rollup_invalidation(text)": "SELECT lakets.enable_rollup_invalidation('daily')",
    "disable_rollup_invalidation(text)": "SELECT lakets.disable_rollup_invalidation('daily')",
    "drop_rollup(text)": "SELECT lakets.drop_rollup('monthly')",
    "show_rollups()": "SELECT * FROM lakets.show_rollups()",
    "show_rollup_dag()": "SELECT * FROM lakets.show_rollup_dag()",
    "_rollup_watermark(text)": "SELECT lakets._rollup_watermark('daily')",
    "_build_rollup_dag(integer[])": "SELECT lakets._build_rollup_dag()",
    # Watching
    "alert_check(text,text,text)": (
        "SELECT * FROM lakets.alert_check('late', 'SELECT ts, day, local, span, value,"
        " pg_catalog.date_trunc(''day'', ts)"
        " FROM public.metrics ORDER BY ts, id')"
    ),
    "alert_deadman(text,text,text,interval,text)": (
        "SELECT * FROM lakets.alert_deadman('silent', 'gaps', 'ts', $gap) UNION ALL"
        " SELECT * FROM lakets.alert_deadman('silent', 'metrics', 'value', '1 day')"
    ),
    "lakets_metrics()": ("SELECT * FROM lakets.lakets_metrics() WHERE metric_name NOT LIKE '%size%'"),
    "compare_chunks(text,text,integer,boolean)": "SELECT lakets.compare_chunks('metrics')",
    "recheck_mirror(text,text)": "SELECT lakets.recheck_mirror('metrics')",
    "guard_chunks(text,text,integer)": "SELECT lakets.guard_chunks('metrics')",
    "job_history(text,text,integer)": "SELECT * FROM lakets.job_history('retain')",
    "pending_repairs()": (
        "INSERT INTO lakets._mirror_gap (shadow) VALUES ('lakets_cdf._shadow_metrics');"
        " SELECT * FROM lakets.pending_repairs()"
    ),
    "query_stats(integer)": "SELECT * FROM lakets.query_stats()",
}
