"""Retention of many tables: batches, the result for each table, and a cleared run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import airflow
import pytest
from airflow.sdk import task_group
from packaging.version import Version

from airflow_provider_lakets.jobs import lakets_dags
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.summary import LakeTSSummaryOperator
from airflow_provider_lakets.operators.tables import LakeTSTablesOperator

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from tests.dags.conftest import Run
    from tests.lab import Lab
    from tests.pauses import Pauses
    from tests.stage import Stage

    RunDag = Callable[..., Run]


@pytest.fixture
def engine() -> str:
    """Use only our engine; tests of the hook cover the differences of LakeTS 0.1.x."""
    return "ours"


@pytest.fixture
def fleet(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Five tables with a retention policy, where Airflow maps over at most two items."""
    names = [f"metrics_{number}" for number in range(5)]
    for name in names:
        lab.table(name, days=8)
        lab.conn.execute("SELECT lakets.add_retention_policy(%s, '4 days')", [name])
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    return [f"public.{name}" for name in names]


def refuse(lab: Lab, table: str) -> None:
    """Let retention of one table fail permanently."""
    lab.conn.execute("ALTER FUNCTION lakets.execute_retention RENAME TO _execute_retention")
    lab.conn.execute(
        "CREATE FUNCTION lakets.execute_retention(p_table_name text, p_schema_name text DEFAULT 'public',"
        " p_force boolean DEFAULT false, p_max_chunks integer DEFAULT NULL) RETURNS integer"
        f" LANGUAGE plpgsql AS $$ BEGIN IF p_table_name = '{table}' THEN"
        " RAISE EXCEPTION 'not today' USING ERRCODE = '22023'; END IF;"
        " RETURN lakets._execute_retention(p_table_name, p_schema_name, p_force, p_max_chunks);"
        " END $$".encode()
    )


def allow(lab: Lab) -> None:
    """Undo :func:`refuse`."""
    lab.conn.execute("DROP FUNCTION lakets.execute_retention")
    lab.conn.execute("ALTER FUNCTION lakets._execute_retention RENAME TO execute_retention")


