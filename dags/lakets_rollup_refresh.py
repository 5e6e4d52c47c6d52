"""Refresh every RollUp, each after those it reads; every 15 minutes, UTC."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator

with DAG(
    "lakets_rollup_refresh",
    schedule="*/15 * * * *",
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["lakets"],
    doc_md=__doc__,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1), "retry_exponential_backoff": True},
):
    LakeTSRollupRefreshOperator(task_id="refresh", parallelism=4)
