"""What the operators and sensors that wait in the triggerer share."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.compat import TaskDeferralTimeout, conf, fail
from airflow_provider_lakets.exceptions import LakeTSError, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import BaseOperator, Context
else:
    BaseOperator = object  # whose methods the class below finds in those that stand beside it

# A trigger gives up by itself. The timeout that Airflow adds is for when no triggerer runs.
GRACE = timedelta(minutes=5)


def defer_by_default(deferrable: bool | None) -> bool:
    """Return the choice, or else Airflow's ``[operators] default_deferrable``."""
    if deferrable is None:
        return bool(conf.getboolean("operators", "default_deferrable", fallback=False))
    if isinstance(deferrable, bool):
        return deferrable
    raise ValueError(f"deferrable must be True or False, not {deferrable!r}")


def deadline(seconds: float) -> datetime:
    """Return the instant so many seconds from now."""
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


def this_try(context: Context) -> dict[str, Any]:
    """Return the mark to defer with, which :func:`is_of_this_try` reads."""
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

    # Of the operator; what it was deferred with is lost when no triggerer answers.
    execute_complete: Callable[..., Any]

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a wait, also one that no triggerer answered; start again in a new try."""
        arguments = dict(next_kwargs or {})
        if not is_of_this_try(arguments, context):
            return self.execute(context)
        try:
            return super().resume_execution(next_method, arguments, context)
        except TaskDeferralTimeout:  # for a sensor Airflow raises a timeout of its own
            self.log.warning("The triggerer did not answer in time; is one running?")
            return self.execute_complete(context, {"status": "timed_out"})


def raise_if_failed(event: Mapping[str, Any]) -> None:
    """Fail the task if the trigger reported an error, without retry where none helps."""
    if event["status"] == "failed":
        if not event["retryable"]:
            fail(event["message"])
        raise LakeTSError(wrapped(event["message"]))
