"""The tasks of each job, made in the current DAG or task group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.operators.approval import LakeTSForceApprovalOperator
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator
from airflow_provider_lakets.operators.summary import LakeTSSummaryOperator
from airflow_provider_lakets.operators.tables import LakeTSTablesOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierCandidatesOperator, LakeTSTierOperator

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import BaseOperator

    from airflow_provider_lakets.jobs.options import JobOptions

    # The first and the last task of a job.
    Ends = tuple[BaseOperator, BaseOperator]


def partition_manager(options: JobOptions, **first: Any) -> Ends:
    """Make the task that makes chunks."""
    task = LakeTSPartitionOperator(
        task_id="ensure_partitions",
        tables=options.tables,
        range_start=options.range_start,
        range_end=options.range_end,
        max_active_tis_per_dag=1,  # the runs of a backfill take turns
        **_shared(options),
        **first,
    )
    return task, task


def rollup_refresh(options: JobOptions, **first: Any) -> Ends:
    """Make the task that refreshes RollUps."""
    task = LakeTSRollupRefreshOperator(
        task_id="refresh",
        rollup=options.rollup,
        parallelism=options.parallelism,
        range_start=options.range_start,
        range_end=options.range_end,
        max_active_tis_per_dag=1,  # the runs of a backfill take turns
        **_shared(options),
        **first,
    )
    return task, task


def tiering(options: JobOptions, **first: Any) -> Ends:
    """Make the tasks that find cold chunks, flag them batch by batch, and sum up."""
    candidates = LakeTSTierCandidatesOperator(
        task_id="candidates",
        tables=options.tables,
        batch_size=options.batch_size,
        max_batches=options.max_batches,
        **_shared(options),
        **first,
    )
    tier = LakeTSTierOperator.partial(
        task_id="tier",
        deferrable=options.deferrable,
        map_index_template="{{ task.label }}",
        **_mapped(options),
    ).expand(chunks=candidates.output)
    summary = LakeTSSummaryOperator(
        task_id="summary", given=candidates.output, results=tier.output, **options.operator_arguments
    )
    return candidates, summary


def retention(options: JobOptions, **first: Any) -> Ends:
    """Make the tasks that list tables, ask before force, drop table by table, and sum up."""
    tables = LakeTSTablesOperator(
        task_id="tables",
        tables=options.tables,
        policy="retention",
        lakebase_conn_id=options.lakebase_conn_id,
        **options.operator_arguments,
        **first,
    )
    approved = LakeTSForceApprovalOperator(
        task_id="approve_force", tables=tables.output, force=options.force, **_shared(options)
    )
    drop = LakeTSRetentionOperator.partial(
        task_id="drop_expired",
        force=options.force,
        deferrable=options.deferrable,
        map_index_template="{{ task.table }}",
        **_mapped(options),
    ).expand(table=approved.output)
    summary = LakeTSSummaryOperator(
        task_id="summary", given=approved.output, results=drop.output, **options.operator_arguments
    )
    return tables, summary


def _shared(options: JobOptions) -> dict[str, Any]:
    return {
        "lakebase_conn_id": options.lakebase_conn_id,
        "dry_run": options.dry_run,
        **options.operator_arguments,
    }


def _mapped(options: JobOptions) -> dict[str, Any]:
    return {
        "max_active_tis_per_dagrun": options.max_active_tis,
        **_shared(options),
        "retry_exponential_backoff": False,  # in a mapped task it ends the scheduler of Airflow 3.1.0
    }


MAKERS: dict[str, Callable[..., Ends]] = {
    "partition_manager": partition_manager,
    "rollup_refresh": rollup_refresh,
    "tiering": tiering,
    "retention": retention,
}
