"""The last runs of a connection's DAGs and the results of their tasks, from Airflow's database."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_lakets.hooks.results import JobResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

MOST = 12
CHUNKS = ("created", "dropped", "planned", "deferred")  # lists of chunks in the result of a table
REPORTED_BYTES = 200_000  # of one result; a longer one is not read


@dataclass
class DagRun:
    """One run of a DAG, with the outcomes that its tasks reported."""

    dag_id: str
    run_id: str
    state: str
    started_at: datetime | None
    ended_at: datetime | None
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def path(self) -> str:
        """The path of the run's page in Airflow."""
        return f"dags/{quote(self.dag_id, safe='')}/runs/{quote(self.run_id, safe='')}"

    @property
    def seconds(self) -> float | None:
        """The duration of the run."""
        if self.started_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.started_at).total_seconds()


def last_runs(dag_ids: Sequence[str], *, limit: int = MOST) -> list[DagRun]:
    """
    Return the newest runs of some DAGs.

    :param dag_ids: The DAGs; the caller has checked that the user may read them.
    :param limit: The largest number of runs.
    """
    from airflow.models.dagrun import DagRun as Model
    from airflow.utils.session import create_session
    from sqlalchemy import select

    if not dag_ids:
        return []
    wanted = (
        select(Model.dag_id, Model.run_id, Model.state, Model.start_date, Model.end_date)
        .where(Model.dag_id.in_(dag_ids))
        .order_by(Model.run_after.desc(), Model.id.desc())
        .limit(limit)
    )
    with create_session() as session:
        found = [DagRun(*row) for row in session.execute(wanted)]
        _add_reports(session, found)
    return found


def _add_reports(session: Any, runs: Iterable[DagRun]) -> None:
    from airflow.models.xcom import XComModel
    from sqlalchemy import Text, cast, func, select, tuple_

    by_key = {(run.dag_id, run.run_id): run for run in runs}
    wanted = select(XComModel.dag_id, XComModel.run_id, XComModel.value).where(
        tuple_(XComModel.dag_id, XComModel.run_id).in_([*by_key]),
        XComModel.key == "return_value",
        func.length(cast(XComModel.value, Text)) < REPORTED_BYTES,
    )
    for dag_id, run_id, value in session.execute(wanted):
        by_key[dag_id, run_id].outcomes.update(outcomes_of(value))


def outcomes_of(value: Any) -> Counter[str]:
    """
    Count the outcomes in a result of our tasks, as ``LakeTSSummaryOperator`` does.

    The count is empty for any other value.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return Counter()
    rows = value if isinstance(value, list) else [value]
    counts: Counter[str] = Counter()
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("outcome"), str):
            counts.update(_counted(row))
    return counts


def _counted(result: dict[str, Any]) -> Counter[str]:
    """Count the chunks in a result, or the result itself if it has none or is a problem."""
    chunks = {kind: result.get(kind) for kind in CHUNKS}
    counts = Counter(
        {kind: len(names) for kind, names in chunks.items() if names and isinstance(names, list)}
    )
    if not counts or result["outcome"] in JobResult.problems:
        counts[result["outcome"]] += 1
    return counts
