"""
The four jobs as a DBOS program, with schedules instead of DAGs and a step for each batch.

A finished step does not run again: after a kill, the program resumes at the interrupted step. Jobs
are safe to repeat, so Airflow may run them too. DBOS polls about once a second, so the endpoint
never scales to zero.
"""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets import __version__
from airflow_provider_lakets.exceptions import LakeTSNotInstalledError, LakeTSPartialFailureError
from airflow_provider_lakets.hooks._history import noted
from airflow_provider_lakets.hooks._outcomes import attempt
from airflow_provider_lakets.hooks.results import RefreshResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from sqlalchemy.engine import Engine

    from airflow_provider_lakets.hooks.lakets import LakeTSHook

    OpenHook = Callable[[], LakeTSHook]
    Plain = dict[str, Any]
    Job = Callable[[OpenHook], Iterator[list[Plain]]]

# As in the sample DAGs; UTC.
SCHEDULES = {
    "partitions": "0 */6 * * *",
    "tier": "0 2 * * *",
    "retain": "0 3 * * *",
    "refresh": "*/15 * * * *",
}
BATCH = 20
# Long enough for a running batch to end.
STOP_SECONDS = 30


def run(open_hook: OpenHook, engine: Engine, schedules: Mapping[str, str] = SCHEDULES) -> None:
    """
    Run the jobs on their schedules until SIGTERM or Ctrl-C.

    :param open_hook: Returns a hook for the database with the ChronoTables.
    :param engine: The engine of the DBOS system database, for example from
        :func:`~airflow_provider_lakets.dbos.create_lakebase_engine`. It may be the same database.
    :param schedules: The cron expression of each job, in UTC; an omitted job does not run.
    :raises LakeTSNotInstalledError: if LakeTS is not installed in the database.
    """
    if open_hook().version() is None:  # report it now, not in each scheduled run
        raise LakeTSNotInstalledError("There is no LakeTS in this database. Install it: `lakets install`.")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    launch(open_hook, engine, schedules)
    try:
        stopped.wait()
    finally:
        from dbos import DBOS

        DBOS.destroy(workflow_completion_timeout_sec=STOP_SECONDS)


def launch(open_hook: OpenHook, engine: Engine, schedules: Mapping[str, str] = SCHEDULES) -> None:
    """Start the program in this process like :func:`run`; ``DBOS.destroy()`` ends it."""
    from dbos import DBOS

    DBOS(
        config={
            "name": "lakets",
            "system_database_engine": engine,
            # A version resumes only its own workflows, because steps are identified by number.
            "application_version": __version__,
        }
    )
    workflows = {job: DBOS.workflow(name=f"lakets_{job}")(_workflow(job, open_hook)) for job in schedules}
    DBOS.launch()
    DBOS.apply_schedules(
        [
            {
                "schedule_name": f"lakets_{job}",
                "workflow_fn": workflow,
                "schedule": schedules[job],
                "context": None,
                "cron_timezone": "UTC",
            }
            for job, workflow in workflows.items()
        ]
    )


def _workflow(job: str, open_hook: OpenHook) -> Any:
    def workflow(scheduled_at: datetime, context: Any) -> Plain:
        results = [one for part in JOBS[job](open_hook) for one in part]
        problems = [one for one in results if one["outcome"] in ("contended", "failed", "skipped")]
        if problems:
            shown = "; ".join(f"{one['name']}: {one['outcome']}, {one['detail']}" for one in problems[:20])
            raise LakeTSPartialFailureError(f"{len(problems)} of {len(results)} could not be done: {shown}")
        outcomes = [one["outcome"] for one in results]
        return {outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)}

    return workflow


def _step(name: str, open_hook: OpenHook, work: Callable[..., Any], *arguments: Any) -> Any:
    """Do a part of a job once: the result is stored, and returned when the workflow resumes."""
    from dbos import DBOS

    def step() -> Any:
        with open_hook().session() as hook:
            return work(hook, *arguments)

    return DBOS.run_step({"name": name}, step)


def _batches(names: list[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _partitions(open_hook: OpenHook) -> Iterator[list[Plain]]:
    for batch in _batches(_step("tables", open_hook, _tables, None)):
        yield _step("make chunks", open_hook, lambda hook, some: _plain(hook.partition(some)), batch)


def _tier(open_hook: OpenHook) -> Iterator[list[Plain]]:
    for batch in _batches(_step("candidates", open_hook, _candidates)):
        yield _step("flag", open_hook, lambda hook, some: _plain(hook.tier(some)), batch)


def _retain(open_hook: OpenHook) -> Iterator[list[Plain]]:
    for batch in _batches(_step("tables", open_hook, _tables, "retention")):
        yield _step("drop expired", open_hook, lambda hook, some: _plain(hook.retain_all(some)), batch)


def _refresh(open_hook: OpenHook) -> Iterator[list[Plain]]:
    failed: set[str] = set()
    for name, reads in _step("order", open_hook, _order):
        if failed & set(reads):
            done = RefreshResult(name, "skipped", "a RollUp that it reads failed").as_dict()
        else:
            done = _step("refresh", open_hook, _refresh_one, name)
        if done["outcome"] in ("failed", "skipped"):
            failed.add(name)
        yield [done]


def _tables(hook: LakeTSHook, policy: str | None) -> list[str]:
    return [one.name for one in hook.chronotables(policy=policy)]


def _candidates(hook: LakeTSHook) -> list[str]:
    return [one.chunk_name for one in hook.tier_candidates()]


def _order(hook: LakeTSHook) -> list[tuple[str, list[str]]]:
    return [(one["rollup_name"], one["depends_on_names"] or []) for one in hook.show_rollup_dag()]


def _refresh_one(hook: LakeTSHook, name: str) -> Plain:
    """Refresh a RollUp; if another session is refreshing it, leave it to that session."""
    with noted(hook, "refresh") as done:
        result, _ = attempt(
            RefreshResult,
            name,
            lambda: RefreshResult(name, "refreshed" if hook.refresh_rollup(name) else "unchanged"),
        )
        done.append(replace(result, changed=result.outcome == "refreshed"))
    return result.as_dict()


def _plain(results: list[Any]) -> list[Plain]:
    return [one.as_dict() for one in results]


JOBS: Mapping[str, Job] = {
    "partitions": _partitions,
    "tier": _tier,
    "retain": _retain,
    "refresh": _refresh,
}
