"""Send the results of the jobs as Airflow metrics, to StatsD or OpenTelemetry."""

from __future__ import annotations

import logging
import re
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.compat import stats
from airflow_provider_lakets.exceptions import LakeTSError
from airflow_provider_lakets.hooks.results import RefreshResult, RetentionResult, TierResult

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.hooks.results import JobResult

    Tags = dict[str, str]

log = logging.getLogger(__name__)

# StatsD does not escape tags: a colon or a line feed would break the line.
_UNSAFE = re.compile(r"[^\w.\-]", re.ASCII)

LAGS = """
SELECT rol.name, extract(epoch FROM now() - rol.watermark)::double precision AS seconds
  FROM lakets._rollup_registry AS rol WHERE rol.watermark IS NOT NULL AND rol.name = ANY (%(names)s)
"""


def send_results(job: str, results: Sequence[JobResult], *, seconds: float, tags: Mapping[str, str]) -> None:
    """
    Send the duration of a job, and how many chunks and RollUps had which outcome.

    :param job: ``partitions``, ``tier``, ``retain`` or ``refresh``.
    :param results: The results of the job.
    :param seconds: The duration.
    :param tags: The tags of all metrics, in addition to the job.
    """
    common = {**tags, "job": job}
    _send("timing", "job_duration", timedelta(seconds=seconds), common)
    counts: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
    is_whole = all(result.ok for result in results)
    for result in results:
        for name, count in _counts(result, is_whole=is_whole).items():
            more = {"rollup" if isinstance(result, RefreshResult) else "table": result.relation}
            if name == "problems":
                more["outcome"] = result.outcome
            counts[name, tuple(more.items())] += count
    for (name, own_tags), count in counts.items():
        _send("incr", name, count, {**common, **dict(own_tags)})


def send_lags(hook: LakeTSHook, results: Sequence[RefreshResult], *, tags: Mapping[str, str]) -> None:
    """
    Send how far the newest bucket of each RollUp is behind now, and the largest of these lags.

    :param hook: The hook, in the session of the job.
    :param results: The results for the RollUps.
    :param tags: The tags of all metrics.
    """
    try:
        names = [result.name for result in results]
        rows = hook.query(LAGS, {"names": names}, doing="Reading the lag of the RollUps")
    except LakeTSError as err:  # the refresh itself went well
        log.debug("The lag of the RollUps is not sent: %s", err)
        return
    for row in rows:
        _send("gauge", "rollup_lag_seconds", row["seconds"], {**tags, "rollup": row["name"]})
    if rows:
        # StatsD without tags keeps only the last value of each name, so send the largest, too.
        _send("gauge", "rollup_lag_seconds_max", max(row["seconds"] for row in rows), tags)


def _counts(result: JobResult, *, is_whole: bool) -> dict[str, int]:
    """Return the counters of a result."""
    if not result.ok:
        # The part that succeeded counts, too.
        return {"problems": 1, **_chunks(result)}
    if isinstance(result, RefreshResult):
        return {"rollups_refreshed": 1} if result.outcome == "refreshed" else {}
    if isinstance(result, TierResult):
        if result.outcome == "deferred":
            return {"chunks_deferred": 1}
        # If the job failed, its retry treats these chunks as new again and counts them then.
        return {"chunks_tiered": 1} if result.new and is_whole else {}
    return _chunks(result)


def _chunks(result: JobResult) -> dict[str, int]:
    counts = {
        f"chunks_{end}": len(getattr(result, end, None) or ()) for end in ("created", "dropped", "deferred")
    }
    if isinstance(result, RetentionResult) and result.bytes:
        counts["bytes_given_back"] = result.bytes
    return {name: count for name, count in counts.items() if count}


def _send(kind: str, name: str, value: Any, tags: Mapping[str, str]) -> None:
    safe = {key: _UNSAFE.sub("_", value) for key, value in tags.items()}
    try:
        getattr(stats(), kind)(f"lakets.{name}", value, tags=safe)
    except Exception:  # of any client; the job is done and must not fail because of it
        log.debug("Metric lakets.%s is not sent", name, exc_info=True)
