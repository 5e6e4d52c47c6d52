"""List, cancel, resume, fork, and wait for workflows of other programs."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from dbos import WorkflowSerializationFormat

from airflow_provider_lakets.compat import AirflowSensorTimeout
from airflow_provider_lakets.dbos import enqueue, poller
from airflow_provider_lakets.dbos.enqueue import DBOSEnqueueOperator
from airflow_provider_lakets.dbos.operators import (
    DBOSCancelOperator,
    DBOSForkOperator,
    DBOSListWorkflowsOperator,
    DBOSResumeOperator,
)
from airflow_provider_lakets.dbos.sensor import DBOSWorkflowSensor
from airflow_provider_lakets.dbos.trigger import DBOSWorkflowTrigger
from airflow_provider_lakets.deferral import deadline
from airflow_provider_lakets.exceptions import DBOSWorkflowError
from tests.dbos.conftest import wait_until
from tests.dbos.tasks import Task, fails, fire, task

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from airflow_provider_lakets.dbos.hook import DBOSHook
    from tests.dbos.conftest import Effects
    from tests.pauses import Pauses

pytestmark = pytest.mark.usefixtures("app", "connection")


@pytest.fixture
def start(hook: DBOSHook) -> Callable[..., str]:
    """Return a function that starts a workflow without Airflow, and waits for a status."""

    def start(name: str, status: str = "PENDING", **attributes: Any) -> str:
        handle: Any = hook.client.enqueue(
            {
                "workflow_name": "job",
                "queue_name": "orders",
                "attributes": attributes,
                "serialization_type": WorkflowSerializationFormat.PORTABLE,
            },
            name,
        )
        wait_until(lambda: status_of(hook, handle.workflow_id) == status, f"{name} is {status}")
        return str(handle.workflow_id)

    return start


def status_of(hook: DBOSHook, workflow_id: str) -> str:
    return str(hook.statuses([workflow_id])[workflow_id].status)


def test_what_failed_in_a_step_is_listed_and_forked_from_it_once(
    effects: Effects, name: str, hook: DBOSHook, start: Callable[..., str]
) -> None:
    for number in (2, 3):
        effects.break_(f"{name}-{number}", number)
    two, three = (start(f"{name}-{number}", "ERROR", test=name) for number in (2, 3))
    start(f"{name}-good", "SUCCESS", test=name)
    listing: dict[str, Any] = {"attributes": {"test": name}, "created_after": "2025-01-01T00:00:00Z"}

    by_number = Task(DBOSListWorkflowsOperator, failed_in_step=2, **listing).run()
    by_name = Task(DBOSListWorkflowsOperator, failed_in_step="work", **listing).run()
    assert [one["workflow_id"] for one in by_number] == [two]
    assert [one["workflow_id"] for one in by_name] == [two, three]
    assert by_number[0]["failed_step_name"] == "work"

    effects.mend(f"{name}-2", 2)
    forking = Task(DBOSForkOperator, workflow_id=by_number, start_step="2", queue_name="orders")
    (new,) = forking.run()
    assert forking.run() == [new]
    Task(DBOSWorkflowSensor, workflow_id=new, poke_interval=0.2).run()
    assert effects.of(f"{name}-2") == [1, 2, 2, 3]
    assert status_of(hook, two) == "ERROR"


def test_cancelled_and_resumed_it_goes_on_where_it_was(
    effects: Effects, name: str, hook: DBOSHook, start: Callable[..., str]
) -> None:
    effects.shut(name, 2)
    one = start(name)
    effects.wait_for(name, 2)

    assert Task(DBOSCancelOperator, workflow_id=one).run() == [one]
    assert Task(DBOSCancelOperator, workflow_id=[one]).run() == []
    assert status_of(hook, one) == "CANCELLED"
    effects.open(name, 2)
    assert Task(DBOSResumeOperator, workflow_id=one).run() == [one]
    wait_until(lambda: status_of(hook, one) == "SUCCESS", "it succeeded")
    assert effects.of(name).count(1) == 1


def test_a_list_of_ids_that_a_template_made_text_of_is_a_list(
    effects: Effects, name: str, hook: DBOSHook, start: Callable[..., str]
) -> None:
    effects.shut(name, 1)
    one, two = start(name), start(name)

    assert Task(DBOSCancelOperator, workflow_id=f"['{one}', '{two}']").run() == [one, two]
    effects.open(name, 1)


def test_what_has_failed_cannot_be_resumed_and_nothing_else_is(
    effects: Effects, name: str, hook: DBOSHook, start: Callable[..., str]
) -> None:
    effects.break_(f"{name}-bad", 1)
    effects.shut(name, 1)
    bad, stopped = start(f"{name}-bad", "ERROR"), start(name)
    Task(DBOSCancelOperator, workflow_id=stopped).run()

    with fails(AirflowFailException, "is ERROR: only CANCELLED.*Fork or rewind"):
        Task(DBOSResumeOperator, workflow_id=[stopped, bad]).run()
    assert status_of(hook, stopped) == "CANCELLED"
    effects.open(name, 1)


@pytest.mark.parametrize("operator", [DBOSCancelOperator, DBOSResumeOperator, DBOSForkOperator])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nobody", "1 of 1 .* do not exist, such as 'nobody'"),
        ("", "names no workflow"),
        ([], "names no workflow"),
        ([{"name": "x"}], "one of them is None"),
        (None, "names no workflow"),
        ("['a', b]", "is not a list of ids"),
    ],
)
def test_what_is_not_there_is_an_error(operator: type, given: Any, message: str) -> None:
    with fails(AirflowFailException, message):
        Task(operator, workflow_id=given).run()


@pytest.mark.parametrize("operator", [DBOSResumeOperator, DBOSForkOperator])
def test_what_has_no_partition_is_not_put_where_it_would_never_be_taken(
    effects: Effects, name: str, start: Callable[..., str], operator: type
) -> None:
    effects.shut(name, 1)
    one = start(name)
    Task(DBOSCancelOperator, workflow_id=one).run()
    effects.open(name, 1)

    with fails(AirflowFailException, "'by_customer' is partitioned"):
        Task(operator, workflow_id=one, queue_name="by_customer").run()


def test_a_list_is_never_cut_without_a_word(name: str, start: Callable[..., str]) -> None:
    for _ in range(3):
        start(name, "SUCCESS", test=name)

    assert len(Task(DBOSListWorkflowsOperator, attributes={"test": name}, limit=3).run()) == 3
    with fails(AirflowFailException, "More than 2"):
        Task(DBOSListWorkflowsOperator, attributes={"test": name}, limit=2).run()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"status": "FAILED"}, "no status 'FAILED'.*ERROR"),
        ({"created_after": "three o'clock"}, "created_after is .*three o'clock.*2025-03-01"),
        ({"workflow_name": ""}, "workflow_name was rendered to ''"),
    ],
)
def test_a_search_that_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with fails(AirflowFailException, message):
        Task(DBOSListWorkflowsOperator, **arguments).run()


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "in the worker"])
def test_the_sensor_tells_how_it_ended(
    effects: Effects, name: str, start: Callable[..., str], deferrable: bool
) -> None:
    effects.break_(name, 3)
    one = start(name, "ERROR")
    waiting: dict[str, Any] = {"workflow_id": one, "poke_interval": 0.2, "deferrable": deferrable}

    with fails(AirflowFailException, "failed in step 3 'work': ValueError"):
        Task(DBOSWorkflowSensor, **waiting).run()
    Task(DBOSWorkflowSensor, **waiting, fail_on_error=False).run()


def test_the_sensor_waits_in_vain_for_what_is_not_there() -> None:
    with fails(AirflowSensorTimeout, "Timed out after .* nobody: NOT THERE"):
        Task(DBOSWorkflowSensor, workflow_id="nobody", timeout=1, poke_interval=0.2).run()


def test_the_sensor_succeeds_if_all_have_ended_at_its_timeout(name: str, start: Callable[..., str]) -> None:
    one = start(name, "SUCCESS")
    sensor = DBOSWorkflowSensor(task_id="x", workflow_id=one)

    event = {"status": "timed_out", "waiting": {one: "PENDING"}}
    sensor.resume_execution("execute_complete", {"event": event}, Task(DBOSWorkflowSensor).context())


def test_a_lost_connection_does_not_end_a_wait_in_a_worker(
    effects: Effects,
    name: str,
    hook: DBOSHook,
    start: Callable[..., str],
    pauses: Pauses,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reachable = os.environ["AIRFLOW_CONN_LAKEBASE_DEFAULT"]
    lost = json.dumps({**json.loads(reachable), "port": 1})
    effects.shut(name, 1)
    one = start(name)

    def come_back() -> None:
        monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", reachable)
        effects.open(name, 1)
        wait_until(lambda: status_of(hook, one) == "SUCCESS", f"{one} has ended")

    pauses.then(lambda: monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lost), come_back)

    Task(DBOSWorkflowSensor, workflow_id=one, deferrable=False).run()


def test_a_lost_connection_at_the_end_of_a_deferred_wait_makes_the_sensor_wait_again(
    name: str, start: Callable[..., str], impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    reachable = os.environ["AIRFLOW_CONN_LAKEBASE_DEFAULT"]
    one = start(name, "SUCCESS")
    sensor = DBOSWorkflowSensor(task_id="x", workflow_id=one)
    context = Task(DBOSWorkflowSensor).context()
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", json.dumps({**json.loads(reachable), "port": 1}))

    with pytest.raises(TaskDeferred):
        sensor.resume_execution("execute_complete", {"event": {"status": "reached"}}, context)


def test_a_workflow_resumed_after_its_end_makes_the_sensor_wait_again(
    effects: Effects, name: str, hook: DBOSHook, start: Callable[..., str]
) -> None:
    effects.shut(name, 1)
    one = start(name)
    effects.wait_for(name, 1)
    Task(DBOSCancelOperator, workflow_id=one).run()
    sensor = DBOSWorkflowSensor(task_id="x", workflow_id=one)
    context = Task(DBOSWorkflowSensor).context()
    with fails(AirflowFailException, "cancelled"):
        sensor.resume_execution("execute_complete", {"event": {"status": "reached"}}, context)

    Task(DBOSResumeOperator, workflow_id=one).run()
    with pytest.raises(TaskDeferred):
        sensor.resume_execution("execute_complete", {"event": {"status": "reached"}}, context)
    effects.open(name, 1)
    wait_until(lambda: status_of(hook, one) == "SUCCESS", "it succeeded")

    sensor.resume_execution("execute_complete", {"event": {"status": "reached"}}, context)


def test_triggers_of_a_connection_ask_together_and_keep_no_session(
    effects: Effects, name: str, hook: DBOSHook, start: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    effects.shut(name, 1)
    ids = [start(f"{name}-{number}", "SUCCESS") for number in range(3)]
    asked: list[int] = []
    ask = poller.Poller._ask

    def note(self: poller.Poller, wanted: list[str], prefixes: list[str]) -> dict[str, str]:
        asked.append(len(wanted))
        return ask(self, wanted, prefixes)

    monkeypatch.setattr(poller.Poller, "_ask", note)
    monkeypatch.setattr(poller, "GATHER_SECONDS", 0.2)

    async def fire_all() -> list[Any]:
        triggers = [DBOSWorkflowTrigger(workflow_ids=[one], deadline=deadline(60)) for one in ids]
        return await asyncio.gather(*(anext(trigger.run()) for trigger in triggers))

    events = asyncio.run(fire_all())

    assert [event.payload["status"] for event in events] == ["reached"] * 3
    assert asked == [3]
    sessions = hook.rows(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'airflow-triggerer/dbos'", "counting"
    )
    assert sessions == [(0,)]


def test_a_trigger_that_gets_no_answer_asks_again(
    name: str, start: Callable[..., str], admin: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = start(name, "SUCCESS")
    monkeypatch.setattr(poller, "ANSWER_SECONDS", 0.5)
    asked = threading.Event()
    ask = poller.Poller._ask

    def note(*arguments: Any) -> Any:
        try:
            return ask(*arguments)
        finally:
            asked.set()

    monkeypatch.setattr(poller.Poller, "_ask", note)
    with ThreadPoolExecutor() as pool:
        with admin.transaction():
            admin.execute("LOCK TABLE dbos.workflow_status")
            event = pool.submit(
                fire, DBOSWorkflowTrigger(workflow_ids=[one], deadline=deadline(60), poll_interval=0.1)
            )
            assert asked.wait(30)

        assert event.result() == {"status": "reached"}


def test_a_trigger_follows_a_connection_that_is_changed(
    effects: Effects, name: str, start: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    effects.shut(name, 1)
    one = start(name)
    monkeypatch.setattr(poller, "HOOK_SECONDS", 0)
    changed = json.dumps(
        {**json.loads(os.environ["AIRFLOW_CONN_LAKEBASE_DEFAULT"]), "extra": {"no": "setting"}}
    )
    looked = threading.Event()
    ask = poller.Poller._ask

    def note(*arguments: Any) -> Any:
        found = ask(*arguments)
        looked.set()
        return found

    monkeypatch.setattr(poller.Poller, "_ask", note)
    trigger = DBOSWorkflowTrigger(workflow_ids=[one], deadline=deadline(20), poll_interval=0.1)

    with ThreadPoolExecutor() as pool:
        event = pool.submit(fire, trigger)
        assert looked.wait(30)
        monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", changed)

        assert event.result()["status"] == "failed"
    effects.open(name, 1)


def test_a_killed_deferred_task_cancels_its_workflow(
    effects: Effects, name: str, hook: DBOSHook, start: Callable[..., str]
) -> None:
    effects.shut(name, 1)
    one = start(name)
    effects.wait_for(name, 1)
    trigger = DBOSWorkflowTrigger(workflow_ids=[one], deadline=deadline(60), stop_on_kill=True)

    asyncio.run(trigger.on_kill())

    assert status_of(hook, one) == "CANCELLED"
    effects.open(name, 1)


def test_a_task_whose_worker_is_shut_down_is_retried(
    effects: Effects, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects.shut(name, 1)
    one = task(name, deferrable=False)
    operator = DBOSEnqueueOperator(**one.arguments)

    def shut_down(_: float) -> None:
        effects.wait_for(name, 1)
        operator.on_kill()  # Airflow calls it in a signal handler, after which the task goes on

    with monkeypatch.context() as patched, fails(DBOSWorkflowError, "cancelled"):
        patched.setattr(enqueue, "time", SimpleNamespace(monotonic=time.monotonic, sleep=shut_down))
        operator.execute(one.context())
    effects.open(name, 1)

    assert one.run() == {"name": name, "sum": 60}
