"""Wait for DBOS workflows that were started elsewhere."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from airflow_provider_lakets.compat import AirflowSensorTimeout, fail
from airflow_provider_lakets.dbos.base import DBOSBaseOperator
from airflow_provider_lakets.dbos.operators import _ids
from airflow_provider_lakets.deferral import (
    GRACE,
    ResumingOperator,
    deadline,
    raise_if_failed,
    this_try,
)
from airflow_provider_lakets.exceptions import wrapped
from airflow_provider_lakets.operators._arguments import interval, switch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow.sdk import Context


class DBOSWorkflowSensor(ResumingOperator, DBOSBaseOperator, BaseSensorOperator):
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

    def execute(self, context: Context) -> Any:
        """Wait."""
        from airflow_provider_lakets.dbos.trigger import DBOSWorkflowTrigger

        if not self.deferrable:
            return super().execute(context)
        if not self.poke(context):
            self.defer(
                trigger=DBOSWorkflowTrigger(
                    workflow_ids=_ids(self.workflow_id),
                    deadline=deadline(self.timeout),
                    poll_interval=self.poke_interval,
                    lakebase_conn_id=self.lakebase_conn_id,
                    dbos_schema=self.dbos_schema,
                    application=self.application,
                ),
                method_name="execute_complete",
                kwargs=this_try(context),
                timeout=timedelta(seconds=self.timeout) + GRACE,
            )
        return None

    def poke(self, context: Context) -> bool:
        """Check once."""
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

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> None:
        """Return if all have ended; otherwise fail, and list those that have not."""
        raise_if_failed(event)
        if not self.poke(context):
            waiting = event.get("waiting") or {}
            reasons = [f"{name}: {reason}" for name, reason in list(waiting.items())[:20]]
            waited = f"Timed out after {timedelta(seconds=self.timeout)}."
            raise wrapped(AirflowSensorTimeout, "\n".join([waited, *reasons]))
