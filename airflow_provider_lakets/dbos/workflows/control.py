"""Control existing workflows: cancel, resume, rewind and fork them, and mark what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.dbos.workflows.ids import REPORTED, STOPPED
from airflow_provider_lakets.dbos.workflows.outcomes import (
    ACTIVE,
    CANCELLED,
    GIVEN_UP,
    failed_steps,
    has_ended,
)
from airflow_provider_lakets.exceptions import DBOSSettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbos import WorkflowStatus

    from airflow_provider_lakets.dbos.hook import DBOSHook

RESUMABLE = (CANCELLED, GIVEN_UP)


def stop(hook: DBOSHook, workflow_ids: Sequence[str], *, prefix: str | None, children: bool) -> list[str]:
    """
    Cancel the workflows of a task that is stopped; when it runs again, it resumes them.

    Return the ids of those that were active.

    :param workflow_ids: Their ids.
    :param prefix: The prefix of more ids.
    :param children: Whether to also cancel the workflows that they started.
    """
    active = [name for name, one in hook.statuses(workflow_ids).items() if not has_ended(one)]
    if prefix:
        with hook.doing("Looking up the active workflows of a task") as client:
            found = client.list_workflows(
                workflow_id_prefix=prefix, status=[*ACTIVE], load_input=False, load_output=False
            )
        active = list(dict.fromkeys([*active, *(one.workflow_id for one in found)]))
    # The mark comes first: without it, a workflow would count as cancelled by somebody else.
    for name in active:
        mark(hook, name, STOPPED)
    with hook.doing(f"Cancelling {len(active)} DBOS workflow(s)") as client:
        client.cancel_workflows(active, cancel_children=children)
    return active


def mark(hook: DBOSHook, workflow_id: str, what: str, *, on: bool = True) -> None:
    """
    Set or remove a mark in the attributes of a workflow.

    The value is the id of the workflow. A fork inherits the attributes, but has another id, so the
    marks of the original do not apply to it.
    """
    with hook.doing(f"Marking DBOS workflow {workflow_id}") as client:
        client.update_workflow_attributes(workflow_id, {what: workflow_id if on else None}, merge=True)


def is_marked(status: WorkflowStatus, what: str) -> bool:
    """Return whether a workflow has a mark."""
    return (status.attributes or {}).get(what) == status.workflow_id


def resume(hook: DBOSHook, status: WorkflowStatus, queue_name: str | None = None) -> None:
    """Resume a workflow that was cancelled or given up."""
    if status.status not in RESUMABLE:
        raise DBOSSettingError(
            f"DBOS workflow {status.workflow_id} is {status.status}: only {' or '.join(RESUMABLE)} "
            "workflows can be resumed. Fork or rewind it from a step instead."
        )
    unmark(hook, status)
    with hook.doing(f"Resuming DBOS workflow {status.workflow_id}") as client:
        client.resume_workflow(status.workflow_id, queue_name=queue_name)


def rewind(hook: DBOSHook, status: WorkflowStatus, step: int | None, **where: Any) -> None:
    """Run a workflow again with the same id from a step on, or from the failed step."""
    unmark(hook, status)
    start = first_step(hook, status.workflow_id, step)
    try:
        with hook.doing(f"Rewinding DBOS workflow {status.workflow_id}") as client:
            client.rewind_workflow(status.workflow_id, start_step=start, **where)
    except DBOSSettingError:
        now = hook.statuses([status.workflow_id]).get(status.workflow_id)
        if now is None or has_ended(now):
            raise
        # Another try of the task was faster.


def fork(hook: DBOSHook, workflow_id: str, new_id: str, step: int | None, **where: Any) -> None:
    """
    Run a workflow again with another id from a step on, or from the failed step; do so only once.

    :param new_id: The new id; if it exists, nothing happens.
    """
    from dbos import SetWorkflowID

    if new_id in hook.statuses([new_id]):
        return
    start = first_step(hook, workflow_id, step)
    try:
        with (
            hook.doing(f"Forking DBOS workflow {workflow_id} from step {start}") as client,
            SetWorkflowID(new_id),
        ):
            client.fork_workflow(workflow_id, start, **where)
    except Exception:
        if new_id not in hook.statuses([new_id]):
            raise
        # Another try of the task was faster.


def first_step(hook: DBOSHook, workflow_id: str, step: int | None) -> int:
    """Return the step to start from: the requested one, the failed one, or the first."""
    if step is not None:
        return step
    failed = failed_steps(hook, [workflow_id]).get(workflow_id)
    return failed.number if failed else 1


def unmark(hook: DBOSHook, status: WorkflowStatus) -> None:
    """Remove the marks of a workflow that will run again."""
    for what in (REPORTED, STOPPED):
        if is_marked(status, what):
            mark(hook, status.workflow_id, what, on=False)
