-- The history of the jobs: what was done to each table and RollUp, by whom, and how long it took.

-- Delete rows older than 90 days, and all but the newest 10,000 of a job. Rows that another session
-- is deleting are skipped.
CREATE OR REPLACE FUNCTION lakets._trim_job_runs(
    p_job text
) RETURNS void
    LANGUAGE sql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM lakets._job_run AS gone WHERE gone.run_id IN (
        SELECT run.run_id FROM lakets._job_run AS run
         WHERE run.job = p_job
           AND (run.started_at < now() - interval '90 days'
                OR run.run_id <= (SELECT newest.run_id FROM lakets._job_run AS newest WHERE newest.job = p_job
                                   ORDER BY newest.run_id DESC OFFSET 10000 LIMIT 1))
           FOR UPDATE SKIP LOCKED);
$$;

-- Record what a job did. p_results: an array of {"name", "outcome", "counts", "bytes", "seconds",
-- "detail"}, one for each table, chunk (of job tier) or RollUp. Adds a row for each table and
-- RollUp with a result, or one row for all if nothing was due.
CREATE OR REPLACE FUNCTION lakets._note_job_run(
    p_job        text,
    p_started_at timestamptz,
    p_seconds    double precision,
    p_results    jsonb
) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_fiftieth boolean;
BEGIN
    WITH one AS (
        SELECT CASE p_job WHEN 'tier' THEN (
                   SELECT reg.schema_name || '.' || reg.table_name FROM lakets._chunk_metadata AS chunk
                     JOIN lakets._chronotable_registry AS reg ON reg.id = chunk.chronotable_id
                    WHERE chunk.chunk_name = res.name)
               ELSE res.name END AS relation,
               coalesce(array_position(ARRAY['failed', 'contended', 'skipped', 'deferred'], res.outcome), 9) AS place, res.*
          FROM jsonb_to_recordset(p_results)
               AS res (name text, outcome text, counts jsonb, bytes bigint, seconds double precision, detail text)
         WHERE res.outcome <> 'unchanged'
    ), part AS (
        SELECT one.relation, coalesce(sum(one.seconds), p_seconds) AS seconds, sum(one.bytes)::bigint AS bytes,
               (array_agg(one.outcome ORDER BY one.place))[1] AS outcome,
               (array_agg(left(one.detail, 1000) ORDER BY one.place))[1] AS detail
          FROM one GROUP BY one.relation
    ), total AS (
        SELECT each.relation, jsonb_object_agg(each.key, each.total) AS counts
          FROM (SELECT one.relation, cnt.key, sum(cnt.value::numeric) AS total
                  FROM one CROSS JOIN LATERAL jsonb_each_text(one.counts) AS cnt GROUP BY 1, 2) AS each
         GROUP BY each.relation
    ), noted AS (
        INSERT INTO lakets._job_run (job, relation, started_at, seconds, outcome, counts, bytes, runner, detail)
        SELECT p_job, part.relation, p_started_at, part.seconds, part.outcome, coalesce(total.counts, '{}'), part.bytes,
               current_setting('application_name'), part.detail
          FROM part LEFT JOIN total ON total.relation IS NOT DISTINCT FROM part.relation
        UNION ALL
        SELECT p_job, NULL, p_started_at, p_seconds, 'unchanged', '{}', NULL, current_setting('application_name'), NULL
         WHERE NOT EXISTS (SELECT FROM one)
        RETURNING run_id
    )
    SELECT bool_or(noted.run_id % 50 = 0) INTO v_fiftieth FROM noted;
    IF v_fiftieth THEN  -- not each time: it looks at ten thousand rows
        PERFORM lakets._trim_job_runs(p_job);
    END IF;
END;
$$;

-- Return what the jobs did, newest first.
CREATE OR REPLACE FUNCTION lakets.job_history(
    p_job      text DEFAULT NULL,
    p_relation text DEFAULT NULL,
    p_limit    integer DEFAULT 100
) RETURNS TABLE (run_id bigint, job text, relation text, started_at timestamptz, seconds double precision, outcome text,
                 counts jsonb, bytes bigint, runner text, detail text)
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF p_job NOT IN ('partitions', 'tier', 'retain', 'refresh') THEN
        RAISE EXCEPTION 'There is no job %; the jobs are partitions, tier, retain and refresh', quote_literal(p_job);
    END IF;
    PERFORM lakets._check_count('p_limit', p_limit, 1, 2147483647);
    RETURN QUERY
        SELECT run.run_id, run.job, run.relation, run.started_at, run.seconds, run.outcome, run.counts, run.bytes, run.runner,
               run.detail
          FROM lakets._job_run AS run
         WHERE (p_job IS NULL OR run.job = p_job) AND (p_relation IS NULL OR run.relation = p_relation)
         ORDER BY run.run_id DESC LIMIT p_limit;
END;
$$;

-- Metrics of each job that has run: the time and duration of the last run, and the number of tables
-- or RollUps that failed within a day.
CREATE OR REPLACE FUNCTION lakets._job_metrics()
    RETURNS TABLE (metric_name text, metric_value double precision, labels jsonb)
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT m.name, m.value::double precision, jsonb_build_object('job', newest.job)
      FROM unnest('{partitions,tier,retain,refresh}'::text[]) WITH ORDINALITY AS each (job, place)
     CROSS JOIN LATERAL (
           SELECT run.job, run.started_at, run.seconds FROM lakets._job_run AS run
            WHERE run.job = each.job ORDER BY run.run_id DESC LIMIT 1) AS newest
     CROSS JOIN LATERAL (
           SELECT count(*) AS count FROM lakets._job_run AS run
            WHERE run.job = each.job AND run.started_at > now() - interval '1 day'
              AND run.outcome IN ('failed', 'contended', 'skipped')) AS wrong
     CROSS JOIN LATERAL (VALUES ('lakets_job_last_run_timestamp_seconds', extract(epoch FROM newest.started_at)),
                                ('lakets_job_last_run_seconds', newest.seconds::numeric),
                                ('lakets_job_problems_1d', wrong.count::numeric)) AS m (name, value)
     ORDER BY each.place;
$$;
