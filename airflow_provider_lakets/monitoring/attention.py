"""What needs attention, from what the page has read: each with its next step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from airflow_provider_lakets.monitoring.words import ago, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_lakets.hooks.results import JobRun
    from airflow_provider_lakets.monitoring.data import Snapshot, Table

# A feed flushes within a minute, a lock is held for seconds: after so many runs somebody should
# look.
MANY_RUNS = 3

ORDER = {"fail": 0, "warn": 1, "info": 2}


@dataclass(frozen=True)
class Attention:
    """One thing: how bad it is, what it is about, what was found, and what to do."""

    severity: str
    subject: str
    said: str
    advice: str
    kind: str = "table"


def needs_attention(snapshot: Snapshot) -> list[Attention]:
    """Return what somebody should look at, the worst first."""
    found = [one for table in snapshot.tables for one in _of_table(table)]
    for rollup in snapshot.rollups:
        if rollup.is_late:
            when = f"refreshed {ago(rollup.last_refreshed_at, snapshot.at)}"
            when = when if rollup.last_refreshed_at else "never refreshed"
            said = f"{when}; its refresh_lag is {rollup.refresh_lag}"
            advice = "See whether the RollUp job runs; `lakets run refresh` shows why a refresh fails."
            found.append(Attention("warn", rollup.name, said, advice, "rollup"))
    found += _of_history(snapshot)
    return sorted(found, key=lambda one: ORDER[one.severity])


def _of_history(snapshot: Snapshot) -> Iterator[Attention]:
    """Yield what failed when it was tried last, and what is left undone run after run."""
    known = {table.name for table in snapshot.tables} | {rollup.name for rollup in snapshot.rollups}
    runs: dict[tuple[str, str], list[JobRun]] = {}
    for run in snapshot.history:
        if run.relation is not None and run.relation in known:
            runs.setdefault((run.job, run.relation), []).append(run)
    for (job, name), newest_first in runs.items():
        last = newest_first[0]
        kind = "rollup" if job == "refresh" else "table"
        alike = len([*takewhile(_ended_in(last.outcome), newest_first)])
        when = f"last {ago(last.started_at, snapshot.at)}"
        detail = " ".join((last.detail or "").split())
        if last.outcome == "failed":
            said = f"job {job} failed, {when}: {detail or 'see its log'}"
            yield Attention("fail", name, said, f"Mend what it says; `lakets run {job}` tries again.", kind)
        elif last.outcome == "contended" and alike >= MANY_RUNS:
            said = f"job {job} did not get a lock in {alike} runs, {when}: {detail or 'another session'}"
            yield Attention("warn", name, said, "End the session that holds it, or run the job later.", kind)
        elif last.outcome == "deferred" and job == "tier" and alike >= MANY_RUNS:
            said = f"chunks were not proved durable in {alike} runs, {when}"
            yield Attention("warn", name, said, "Run `lakets doctor`: it says what stops the feed.", kind)


def _ended_in(outcome: str) -> Callable[[JobRun], bool]:
    return lambda run: run.outcome == outcome


def _of_table(table: Table) -> Iterator[Attention]:
    if table.sync_enabled and table.feed != "STREAMING":
        said = f"the change feed is not streaming ({table.feed}): nothing is proved durable"
        yield Attention("fail", table.name, said, "Run `lakets doctor`: it says what stops the feed.")
    elif deferred := table.count("deferred"):
        lag = f"; the feed is {size(table.lag_bytes)} behind" if table.lag_bytes else ""
        many = f"{deferred} chunk{'s' * (deferred > 1)}"
        said = f"{many} due and left by the last run: {table.why or 'nothing keeps them any more'}{lag}"
        yield Attention("warn", table.name, said, "The next run takes them once that is over.")
    if not table.count("planned"):
        said = "no chunk is made ahead; rows after the last chunk go to the default partition"
        yield Attention("warn", table.name, said, "Run the partition manager, or `lakets run partitions`.")
