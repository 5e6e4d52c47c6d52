"""Ready-made jobs: DAGs for many projects, one line for each, and a task group for other DAGs."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, TaskGroup, TriggerRule

from airflow_provider_lakets.jobs import JOBS, lakets_dags, lakets_task_group
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.rollups import LakeTSRollupRefreshOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierOperator
from tests.dags.conftest import dagbag_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.dags.conftest import Run
    from tests.lab import Lab

    RunDag = Callable[..., Run]

FILE = """
from airflow_provider_lakets.jobs import lakets_dags

lakets_dags("weather", lakebase_conn_id="lakebase_weather", tables=["public.weather"], pool="lake")
lakets_dags("flights", jobs=["tiering", "retention"], schedules={"tiering": "30 1 * * *", "retention": None})
"""


@pytest.fixture
def engine() -> str:
    """Use only our engine; tests of the hook cover the differences of LakeTS 0.1.x."""
    return "ours"


@pytest.fixture
def projects(airflow: Path, tmp_path: Path) -> dict[str, Any]:
    """Parse a DAG file that creates the DAGs of two projects."""
    (tmp_path / "projects.py").write_text(FILE)
    bag = dagbag_module().DagBag(tmp_path)
    assert bag.import_errors == {}
    return dict(bag.dags)


# The factory


def test_a_line_makes_the_dags_of_a_project(projects: dict[str, Any]) -> None:
    assert projects.keys() == {
        *(f"weather_{job}" for job in JOBS),
        "flights_tiering",
        "flights_retention",
    }


def test_every_task_has_the_connection_and_the_pool_of_its_project(projects: dict[str, Any]) -> None:
    tasks = [task for job in JOBS for task in projects[f"weather_{job}"].tasks]

    connections = {
        getattr(task, "partial_kwargs", vars(task)).get("lakebase_conn_id")
        for task in tasks
        if task.task_id != "summary"
    }
    assert connections == {"lakebase_weather"}
    assert {task.pool for task in tasks} == {"lake"}
    assert {task.pool for task in projects["flights_tiering"].tasks} == {"default_pool"}


def test_tables_of_the_project_are_the_default_of_its_params(projects: dict[str, Any]) -> None:
    assert projects["weather_tiering"].params["tables"] == ["public.weather"]
    assert projects["flights_tiering"].params["tables"] == []


OPERATORS = {
    "partition_manager": LakeTSPartitionOperator,
    "tiering": LakeTSTierOperator,
    "retention": LakeTSRetentionOperator,
    "rollup_refresh": LakeTSRollupRefreshOperator,
}


@pytest.mark.parametrize("job", JOBS)
def test_the_docs_of_a_dag_say_what_a_run_may_be_asked_and_how_it_may_end(
    projects: dict[str, Any], job: str
) -> None:
    dag = projects[f"weather_{job}"]
    (possible,) = re.findall(r"``outcome``\s+\(([^)]*)\)", str(OPERATORS[job].__doc__))

    asked, _, ends = str(dag.doc_md).partition("Outcomes: ")

    assert set(re.findall("^- `([a-z_]+)`: ", asked, re.MULTILINE)) == {*dag.params}
    assert set(re.findall("`([a-z]+)`", ends)) == set(re.findall("[a-z]+", possible))


def test_a_schedule_may_be_another_or_none(projects: dict[str, Any]) -> None:
    assert projects["flights_tiering"].schedule == "30 1 * * *"
    assert projects["flights_retention"].schedule is None
    assert projects["weather_tiering"].schedule == "0 2 * * *"


def shape(dag: Any) -> dict[str, Any]:
    """Return the properties that determine how a DAG runs."""
    from airflow.sdk.definitions.mappedoperator import MappedOperator

    tasks = {}
    for task in dag.tasks:
        arguments = task.partial_kwargs if isinstance(task, MappedOperator) else vars(task)
        fields = (*task.template_fields, "batch_size", "max_batches", "parallelism", "retries")
        tasks[task.task_id] = {
            "type": task.task_type,
            "before": sorted(task.upstream_task_ids),
            "rule": str(task.trigger_rule),
            "backs off": task.retry_exponential_backoff,
            "at a time": (task.max_active_tis_per_dagrun, task.max_active_tis_per_dag),
            "name": task.map_index_template,
            **{name: str(arguments.get(name)) for name in fields if name != "lakebase_conn_id"},
        }
    return {
        "tasks": tasks,
        "params": {name: dag.params.get_param(name).schema["type"] for name in dag.params},
        "schedule": getattr(dag.schedule, "_expression", dag.schedule),
        "schedule's type": type(dag.schedule),
        "others": (dag.catchup, dag.max_active_runs, dag.render_template_as_native_obj, dag.start_date),
    }


@pytest.mark.parametrize("job", JOBS)
def test_the_dags_made_are_those_of_the_samples(samples: dict[str, Any], job: str) -> None:
    made = lakets_dags()[job]

    assert made.dag_id == f"lakets_{job}"
    assert shape(made) == shape(samples[made.dag_id])


def test_a_made_dag_does_its_job(
    airflow: Path, run: RunDag, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_WEATHER", lab.connection())
    monkeypatch.delenv("AIRFLOW_CONN_LAKEBASE_DEFAULT")
    lab.synced("weather", days=8)
    lab.flush("weather")
    lab.synced("flights", days=8)
    lab.flush("flights")

    done = run(lakets_dags("weather", lakebase_conn_id="lakebase_weather", tables=["weather"])["tiering"])

    assert done.state == "success"
    assert {one["name"].rsplit("_", 2)[0] for one in done.result("tier")} == {"public.weather"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prefix": "my project"}, "prefix must be letters, digits"),
        ({"jobs": ["tiring"]}, "jobs must be some of partition_manager, .*; found 'tiring'"),
        ({"jobs": []}, "found none"),
        ({"schedules": {"tier": "@daily"}}, "the keys of schedules must be some of .*; found 'tier'"),
        ({"tables": "public.metrics"}, r"tables must be a list such as \['public.metrics'\]"),
        ({"tables": [1]}, "tables must be names such as 'public.metrics', not 1"),
        ({"pool": ""}, "pool must be the name of a pool"),
        ({"batch_size": 0}, "batch_size must be a whole number of 1 or more, not 0"),
        ({"parallelism": "4"}, "parallelism must be a whole number of 1 or more, not '4'"),
        ({"lakebase_conn_id": ""}, "lakebase_conn_id must be letters"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_meant_is_refused_when_the_dag_is_parsed(
    arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        lakets_dags(**arguments)


# The task group


def test_the_group_runs_the_jobs_in_order_and_one_without_work_holds_up_none(
    dag: DAG, run: RunDag, lab: Lab
) -> None:
    lab.table("metrics", days=8)
    lab.conn.execute("SELECT lakets.add_retention_policy('metrics', '4 days')")
    lab.rollup("hourly")
    with dag:
        lakets_task_group("lake", parallelism=2)

    done = run(dag)

    assert done.state == "success"
    assert done.states["lake.tiering.tier"] == done.states["lake.tiering.summary"] == "skipped"
    assert len(done.result("lake.retention.drop_expired")["dropped"]) >= 3
    order = ["partition_manager.ensure_partitions", "rollup_refresh.refresh", "tiering.candidates"]
    assert [sorted(dag.get_task(f"lake.{one}").downstream_task_ids)[0] for one in order] == [
        "lake.rollup_refresh.refresh",
        "lake.tiering.candidates",
        "lake.tiering.summary",
    ]


def test_a_job_that_fails_holds_back_those_after_it(dag: DAG, run: RunDag, lab: Lab) -> None:
    lab.table("metrics", days=8)
    lab.conn.execute("SELECT lakets.add_retention_policy('metrics', '4 days')")
    lab.rollup("hourly")
    lab.break_rollup("hourly")
    with dag:
        lakets_task_group(jobs=["retention", "rollup_refresh"], default_args={"retries": 0})

    done = run(dag)

    assert done.state == "failed"
    assert done.states["lakets.retention.tables"] == "upstream_failed"
    assert lab.value("SELECT count(*) FROM metrics") == 9


def test_the_group_refuses_an_option_that_it_does_not_have(dag: DAG) -> None:
    with (
        dag,
        pytest.raises(ValueError, match=r"has no option 'batchsize'; it has .*batch_size"),
    ):
        lakets_task_group(batchsize=3)


def arguments_of(dag: DAG, name: str) -> dict[str, Any]:
    """Return the arguments of the tasks of a group, including inherited ones."""
    found = {}
    for task in dag.tasks:
        group: Any = task.task_group
        inherited = {**dag.default_args, **group.default_args}
        arguments = {**inherited, **task.partial_kwargs} if hasattr(task, "partial_kwargs") else vars(task)
        if name in arguments:
            found[task.task_id] = arguments[name]
    return found


@pytest.mark.parametrize("where", ["dag", "group around", "group"])
def test_the_group_takes_the_defaults_around_it(where: str) -> None:
    defaults: dict[str, Any] = {
        "pool": "lake",
        "retries": 0,
        "deferrable": True,
        "lakebase_conn_id": "other",
        "dry_run": True,
        "max_active_tis_per_dagrun": 1,
    }
    given: dict[str, Any] = {place: defaults if place == where else {} for place in ("dag", "group around")}
    with (
        DAG("x", schedule=None, default_args=given["dag"]) as dag,
        TaskGroup("around", default_args=given["group around"]),
    ):
        lakets_task_group(default_args=defaults if where == "group" else None)

    for name, value in defaults.items():
        assert set(map(repr, arguments_of(dag, name).values())) == {repr(value)}, name


def test_what_the_group_is_given_wins_over_the_defaults_around_it() -> None:
    with DAG("x", schedule=None, default_args={"pool": "a", "deferrable": True, "retries": 0}) as dag:
        lakets_task_group(pool="b", deferrable=False, default_args={"retries": 7})

    assert {(task.pool, task.retries) for task in dag.tasks} == {("b", 7)}
    assert set(arguments_of(dag, "deferrable").values()) == {False}


def test_retries_that_nobody_sets_are_those_of_the_samples() -> None:
    with DAG("x", schedule=None) as dag:
        lakets_task_group()

    assert {task.retries for task in dag.tasks} == {3}


def test_a_trigger_rule_is_that_of_the_first_task_and_the_jobs_keep_theirs() -> None:
    rules = []
    for defaults in ({"trigger_rule": "always"}, {}):
        with DAG("x", schedule=None, default_args=defaults) as dag:
            lakets_task_group()
        rules.append({task.task_id: TriggerRule(task.trigger_rule) for task in dag.tasks})

    firsts = [one.pop("lakets.partition_manager.ensure_partitions") for one in rules]
    assert firsts == [TriggerRule.ALWAYS, TriggerRule.NONE_FAILED]
    assert rules[0] == rules[1]


@pytest.mark.parametrize("name", ["trigger_rule", "batch_size", "dry_run", "tables"])
def test_the_factory_refuses_defaults_that_it_would_override(name: str) -> None:
    with pytest.raises(ValueError, match=f"default_args must not have '{name}'"):
        lakets_dags(default_args={name: 1})


# The DAG that emits the events of an asset


@pytest.mark.parametrize(("conn_id", "alias"), [(None, "lakets-tiered"), ("sales", "lakets-tiered-sales")])
def test_the_alias_of_the_connection_is_declared_when_the_dag_is_parsed(
    conn_id: str | None, alias: str
) -> None:
    dags = lakets_dags(lakebase_conn_id=conn_id)

    (outlet,) = dags["tiering"].get_task("summary").outlets
    (of_refresh,) = dags["rollup_refresh"].get_task("refresh").outlets
    assert (outlet.name, outlet.group) == (alias, f"lakets-{conn_id or 'lakebase_default'}")
    assert of_refresh.name == alias.replace("tiered", "rollups")


def test_a_summary_of_retention_declares_no_alias() -> None:
    assert lakets_dags()["retention"].get_task("summary").outlets == []


# Parse time


PARSE = """
import sys, time, airflow.sdk
from airflow.sdk import DAG, BaseOperator
before, airflow_alone = set(sys.modules), time.process_time()  # Airflow 3.1 itself loads heavy modules
from airflow_provider_lakets.jobs import lakets_dags
imports = time.process_time() - airflow_alone

def plain(dags):
    for dag in dags:
        with DAG(f"plain_{dag.dag_id}", schedule=None):
            tasks = {task.task_id: BaseOperator(task_id=task.task_id.replace(".", "_")) for task in dag.tasks}
        for task in dag.tasks:
            tasks[task.task_id] >> [tasks[name] for name in task.downstream_task_ids]

def ratio(try_number):
    start = time.process_time()
    dags = [dag for number in range(5) for dag in lakets_dags(f"project_{try_number}_{number}").values()]
    ours = time.process_time() - start
    plain(dags)
    return ours / (time.process_time() - start - ours)

print(min(map(ratio, range(8))), imports / airflow_alone)
heavy = {"psycopg", "databricks.sdk", "fastapi", "requests"}
print(sorted(heavy & {*sys.modules} - before))
"""


def test_parsing_a_file_costs_little_beside_airflow_itself() -> None:
    command = [sys.executable, "-W", "ignore", "-c", PARSE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *_, ratios, heavy = done.stdout.splitlines()
    made, imported = map(float, ratios.split())

    assert heavy == "[]"
    assert made < 12, "times the DAGs with as many plain tasks: 5 to 9"
    assert imported < 0.1, "of what importing Airflow takes: 0.03 to 0.04"
