"""A retry policy for any task that uses Lakebase."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.compat import RetryDecision, RetryPolicy

if TYPE_CHECKING:
    from airflow.sdk import Context


class LakeTSRetryPolicy(RetryPolicy):
    """
    Fail at once for errors that a retry cannot fix, and retry soon after contention.

    On Airflow 3.3 the operators of this provider use it unless they have another policy. For
    other tasks, put it into ``default_args``; older versions of Airflow ignore it there.

    :param contended_delay: How long to wait after contention, which is usually short. None means
        the ``retry_delay`` of the task.
    """

    def __init__(self, *, contended_delay: timedelta | None = timedelta(seconds=30)) -> None:
        self.contended_delay = contended_delay

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """
        Decide by the class of the error, or of its causes.

        :param exception: The error of the task.
        :param try_number: The number of the try.
        :param max_tries: The largest number of tries.
        :param context: The context of the task.
        """
        from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]

        from airflow_provider_lakets.exceptions import (
            PERMANENT,
            LakebaseConnectionError,
            LakeTSContendedError,
        )

        for error in _causes(exception):
            name = type(error).__name__
            if isinstance(error, (AirflowNotFoundException, *PERMANENT)):
                return RetryDecision.fail(f"{name}: a retry cannot fix this")
            if isinstance(error, LakeTSContendedError):
                return RetryDecision.retry(self.contended_delay, f"{name}: another session held a lock")
            if isinstance(error, LakebaseConnectionError):
                return RetryDecision.retry(reason=f"{name}: Lakebase or the workspace did not answer")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Return the arguments to recreate the policy."""
        delay = None if self.contended_delay is None else self.contended_delay.total_seconds()
        return {"contended_delay": delay}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> LakeTSRetryPolicy:
        """Recreate the policy."""
        delay = data["contended_delay"]
        return cls(contended_delay=None if delay is None else timedelta(seconds=delay))


def _causes(error: BaseException | None) -> list[BaseException]:
    """Return an error and its chain of causes."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__
    return found
