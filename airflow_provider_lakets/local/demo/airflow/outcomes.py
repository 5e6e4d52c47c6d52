"""The results of the tasks of a run, and whether they are as the demo expects."""

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
    """Return the result for each table."""
    (results,) = run.results("ensure_partitions")
    return list(results)


def tiered(run: DagRun) -> list[Result]:
    """Return the result for each candidate, from all mapped tasks."""
    return [result for batch in run.results("tier") for result in batch]


def retained(run: DagRun) -> list[Result]:
    """Return the result for each table, with what was dropped and deferred."""
    return run.results("drop_expired")


def refreshed(run: DagRun) -> list[Result]:
    """Return the result for each RollUp."""
    (results,) = run.results("refresh")
    return list(results)


def unexpected_results(runs: Sequence[DagRun]) -> list[str]:
    """Return a sentence for each run that did not do what the demo expects."""
    return [
        f"DAG {run.dag_id}, run {number}: {said}"
        for dag_id in dict.fromkeys(run.dag_id for run in runs)
        for number, run in enumerate((run for run in runs if run.dag_id == dag_id), start=1)
        for said in _unexpected(run, is_first=number == 1)
    ]


def _unexpected(run: DagRun, *, is_first: bool) -> Iterator[str]:
    """
    Compare one run with what is expected.

    In the first run the feed is paused: chunks with late corrections must be deferred, the others
    not. In the second run nothing may be deferred.
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
