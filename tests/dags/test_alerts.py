"""Alerts inside Airflow: they fail a task, skip what follows, or choose the branch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import airflow
import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import TaskGroup
from packaging.version import Version

from airflow_provider_lakets.operators.alerts import LakeTSAlertOperator
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import DAG

    from tests.dags.conftest import Run
    from tests.lab import Lab

    RunDag = Callable[[DAG], Run]

HOT = "SELECT device, value FROM metrics WHERE value > {}"


@pytest.fixture
def engine() -> str:
    """Use only our engine; 0.1.x has the same functions, which tests of the hook cover."""
    return "ours"


@pytest.fixture
def metrics(lab: Lab) -> Lab:
    lab.table("metrics", days=3)
    return lab


def told(done: Run) -> str:
    """Return the last error, as if on one line."""
    return " ".join(str(done.errors[-1]).split())


def check(limit: int, **arguments: Any) -> LakeTSAlertOperator:
    return LakeTSAlertOperator(task_id="check", name="hot", query=HOT.format(limit), **arguments)


def test_without_an_alert_the_task_returns_none(dag: DAG, run: RunDag, metrics: Lab) -> None:
    with dag:
        check(99) >> EmptyOperator(task_id="next")

    done = run(dag)

    assert done.result("check") == []
    assert done.states == {"check": "success", "next": "success"}


def test_a_number_may_be_larger_than_airflow_passes_on(dag: DAG, run: RunDag, metrics: Lab) -> None:
    query = (
        "SELECT 1e20::float8 AS a, 10::numeric ^ 400 AS b, ARRAY[-1e20::numeric] AS c, 2 ^ 63::numeric AS d"
    )
    with dag:
        LakeTSAlertOperator(task_id="check", name="large", query=query, on_alert="report")

    ((alert,),) = run(dag).results("check")

    assert alert["alert_data"] == {"a": 1e20, "b": f"1{'0' * 400}", "c": [-1e20], "d": 2**63}
    # Airflow's tasks and supervisor speak MessagePack, which has no larger integers.
    assert isinstance(alert["alert_data"]["a"], float)


def test_an_alert_fails_the_task_for_good_and_names_what_was_found(
    dag: DAG, run: RunDag, metrics: Lab
) -> None:
    with dag:
        check(1, severity="critical", retries=3) >> EmptyOperator(task_id="next")

    done = run(dag)

    assert done.states == {"check": "failed", "next": "upstream_failed"}
    assert done.tries["check"] == 1
    assert "Alert hot: 1 found." in str(done.errors[-1])
    assert "value = 2, device = a" in str(done.errors[-1])
    (alert,) = done.result("check")
    assert (alert["severity"], alert["alert_data"]) == ("critical", {"device": "a", "value": 2})


def test_an_alert_may_skip_what_follows(dag: DAG, run: RunDag, metrics: Lab) -> None:
    with dag:
        check(1, on_alert="skip") >> EmptyOperator(task_id="next")

    assert run(dag).states == {"check": "skipped", "next": "skipped"}


def test_an_alert_may_be_reported_only(dag: DAG, run: RunDag, metrics: Lab) -> None:
    with dag:
        check(0, on_alert="report") >> EmptyOperator(task_id="next")

    done = run(dag)

    assert done.states == {"check": "success", "next": "success"}
    assert len(done.result("check")) == 2


@pytest.mark.parametrize(("limit", "taken"), [(1, "mend"), (99, "rest")], ids=["alert", "quiet"])
def test_an_alert_chooses_the_branch(dag: DAG, run: RunDag, metrics: Lab, limit: int, taken: str) -> None:
    with dag:
        check(limit, on_alert="branch", if_alert="mend", if_quiet=["rest"]) >> [
            EmptyOperator(task_id="mend"),
            EmptyOperator(task_id="rest"),
        ]

    states = run(dag).states

    assert states.pop("check") == "success"
    assert {name for name, state in states.items() if state == "success"} == {taken}


# Airflow 3.1 looks for the choice of a branch under the number of the mapped task.
@pytest.mark.skipif(Version(airflow.__version__) < Version("3.3"), reason="a fault of Airflow before 3.3")
def test_a_mapped_task_of_the_other_branch_is_skipped(dag: DAG, run: RunDag, metrics: Lab) -> None:
    with dag:
        check(1, on_alert="branch", if_alert="mend", if_quiet="rest") >> [
            EmptyOperator(task_id="mend"),
            LakeTSPartitionOperator.partial(task_id="rest").expand(tables=["metrics"]),
        ]

    assert run(dag).states == {"check": "success", "mend": "success", "rest": "skipped"}


@pytest.mark.parametrize("wrong", ["mned", "last"])
def test_a_branch_that_does_not_follow_fails_before_there_is_an_alert(
    dag: DAG, run: RunDag, metrics: Lab, wrong: str
) -> None:
    with dag:
        one = check(99, on_alert="branch", if_alert=wrong, if_quiet="rest")
        one >> EmptyOperator(task_id="rest") >> EmptyOperator(task_id="last")

    done = run(dag)

    assert done.states["check"] == "failed"
    assert f"'{wrong}' of if_alert and if_quiet is not a task directly after 'check'" in told(done)


def test_a_mapped_alert_chooses_the_branch(dag: DAG, run: RunDag, metrics: Lab) -> None:
    with dag:
        LakeTSAlertOperator.partial(
            task_id="check", name="hot", on_alert="branch", if_alert="mend", if_quiet="rest"
        ).expand(query=[HOT.format(1)]) >> [EmptyOperator(task_id="mend"), EmptyOperator(task_id="rest")]

    assert run(dag).states["check"] == "success"


def test_a_branch_may_be_a_task_group(dag: DAG, run: RunDag, metrics: Lab) -> None:
    with dag:
        one = check(1, on_alert="branch", if_alert="call", if_quiet="rest")
        with TaskGroup("call") as call:
            EmptyOperator(task_id="somebody")
        one >> [call, EmptyOperator(task_id="rest")]

    assert run(dag).states == {"check": "success", "call.somebody": "success", "rest": "skipped"}


def test_a_branch_without_a_task_skips_all(dag: DAG, run: RunDag, metrics: Lab) -> None:
    with dag:
        check(99, on_alert="branch", if_alert="mend") >> EmptyOperator(task_id="mend")

    assert run(dag).states == {"check": "success", "mend": "skipped"}


def test_silent_series_fail_the_task(dag: DAG, run: RunDag, metrics: Lab) -> None:
    metrics.conn.execute("INSERT INTO metrics VALUES (now() - interval '5 hours', 'lost', 1)")
    with dag:
        LakeTSAlertOperator(
            task_id="check", name="silent", table="metrics", group_by="device", timeout="2 hours"
        )

    done = run(dag)

    assert done.states == {"check": "failed"}
    assert "lost is silent for 05:00:0" in str(done.errors[-1])
    assert [alert["dead_key"] for alert in done.result("check")] == ["lost"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"query": "DELETE FROM metrics RETURNING *"}, "syntax error"),
        ({"query": "{{ '' }}"}, "query was rendered to ''"),
        ({"table": "nowhere", "group_by": "device", "timeout": "1 hour"}, "nowhere"),
        ({"table": "metrics", "group_by": "nothing", "timeout": "1 hour"}, "has no column nothing"),
        ({"table": "metrics", "group_by": "device", "timeout": "soon"}, "invalid input syntax"),
    ],
    ids=["writes", "nothing", "table", "column", "interval"],
)
def test_what_cannot_be_checked_fails_for_good(
    dag: DAG, run: RunDag, metrics: Lab, arguments: dict[str, Any], words: str
) -> None:
    with dag:
        LakeTSAlertOperator(task_id="check", name="bad", on_alert="skip", retries=3, **arguments)

    done = run(dag)

    assert done.states == {"check": "failed"}
    assert done.tries["check"] == 1
    assert words in " ".join(str(done.errors[-1]).split())
