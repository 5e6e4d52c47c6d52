"""Which failures are worth another try: a retry policy for any task that works on Lakebase."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.compat import RetryDecision, RetryPolicy

if TYPE_CHECKING:
    from airflow.sdk import Context


class LakeTSRetryPolicy(RetryPolicy):
    """
    Fail at once for what no retry cures, and try again soon after contention.

    The operators of this provider have it where Airflow does (3.3), unless they are given another.
    For other tasks, put it into ``default_args``; older versions of Airflow pass over it there.

    :param contended_delay: How long to wait after contention, a matter of moments; None for the
        task's own ``retry_delay``.
    """

    def __init__(self, *, contended_delay: timedelta | None = timedelta(seconds=30)) -> None:
        self.contended_delay = contended_delay

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """
        Decide by the class of the error, or of one that it was raised from.

        :param exception: Why the task failed.
        :param try_number: Which try it was.
        :param max_tries: How many there are at most.
        :param context: The task's.
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
                return RetryDecision.fail(f"{name}: no retry cures that")
            if isinstance(error, LakeTSContendedError):
                return RetryDecision.retry(self.contended_delay, f"{name}: another session was in the way")
            if isinstance(error, LakebaseConnectionError):
                return RetryDecision.retry(reason=f"{name}: Lakebase or the workspace did not answer")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Return how to make the policy again."""
        delay = None if self.contended_delay is None else self.contended_delay.total_seconds()
        return {"contended_delay": delay}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> LakeTSRetryPolicy:
        """Make the policy again."""
        delay = data["contended_delay"]
        return cls(contended_delay=None if delay is None else timedelta(seconds=delay))


def _causes(error: BaseException | None) -> list[BaseException]:
    """Return an error, what it was raised from, and so on."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__
    return found