def test_more_tables_than_airflow_maps_over_are_retained_in_batches(
    samples: dict[str, Any], run: RunDag, lab: Lab, fleet: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    done = run(samples["lakets_retention"])

    results = [result for batch in done.results("drop_expired") for result in batch]
    assert done.state == "success"
    assert done.names["drop_expired"] == [f"{fleet[0]} and 2 more", f"{fleet[3]} and 1 more"]
    assert [(result["name"], result["outcome"]) for result in results] == [
        (name, "dropped") for name in fleet
    ]
    dropped = sum(len(result["dropped"]) for result in results)
    assert done.result("summary") == {"counts": {"dropped": dropped}, "reasons": []}
    log = "".join(capfd.readouterr())
    assert all(re.search(rf"{name}: \d+ dropped \([\d.]+ kB, 2.* to 2.* UTC\)", log) for name in fleet)


def test_a_table_that_fails_stops_none_of_its_batch(
    samples: dict[str, Any], run: RunDag, lab: Lab, fleet: list[str]
) -> None:
    refuse(lab, "metrics_0")

    done = run(samples["lakets_retention"])

    results = [result for batch in done.results("drop_expired") for result in batch]
    outcomes = {result["name"]: result["outcome"] for result in results}
    assert (done.state, outcomes.pop(fleet[0])) == ("failed", "failed")
    assert set(outcomes.values()) == {"dropped"}
    assert done.result("summary")["counts"]["failed"] == 1


@pytest.mark.parametrize("made", [False, True], ids=["sample", "lakets_dags"])
def test_a_table_that_does_not_exist_does_not_stop_the_others(
    samples: dict[str, Any], run: RunDag, lab: Lab, fleet: list[str], made: bool
) -> None:
    dag = lakets_dags()["retention"] if made else samples["lakets_retention"]

    done = run(dag, tables=["nothing", fleet[1]])

    assert (done.state, done.states["tables"], done.states["summary"]) == ("failed", "success", "failed")
    assert [result["outcome"] for result in done.results("drop_expired")] == ["dropped"]
    assert done.result("summary")["counts"]["failed"] == 1
    assert "is not a ChronoTable" in str(done.errors[-1])


@pytest.mark.parametrize("named_by", [None, "{{ task.label }}"], ids=["default", "template"])
def test_a_task_of_a_mapped_group_has_a_name(
    dag: DAG, run: RunDag, lab: Lab, fleet: list[str], named_by: str | None
) -> None:
    @task_group
    def one(name: Any) -> None:
        LakeTSRetentionOperator(task_id="drop", table=name, map_index_template=named_by)

    with dag:
        one.expand(name=fleet[:2])

    done = run(dag)

    assert done.state == "success"
    if named_by is None or Version(airflow.__version__) >= Version("3.2"):
        assert done.names["one.drop"] == fleet[:2]


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize("named_by", [None, "{{ task.label }}"], ids=["default", "template"])
def test_a_table_whose_name_is_a_number_names_its_task(
    dag: DAG, run: RunDag, lab: Lab, named_by: str | None, native: bool
) -> None:
    lab.table("2024", days=8)
    dag.render_template_as_native_obj = native
    with dag:
        drop = LakeTSRetentionOperator.partial(task_id="drop", map_index_template=named_by)
        drop.expand(table=["2024"])

    done = run(dag)

    assert done.states == {"drop": "success"}
    assert done.names["drop"] == ["2024" if native else '"2024"']


def test_a_summary_in_a_mapped_group_reports_what_its_own_list_left_out(
    dag: DAG, run: RunDag, lab: Lab, fleet: list[str]
) -> None:
    @task_group
    def one(names: Any) -> None:
        tables = LakeTSTablesOperator(task_id="tables", tables=names, retries=0)
        given: Any = tables.output
        drop = LakeTSRetentionOperator(task_id="drop", table=given)
        summary = LakeTSSummaryOperator(task_id="summary", given=tables.output, results=drop.output)
        tables >> summary

    with dag:
        one.expand(names=[[fleet[0], "nothing"], [fleet[1]]])

    done = run(dag)

    wrong, right = done.results("one.summary")
    assert wrong["counts"]["failed"] == 1
    assert "failed" not in right["counts"]
    assert [" is not a ChronoTable" in str(error) for error in done.errors] == [True]


def test_a_dry_run_of_a_fleet_drops_nothing(
    samples: dict[str, Any], run: RunDag, lab: Lab, fleet: list[str]
) -> None:
    done = run(samples["lakets_retention"], dry_run=True)

    plans = [plan for batch in done.results("drop_expired") for plan in batch]
    assert [plan["name"] for plan in plans] == fleet
    assert {plan["outcome"] for plan in plans} == {"planned"}
    assert lab.value("SELECT count(*) FROM metrics_4") == 8


def test_the_author_may_ask_for_fewer_batches(dag: DAG, run: RunDag, lab: Lab, fleet: list[str]) -> None:
    with dag:
        LakeTSTablesOperator(task_id="tables", policy="retention", max_batches=1)

    assert run(dag).result("tables") == [fleet]


def test_a_batch_waits_for_all_its_tables(dag: DAG, run: RunDag, lake: Stage, pauses: Pauses) -> None:
    feeds = [lake.synced(name) for name in ("first", "second")]
    for name in ("first", "second"):
        lake.run(f"INSERT INTO {name} VALUES (9, %s, 9)", lake.at(1, 1))
    pauses.then(feeds[0].flush, feeds[1].flush)
    with dag:
        LakeTSRetentionOperator(task_id="drop", table=["first", "second"], deferrable=True)

    done = run(dag)

    assert [(one["name"], one["outcome"], len(one["dropped"])) for one in done.result("drop")] == [
        ("public.first", "dropped", 4),
        ("public.second", "dropped", 4),
    ]


# A run that is cleared


def test_a_cleared_run_forgets_the_table_that_lost_its_policy(
    samples: dict[str, Any], run: RunDag, clear: Callable[[DAG, Run], Run], lab: Lab
) -> None:
    for name in ("flights", "weather"):
        lab.table(name, days=8)
        lab.conn.execute("SELECT lakets.add_retention_policy(%s, '4 days')", [name])
    refuse(lab, "flights")
    dag = samples["lakets_retention"]
    first = run(dag)
    lab.conn.execute("SELECT lakets.remove_retention_policy('flights')")

    second = clear(dag, first)

    assert (first.state, first.states["summary"]) == ("failed", "failed")
    assert (second.state, second.states["summary"]) == ("success", "success")
    assert second.result("summary")["counts"] == {"unchanged": 1}


def test_a_cleared_run_forgets_the_table_that_did_not_exist(
    samples: dict[str, Any], run: RunDag, clear: Callable[[DAG, Run], Run], lab: Lab
) -> None:
    lab.table("flights", days=8)
    lab.conn.execute("SELECT lakets.add_retention_policy('flights', '4 days')")
    dag = samples["lakets_retention"]
    first = run(dag, tables=["flights", "weather"])
    lab.table("weather", days=8)

    second = clear(dag, first)

    assert (first.state, second.state) == ("failed", "success")


def test_a_cleared_run_does_not_take_an_old_result_for_a_new_one(
    samples: dict[str, Any], run: RunDag, clear: Callable[[DAG, Run], Run], lab: Lab
) -> None:
    for name in ("flights", "weather"):
        lab.table(name, days=8)
        lab.conn.execute("SELECT lakets.add_retention_policy(%s, '4 days')", [name])
    refuse(lab, "weather")
    dag = samples["lakets_retention"]
    first = run(dag)
    lab.conn.execute("SELECT lakets.remove_retention_policy('flights')")
    allow(lab)

    second = clear(dag, first)  # weather is the first task now; its old result is that of the second

    assert (first.state, second.state) == ("failed", "success")
    assert set(second.result("summary")["counts"]) == {"dropped"}
