"""Wait for DBOS workflows that were started elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from airflow_provider_lakets.compat import fail
from airflow_provider_lakets.dbos.base import DBOSBaseOperator
from airflow_provider_lakets.dbos.operators import _ids
from airflow_provider_lakets.operators._arguments import interval, switch
from airflow_provider_lakets.sensors.waiting import WaitingSensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context

    from airflow_provider_lakets.dbos.trigger import DBOSWorkflowTrigger


class DBOSWorkflowSensor(WaitingSensor, DBOSBaseOperator, BaseSensorOperator):
    """
    Wait until workflows have ended, including those not started yet; fail if one failed.

    :param workflow_id: An id, an entry of the result of ``DBOSListWorkflowsOperator``, or a list
        of these. (templated)
    :param fail_on_error: Whether to fail if one ended without success.
    :param deferrable: Whether to wait in the triggerer.
    """

    template_fields: Sequence[str] = (*DBOSBaseOperator.template_fields, "workflow_id")

    def __init__(
        self, *, workflow_id: Any, fail_on_error: bool = True, deferrable: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_id = workflow_id
        self.fail_on_error = switch(fail_on_error, "fail_on_error")
        self.deferrable = switch(deferrable, "deferrable")
        if deferrable:
            interval(self.poke_interval, "poll_interval")

    def trigger(self, **wait: Any) -> DBOSWorkflowTrigger:
        """Return the trigger that waits for the workflows."""
        from airflow_provider_lakets.dbos.trigger import DBOSWorkflowTrigger

        return DBOSWorkflowTrigger(
            workflow_ids=_ids(self.workflow_id),
            dbos_schema=self.dbos_schema,
            application=self.application,
            **wait,
        )

    def check(self, context: Context) -> bool:
        """Return whether all have ended; fail if one of them failed."""
        from airflow_provider_lakets.dbos.workflows.outcomes import explain, has_ended

        self.check_given()
        ids = _ids(self.workflow_id)
        with self.dbos() as hook:
            found = hook.statuses(ids)
            if left := [name for name in ids if name not in found or not has_ended(found[name])]:
                some = found.get(left[0])
                status = some.status if some else "not there"
                self.log.info("Waiting for %d, such as %s: %s", len(left), left[0], status)
                return False
            problems = explain(hook, found) if self.fail_on_error else {}
        if problems:
            fail("\n".join(list(problems.values())[:20]))
        return True

    def execute_complete(self, context: Context, event: Mapping[str, Any], until: str | None = None) -> Any:
        """Return if all have ended, or wait again; at the deadline, list those that have not."""
        if event["status"] == "timed_out" and self.check(context):
            return None
        result = super().execute_complete(context, event, until)
        # The trigger does not look for failures, and an ended workflow can be resumed.
        return self.execute(context) if event["status"] == "reached" else result
