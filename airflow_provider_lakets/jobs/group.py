"""The whole lifecycle as a task group, for your own DAG."""

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
    check_pool,
    check_unknown,
)
from airflow_provider_lakets.jobs.tasks import MAKERS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# A job runs after a job that was skipped, with nothing to do, but not after a job that failed.
DEFAULT_RULE = "none_failed"


def lakets_task_group(
    group_id: str = "lakets",
    *,
    jobs: Collection[str] = JOBS,
    pool: str | None = None,
    default_args: Mapping[str, Any] | None = None,
    **options: Any,
) -> TaskGroup:
    """
    Create a task group in the current DAG that runs the jobs one after another.

    It creates chunks, refreshes RollUps, flags cold chunks and drops expired ones. A job that fails
    stops those after it; a job with nothing to do does not.

    Arguments that are not given come from the ``default_args`` of the group, of the enclosing
    groups and of the DAG. If none of them sets retries, they are as in the sample DAGs. A
    ``trigger_rule`` there applies only to the first task; the others have the rules of their jobs.

    :param group_id: The id of the group, which is the prefix of its task ids.
    :param jobs: A selection of :data:`~airflow_provider_lakets.jobs.options.JOBS`.
    :param pool: The pool of all tasks; it must exist.
    :param default_args: Arguments of all tasks, over those of the DAG.
    :param options: The fields of :class:`~airflow_provider_lakets.jobs.options.JobOptions`.
    """
    check_id("group_id", group_id)
    chosen = check_jobs(jobs)
    known = [one.name for one in fields(JobOptions)]
    check_unknown(options, known, "lakets_task_group")
    own: dict[str, Any] = dict(default_args or {})
    if pool is not None:
        check_pool(pool)
        own["pool"] = pool
    with TaskGroup(group_id, tooltip="The lifecycle of LakeTS time-series tables") as group:
        group.default_args |= own
        inherited = {**group.dag.default_args, **group.default_args}
        group.default_args |= {name: value for name, value in RETRIES.items() if name not in inherited}
        if "max_active_tis_per_dagrun" in inherited:
            options.setdefault("max_active_tis", inherited["max_active_tis_per_dagrun"])
        settings = JobOptions(**{**{name: inherited[name] for name in known if name in inherited}, **options})
        rule = inherited.get("trigger_rule", DEFAULT_RULE)
        last = None
        for job in chosen:
            with TaskGroup(job):
                first, end = MAKERS[job](settings, rule if last is None else DEFAULT_RULE)
            if last is not None:
                last >> first
            last = end
    return group
