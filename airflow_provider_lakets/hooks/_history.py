"""Record the results of the jobs in Lakebase, for DAGs, the command line and DBOS programs."""

from __future__ import annotations

import contextlib
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.hooks.results import RefreshResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.hooks._calls import LakeTSCalls
    from airflow_provider_lakets.hooks.results import JobResult


@contextlib.contextmanager
def noted(hook: LakeTSCalls, job: str) -> Iterator[list[JobResult]]:
    """
    Record the results of a job when the block ends, in the job's session.

    If they cannot be recorded, the job does not fail; this is logged at debug level.

    :param hook: A hook with an open session.
    :param job: ``partitions``, ``tier``, ``retain`` or ``refresh``.
    :return: A list to be filled with the results.
    """
    at, started = datetime.now(timezone.utc), time.monotonic()
    results: list[JobResult] = []
    yield results
    try:
        if hook.supports("_note_job_run"):
            hook.call(
                "_note_job_run",
                repeatable=False,
                p_job=job,
                p_started_at=at,
                p_seconds=time.monotonic() - started,
                p_results=Jsonb([_plain(result) for result in results]),
            )
    except LakeTSError as err:
        hook.log.debug("The results of the job are not recorded: %s", err)


def _plain(result: JobResult) -> dict[str, Any]:
    """Return the recorded form of a result."""
    values = vars(result)
    counts = {name: len(values[name]) for name in ("created", "dropped", "deferred") if values.get(name)}
    counts |= {name: values[name] for name in ("rows", "removed", "trimmed") if values.get(name)}
    outcome = result.outcome
    if isinstance(result, RefreshResult):
        if outcome == "refreshed" and not result.changed:
            outcome = "unchanged"
    elif not counts:
        counts = {outcome: 1}
    return {
        "name": result.name,
        "outcome": outcome,
        "counts": counts,
        "bytes": values.get("bytes"),
        "seconds": values["ms"] / 1000 if values.get("ms") else None,
        "detail": None if result.ok else result.detail,
    }
