"""Shared code of the LakeTS sensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator

from airflow_provider_lakets.deferral import deadline, defer_by_default
from airflow_provider_lakets.operators._arguments import interval
from airflow_provider_lakets.operators.base import LakeTSBaseOperator
from airflow_provider_lakets.sensors.waiting import WaitingSensor

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_lakets.triggers.base import LakeTSWatchTrigger


class LakeTSBaseSensor(WaitingSensor, LakeTSBaseOperator, BaseSensorOperator):
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

    def check(self, context: Context) -> bool:
        """Check once, and return whether the wait is over."""
        from airflow_provider_lakets.triggers.watch import look

        with self.lakets(context) as hook:
            waiting = look(hook, self.trigger(deadline=deadline(self.timeout)).watch())
        for name, reason in waiting.items():
            self.log.info("Waiting for %s: %s", name, reason)
        return not waiting
