"""
Flag chunks that are older than their tiering policy and proved durable in Unity Catalog.

Nothing is dropped. Chunks that the change feed has not flushed yet are deferred to the next run.
Runs daily at 02:00 UTC, an hour before retention. A manual run can be limited to some tables, or be
a dry run, which changes nothing.

A manual run takes:

- `tables`: only these, as `schema.table`; empty for all.
- `dry_run`: report what would happen, and change nothing.

Outcomes of a chunk:

- `tiered`: every row of the chunk is in Unity Catalog.
- `deferred`: not proved yet, and why; the next run looks again.
- `contended`: another session holds a lock; the next try takes it.
- `failed`: the reason is in the result of the task.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_lakets.jobs import form
from airflow_provider_lakets.operators.summary import LakeTSSummaryOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierCandidatesOperator, LakeTSTierOperator

with DAG(
    "lakets_tiering",
    schedule="0 2 * * *",
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["lakets"],
    doc_md=__doc__,
    render_template_as_native_obj=True,
    params=form.params("tables", "dry_run"),
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "pool": "default_pool",  # use a dedicated pool to limit the load on Lakebase
    },
):
    candidates = LakeTSTierCandidatesOperator(
        task_id="candidates",
        tables=form.TABLES,
        batch_size=20,
        max_batches=100,  # with more than 2,000 candidates the batches grow
        dry_run=form.DRY_RUN,
    )

    # One mapped task per batch, named after its chunks. Skipped when no chunk is due.
    tier = LakeTSTierOperator.partial(
        task_id="tier",
        retry_exponential_backoff=False,  # in a mapped task it crashes the scheduler of Airflow 3.1.0
        dry_run=form.DRY_RUN,
        max_active_tis_per_dagrun=4,
        map_index_template="{{ task.label }}",
    ).expand(chunks=candidates.output)

    # Counts what was flagged and deferred, with the reasons. Fails when anything failed.
    LakeTSSummaryOperator(task_id="summary", given=candidates.output, results=tier.output)
