"""Find problems of the jobs in the job log in Lakebase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_lakets.monitoring.finding import Attention
from airflow_provider_lakets.monitoring.words import ago

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.monitoring.data import Snapshot

# A feed flushes within a minute, and a lock is held for seconds. So many runs without success need
# attention.
MANY_RUNS = 3


def of_jobs(snapshot: Snapshot) -> Iterator[Attention]:
    """Yield jobs whose last run failed, and jobs that had no success in several runs."""
    tables = {table.name for table in snapshot.tables}
    refreshed = {rollup.name: rollup.last_refreshed_at for rollup in snapshot.rollups}
    for streak in snapshot.troubles.streaks:
        job, name = streak.job, streak.relation
        kind = "rollup" if job == "refresh" else "table"
        if name not in (refreshed if kind == "rollup" else tables):
            continue
        since = refreshed.get(name) if kind == "rollup" else None
        if since is not None and since > streak.ended_at:
            continue
        when = f"last {ago(streak.started_at, snapshot.at)}"
        detail = " ".join((streak.detail or "").split())
        if streak.outcome == "failed":
            said = f"job {job} failed, {when}: {detail or 'see its log'}"
            advice = f"Correct the cause; `lakets run {job}` tries again."
            yield Attention(name, said, advice, "job-failed", kind)
        elif streak.outcome == "contended" and streak.runs >= MANY_RUNS:
            said = (
                f"job {job} did not get a lock in {streak.runs} runs, {when}: {detail or 'another session'}"
            )
            advice = "End the session that holds the lock, or run the job later."
            yield Attention(name, said, advice, "job-contended", kind)
        elif streak.outcome == "deferred" and job == "tier" and streak.runs >= MANY_RUNS:
            said = f"chunks were not proved durable in {streak.runs} runs, {when}"
            advice = "Run `lakets doctor` to see what stops the feed."
            yield Attention(name, said, advice, "chunks-unproved", kind)
