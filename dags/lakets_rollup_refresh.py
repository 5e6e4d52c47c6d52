"""
Refresh every RollUp, each after those it reads; every 15 minutes, UTC.

Only what changed is aggregated again. A backfill aggregates all buckets of the data intervals asked for
again, a manual run those of a range; buckets whose source is dropped keep their value. A dry run tells
which RollUps would be refreshed, in which order, and changes nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG, Param
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator

with DAG(
    "lakets_rollup_refresh",
    # With a plain cron expression a run has no data interval, so that a backfill would not know its range.
    schedule=CronDataIntervalTimetable("*/15 * * * *", timezone="UTC"),
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["lakets"],
    doc_md=__doc__,
    render_template_as_native_obj=True,
    params={
        "rollup": Param(None, type=["null", "string"], description="This one and all it reads; none: all"),
        "start": Param(None, type=["null", "string"], format="date-time", description="Buckets from ..."),
        "end": Param(None, type=["null", "string"], format="date-time", description="... to"),
        "dry_run": Param(False, type="boolean", description="Tell what would happen; change nothing"),
    },
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "pool": "default_pool",  # or one of your own, to bound the load on Lakebase
    },
):
    LakeTSRollupRefreshOperator(
        task_id="refresh",
        rollup="{{ params.rollup }}",
        parallelism=4,
        max_active_tis_per_dag=1,  # the runs of a backfill take turns
        range_start="{{ data_interval_start if dag_run.run_type == 'backfill' else params.start }}",
        range_end="{{ data_interval_end if dag_run.run_type == 'backfill' else params.end }}",
        dry_run="{{ params.dry_run }}",
    )
