"""The whole lifecycle as a task group, for a DAG of your own."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup

from airflow_provider_lakets.jobs.options import (
    JOBS,
    RETRIES,
    JobOptions,
    check_id,
    check_jobs,
    check_unknown,
)
from airflow_provider_lakets.jobs.tasks import MAKERS

if TYPE_CHECKING:
    from collections.abc import Collection


def lakets_task_group(
    group_id: str = "lakets",
    *,
    jobs: Collection[str] = JOBS,
    pool: str = "default_pool",
    default_args: dict[str, Any] | None = None,
    **options: Any,
) -> TaskGroup:
    """
    Make a task group that runs the jobs one after another, in the current DAG.

    Chunks are made, RollUps refreshed, cold chunks flagged, expired ones dropped. A job that fails holds back
    those after it, one with nothing to do does not.

    :param group_id: Of the group; the ids of its tasks begin with it.
    :param jobs: Which jobs, out of :data:`~airflow_provider_lakets.jobs.options.JOBS`.
    :param pool: The pool of all tasks; it must exist.
    :param default_args: Arguments of all tasks, over those of the DAG.
    :param options: The fields of :class:`~airflow_provider_lakets.jobs.options.JobOptions`.
    """
    check_id("group_id", group_id)
    chosen = check_jobs(jobs)
    known = [one.name for one in fields(JobOptions) if one.name != "operator_arguments"]
    check_unknown(options, known, "lakets_task_group")
    arguments = {**RETRIES, **(default_args or {}), "pool": pool}
    settings = JobOptions(**options, operator_arguments=arguments)
    with TaskGroup(group_id, tooltip="The lifecycle of LakeTS time-series tables") as group:
        last = None
        for job in chosen:
            with TaskGroup(job):
                first, end = MAKERS[job](settings, trigger_rule="none_failed")
            if last is not None:
                last >> first
            last = end
    return group
