"""From an exception to the result of one thing in a list, and whether to go on with the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_lakets.exceptions import (
    PERMANENT,
    LakebaseConnectionError,
    LakebaseCredentialError,
    LakebaseResolutionError,
    LakeTSContendedError,
    LakeTSError,
    LakeTSNotInstalledError,
)
from airflow_provider_lakets.hooks.results import JobResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

R = TypeVar("R", bound=JobResult)

# These are not about one table, chunk or RollUp: the next one would fare no better.
GENERAL = (
    LakebaseConnectionError,
    LakebaseCredentialError,
    LakebaseResolutionError,
    LakeTSNotInstalledError,
)


def failure(error: LakeTSError) -> dict[str, Any]:
    """Return the fields of a result for something that went wrong."""
    return {
        "outcome": "contended" if isinstance(error, LakeTSContendedError) else "failed",
        "detail": str(error),
        "retryable": not isinstance(error, PERMANENT),
    }


def attempt(kind: type[R], name: str, job: Callable[[], R]) -> tuple[R, bool]:
    """
    Return the result of a job, made of its error when it fails, and whether to go on with the next.

    :param kind: The class of the result.
    :param name: What the job is about.
    :param job: The job.
    """
    try:
        return job(), True
    except LakeTSError as err:
        return kind(name, **failure(err)), not isinstance(err, GENERAL)


def not_tried(kind: type[R], name: str, after: str) -> R:
    """Return the result of what was not even tried, because of what happened to another."""
    return kind(name, "skipped", f"not tried after what happened to {after}")


def each(kind: type[R], jobs: Iterable[tuple[str, Callable[[], R]]]) -> list[R]:
    """
    Run one job after another and return what became of each.

    :param kind: The class of the results.
    :param jobs: What each is about, and the job.
    """
    results: list[R] = []
    broken_by = None
    for name, job in jobs:
        if broken_by is None:
            result, go_on = attempt(kind, name, job)
            broken_by = None if go_on else name
        else:
            result = not_tried(kind, name, broken_by)
        results.append(result)
    return results
