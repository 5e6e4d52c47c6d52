"""
Drop chunks past their table's retention from Lakebase; Unity Catalog keeps every row.

A chunk that is not proved durable there, or not yet absorbed by its RollUps, stays, and the task
says why. Runs daily at 03:00 UTC, an hour after tiering. A manual run can be limited to some
tables, or be a dry run, which changes nothing. With `force` it also drops chunks that are not
proved durable, after an approval.

A manual run takes:

- `tables`: only these, as `schema.table`; empty for all.
- `force`: also drop chunks that are not proved durable, after an approval.
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

from airflow.sdk import DAG, XComArg

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
        "pool": "default_pool",  # use a dedicated pool to limit the load on Lakebase
    },
):
    tables = LakeTSTablesOperator(
        task_id="tables",
        tables=form.TABLES,
        policy="retention",
        max_batches=100,  # with more than 100 tables a mapped task has several
    )

    # Asks for approval only if force is on. A rejection leaves no table to process.
    approved = LakeTSForceApprovalOperator(
        task_id="approve_force",
        tables=tables.output,
        force=form.FORCE,
        dry_run=form.DRY_RUN,
    )

    # One mapped task per table or batch of tables. Skipped when no table has a retention policy.
    drop = LakeTSRetentionOperator.partial(
        task_id="drop_expired",
        retry_exponential_backoff=False,  # in a mapped task it crashes the scheduler of Airflow 3.1.0
        max_active_tis_per_dagrun=4,
        map_index_template="{{ task.label }}",
        force=form.FORCE,
        approved_chunks=XComArg(approved, key="chunks"),  # not those that become due while the approval waits
        dry_run=form.DRY_RUN,
    ).expand(table=approved.output)

    # Counts what was dropped and deferred, with the reasons. Fails when anything failed.
    summary = LakeTSSummaryOperator(task_id="summary", given=approved.output, results=drop.output)
    tables >> summary  # fails with the given tables that do not exist
