"""Defer to the triggerer, and resume with its event."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_lakets.compat import fail
from airflow_provider_lakets.deferral import ResumingOperator, defer_by_default
from airflow_provider_lakets.exceptions import LakeTSPartialFailureError, wrapped
from airflow_provider_lakets.operators._arguments import interval, seconds, switch
from airflow_provider_lakets.operators.base import LakeTSJobOperator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from airflow_provider_lakets.triggers.base import LakeTSBaseTrigger


class LakeTSWaitingOperator(ResumingOperator, LakeTSJobOperator):
    """
    Base of the operators that can wait in the triggerer for the deferred part of their work.

    :param deferrable: Whether to wait; the default is ``[operators] default_deferrable``.
    :param poll_interval: Seconds between two checks while waiting.
    :param wait_timeout: How long to wait: a timedelta, or seconds; at most ``execution_timeout``.
    :param fail_when_deferred: Whether to fail if something is still deferred after the wait.
    """

    def __init__(
        self,
        *,
        deferrable: bool | None = None,
        poll_interval: float = 30,
        wait_timeout: timedelta | float = timedelta(hours=1),
        fail_when_deferred: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = defer_by_default(deferrable)
        self.poll_interval = interval(poll_interval, "poll_interval")
        self.wait_timeout = seconds(wait_timeout, "wait_timeout")
        self.fail_when_deferred = switch(fail_when_deferred, "fail_when_deferred")

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Finish the deferred work."""
        raise NotImplementedError

    def wait(
        self, context: Context, trigger: type[LakeTSBaseTrigger], *, so_far: Any, **arguments: Any
    ) -> NoReturn:
        """
        Defer the task.

        :param trigger: The trigger class.
        :param so_far: The task's result during the wait; see :meth:`so_far`.
        :param arguments: Arguments of the trigger.
        """
        context["ti"].xcom_push(key="return_value", value=so_far)
        arguments |= {"poll_interval": self.poll_interval, "lakebase_conn_id": self.lakebase_conn_id}
        self.defer_for(context, partial(trigger, **arguments), self.wait_timeout)

    def so_far(self, context: Context) -> Any:
        """Return the result that was pushed when the task was deferred."""
        task = context["ti"]
        return task.xcom_pull(task_ids=task.task_id, key="return_value", map_indexes=task.map_index)

    def check_deferred(
        self, context: Context, event: Mapping[str, Any], result: Any, left: list[str]
    ) -> None:
        """
        Fail the task if something is still deferred and ``fail_when_deferred`` is set.

        :param result: The result, which is pushed even if the task fails.
        :param left: A line for each deferred item.
        """
        if not left or not self.fail_when_deferred:
            return
        context["ti"].xcom_push(key="return_value", value=result)
        what = "\n".join([f"{len(left)} still deferred; the rest is done.", *left])
        if event["status"] == "timed_out":
            fail(f"Timed out after {timedelta(seconds=self.within(self.wait_timeout))}: {what}")
        # The condition was met but no longer holds: a retry can help.
        raise wrapped(LakeTSPartialFailureError, f"New changes arrived during the wait: {what}")
