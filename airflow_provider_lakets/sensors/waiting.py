"""How all sensors wait: check in a worker, or in the triggerer after the first check."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.compat import (
    AirflowRescheduleException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
)
from airflow_provider_lakets.deferral import ResumingOperator, deadline, raise_if_failed
from airflow_provider_lakets.exceptions import (
    LakebaseConnectionError,
    LakeTSContendedError,
    LakeTSError,
    wrapped,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from airflow.sdk import BaseSensorOperator, Context

    from airflow_provider_lakets.triggers.base import LakeTSBaseTrigger
else:
    BaseSensorOperator = object  # the mixin below is always combined with a real sensor

# A timeout lists only this many missing items.
ITEMS_SHOWN = 20


class WaitingSensor(ResumingOperator, BaseSensorOperator):
    """
    Mixin for sensors.

    The first check runs in a worker, also if the sensor defers: a connection that does not work
    fails the task before it waits. After that check, a lost connection does not end the wait, and
    neither does a lock at any time. Other errors end it as ``soft_fail``, ``never_fail`` and
    ``silent_fail`` say.

    A sensor that defers again, for example because of ``silent_fail``, has only the rest of its
    ``timeout`` left. In the mode ``reschedule`` the ``execution_timeout`` is for a single check, so
    it does not limit the wait.
    """

    deferrable: bool
    lakebase_conn_id: str
    _has_waited = False
    _until: datetime | None = None

    def check(self, context: Context) -> bool:
        """Check once, and return whether the wait is over."""
        raise NotImplementedError

    def trigger(self, **wait: Any) -> LakeTSBaseTrigger:
        """
        Return the trigger with the condition to wait for.

        :param wait: The arguments that all triggers have.
        """
        raise NotImplementedError

    def within(self, seconds: float) -> float:
        """Limit a wait to the execution_timeout, unless that is the time of a single check."""
        return seconds if self.reschedule else super().within(seconds)

    def poke(self, context: Context) -> bool:
        """Check once; defer if it is not over yet and the sensor is to defer."""
        try:
            is_over = self.check(context)
        except (LakebaseConnectionError, LakeTSContendedError) as err:
            has_waited = self._has_waited or context.get("task_reschedule_count")
            if isinstance(err, LakebaseConnectionError) and not has_waited:
                raise
            self.log.warning("%s Checking again later.", err)
            is_over = False
        self._has_waited = True
        if self.deferrable and not is_over:
            self._wait(context)
        return is_over

    def _wait(self, context: Context) -> NoReturn:
        patience = self.within(self.timeout)
        if self._until is not None:
            patience = (self._until - datetime.now(timezone.utc)).total_seconds()
            if patience <= 0:
                self.raise_timeout({})
        trigger = partial(
            self.trigger, poll_interval=self.poke_interval, lakebase_conn_id=self.lakebase_conn_id
        )
        until = self._until or deadline(patience)
        self.defer_for(context, trigger, patience, until=until.isoformat())

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a wait; a timeout and a reschedule then mean the same as in a worker."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (AirflowSensorTimeout, AirflowTaskTimeout) as err:
            if self.soft_fail or self.never_fail:  # Airflow applies these to some timeouts only
                raise AirflowSkipException(str(err)) from err
            raise
        except AirflowSkipException as err:
            if isinstance(err.__cause__, AirflowRescheduleException):  # Airflow takes it for a failure
                raise err.__cause__ from None
            raise

    def execute_complete(self, context: Context, event: Mapping[str, Any], until: str | None = None) -> Any:
        """
        Return, or fail with what was still missing.

        :param until: When the timeout of the sensor ends.
        """
        self._has_waited = True
        self._until = None if until is None else datetime.fromisoformat(until)
        try:
            raise_if_failed(event)
        except Exception as err:
            if self.silent_fail and isinstance(err, LakeTSError):
                self.log.error("%s", err)  # noqa: TRY400 - the trace says nothing more
                return self.execute(context)
            if self.never_fail:
                raise AirflowSkipException(str(err)) from err
            raise
        if event["status"] == "timed_out":
            self.raise_timeout(event)
        return None

    def raise_timeout(self, event: Mapping[str, Any]) -> NoReturn:
        """Fail with what was still missing at the deadline, and the last error."""
        waiting: Mapping[str, str] = event.get("waiting") or {}
        reasons = [f"{name}: {reason}" for name, reason in list(waiting.items())[:ITEMS_SHOWN]]
        if len(waiting) > ITEMS_SHOWN:
            reasons.append(f"... and {len(waiting) - ITEMS_SHOWN} more")
        patience = self.within(self.timeout)
        waited = f"Timed out after {timedelta(seconds=patience)}."
        lines = [waited, *reasons, *filter(None, [event.get("message")])]
        # As in a worker, Airflow retries the task after its execution_timeout.
        kind = AirflowTaskTimeout if patience < self.timeout else AirflowSensorTimeout
        raise wrapped(kind, "\n".join(lines))
