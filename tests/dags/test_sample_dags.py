"""The sample DAGs, copied unchanged into a DAG folder: parsed, and run to the end."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierOperator
from tests.dags.conftest import SAMPLES

pytestmark = pytest.mark.short

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow.sdk import DAG

    from tests.dags.conftest import Run
    from tests.lab import Lab

# The first times of each DAG on a day, in UTC.
SCHEDULES = {
    "lakets_install": [],
    "lakets_partition_manager": ["00:00", "06:00", "12:00", "18:00"],
    "lakets_tiering": ["02:00"],
    "lakets_retention": ["03:00"],
    "lakets_rollup_refresh": ["00:00", "00:15", "00:30", "00:45"],
}
BACKFILLED = ("lakets_partition_manager", "lakets_rollup_refresh")


DAY = datetime(2026, 1, 5, tzinfo=timezone.utc)


def planned_runs(dag: Any, *, start: datetime = DAY) -> list[Any]:
    """Return the runs of the stored DAG that the scheduler would create on a day."""
    serialized: Any = importlib.import_module("airflow.serialization.serialized_objects")
    kind = getattr(serialized, "DagSerialization", serialized.SerializedDAG)
    stored = kind.from_dict(kind.to_dict(dag))
    return list(stored.iter_dagrun_infos_between(start, DAY + timedelta(hours=23, minutes=59)))


def test_every_sample_is_known_here(samples: dict[str, Any]) -> None:
    assert samples.keys() == SCHEDULES.keys()


@pytest.mark.parametrize("dag_id", SCHEDULES)
def test_runs_at_its_hour_in_utc_one_at_a_time_without_catching_up(
    samples: dict[str, Any], dag_id: str
) -> None:
    dag = samples[dag_id]

    times = [
        f"{one.run_after:%H:%M}"
        for one in planned_runs(dag, start=DAY - timedelta(days=1))
        if one.run_after >= DAY
    ]

    assert times[:4] == SCHEDULES[dag_id]
    assert str(dag.timezone) == "UTC"
    assert (dag.catchup, dag.max_active_runs) == (False, 1)


@pytest.mark.parametrize("dag_id", BACKFILLED)
def test_data_intervals_of_a_backfill_leave_no_gap(samples: dict[str, Any], dag_id: str) -> None:
    runs = planned_runs(samples[dag_id])

    intervals = [(one.data_interval.start, one.data_interval.end) for one in runs]
    assert intervals[0][0] == DAY
    assert all(start < end for start, end in intervals)
    assert all(before[1] == after[0] for before, after in itertools.pairwise(intervals))


@pytest.mark.parametrize("dag_id", BACKFILLED)
def test_runs_of_a_backfill_take_turns(samples: dict[str, Any], dag_id: str) -> None:
    assert [task.max_active_tis_per_dag for task in samples[dag_id].tasks] == [1]


@pytest.mark.parametrize("dag_id", SCHEDULES)
def test_is_tagged_documented_and_retried_with_backoff(samples: dict[str, Any], dag_id: str) -> None:
    dag = samples[dag_id]

    assert dag.tags == {"lakets"}
    assert len(str(dag.doc_md)) > 50
    assert all(task.retries >= 3 for task in dag.tasks)
    # The scheduler of Airflow 3.1.0 crashes with an AttributeError when a mapped task backs off.
    assert all(bool(task.retry_exponential_backoff) is not task.is_mapped for task in dag.tasks)


OPERATORS = {
    "lakets_partition_manager": LakeTSPartitionOperator,
    "lakets_tiering": LakeTSTierOperator,
    "lakets_retention": LakeTSRetentionOperator,
    "lakets_rollup_refresh": LakeTSRollupRefreshOperator,
}


@pytest.mark.parametrize("dag_id", OPERATORS)
def test_the_docs_of_a_dag_say_what_a_run_may_be_asked_and_how_it_may_end(
    samples: dict[str, Any], dag_id: str
) -> None:
    dag = samples[dag_id]
    (possible,) = re.findall(r"``outcome``\s+\(([^)]*)\)", str(OPERATORS[dag_id].__doc__))

    asked, ends = str(dag.doc_md).partition("A manual run takes:\n")[2].split("Outcomes of ")

    fields = [line.partition(":")[0] for line in asked.splitlines()]
    assert set(re.findall("`([a-z_]+)`", " ".join(fields))) == {*dag.params}
    assert set(re.findall("^- `([a-z]+)`: ", ends, re.MULTILINE)) == set(re.findall("[a-z]+", possible))


def test_install_makes_lakets(
    samples: dict[str, Any],
    run: Callable[[DAG], Run],
    empty_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from airflow_provider_lakets import __version__
    from tests.lab import Lab

    lab = Lab(empty_database, "none")
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection())

    done = run(samples["lakets_install"])

    assert done.state == "success"
    assert done.result("install") == {"before": None, "after": __version__, "notes": []}
    lab.conn.close()


def test_partition_manager_makes_what_is_missing(
    samples: dict[str, Any], run: Callable[[DAG], Run], lab: Lab
) -> None:
    lab.table("metrics")
    newest = lab.value("SELECT chunk_name FROM lakets._chunk_metadata ORDER BY range_start DESC LIMIT 1")
    lab.conn.execute(f"DROP TABLE {newest}")
    lab.conn.execute("DELETE FROM lakets._chunk_metadata WHERE chunk_name = %s", [newest])

    done = run(samples["lakets_partition_manager"])

    (result,) = done.result("ensure_partitions")
    assert (result["name"], result["outcome"], result["created"]) == ("public.metrics", "created", [newest])


def test_tiering_flags_what_is_due_in_a_task_named_after_it(
    samples: dict[str, Any], run: Callable[[DAG], Run], lab: Lab
) -> None:
    lab.synced(days=8)
    lab.flush()

    done = run(samples["lakets_tiering"])

    assert done.state == "success"
    (batch,) = done.result("candidates")
    assert batch == lab.old_chunks()[: len(batch)]
    assert done.names["tier"] == [f"{batch[0]} and {len(batch) - 1} more"]
    assert {result["outcome"] for result in done.result("tier")} == {"tiered"}
    assert lab.value("SELECT count(*) FROM lakets._chunk_metadata WHERE status = 'tiered'") == len(batch)


def test_tiering_is_skipped_when_nothing_is_due(
    samples: dict[str, Any], run: Callable[[DAG], Run], lab: Lab
) -> None:
    lab.synced(days=8)  # no feed

    done = run(samples["lakets_tiering"])

    assert done.state == "success"
    assert done.states == {"candidates": "success", "tier": "skipped", "summary": "skipped"}


def test_retention_drops_what_tiering_proved_table_by_table(
    samples: dict[str, Any], run: Callable[[DAG], Run], lab: Lab
) -> None:
    lab.synced("flights", days=8)
    lab.synced("weather", days=8)
    lab.flush("flights")
    run(samples["lakets_tiering"])
    lab.flush("flights")

    done = run(samples["lakets_retention"])

    assert done.state == "success"
    assert done.names["drop_expired"] == ["public.flights", "public.weather"]
    flights, weather = done.results("drop_expired")
    assert (flights["outcome"], weather["outcome"]) == ("dropped", "deferred")
    assert len(flights["dropped"]) >= 3
    assert len(weather["deferred"]) >= 3
    assert lab.value("SELECT count(*) FROM weather") == 8


def test_retention_is_skipped_without_a_policy(
    samples: dict[str, Any], run: Callable[[DAG], Run], lab: Lab
) -> None:
    lab.table("metrics")

    done = run(samples["lakets_retention"])

    assert done.state == "success"
    assert done.states == {
        "tables": "success",
        "approve_force": "success",
        "drop_expired": "skipped",
        "summary": "skipped",
    }


def test_rollup_refresh_brings_late_rows_up_the_chain(
    samples: dict[str, Any], run: Callable[[DAG], Run], lab: Lab
) -> None:
    lab.table("metrics", days=3)
    lab.rollup("hourly")
    lab.rollup("daily", reads="hourly")
    lab.conn.execute("INSERT INTO metrics VALUES (now() - interval '1 day', 'a', 1000)")

    done = run(samples["lakets_rollup_refresh"])

    assert [(one["name"], one["outcome"]) for one in done.result("refresh")] == [
        ("hourly", "refreshed"),
        ("daily", "refreshed"),
    ]
    assert lab.value("SELECT sum(total) FROM _rollup_daily") == 1003


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_is_short_and_imports_nothing_but_airflow_and_this_provider(path: Path) -> None:
    text = path.read_text()
    module = ast.parse(text)

    imported = {
        (node.module or "").split(".")[0] for node in ast.walk(module) if isinstance(node, ast.ImportFrom)
    }
    prose = (ast.get_docstring(module) or "").splitlines()

    assert imported <= {"__future__", "datetime", "airflow", "airflow_provider_lakets"}
    assert len(text.splitlines()) - len(prose) <= 65


HEAVY = (
    "psycopg",
    "databricks.sdk",
    "fastapi",
    "pandas",
    "airflow.providers.postgres.hooks",
    "requests",
    "tenacity",
)


def test_parsing_the_samples_loads_nothing_heavy() -> None:
    program = (
        "import sys, airflow.sdk, runpy\n"
        "before = set(sys.modules)\n"
        f"for path in {[str(path) for path in SAMPLES.glob('*.py')]!r}: runpy.run_path(path)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules and name not in before])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_a_sample_keeps_utc_whatever_airflows_own_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "from tests.dags.conftest import dagbag_module\n"
        f"bag = dagbag_module().DagBag({str(SAMPLES)!r})\n"
        "print({str(dag.timezone) for dag in bag.dags.values()})"
    )
    monkeypatch.setenv("AIRFLOW__CORE__DEFAULT_TIMEZONE", "America/New_York")

    done: Any = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip().splitlines()[-1] == "{'UTC'}"
