"""Sum up the results of mapped tasks."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_lakets.compat import AirflowSkipException, fail
from airflow_provider_lakets.hooks.functions.rows import natural
from airflow_provider_lakets.hooks.results import table_of
from airflow_provider_lakets.operators import _events
from airflow_provider_lakets.operators._arguments import as_batches, flat
from airflow_provider_lakets.operators._batches import left_out, range_in_words, size_in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow.sdk import Context

PROBLEMS = ("failed", "contended", "skipped", "lost")
NAMED = 20  # chunks named for each reason
TABLES_SHOWN = 50  # tables with a line in the log


class LakeTSSummaryOperator(BaseOperator):
    """
    Sum up the results of mapped tasks: how many chunks had which outcome, and why.

    Returns a dict: ``counts`` (how many chunks, or tables without chunks, by outcome) and
    ``reasons`` (for each reason of a deferred, contended or failed chunk: ``outcome``, ``reason``,
    ``count`` and some ``names``). It does not log in.

    It runs whether or not the mapped tasks succeeded and, as the last task, decides the state of
    the run. It is skipped if there was nothing to do. It fails if a task before it failed, or if
    anything failed, was contended, or was given to a task that ended without a result. It also
    fails with the tables that the task directly before it, which lists the work, left out because
    they do not exist. A retry would not help.

    If everything succeeded, it emits the asset events of the mapped tasks, one for each asset.

    :param given: What the tasks were mapped over: names, or batches of names. None means unknown,
        because the task that lists them failed. (templated)
    :param results: The results of the mapped tasks. (templated)
    """

    template_fields: Sequence[str] = ("given", "results")
    ui_color = "#cfe8f3"

    # Tasks pass what they leave out, and mapped tasks their asset events, to a task with this
    # attribute that directly follows them.
    sums_up = True

    def __init__(self, *, given: Any, results: Any, trigger_rule: str = "all_done", **kwargs: Any) -> None:
        super().__init__(trigger_rule=trigger_rule, **kwargs)
        self.given = given
        self.results = results
        # Declared when the DAG is parsed, so that Airflow's graph of an asset shows the producers.
        _events.declare_aliases_of(self, results)

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the counts and the reasons, or fail with them."""
        if self.given is None:
            fail("given was rendered to None: the task that lists the work ended without a result.")
        given = flat(as_batches(self.given, "given"))
        if given and isinstance(self.results, str):
            fail(
                f"results was rendered to {self.results!r}, which is not a list of results. Pass tier.output."
            )
        left = left_out(self, context)
        if not given and not left:
            raise AirflowSkipException("There was nothing to do.")
        results = _of_given(given, _dicts(self.results if given else ()))
        named = {result["name"] for result in results}
        lost = [name for name in sorted({*given}) if not named & _written(name)]
        ends = [end for result in [*results, *left] for end in _ends(result)]
        ends += [(name, "lost", "its task ended without a result") for name in lost]
        summary = _summed(ends)
        for line in [*_lines_of_tables(results, _events.passed_events(self, context)), *_lines(summary)]:
            self.log.info("%s", line)
        # A task may fail although all its results are good: its wait timed out, or it was killed.
        failed = self._failed(context)
        if failed or any(summary["counts"].get(problem) for problem in PROBLEMS):
            context["ti"].xcom_push(key="return_value", value=summary)
            fail("\n".join([f"The job did not fully succeed: {failed} task(s) failed.", *_lines(summary)]))
        _events.record_passed_events(self, context)
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


def _written(name: str) -> set[str]:
    """Return the names that a result may use for a table: schema public may be omitted."""
    return {name, f"public.{name}"}


def _of_given(given: Sequence[str], results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """
    Return one result for each given name.

    When a run is cleared there may be fewer mapped tasks than before. Airflow marks the surplus
    tasks as removed, but keeps their results after those of the remaining tasks.
    """
    wanted = {written for name in given for written in _written(name)}
    first: dict[str, Mapping[str, Any]] = {}
    for result in results:
        if result["name"] in wanted:
            first.setdefault(result["name"], result)
    return list(first.values())


def _dicts(results: Any) -> Iterator[Mapping[str, Any]]:
    """Flatten results and lists of results."""
    if isinstance(results, dict):
        yield results
    else:
        for one in results or ():
            yield from _dicts(one)


def _ends(result: Mapping[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    """Yield name, outcome and reason: for each chunk if the result is of a table with chunks."""
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
            # The reason may differ from others only by the name of the chunk.
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


def _lines_of_tables(results: Iterable[Mapping[str, Any]], events: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return one line per table: the counts of chunks by outcome, their bytes and their range."""
    counts: dict[str, Counter[str]] = {}
    facts: dict[str, Mapping[str, Any]] = {event["table"]: event for event in events if "table" in event}
    for result in results:
        is_table = any(result.get(kind) is not None for kind in ("dropped", "planned", "created"))
        is_table = is_table and result["name"] not in (result.get("planned") or ())
        table = result["name"] if is_table else table_of(result["name"])
        counts.setdefault(table, Counter()).update(outcome for _, outcome, _ in _ends(result))
        if result.get("range_start"):
            facts[table] = result
    lines = []
    for table, ends in sorted(counts.items(), key=lambda item: natural(item[0]))[:TABLES_SHOWN]:
        line = f"{table}: {', '.join(f'{count} {outcome}' for outcome, count in ends.items())}"
        if fact := facts.get(table):
            start, end = (datetime.fromisoformat(fact[name]) for name in ("range_start", "range_end"))
            line += f" ({size_in_words(fact['bytes'])}, {range_in_words(start, end)})"
        lines.append(line)
    if len(counts) > TABLES_SHOWN:
        lines.append(f"and {len(counts) - TABLES_SHOWN} more table(s)")
    return lines


def _some(names: Sequence[str], count: int) -> str:
    return f"{names[0]} and {count - 1} more" if count > 1 else names[0]
