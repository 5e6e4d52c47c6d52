"""List DBOS workflows; what is returned is made for dynamic task mapping."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.compat import fail
from airflow_provider_lakets.dbos.base import DBOSBaseOperator
from airflow_provider_lakets.operators._arguments import as_name, is_nothing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context
    from dbos import WorkflowStatus

    from airflow_provider_lakets.dbos.workflows.outcomes import Step

STATUSES = (
    "ENQUEUED",
    "DELAYED",
    "PENDING",
    "SUCCESS",
    "ERROR",
    "CANCELLED",
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED",
)


class DBOSListWorkflowsOperator(DBOSBaseOperator):
    """
    Return the workflows that fit, oldest first.

    Each is a dict with ``workflow_id``, ``name``, ``status``, ``queue_name``, ``created_at``,
    ``completed_at`` and, of those in ERROR, ``failed_step`` and ``failed_step_name``. What they
    were given and returned is not read.

    :param status: One status or several. (templated)
    :param workflow_name: One name or several. (templated)
    :param queue_name: The queue. (templated)
    :param created_after: An instant, as ISO 8601 text or a datetime; without a zone it is UTC.
        (templated)
    :param created_before: Likewise. (templated)
    :param completed_after: Likewise. (templated)
    :param completed_before: Likewise. (templated)
    :param attributes: What their attributes must hold. (templated)
    :param failed_in_step: Number or name of the step in which they failed. (templated)
    :param limit: The most there may be; more fail the task, since some would be left out without a
        word.
    """

    template_fields: Sequence[str] = (
        *DBOSBaseOperator.template_fields,
        "status",
        "workflow_name",
        "queue_name",
        "created_after",
        "created_before",
        "completed_after",
        "completed_before",
        "attributes",
        "failed_in_step",
    )

    def __init__(
        self,
        *,
        status: str | Sequence[str] | None = None,
        workflow_name: str | Sequence[str] | None = None,
        queue_name: str | None = None,
        created_after: str | datetime | None = None,
        created_before: str | datetime | None = None,
        completed_after: str | datetime | None = None,
        completed_before: str | datetime | None = None,
        attributes: Mapping[str, Any] | None = None,
        failed_in_step: int | str | None = None,
        limit: int = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if limit < 1:
            raise ValueError(f"limit is {limit}. Give 1 or more.")
        self.status = status
        self.workflow_name = workflow_name
        self.queue_name = queue_name
        self.created_after = created_after
        self.created_before = created_before
        self.completed_after = completed_after
        self.completed_before = completed_before
        self.attributes = attributes
        self.failed_in_step = failed_in_step
        self.limit = limit

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return them."""
        from airflow_provider_lakets.dbos.workflows.outcomes import ERROR, failed_steps

        times = ("created_after", "created_before", "completed_after", "completed_before")
        after, before, ended_after, ended_before = (_instant(getattr(self, name), name) for name in times)
        with self.dbos() as hook:
            with hook.doing("Listing DBOS workflows") as client:
                found = client.list_workflows(
                    status=self._statuses(),
                    name=_texts(self.workflow_name, "workflow_name"),
                    queue_name=None if self.queue_name is None else as_name(self.queue_name, "queue_name"),
                    start_time=after,
                    end_time=before,
                    completed_after=ended_after,
                    completed_before=ended_before,
                    attributes=dict(self.attributes) if self.attributes else None,
                    limit=self.limit + 1,
                    load_input=False,
                    load_output=False,
                )
            if len(found) > self.limit:
                fail(f"More than {self.limit} DBOS workflows fit. Narrow the search, or raise limit.")
            steps = failed_steps(hook, [one.workflow_id for one in found if one.status == ERROR])
        listed = [_listed(one, steps.get(one.workflow_id)) for one in found]
        return [one for one in listed if self._fits(one)]

    def _statuses(self) -> list[str] | None:
        given = _texts(self.status, "status")
        if self.failed_in_step is not None and given is None:
            return ["ERROR"]
        for one in given or ():
            if one not in STATUSES:
                fail(f"There is no status {one!r}. There are: {', '.join(STATUSES)}.")
        return given

    def _fits(self, workflow: Mapping[str, Any]) -> bool:
        step = self.failed_in_step
        if step is None:
            return True
        if is_nothing(step):
            fail(f"failed_in_step was rendered to {step!r}, which names no step.")
        return str(step) in (str(workflow["failed_step"]), workflow["failed_step_name"])


def _texts(given: str | Sequence[str] | None, name: str) -> list[str] | None:
    if given is None:
        return None
    texts = [given] if isinstance(given, str) else list(given)
    if is_nothing(texts) or any(is_nothing(one) for one in texts):
        fail(f"{name} was rendered to {given!r}, which is nothing. Leave it out for all.")
    return texts


def _instant(given: str | datetime | None, name: str) -> str | None:
    """Return an instant as DBOS reads it, in UTC unless it says otherwise."""
    if given is None:
        return None
    try:
        moment = (
            given
            if isinstance(given, datetime)
            else datetime.fromisoformat(given.strip().replace("Z", "+00:00"))
        )
    except ValueError:
        fail(f"{name} is {given!r}. Give an instant such as 2025-06-01T03:00:00+00:00.")
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).isoformat()


def _listed(status: WorkflowStatus, step: Step | None) -> dict[str, Any]:
    return {
        "workflow_id": status.workflow_id,
        "name": status.name,
        "status": status.status,
        "queue_name": status.queue_name,
        "created_at": _iso(status.created_at),
        "completed_at": _iso(status.completed_at),
        "failed_step": step.number if step else None,
        "failed_step_name": step.name if step else None,
    }


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat()
