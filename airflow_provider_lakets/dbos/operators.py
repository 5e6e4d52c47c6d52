"""Cancel, resume or fork DBOS workflows, also with dynamic task mapping."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.compat import fail
from airflow_provider_lakets.dbos.base import DBOSBaseOperator
from airflow_provider_lakets.dbos.listing import DBOSListWorkflowsOperator
from airflow_provider_lakets.operators._arguments import LEFT_OUT, ONCE, is_nothing, switch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context
    from dbos import WorkflowStatus

    from airflow_provider_lakets.dbos.hook import DBOSHook

__all__ = [
    "DBOSCancelOperator",
    "DBOSForkOperator",
    "DBOSListWorkflowsOperator",
    "DBOSResumeOperator",
]


class DBOSControlOperator(DBOSBaseOperator):
    """
    Base of the operators that control workflows.

    :param workflow_id: An id, an entry of the result of ``DBOSListWorkflowsOperator``, or a list
        of these. (templated)
    """

    template_fields: Sequence[str] = (*DBOSBaseOperator.template_fields, "workflow_id")

    def __init__(self, *, workflow_id: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.workflow_id = workflow_id

    def execute(self, context: Context) -> list[str]:
        """Pass the workflows to :meth:`act`, and return its ids; refuse unknown workflows."""
        ids = _ids(self.workflow_id)
        with self.dbos() as hook:
            found = hook.statuses(ids)
            if missing := [one for one in ids if one not in found]:
                fail(f"{len(missing)} of {len(ids)} DBOS workflow(s) do not exist, such as {missing[0]!r}.")
            return self.act(hook, [found[one] for one in ids], context)

    def act(self, hook: DBOSHook, found: Sequence[WorkflowStatus], context: Context) -> list[str]:
        """Act on the workflows, and return their ids, or new ones."""
        raise NotImplementedError


class DBOSCancelOperator(DBOSControlOperator):
    """
    Cancel workflows; workflows that have ended are not changed.

    A running step is not interrupted: the workflow stops before its next step.

    :param workflow_id: One or several. (templated)
    :param cancel_children: Whether to also cancel the workflows that they started.
    """

    def __init__(self, *, cancel_children: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cancel_children = switch(cancel_children, "cancel_children")

    def act(self, hook: DBOSHook, found: Sequence[WorkflowStatus], context: Context) -> list[str]:
        """Cancel those that are active; return their ids."""
        from airflow_provider_lakets.dbos.workflows.outcomes import has_ended

        active = [one.workflow_id for one in found if not has_ended(one)]
        with hook.doing(f"Cancelling {len(active)} DBOS workflow(s)") as client:
            client.cancel_workflows(active, cancel_children=self.cancel_children)
        self.log.info("Cancelled %d; %d had ended", len(active), len(found) - len(active))
        return active


class DBOSResumeOperator(DBOSControlOperator):
    """
    Resume workflows that were cancelled or given up, where they stopped.

    Active workflows are not changed. Workflows that succeeded or failed are refused.

    :param workflow_id: One or several. (templated)
    :param queue_name: The queue for them. Without it they start at once. (templated)
    """

    template_fields: Sequence[str] = (*DBOSControlOperator.template_fields, "queue_name")

    def __init__(self, *, queue_name: str | None = LEFT_OUT, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.queue_name = self.given(queue_name, "queue_name")

    def act(self, hook: DBOSHook, found: Sequence[WorkflowStatus], context: Context) -> list[str]:
        """Resume them; return the ids of those that were not active."""
        from airflow_provider_lakets.dbos.workflows.control import RESUMABLE, resume
        from airflow_provider_lakets.dbos.workflows.outcomes import has_ended

        ended = [one for one in found if has_ended(one)]
        queue = _queue(hook, self.name_or_none("queue_name"), ended)
        # Those to refuse come first, so that nothing is resumed if there is one.
        for one in sorted(ended, key=lambda one: one.status in RESUMABLE):
            resume(hook, one, queue)
        return [one.workflow_id for one in ended]


class DBOSForkOperator(DBOSControlOperator):
    """
    Run workflows again with new ids from a step on; the results of earlier steps are reused.

    Returns the new ids. A retry or a cleared task does not fork a second time.

    :param workflow_id: One or several. (templated)
    :param start_step: The step; the default is the failed step, or the first. (templated)
    :param app_version: Version to run them with, for example one with a fix; the default is the
        latest. (templated)
    :param queue_name: The queue for them. Without it they start at once. (templated)
    """

    template_fields: Sequence[str] = (
        *DBOSControlOperator.template_fields,
        "start_step",
        "app_version",
        "queue_name",
    )

    def __init__(
        self,
        *,
        start_step: int | str | None = LEFT_OUT,
        app_version: str | None = LEFT_OUT,
        queue_name: str | None = LEFT_OUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.start_step = self.given(start_step, "start_step")
        self.app_version = self.given(app_version, "app_version")
        self.queue_name = self.given(queue_name, "queue_name")

    def act(self, hook: DBOSHook, found: Sequence[WorkflowStatus], context: Context) -> list[str]:
        """Fork them; return the new ids."""
        from airflow_provider_lakets.dbos.workflows.control import fork
        from airflow_provider_lakets.dbos.workflows.ids import digest, task_id_of
        from airflow_provider_lakets.dbos.workflows.versions import check_version_runs

        queue, version = _queue(hook, self.name_or_none("queue_name")), self.name_or_none("app_version")
        if version is not None:
            hook.check_version(version)
        else:
            for application in dict.fromkeys(one.application_name for one in found):
                check_version_runs(hook, hook.application or application)
        made = []
        for one in found:
            new_id = f"{task_id_of(context)}/{digest(one.workflow_id)}"
            fork(hook, one.workflow_id, new_id, self._step(), queue_name=queue, application_version=version)
            self.log.info("%s continues as %s", one.workflow_id, new_id)
            made.append(new_id)
        return made

    def _step(self) -> int | None:
        if not self.is_given("start_step"):
            return None
        text = str(self.start_step).strip()
        if not text.isascii() or not text.isdecimal() or int(text) < 1:
            fail(f"start_step is {self.start_step!r}. Steps are counted from 1 on.")
        return int(text)


def _queue(
    hook: DBOSHook, queue_name: str | None, keep_their_keys: Sequence[WorkflowStatus] = ()
) -> str | None:
    """Return the name of the queue; refuse a queue that would never run the workflows."""
    if queue_name is not None:
        queue = hook.find_queue(queue_name)
        if queue.is_partitioned:
            for key in [one.queue_partition_key for one in keep_their_keys] or [None]:
                queue.check_partition(key)
    return queue_name


def _ids(given: Any) -> list[str]:
    """Return the ids in their order, without duplicates."""
    if isinstance(given, Iterator):
        fail(f"workflow_id was rendered to {ONCE}.")
    if isinstance(given, str) and given.strip()[:1] in ("[", "(", "{"):
        # A list that a template rendered to text. A sensor would wait for it forever as one id.
        given = _literal(given)
    entries = [given] if isinstance(given, (str, dict)) else given
    if is_nothing(given) or not hasattr(entries, "__iter__"):
        fail(f"workflow_id was rendered to {given!r}, which names no workflow.")
    ids: list[str] = []
    for entry in entries:
        one = entry.get("workflow_id") if isinstance(entry, dict) else entry
        if not isinstance(one, str) or is_nothing(one):
            fail(f"workflow_id must be an id or a list of ids; one of them is {one!r}.")
        ids.append(one)
    return list(dict.fromkeys(ids))


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        fail(f"workflow_id was rendered to {text!r}, which is not a list of ids.")
