"""Turn an exception into the result of one item, and decide whether to continue with the rest."""

from __future__ import annotations

from contextlib import contextmanager
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
    from collections.abc import Callable, Iterable, Iterator

R = TypeVar("R", bound=JobResult)

# Errors that do not concern a single table, chunk or RollUp: the next one would fail, too.
GENERAL = (
    LakebaseConnectionError,
    LakebaseCredentialError,
    LakebaseResolutionError,
    LakeTSNotInstalledError,
)


class Locked:
    """
    The items that share a lock with two others that another session locked; they are not tried.

    One alone may have a lock of its own, but two mean that each would wait in vain.

    :param alike: Returns the items that share a lock with one, such as the chunks of its table.
    """

    def __init__(self, alike: Callable[[str], list[str]]) -> None:
        self._alike = alike
        self._first: dict[str, str] = {}
        self._second: dict[str, str] = {}

    @contextmanager
    def watch(self, name: str) -> Iterator[None]:
        """Try an item, unless it is known to be locked."""
        if name in self._second:
            locked = f"{self._first[name]} and {self._second[name]}"
            raise LakeTSContendedError(f"not tried, because {locked} of the same table are locked")
        try:
            yield
        except LakeTSContendedError:
            known = self._second if name in self._first else self._first
            known.update(dict.fromkeys(self._alike(name), name))
            raise


def failure(error: LakeTSError) -> dict[str, Any]:
    """Return the fields of a result for an error."""
    return {
        "outcome": "contended" if isinstance(error, LakeTSContendedError) else "failed",
        "detail": str(error),
        "retryable": not isinstance(error, PERMANENT),
    }


def attempt(kind: type[R], name: str, job: Callable[[], R]) -> tuple[R, bool]:
    """
    Return the result of a job, or of its error, and whether to continue with the next job.

    :param kind: The class of the result.
    :param name: The name of the item.
    :param job: The job.
    """
    try:
        return job(), True
    except LakeTSError as err:
        return kind(name, **failure(err)), not isinstance(err, GENERAL)


def not_tried(kind: type[R], name: str, after: str) -> R:
    """Return the result of an item that was not tried because another one failed."""
    return kind(name, "skipped", f"not tried after the failure of {after}")


def each(kind: type[R], jobs: Iterable[tuple[str, Callable[[], R]]]) -> list[R]:
    """
    Run jobs one after another and return their results.

    :param kind: The class of the results.
    :param jobs: The name of each item, and its job.
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
