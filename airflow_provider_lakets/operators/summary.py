"""What became of everything that mapped tasks were given."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_lakets.compat import AirflowSkipException, fail
from airflow_provider_lakets.operators import _events

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow.sdk import Context

PROBLEMS = ("failed", "contended", "skipped", "lost")
NAMED = 20  # so many chunks are named for each reason


class LakeTSSummaryOperator(BaseOperator):
    """
    Sum up the results of mapped tasks: how many chunks met which end, and why.

    Returns a dict: ``counts`` (how many chunks, or tables without any, by outcome) and ``reasons`` (for each
    reason why something was deferred, contended or failed: ``outcome``, ``reason``, ``count`` and some
    ``names``). It needs no login.

    It runs whatever became of the mapped tasks, and, as the last task, it decides what becomes of the run: it
    is skipped when there was nothing to do, and fails when a task before it failed, or when anything failed,
    was contended, or was given to a task that ended without a result. No retry of its own would help.

    When all went well it has the asset events of the mapped tasks, one for each asset.

    :param given: What the tasks were mapped over: names, or batches of names; None when that is not known
        because the task that should tell it failed. (templated)
    :param results: The results of the mapped tasks. (templated)
    """

    template_fields: Sequence[str] = ("given", "results")
    ui_color = "#cfe8f3"

    # Mapped tasks look for this in the tasks behind them, and leave their asset events to one that has it.
    records_events_of_mapped_tasks = True

    def __init__(self, *, given: Any, results: Any, trigger_rule: str = "all_done", **kwargs: Any) -> None:
        super().__init__(trigger_rule=trigger_rule, **kwargs)
        self.given = given
        self.results = results

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the counts and the reasons, or fail with them."""
        if self.given is None:
            fail("The task that finds what there is to do ended without a result: see there.")
        given = set(_flat(self.given))
        if not given:
            raise AirflowSkipException("There was nothing to do.")
        results = list(_dicts(self.results))
        lost = given - {result["name"] for result in results}
        ends = [end for result in results for end in _ends(result)]
        ends += [(name, "lost", "its task ended without a result") for name in sorted(lost)]
        summary = _summed(ends)
        self._tell(summary)
        # A task may fail although all that it did went well: it waited in vain, or was killed.
        failed = self._failed(context)
        if failed or any(summary["counts"].get(problem) for problem in PROBLEMS):
            context["ti"].xcom_push(key="return_value", value=summary)
            fail("\n".join([f"Not everything went well: {failed} task(s) failed.", *_lines(summary)]))
        _events.tell_what_is_left(self, context)
        return summary

    def _failed(self, context: Context) -> int:
        """Count the tasks before this one that failed."""
        ti = context["ti"]
        count: int = ti.get_ti_count(
            dag_id=ti.dag_id,
            run_ids=[ti.run_id],
            task_ids=sorted(self.upstream_task_ids),
            states=["failed", "upstream_failed"],
        )
        return count

    def _tell(self, summary: Mapping[str, Any]) -> None:
        self.log.info("%s", ", ".join(f"{count} {outcome}" for outcome, count in summary["counts"].items()))
        for line in _lines(summary):
            self.log.info("%s", line)


def _flat(given: Iterable[Any]) -> Iterator[str]:
    """Yield names out of names or batches of names."""
    for one in given:
        if isinstance(one, str):
            yield one
        else:
            yield from _flat(one)


def _dicts(results: Any) -> Iterator[Mapping[str, Any]]:
    """Yield results out of results or lists of results."""
    if isinstance(results, dict):
        yield results
    else:
        for one in results or ():
            yield from _dicts(one)


def _ends(result: Mapping[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    """Yield name, outcome and reason: of each chunk where the result is one of a table with chunks."""
    chunks = [(name, outcome) for outcome in ("dropped", "created") for name in result.get(outcome) or ()]
    chunks += [(name, "planned") for name in result.get("planned") or ()]
    for name, outcome in chunks:
        yield name, outcome, None
    deferred = result.get("deferred") or []
    for stays in deferred:
        yield stays["chunk"], "deferred", stays["reason"]
    if result["outcome"] in PROBLEMS or not (chunks or deferred):
        yield result["name"], result["outcome"], result.get("detail")


def _summed(ends: Iterable[tuple[str, str, str | None]]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    names: dict[tuple[str, str], list[str]] = {}
    for name, outcome, reason in ends:
        counts[outcome] += 1
        if reason:
            # A failure names its chunk: apart from that it may be that of many others.
            names.setdefault((outcome, reason.replace(name, "...")), []).append(name)
    reasons = [
        {"outcome": outcome, "reason": reason, "count": len(those), "names": those[:NAMED]}
        for (outcome, reason), those in sorted(names.items(), key=lambda item: -len(item[1]))
    ]
    return {"counts": dict(counts), "reasons": reasons}


def _lines(summary: Mapping[str, Any]) -> list[str]:
    return [
        f"{why['count']} {why['outcome']}: {why['reason']} ({_some(why['names'], why['count'])})"
        for why in summary["reasons"]
    ]


def _some(names: Sequence[str], count: int) -> str:
    return f"{names[0]} and {count - 1} more" if count > 1 else names[0]
