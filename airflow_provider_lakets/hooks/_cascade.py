"""Refresh RollUps in the order of their dependencies, independent ones in parallel."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from airflow_provider_lakets.exceptions import LakeTSArgumentError
from airflow_provider_lakets.hooks._outcomes import attempt, not_tried
from airflow_provider_lakets.hooks.results import RefreshResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_provider_lakets.hooks.results import Rollup


def with_dependencies(rollups: Iterable[Rollup], name: str | None) -> dict[str, Rollup]:
    """
    Return the RollUps to refresh: the named one with its dependencies, or all.

    :param rollups: All registered RollUps.
    :param name: The name of a RollUp; None for all.
    """
    known = {rollup.name: rollup for rollup in rollups}
    if name is None:
        return known
    chosen: dict[str, Rollup] = {}
    waiting = [name]
    while waiting:
        rollup = known[waiting.pop()]
        if rollup.name not in chosen:
            chosen[rollup.name] = rollup
            waiting.extend(rollup.depends_on)
    return chosen


def run_cascade(
    rollups: dict[str, Rollup],
    refresh: Callable[[str], RefreshResult],
    *,
    parallelism: int,
    stop: Callable[[], None],
    on_progress: Callable[[int, int], None] | None = None,
) -> list[RefreshResult]:
    """
    Refresh each RollUp after those it reads, and return the results in the order of the refreshes.

    If a RollUp fails, only those that read it, directly or not, are skipped. If the database
    cannot be reached, running refreshes finish and no more are started.

    :param rollups: The RollUps to refresh, by name.
    :param refresh: Refreshes one RollUp.
    :param parallelism: How many to refresh at a time.
    :param stop: Ends the running refreshes if this thread is interrupted.
    :param on_progress: Called with the number done and the total number.
    """
    sorter = _ordered(rollups)
    results: dict[str, RefreshResult] = {}
    running: dict[Future[tuple[RefreshResult, bool]], str] = {}
    broken_by: str | None = None
    pool = ThreadPoolExecutor(max_workers=parallelism, thread_name_prefix="lakets-refresh")
    try:
        while sorter.is_active():
            for name in sorter.get_ready():
                skipped = _skipped(rollups[name], results)
                if skipped is None and broken_by is not None:
                    skipped = not_tried(RefreshResult, name, broken_by)
                if skipped is None:
                    running[pool.submit(attempt, RefreshResult, name, partial(refresh, name))] = name
                else:
                    results[name] = skipped
                    sorter.done(name)
            if running:
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    name = running.pop(future)
                    results[name], go_on = future.result()
                    broken_by = broken_by if go_on else name
                    sorter.done(name)
                if on_progress is not None:
                    on_progress(len(results), len(rollups))
    except BaseException:
        # The task timed out or is being killed: do not wait for the running refreshes.
        stop()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return list(results.values())


def _ordered(rollups: dict[str, Rollup]) -> TopologicalSorter[str]:
    sorter = TopologicalSorter({name: rollup.depends_on for name, rollup in rollups.items()})
    try:
        sorter.prepare()
    except CycleError as err:
        circle = " -> ".join(reversed(err.args[1]))
        raise LakeTSArgumentError(
            f"RollUps read each other in a cycle, so there is no order to refresh them in: {circle}. "
            "Drop one of them with lakets.drop_rollup, or correct depends_on in lakets._rollup_registry."
        ) from err
    return sorter


def _skipped(rollup: Rollup, results: dict[str, RefreshResult]) -> RefreshResult | None:
    """Return why a RollUp cannot be refreshed: a RollUp that it reads was not refreshed."""
    broken = [name for name in rollup.depends_on if not results[name].ok]
    if not broken:
        return None
    return RefreshResult(
        rollup.name, "skipped", detail=f"reads RollUps that were not refreshed: {', '.join(sorted(broken))}"
    )
