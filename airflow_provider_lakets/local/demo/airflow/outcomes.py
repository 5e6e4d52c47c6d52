"""What the tasks of a run returned, and whether it is what the demo set up to happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_provider_lakets.local.demo.airflow.runs import DagRun

Result = dict[str, Any]


def installed(run: DagRun) -> Result:
    """Return the versions before and after."""
    (result,) = run.results("install")
    return dict(result)


def partitions(run: DagRun) -> list[Result]:
    """Return what became of each table's chunks."""
    (results,) = run.results("ensure_partitions")
    return list(results)


def tiered(run: DagRun) -> list[Result]:
    """Return what became of each candidate, whichever mapped task it was given to."""
    return [result for batch in run.results("tier") for result in batch]


def retained(run: DagRun) -> list[Result]:
    """Return what was dropped and deferred of each table."""
    return run.results("drop_expired")


def refreshed(run: DagRun) -> list[Result]:
    """Return what became of each RollUp."""
    (results,) = run.results("refresh")
    return list(results)


def surprises(runs: Sequence[DagRun]) -> list[str]:
    """Return where the jobs did not do what the demo prepared for them, in sentences."""
    return [
        f"DAG {run.dag_id}, run {number}: {said}"
        for dag_id in dict.fromkeys(run.dag_id for run in runs)
        for number, run in enumerate((run for run in runs if run.dag_id == dag_id), start=1)
        for said in _surprises(run, is_first=number == 1)
    ]


def _surprises(run: DagRun, *, is_first: bool) -> Iterator[str]:
    """
    Compare one run with what was prepared.

    At the first run the feed is held back: chunks with late corrections must be deferred, all
    others not. At the second nothing may be left to defer.
    """
    if run.dag_id == "lakets_partition_manager" and not any(one["created"] for one in partitions(run)):
        yield "it created no chunk, though some were missing"
    if run.dag_id == "lakets_rollup_refresh":
        yield from (
            f"{one['name']} is {one['outcome']}" for one in refreshed(run) if one["outcome"] != "refreshed"
        )
    if run.dag_id == "lakets_tiering":
        flagged = {one["outcome"] for one in tiered(run)}
        if flagged != ({"tiered", "deferred"} if is_first else {"tiered"}):
            yield f"its candidates were {' or '.join(sorted(flagged)) or 'none'}"
    if run.dag_id == "lakets_retention":
        dropped = sum(len(one["dropped"]) for one in retained(run))
        deferred = sum(len(one["deferred"]) for one in retained(run))
        if not dropped or bool(deferred) != is_first:
            yield f"it dropped {dropped} chunks and deferred {deferred}"
