"""The tasks of each job, made in the current DAG or task group."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import TriggerRule, XComArg

from airflow_provider_lakets.operators.approval import CHUNKS_KEY, LakeTSForceApprovalOperator
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


# Options of the operators of all jobs.
SHARED = ("lakebase_conn_id", "dry_run")

# The trigger rules within a job are fixed. With a rule from default_args, a job could continue
# after a failure, or its summary could miss one.
WITHIN, LAST = TriggerRule.ALL_SUCCESS, TriggerRule.ALL_DONE


def partition_manager(options: JobOptions, rule: str) -> Ends:
    """Make the task that creates chunks."""
    task = LakeTSPartitionOperator(
        task_id="ensure_partitions",
        trigger_rule=rule,
        max_active_tis_per_dag=1,  # the runs of a backfill take turns
        **options.given("tables", "range_start", "range_end", *SHARED),
    )
    return task, task


def rollup_refresh(options: JobOptions, rule: str) -> Ends:
    """Make the task that refreshes RollUps."""
    task = LakeTSRollupRefreshOperator(
        task_id="refresh",
        trigger_rule=rule,
        max_active_tis_per_dag=1,  # the runs of a backfill take turns
        **options.given("rollup", "parallelism", "range_start", "range_end", *SHARED),
    )
    return task, task


def tiering(options: JobOptions, rule: str) -> Ends:
    """Make the tasks that find cold chunks, flag them batch by batch, and sum up."""
    candidates = LakeTSTierCandidatesOperator(
        task_id="candidates",
        trigger_rule=rule,
        **options.given("tables", "batch_size", "max_batches", *SHARED),
    )
    tier = LakeTSTierOperator.partial(
        task_id="tier",
        map_index_template="{{ task.label }}",
        **_mapped(options),
        **options.given("deferrable", *SHARED),
    ).expand(chunks=candidates.output)
    summary = LakeTSSummaryOperator(
        task_id="summary", trigger_rule=LAST, given=candidates.output, results=tier.output
    )
    return candidates, summary


def retention(options: JobOptions, rule: str) -> Ends:
    """Make the tasks that list tables, ask before force, drop table by table, and sum up."""
    tables = LakeTSTablesOperator(
        task_id="tables",
        trigger_rule=rule,
        policy="retention",
        **options.given("tables", "max_batches", "lakebase_conn_id"),
    )
    approved = LakeTSForceApprovalOperator(
        task_id="approve_force",
        trigger_rule=WITHIN,
        tables=tables.output,
        **options.given("force", *SHARED),
    )
    drop = LakeTSRetentionOperator.partial(
        task_id="drop_expired",
        map_index_template="{{ task.label }}",
        **_mapped(options),
        approved_chunks=XComArg(approved, key=CHUNKS_KEY),
        **options.given("force", "deferrable", *SHARED),
    ).expand(table=approved.output)
    summary = LakeTSSummaryOperator(
        task_id="summary", trigger_rule=LAST, given=approved.output, results=drop.output
    )
    tables >> summary  # fails with the given tables that do not exist
    return tables, summary


def _mapped(options: JobOptions) -> dict[str, Any]:
    return {
        "max_active_tis_per_dagrun": options.max_active_tis,
        "trigger_rule": WITHIN,
        "retry_exponential_backoff": False,  # in a mapped task it crashes the scheduler of Airflow 3.1.0
    }


MAKERS: dict[str, Callable[..., Ends]] = {
    "partition_manager": partition_manager,
    "rollup_refresh": rollup_refresh,
    "tiering": tiering,
    "retention": retention,
}
