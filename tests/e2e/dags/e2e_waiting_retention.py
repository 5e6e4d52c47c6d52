"""Retention of one table, but it waits for the feed, in the triggerer."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator

with DAG(
    "e2e_waiting_retention",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    default_args={"retries": 1, "retry_delay": timedelta(seconds=3)},
):
    LakeTSRetentionOperator(
        task_id="drop_expired", table="public.metrics", deferrable=True, poll_interval=1, wait_timeout=240
    )
