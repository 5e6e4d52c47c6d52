"""Shared code of the LakeTS sensors: poke in a worker, or wait in the triggerer."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from airflow_provider_lakets.compat import AirflowSensorTimeout, AirflowSkipException
from airflow_provider_lakets.deferral import (
    GRACE,
    ResumingOperator,
    deadline,
    defer_by_default,
    raise_if_failed,
    this_try,
)
from airflow_provider_lakets.exceptions import wrapped
from airflow_provider_lakets.operators._arguments import interval
from airflow_provider_lakets.operators.base import LakeTSBaseOperator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airflow_provider_lakets.triggers.base import LakeTSWatchTrigger
    from airflow_provider_lakets.triggers.watch import Waiting


class LakeTSBaseSensor(ResumingOperator, LakeTSBaseOperator, BaseSensorOperator):
    """
    Base of the sensors. The trigger defines the condition, even if the sensor does not defer.

    :param deferrable: Whether to wait in the triggerer; the default is ``[operators]
        default_deferrable``.
    """

    def __init__(self, *, deferrable: bool | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deferrable = defer_by_default(deferrable)
        if self.deferrable:
            interval(self.poke_interval, "poll_interval")

    def trigger(self, **wait: Any) -> LakeTSWatchTrigger:
        """
        Return the trigger with the condition to wait for.

        :param wait: The arguments that all triggers have.
        """
        raise NotImplementedError

    def execute(self, context: Context) -> Any:
        """Wait."""
        if not self.deferrable:
            return super().execute(context)
        if not self.poke(context):
            trigger = self.trigger(
                deadline=deadline(self.timeout),
                poll_interval=self.poke_interval,
                lakebase_conn_id=self.lakebase_conn_id,
            )
            patience = timedelta(seconds=self.timeout) + GRACE
            self.defer(
                trigger=trigger,
                method_name="execute_complete",
                kwargs=this_try(context),
                timeout=patience,
            )
        return None

    def poke(self, context: Context) -> bool:
        """Check once."""
        from airflow_provider_lakets.triggers.watch import look

        with self.lakets(context) as hook:
            waiting = look(hook, self.trigger(deadline=deadline(self.timeout)).watch())
        for name, reason in waiting.items():
            self.log.info("Waiting for %s: %s", name, reason)
        return not waiting

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> None:
        """Return, or fail with what was still missing."""
        try:
            raise_if_failed(event)
        except Exception as err:
            if self.never_fail:
                raise AirflowSkipException(str(err)) from err
            raise
        if event["status"] == "timed_out":
            waiting: Waiting = event.get("waiting") or {}
            reasons = [f"{name}: {reason}" for name, reason in waiting.items()]
            found = "\n".join([*reasons, *filter(None, [event.get("message")])])
            waited = f"Timed out after {timedelta(seconds=self.timeout)}."
            raise wrapped(AirflowSensorTimeout, f"{waited}\n{found}")
