"""What is done to workflows that are there: stopped, resumed, forked, told to be over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.dbos.workflows.ids import STOPPED, TOLD
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
    :param prefix: What the ids of further ones begin with.
    :param children: Whether the workflows that they started are cancelled, too.
    """
    active = [name for name, one in hook.statuses(workflow_ids).items() if not has_ended(one)]
    if prefix:
        with hook.doing("Looking up the active workflows of a task") as client:
            found = client.list_workflows(
                workflow_id_prefix=prefix, status=[*ACTIVE], load_input=False, load_output=False
            )
        active = list(dict.fromkeys([*active, *(one.workflow_id for one in found)]))
    # The mark comes first: what is cancelled without it would count as cancelled by somebody else.
    for name in active:
        mark(hook, name, STOPPED)
    with hook.doing(f"Cancelling {len(active)} DBOS workflow(s)") as client:
        client.cancel_workflows(active, cancel_children=children)
    return active


def mark(hook: DBOSHook, workflow_id: str, what: str, *, on: bool = True) -> None:
    """
    Note something of a workflow in its attributes.

    The value is the workflow's id, since a fork inherits attributes, but not what is noted of its
    original.
    """
    with hook.doing(f"Marking DBOS workflow {workflow_id}") as client:
        client.update_workflow_attributes(workflow_id, {what: workflow_id if on else None}, merge=True)


def is_marked(status: WorkflowStatus, what: str) -> bool:
    """Return whether something was noted of a workflow."""
    return (status.attributes or {}).get(what) == status.workflow_id


def resume(hook: DBOSHook, status: WorkflowStatus, queue_name: str | None = None) -> None:
    """Let a workflow go on that was cancelled or given up."""
    if status.status not in RESUMABLE:
        raise DBOSSettingError(
            f"DBOS workflow {status.workflow_id} is {status.status}: only what is {' or '.join(RESUMABLE)} "
            "can be resumed. Fork or rewind it from a step instead."
        )
    unmark(hook, status)
    with hook.doing(f"Resuming DBOS workflow {status.workflow_id}") as client:
        client.resume_workflow(status.workflow_id, queue_name=queue_name)


def rewind(hook: DBOSHook, status: WorkflowStatus, step: int | None, **where: Any) -> None:
    """Run a workflow again under its id from a step on, or from the one that failed."""
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
    Run a workflow again under another id, from a step on, or from the one that failed; once.

    :param new_id: The id; if it is there, nothing happens.
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
    """Take the marks off a workflow that is to run again."""
    for what in (TOLD, STOPPED):
        if is_marked(status, what):
            mark(hook, status.workflow_id, what, on=False)
