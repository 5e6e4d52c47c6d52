"""
Drop chunks past their table's retention from Lakebase; Unity Catalog keeps every row.

What is not proved durable there, or not yet in its RollUps, stays, and the task says why. Daily at
03:00 UTC, an hour after tiering. A manual run may be for some tables only, or a dry run, which
changes nothing. With `force` it drops what is not proved durable as well, once somebody has
approved that.

A manual run takes:

- `tables`: only these, as `schema.table`; empty for all.
- `force`: also drop what is not proved durable, once somebody has approved it.
- `dry_run`: report what would happen, and change nothing.

Outcomes of a table:

- `dropped`: chunks are gone from Lakebase.
- `deferred`: chunks are kept, and why.
- `trimmed`: rows of the mirror were removed.
- `unchanged`: nothing was due.
- `contended`: another session holds a lock; the next try takes it.
- `failed`: the reason is in the result of the task.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from airflow.sdk import DAG

from airflow_provider_lakets.jobs import form
from airflow_provider_lakets.operators.approval import LakeTSForceApprovalOperator
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.summary import LakeTSSummaryOperator
from airflow_provider_lakets.operators.tables import LakeTSTablesOperator

with DAG(
    "lakets_retention",
    schedule="0 3 * * *",
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["lakets"],
    doc_md=__doc__,
    render_template_as_native_obj=True,
    params=form.params("tables", "force", "dry_run"),
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "pool": "default_pool",  # or one of your own, to bound the load on Lakebase
    },
):
    tables = LakeTSTablesOperator(
        task_id="tables",
        tables=form.TABLES,
        policy="retention",
        max_batches=100,  # with more than 100 tables a mapped task has several
    )

    # Asks for approval when force is on, and only then; a rejection leaves no table to go on with.
    approved = LakeTSForceApprovalOperator(
        task_id="approve_force",
        tables=tables.output,
        force=form.FORCE,
        dry_run=form.DRY_RUN,
    )

    # One mapped task a table, or a batch of them; skipped when no table has a retention policy.
    drop = LakeTSRetentionOperator.partial(
        task_id="drop_expired",
        retry_exponential_backoff=False,  # in a mapped task it ends the scheduler of Airflow 3.1.0
        max_active_tis_per_dagrun=4,
        map_index_template="{{ task.label }}",
        force=form.FORCE,
        dry_run=form.DRY_RUN,
    ).expand(table=approved.output)

    # How many were dropped, deferred and why; fails when anything failed.
    LakeTSSummaryOperator(task_id="summary", given=approved.output, results=drop.output)
