"""
Make the chunks that writers will need, for every ChronoTable.

One before the current one, three after it; every 6 hours, UTC.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator

with DAG(
    "lakets_partition_manager",
    schedule="0 */6 * * *",
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["lakets"],
    doc_md=__doc__,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1), "retry_exponential_backoff": True},
):
    LakeTSPartitionOperator(task_id="ensure_partitions", past_count=1, future_count=3)
