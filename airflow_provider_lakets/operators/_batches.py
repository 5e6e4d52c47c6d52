"""Batches to map over, short labels for them, and what the lists of work leave to the summary."""

from __future__ import annotations

import ast
import json
import math
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.compat import conf, fail
from airflow_provider_lakets.hooks.functions.rows import unquoted
from airflow_provider_lakets.hooks.results import CHUNK_SUFFIX, table_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import BaseOperator, Context

    from airflow_provider_lakets.hooks.results import JobResult

# A mapped task's name shows this many tables, and fewer if their names are long. If Airflow's
# database is Postgres, a longer name fails the task after its work.
NAMED_TABLES = 3
LONGEST_NAME = 250

# The XCom in which a task that lists work passes what it left out to the summary.
LEFT_OUT_KEY = "lakets_left_out"


def most_tasks(max_batches: int | None) -> int:
    """Return how many tasks may be mapped: the author's limit, but not more than Airflow's."""
    limit: int = conf.getint("core", "max_map_length")
    return min(max_batches or limit, limit)


def batches(names: Sequence[str], *, size: int, most: int) -> list[list[str]]:
    """
    Split names into batches.

    :param names: The names.
    :param size: Names per batch. The batches grow if there would be too many of them.
    :param most: The largest number of batches.
    """
    size = max(size, math.ceil(len(names) / most))
    return [list(names[start : start + size]) for start in range(0, len(names), size)]


def has_summary(operator: BaseOperator) -> bool:
    """Return whether a summary directly follows a task."""
    dag = operator.dag
    followers = (dag.get_task(task_id) for task_id in dag.get_task(operator.task_id).downstream_task_ids)
    return any(getattr(task, "sums_up", False) for task in followers)


def leave_out(operator: BaseOperator, context: Context, problems: Sequence[JobResult], *, of: int) -> None:
    """
    Pass failures to the summary, so that the mapped tasks do the rest; fail if there is none.

    Tasks that are mapped over the result of a failed task do not run.

    :param problems: The names that were left out.
    :param of: How many names were given.
    """
    if not problems:
        return
    lines = [problem.detail or problem.name for problem in problems]
    if len(problems) == of:
        fail("\n".join(lines))
    if not has_summary(operator):
        fail("\n".join([*lines, "Nothing is done, because no summary directly follows to report this."]))
    for line in lines:
        operator.log.error("Left out; the summary fails with it: %s", line)
    context["ti"].xcom_push(key=LEFT_OUT_KEY, value=[problem.as_dict() for problem in problems])


def left_out(operator: BaseOperator, context: Context) -> list[dict[str, Any]]:
    """Return what the tasks directly before a summary left out."""
    ti = context["ti"]
    # In a mapped group the list is of the same index; outside of it, it has none.
    indexes = {-1, -1 if ti.map_index is None else ti.map_index}
    pulled = [
        ti.xcom_pull(task_ids=one.task_id, key=LEFT_OUT_KEY, map_indexes=index)
        for one in operator.upstream_list
        if getattr(one, "lists_work", False)
        for index in sorted(indexes)
    ]
    return [problem for problems in pulled for problem in problems or ()]


def label_of_names(names: Sequence[str]) -> str:
    """Return a short label for names."""
    first, *others = map(unquoted, names)
    label = f"{first} and {len(others)} more" if others else _as_text(first)
    return label[:LONGEST_NAME]  # a wrong name may have any length


def _as_text(name: str) -> str:
    """Return a name in quotes if native rendering would turn it into a number, for example."""
    try:
        ast.literal_eval(name)
    except (ValueError, SyntaxError):
        return name
    return json.dumps(name)


def label_of_chunks(chunks: Sequence[str]) -> str:
    """Return a short label for chunks; chunks of several tables are counted by table."""
    counts = Counter(table_of(chunk) for chunk in chunks)
    if len(counts) == 1 or not all(CHUNK_SUFFIX.search(chunk) for chunk in chunks):
        return label_of_names(chunks)
    shown = [f"{table}: {count} chunk(s)" for table, count in list(counts.items())[:NAMED_TABLES]]
    while len(label := _and_more(shown, len(counts) - len(shown))) > LONGEST_NAME and shown:
        shown.pop()
    return label


def _and_more(shown: Sequence[str], more: int) -> str:
    return ", ".join([*shown, *([f"and {more} more table(s)"] if more else [])])


def rows_in_words(count: int | None) -> str:
    """Return a row count as text; Postgres estimates it, and has none before the first ANALYZE."""
    return "rows not counted yet" if count is None else f"about {count:,} row(s)"


def size_in_words(size: int | None) -> str:
    """Return a size as short text."""
    if size is None:
        return "size unknown"
    amount, units = float(size), ["bytes", "kB", "MB", "GB", "TB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.0f} {units[0]}" if units[0] == "bytes" else f"{amount:.1f} {units[0]}"


def range_in_words(start: datetime | None, end: datetime | None) -> str:
    """Return a range in UTC as text."""
    first, last = (
        "?" if instant is None else f"{instant.astimezone(timezone.utc):%Y-%m-%d %H:%M}"
        for instant in (start, end)
    )
    return f"{first} to {last} UTC"
