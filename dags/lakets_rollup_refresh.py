"""
Refresh every RollUp, each after the RollUps that it reads.

Runs every 15 minutes, UTC, and aggregates only changed buckets again. A backfill aggregates all
buckets of its data intervals again, and a manual run those of a range. Buckets whose source is
dropped keep their value. A dry run reports which RollUps would be refreshed, in which order, and
changes nothing.

A manual run takes:

- `rollup`: only this one, with the RollUps that it reads; empty for all.
- `start`, `end`: a range of time; empty for what is due now.
- `dry_run`: report what would happen, and change nothing.

Outcomes of a RollUp:

- `refreshed`: with the number of rows written.
- `unchanged`: nothing changed, or its refresh_lag has not passed.
- `skipped`: a RollUp that it reads was not refreshed.
- `contended`: another session holds a lock; the next try takes it.
- `failed`: the reason is in the result of the task.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_lakets.jobs import form
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator

with DAG(
    "lakets_rollup_refresh",
    # With a plain cron expression a run has no data interval, so that a backfill would not know its
    # range.
    schedule=CronDataIntervalTimetable("*/15 * * * *", timezone="UTC"),
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["lakets"],
    doc_md=__doc__,
    render_template_as_native_obj=True,
    params=form.params("rollup", "start", "end", "dry_run"),
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "pool": "default_pool",  # use a dedicated pool to limit the load on Lakebase
    },
):
    LakeTSRollupRefreshOperator(
        task_id="refresh",
        rollup=form.ROLLUP,
        parallelism=4,
        max_active_tis_per_dag=1,  # the runs of a backfill take turns
        range_start=form.RANGE_START,
        range_end=form.RANGE_END,
        dry_run=form.DRY_RUN,
    )
