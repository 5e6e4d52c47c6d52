"""List DBOS workflows, for dynamic task mapping."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.compat import fail
from airflow_provider_lakets.dbos.base import DBOSBaseOperator
from airflow_provider_lakets.operators._arguments import LEFT_OUT, as_instant, as_names, count

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
    Return the matching workflows, oldest first.

    Each is a dict with ``workflow_id``, ``name``, ``status``, ``queue_name``, ``created_at``,
    ``completed_at`` and, for status ERROR, ``failed_step`` and ``failed_step_name``. Arguments and
    results are not read.

    :param status: One status or several. (templated)
    :param workflow_name: One name or several. (templated)
    :param queue_name: The queue. (templated)
    :param created_after: A time, as ISO 8601 text or a datetime; without a zone it is UTC.
        (templated)
    :param created_before: A time in the same format. (templated)
    :param completed_after: A time in the same format. (templated)
    :param completed_before: A time in the same format. (templated)
    :param attributes: Attributes that the workflows must have. (templated)
    :param failed_in_step: Number or name of the failed step. (templated)
    :param limit: The largest number of workflows. More fail the task, because some would be
        silently left out.
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
        status: str | Sequence[str] | None = LEFT_OUT,
        workflow_name: str | Sequence[str] | None = LEFT_OUT,
        queue_name: str | None = LEFT_OUT,
        created_after: str | datetime | None = LEFT_OUT,
        created_before: str | datetime | None = LEFT_OUT,
        completed_after: str | datetime | None = LEFT_OUT,
        completed_before: str | datetime | None = LEFT_OUT,
        attributes: Mapping[str, Any] | None = LEFT_OUT,
        failed_in_step: int | str | None = LEFT_OUT,
        limit: int = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.status = self.given(status, "status")
        self.workflow_name = self.given(workflow_name, "workflow_name")
        self.queue_name = self.given(queue_name, "queue_name")
        self.created_after = self.given(created_after, "created_after")
        self.created_before = self.given(created_before, "created_before")
        self.completed_after = self.given(completed_after, "completed_after")
        self.completed_before = self.given(completed_before, "completed_before")
        self.attributes = self.given(attributes, "attributes")
        self.failed_in_step = self.given(failed_in_step, "failed_in_step")
        self.limit = count(limit, "limit")

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the workflows."""
        from airflow_provider_lakets.dbos.workflows.outcomes import ERROR, failed_steps

        self.check_given()
        search = self._search()
        with self.dbos() as hook:
            with hook.doing("Listing DBOS workflows") as client:
                found = client.list_workflows(
                    **search, limit=self.limit + 1, load_input=False, load_output=False
                )
            if len(found) > self.limit:
                fail(f"More than {self.limit} DBOS workflows match. Narrow the search, or raise limit.")
            steps = failed_steps(hook, [one.workflow_id for one in found if one.status == ERROR])
        listed = [_listed(one, steps.get(one.workflow_id)) for one in found]
        return [one for one in listed if self._fits(one)]

    def _search(self) -> dict[str, Any]:
        """Return the filters, as arguments of the DBOS client."""
        return {
            "status": self._statuses(),
            "name": self._names("workflow_name"),
            "queue_name": self.name_or_none("queue_name"),
            "start_time": self._instant("created_after"),
            "end_time": self._instant("created_before"),
            "completed_after": self._instant("completed_after"),
            "completed_before": self._instant("completed_before"),
            "attributes": self._attributes(),
        }

    def _statuses(self) -> list[str] | None:
        given = self._names("status")
        if self.is_given("failed_in_step") and given is None:
            return ["ERROR"]
        for one in given or ():
            if one not in STATUSES:
                fail(f"There is no status {one!r}. There are: {', '.join(STATUSES)}.")
        return given

    def _fits(self, workflow: Mapping[str, Any]) -> bool:
        step = str(self.failed_in_step)
        return not self.is_given("failed_in_step") or step in (
            str(workflow["failed_step"]),
            workflow["failed_step_name"],
        )

    def _names(self, name: str) -> list[str] | None:
        return as_names(getattr(self, name), name) if self.is_given(name) else None

    def _instant(self, name: str) -> str | None:
        return as_instant(getattr(self, name), name).isoformat() if self.is_given(name) else None

    def _attributes(self) -> dict[str, Any] | None:
        if self.is_given("attributes") and not hasattr(self.attributes, "items"):
            remedy = "Set render_template_as_native_obj in the DAG."
            fail(f"attributes must be a dict, not {self.attributes!r}. {remedy}")
        return dict(self.attributes) if self.is_given("attributes") else None


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
