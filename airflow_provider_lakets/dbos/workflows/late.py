"""Explain why workflows have not started or ended in time."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_provider_lakets.dbos.workflows.outcomes import WAITING, has_ended
from airflow_provider_lakets.dbos.workflows.versions import why_stuck

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dbos import WorkflowStatus

    from airflow_provider_lakets.dbos.hook import DBOSHook

# The names of recent workflows of a program. DBOS also creates internal workflows, for example for
# an enqueued step; their names begin with one of these characters.
_NAMES = """
SELECT DISTINCT recent.name
  FROM (SELECT name, status FROM {schema}.workflow_status ORDER BY created_at DESC LIMIT 1000) AS recent
 WHERE recent.status IN ('SUCCESS', 'ERROR') AND recent.name !~ '^[<_]'
 ORDER BY 1
"""
_HAS_STEPS = "SELECT 1 FROM {schema}.operation_outputs WHERE workflow_uuid = %s LIMIT 1"
_NAMES_SHOWN = 10


def explain_delay(
    hook: DBOSHook,
    workflow_ids: Sequence[str],
    found: Mapping[str, WorkflowStatus],
    *,
    start_seconds: float | None,
    end_seconds: float,
) -> str | None:
    """
    Return an explanation if some workflows have not ended; None if all have.

    :param workflow_ids: Their ids.
    :param found: Their statuses.
    :param start_seconds: How long they could wait in their queue.
    :param end_seconds: How long they could take in total.
    """
    left = [found[name] for name in workflow_ids if not has_ended(found[name])]
    if not left:
        return None
    some = left[0]
    if all(one.status in WAITING for one in found.values()):
        version = f"version {some.app_version}" if some.app_version else "the latest registered version"
        return (
            f"DBOS workflow {some.name!r} ({some.workflow_id}) has not started in "
            f"{timedelta(seconds=start_seconds or end_seconds)}: it is {some.status} in queue "
            f"{some.queue_name!r}. Check that a program of {version}, of application "
            f"{some.application_name or 'any'}, runs and reads this queue. A retry waits again."
        )
    running = next((one for one in left if one.status not in WAITING), some)
    reason = why_stuck(hook, running) or _why_nothing_is_done(hook, running)
    return (
        f"{len(left)} of {len(workflow_ids)} DBOS workflow(s) have not ended in "
        f"{timedelta(seconds=end_seconds)}, such as {running.workflow_id}, which is {running.status}. "
        f"{reason or 'They continue; a retry waits again.'}"
    )


def unseen_name(hook: DBOSHook, name: str) -> str | None:
    """
    Return a warning if no workflow with this name has ended recently, but others have.

    A program that does not know a name logs this and leaves the workflow PENDING.
    """
    names = [row[0] for row in hook.rows(_NAMES, "Looking up the names of workflows")]
    if not names or name in names:
        return None
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    shown = ", ".join(map(repr, names[:_NAMES_SHOWN])) + more
    return f"No workflow {name!r} has ended here recently; workflows with these names have: {shown}."


def _why_nothing_is_done(hook: DBOSHook, status: WorkflowStatus) -> str | None:
    if status.status in WAITING:
        return None
    if hook.rows(_HAS_STEPS, "Looking for steps of a workflow", status.workflow_id):
        return None
    of = f" of class {status.class_name!r}" if status.class_name else ""
    of += f", instance {status.config_name!r}" if status.config_name else ""
    return (
        "It has not finished a step yet. It may be in its first one: a retry waits again. Or its program has "
        f"no workflow {status.name!r}{of}: then the log of the program says so, and the workflow waits "
        f"forever; cancel it. {unseen_name(hook, status.name) or ''}"
    ).rstrip()
