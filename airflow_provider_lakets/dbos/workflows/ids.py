"""
The ids of workflows that tasks start.

They consist of what is the same for each try and each scheduler: DAG, run, task and map index, but
not the number of the try. DBOS has one workflow for an id, so a task starts its workflow once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from types import FunctionType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow.sdk import Context

# Attributes of a workflow: the task that started it; whether Airflow has reported its end; whether
# Airflow cancelled it because its task was stopped.
STARTED_BY, REPORTED, STOPPED = "airflow", "airflow_told", "airflow_stopped"

_SUCCESSOR = re.compile(r"#(\d+)")


def task_id_of(context: Context) -> str:
    """Return the id of the workflow of a task."""
    ti = context["ti"]
    parts = [ti.dag_id, ti.run_id, ti.task_id]
    if (ti.map_index if ti.map_index is not None else -1) >= 0:
        parts.append(str(ti.map_index))
    return "/".join(["airflow", *(quote(part, safe=":+@=,") for part in parts)])


def started_by(context: Context) -> dict[str, Any]:
    """Return the attributes of a workflow that name its task; workflows can be filtered by them."""
    ti = context["ti"]
    return {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}


def digest(value: Any) -> str:
    """Return a short hash of arguments."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def spelled(value: Any) -> str:
    """
    Return a text that is the same for equal arguments in every process.

    ``repr`` is not: it shows addresses, and sets in any order. Pickles are not, either. An object
    is spelled as pickle takes it apart.
    """
    if isinstance(value, dict):
        return f"{{{', '.join(sorted(f'{spelled(key)}: {spelled(value[key])}' for key in value))}}}"
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(spelled, value)))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(spelled, value))}]"
    if isinstance(value, (type, FunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    if type(value).__module__ == "builtins" and not callable(value):
        return repr(value)
    parts = value.__reduce_ex__(2)
    if isinstance(parts, str):
        return parts
    return spelled([[*part] if isinstance(part, Iterator) else part for part in parts])


def item_ids(base: str, digests: Sequence[str]) -> list[str]:
    """
    Return an id for each item, from its content, so that the order of the list does not matter.

    :param base: The id of the task.
    :param digests: The digests of the items; equal ones are numbered.
    """
    seen: dict[str, int] = {}
    found = []
    for one in digests:
        seen[one] = seen.get(one, 0) + 1
        found.append(f"{base}/{one}" + (f".{seen[one]}" if seen[one] > 1 else ""))
    return found


def successor(base: str, known: Iterable[str]) -> str:
    """Return the next id of a series: base, base#2, base#3."""
    return f"{base}#{max((number(base, one) for one in known), default=1) + 1}"


def number(base: str, workflow_id: str) -> int:
    """Return the number of an id in the series of a base, which may itself contain a #."""
    match = _SUCCESSOR.fullmatch(workflow_id.removeprefix(base))
    return int(match[1]) if match else 1


def is_of(base: str, workflow_id: str) -> bool:
    """Return whether an id belongs to the series of a base."""
    rest = workflow_id.removeprefix(base)
    return workflow_id.startswith(base) and (not rest or _SUCCESSOR.fullmatch(rest) is not None)
