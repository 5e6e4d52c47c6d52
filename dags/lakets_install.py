"""
Install LakeTS into the database of the connection, or bring it up to date.

Run it once by hand, and again after each upgrade of the provider. It is safe to repeat.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_lakets.operators.install import LakeTSInstallOperator

with DAG(
    "lakets_install",
    schedule=None,
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["lakets"],
    doc_md=__doc__,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1), "retry_exponential_backoff": True},
):
    LakeTSInstallOperator(task_id="install")
