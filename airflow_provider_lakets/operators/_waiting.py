"""Defer to the triggerer, and go on when it has something to tell."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_provider_lakets.compat import fail
from airflow_provider_lakets.deferral import (
    GRACE,
    ResumingOperator,
    deadline,
    defer_by_default,
    this_try,
)
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

    :param deferrable: Whether to wait; by default ``[operators] default_deferrable``.
    :param poll_interval: Seconds between two looks while waiting.
    :param wait_timeout: How long to wait: a timedelta, or seconds.
    :param fail_when_deferred: Whether to fail when something is still deferred after the wait.
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
        """Finish what was deferred."""
        raise NotImplementedError

    def wait(
        self, context: Context, trigger: type[LakeTSBaseTrigger], *, so_far: Any, **arguments: Any
    ) -> NoReturn:
        """
        Defer the task.

        :param trigger: What to wait for.
        :param so_far: What to show as the task's result meanwhile; see :meth:`so_far`.
        :param arguments: The trigger's own.
        """
        context["ti"].xcom_push(key="return_value", value=so_far)
        self.defer(
            trigger=trigger(
                deadline=deadline(self.wait_timeout),
                poll_interval=self.poll_interval,
                lakebase_conn_id=self.lakebase_conn_id,
                **arguments,
            ),
            method_name="execute_complete",
            kwargs=this_try(context),
            timeout=timedelta(seconds=self.wait_timeout) + GRACE,
        )

    def so_far(self, context: Context) -> Any:
        """Return what was shown as the result when the task was deferred."""
        task = context["ti"]
        return task.xcom_pull(task_ids=task.task_id, key="return_value", map_indexes=task.map_index)

    def check_deferred(
        self, context: Context, event: Mapping[str, Any], result: Any, left: list[str]
    ) -> None:
        """
        Fail the task for what is still deferred after the wait, if it shall.

        :param result: The result, pushed all the same.
        :param left: A line for each thing that is deferred.
        """
        if not left or not self.fail_when_deferred:
            return
        context["ti"].xcom_push(key="return_value", value=result)
        patience = timedelta(seconds=self.wait_timeout)
        what = "\n".join([f"{len(left)} still deferred; all that could be done is done.", *left])
        if event["status"] == "timed_out":
            fail(f"Waited {patience} in vain: {what}")
        # What was waited for came, and went again before it could be used: worth another try.
        raise LakeTSPartialFailureError(wrapped(f"Waited, but too much has happened meanwhile: {what}"))
