"""
Create the chunks that writers will need, for every ChronoTable.

Runs every 6 hours, UTC, and creates one chunk before the current one and three after it. A backfill
creates the chunks of its data intervals; a manual run can be limited to a range or to some tables.
A dry run reports which chunks it would create.

A manual run takes:

- `tables`: only these, as `schema.table`; empty for all.
- `start`, `end`: a range of time; empty for what is due now.
- `dry_run`: report what would happen, and change nothing.

Outcomes of a table:

- `created`: with the names of the chunks.
- `unchanged`: nothing was due.
- `contended`: another session holds a lock; the next try takes it.
- `failed`: the reason is in the result of the task.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_lakets.jobs import form
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator

with DAG(
    "lakets_partition_manager",
    # With a plain cron expression a run has no data interval, so that a backfill would not know its
    # range.
    schedule=CronDataIntervalTimetable("0 */6 * * *", timezone="UTC"),
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["lakets"],
    doc_md=__doc__,
    render_template_as_native_obj=True,
    params=form.params("tables", "start", "end", "dry_run"),
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "pool": "default_pool",  # use a dedicated pool to limit the load on Lakebase
    },
):
    LakeTSPartitionOperator(
        task_id="ensure_partitions",
        tables=form.TABLES,
        past_count=1,
        future_count=3,
        max_active_tis_per_dag=1,  # the runs of a backfill take turns
        range_start=form.RANGE_START,
        range_end=form.RANGE_END,
        dry_run=form.DRY_RUN,
    )
