"""The sample DAGs for DBOS, run by Airflow with a real program."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from dbos import WorkflowSerializationFormat

from airflow_provider_lakets.dbos.enqueue import DBOSEnqueueOperator
from airflow_provider_lakets.dbos.hook import DBOSHook
from tests.dags.conftest import dagbag_module
from tests.dbos.conftest import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.dags.conftest import Run
    from tests.dbos.conftest import Effects

SAMPLES = Path(__file__).parents[2] / "dags" / "dbos"


@pytest.fixture
def samples(airflow: Path) -> dict[str, Any]:
    bag = dagbag_module().DagBag(SAMPLES)
    assert bag.import_errors == {}
    return dict(bag.dags)


def answer(monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    """Answer the approval with this choice."""
    from airflow.providers.standard.operators.hitl import HITLOperator

    event = {
        "chosen_options": [chosen],
        "params_input": {},
        "responded_at": datetime.now(timezone.utc),
        "responded_by_user": {"id": "1", "name": "somebody"},
        "timedout": False,
    }
    monkeypatch.setattr(
        HITLOperator, "execute", lambda task, context: task.execute_complete(context, dict(event))
    )


@pytest.mark.slow
@pytest.mark.usefixtures("app", "connection")
@pytest.mark.parametrize("chosen", ["Approve", "Reject"])
def test_what_failed_in_a_step_at_night_is_forked_from_it_when_approved(
    samples: dict[str, Any],
    run: Callable[..., Run],
    effects: Effects,
    connection: str,
    monkeypatch: pytest.MonkeyPatch,
    chosen: str,
) -> None:
    name = f"night-{chosen}"
    effects.break_(name, 2)
    hook = DBOSHook(connection)
    handle: Any = hook.client.enqueue(
        {
            "workflow_name": "job",
            "queue_name": "orders",
            "serialization_type": WorkflowSerializationFormat.PORTABLE,
        },
        name,
    )
    wait_until(lambda: hook.statuses([handle.workflow_id])[handle.workflow_id].status == "ERROR", "failed")
    hook.close()
    effects.mend(name, 2)
    answer(monkeypatch, chosen)

    done = run(samples["dbos_refork"], step=2, after="00:00", before="23:59")

    assert done.states["failed"] == "success"
    assert effects.of(name) == ([1, 2, 2, 3] if chosen == "Approve" else [1, 2])


@pytest.mark.slow
@pytest.mark.usefixtures("app", "connection")
def test_a_task_of_a_dag_run_starts_its_workflow_once_and_returns_its_result(
    airflow: Path, run: Callable[..., Run], effects: Effects
) -> None:
    from airflow.sdk import DAG

    with DAG(
        "dbos_once",
        schedule=None,
        start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
        params={"name": "x"},
        default_args={"retries": 1, "retry_delay": timedelta(0)},
    ) as dag:
        DBOSEnqueueOperator(
            task_id="one",
            workflow_name="job",
            queue_name="orders",
            workflow_kwargs={"name": "{{ params.name }}", "steps": 2},
            poll_interval=0.2,
        )
        DBOSEnqueueOperator.partial(
            task_id="mapped", workflow_name="job", queue_name="orders", poll_interval=0.2
        ).expand(workflow_kwargs=[{"name": "map-0"}, {"name": "map-1"}])

    done = run(dag, name="in-a-run")

    assert {*done.states.values()} == {"success"}
    assert done.result("one") == {"name": "in-a-run", "sum": 30}
    assert [effects.of(one) for one in ("in-a-run", "map-0", "map-1")] == [[1, 2], [1, 2, 3], [1, 2, 3]]


def test_a_workflow_gets_the_order_of_its_event_and_no_more(
    samples: dict[str, Any],
) -> None:
    events = [SimpleNamespace(extra={"order": 7, "from_rest_api": True}), SimpleNamespace(extra={"order": 8})]

    found = (
        samples["dbos_orders"]
        .get_task("orders")
        .python_callable(triggering_asset_events={"dbos_orders": events[:1], "another": events[1:]})
    )

    assert found == [{"order": 7}, {"order": 8}]
