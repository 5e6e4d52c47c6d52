"""Shared code of operators and sensors that wait in the triggerer."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.compat import TaskDeferralTimeout, conf, fail
from airflow_provider_lakets.exceptions import LakeTSError, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from airflow.sdk import BaseOperator, Context
    from airflow.triggers.base import BaseTrigger
else:
    BaseOperator = object  # the mixin below is always combined with a real operator

# A trigger gives up by itself. Airflow's own timeout applies if no triggerer runs.
GRACE = timedelta(minutes=5)


def defer_by_default(deferrable: bool | None) -> bool:
    """Return the given value, or Airflow's ``[operators] default_deferrable``."""
    if deferrable is None:
        return bool(conf.getboolean("operators", "default_deferrable", fallback=False))
    if isinstance(deferrable, bool):
        return deferrable
    raise ValueError(f"deferrable must be True or False, not {deferrable!r}")


def deadline(seconds: float) -> datetime:
    """Return the time that many seconds from now."""
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


def this_try(context: Context) -> dict[str, Any]:
    """Return the mark of this try, which :func:`is_of_this_try` reads."""
    return {"in_try": context["ti"].try_number}


def is_of_this_try(arguments: dict[str, Any], context: Context) -> bool:
    """
    Return whether the event that resumes a task belongs to this try, and remove the mark from it.

    On Airflow 3.1 a retry resumes with the event of the previous try.
    """
    now: int = context["ti"].try_number
    waited_in: int = arguments.pop("in_try", now)
    return waited_in == now


class ResumingOperator(BaseOperator):
    """Mixin for operators and sensors that defer with :func:`this_try`: only that try resumes."""

    # An attribute of the operator, because the arguments of the deferral are lost if no triggerer
    # answers.
    execute_complete: Callable[..., Any]

    def within(self, seconds: float) -> float:
        """Limit a wait to the execution_timeout, which Airflow ignores while a task is deferred."""
        limit = self.execution_timeout
        return seconds if limit is None else min(seconds, limit.total_seconds())

    def defer_for(
        self, context: Context, trigger: Callable[..., BaseTrigger], seconds: float, **arguments: Any
    ) -> NoReturn:
        """
        Defer until the trigger fires, for at most that many seconds; ``execute_complete`` resumes.

        :param context: The context of the task.
        :param trigger: Called with the deadline, returns the trigger.
        :param seconds: How long to wait, within the execution_timeout.
        :param arguments: Arguments of ``execute_complete`` besides the event.
        """
        patience = self.within(seconds)
        self.defer(
            trigger=trigger(deadline=deadline(patience)),
            method_name="execute_complete",
            kwargs={**this_try(context), **arguments},
            timeout=timedelta(seconds=patience) + GRACE,
        )

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a wait, even without an answer of a triggerer; in a new try, start again."""
        arguments = dict(next_kwargs or {})
        if not is_of_this_try(arguments, context):
            return self.execute(context)
        try:
            return super().resume_execution(next_method, arguments, context)
        except TaskDeferralTimeout:  # for a sensor Airflow raises a different timeout
            self.log.warning("The triggerer did not answer in time; is one running?")
            return self.execute_complete(context, {"status": "timed_out"})


def raise_if_failed(event: Mapping[str, Any]) -> None:
    """Fail the task if the trigger reported an error; without retries if none would help."""
    if event["status"] == "failed":
        if not event["retryable"]:
            fail(event["message"])
        raise wrapped(LakeTSError, event["message"])
