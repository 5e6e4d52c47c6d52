"""
Drop chunks past their table's retention from Lakebase; Unity Catalog keeps every row.

What is not proved durable there, or not yet in its RollUps, stays, and the task says why. Daily at 03:00 UTC,
an hour after tiering.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG, task

from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator

with DAG(
    "lakets_retention",
    schedule="0 3 * * *",
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["lakets"],
    doc_md=__doc__,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1), "retry_exponential_backoff": True},
):

    @task
    def tables() -> list[str]:
        """Name the tables that have a retention policy."""
        from airflow_provider_lakets.hooks.lakets import LakeTSHook

        return [table.name for table in LakeTSHook().chronotables(policy="retention")]

    # One mapped task a table, named after it; skipped when no table has a retention policy.
    LakeTSRetentionOperator.partial(
        task_id="drop_expired", max_active_tis_per_dagrun=4, map_index_template="{{ task.table }}"
    ).expand(table=tables())
