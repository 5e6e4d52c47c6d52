"""
Flag chunks older than their table's tiering policy that are proved durable in Unity Catalog.

Nothing is dropped. What the change feed has not flushed yet is deferred to the next run. Daily at 02:00 UTC,
an hour before retention.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_lakets.operators.tiering import LakeTSTierCandidatesOperator, LakeTSTierOperator

with DAG(
    "lakets_tiering",
    schedule="0 2 * * *",
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["lakets"],
    doc_md=__doc__,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=1), "retry_exponential_backoff": True},
):
    candidates = LakeTSTierCandidatesOperator(task_id="candidates", batch_size=20)

    # One mapped task a batch, named after its chunks; skipped when no chunk is due.
    LakeTSTierOperator.partial(
        task_id="tier", max_active_tis_per_dagrun=4, map_index_template="{{ task.label }}"
    ).expand(chunks=candidates.output)
