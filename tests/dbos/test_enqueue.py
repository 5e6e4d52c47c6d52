"""A task and its workflow: start once, wait, report its end; real programs on a real Lakebase."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from string import Template
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from airflow_provider_lakets.compat import AirflowTaskTimeout
from airflow_provider_lakets.dbos import enqueue, poller
from airflow_provider_lakets.dbos.enqueue import DBOSEnqueueOperator
from airflow_provider_lakets.dbos.hook import DBOSHook
from airflow_provider_lakets.exceptions import DBOSWorkflowError, LakebaseConnectionError
from tests.dbos.conftest import wait_until
from tests.dbos.tasks import Task, fails, fire, task

if TYPE_CHECKING:
    from tests.dbos.conftest import App, Effects

pytestmark = pytest.mark.usefixtures("app", "connection")


def workflows(hook: DBOSHook, task: Task) -> dict[str, str]:
    """Return the workflows of a task by the end of their ids, with their statuses."""
    found = hook.client.list_workflows(
        attributes={"airflow": {"run_id": task.run_id}}, load_input=False, load_output=False
    )
    return {one.workflow_id.rpartition("/")[2]: one.status for one in found}


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "in the worker"])
def test_returns_the_result_of_the_workflow(effects: Effects, name: str, deferrable: bool) -> None:
    assert task(name, deferrable=deferrable).run() == {"name": name, "sum": 60}
    assert effects.of(name) == [1, 2, 3]


def test_a_lost_connection_does_not_end_a_wait_in_the_worker(
    effects: Effects, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects.shut(name, 2)
    losses = [LakebaseConnectionError("no answer")]
    pause, statuses = time.sleep, DBOSHook.statuses

    def ask(self: DBOSHook, ids: Any) -> Any:
        raise losses.pop() if losses else AssertionError("asked once")

    def sleep(seconds: float) -> None:
        monkeypatch.setattr(DBOSHook, "statuses", ask if losses else statuses)
        if not losses:
            effects.open(name, 2)
        pause(seconds)

    monkeypatch.setattr(enqueue, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))

    assert task(name, deferrable=False).run() == {"name": name, "sum": 60}


def test_without_a_triggerer_it_looks_itself_when_the_wait_is_over(name: str) -> None:
    attempt = task(name).begin()
    assert fire(attempt.trigger)["status"] == "reached"

    # As the scheduler resumes a task that no triggerer picked up in time.
    done = attempt.operator.resume_execution("__fail__", {"error": "Trigger timeout"}, attempt.context)

    assert done == {"name": name, "sum": 60}


def test_without_waiting_it_returns_the_id(name: str, hook: DBOSHook) -> None:
    one = task(name, wait=False)
    workflow_id = one.run()

    assert workflow_id == f"airflow/shop.orders/{one.run_id}/task"
    assert workflow_id in hook.statuses([workflow_id])


def test_a_cleared_task_that_does_not_wait_does_what_on_terminal_says(
    effects: Effects, name: str, hook: DBOSHook
) -> None:
    one = task(name, wait=False, on_terminal="new")
    first = one.run()
    wait_until(lambda: workflows(hook, one) == {"task": "SUCCESS"}, "ended")

    second = one.run()

    assert second == f"{first}#2"
    wait_until(lambda: workflows(hook, one) == {"task": "SUCCESS", "task#2": "SUCCESS"}, "both ended")
    assert effects.of(name) == [1, 2, 3, 1, 2, 3]


def test_mapped_tasks_have_a_workflow_each(name: str) -> None:
    ids = {task(name, map_index=index, wait=False).run().rpartition("/")[2] for index in range(3)}

    assert ids == {"0", "1", "2"}


def test_a_worker_killed_after_the_start_leaves_it_to_the_next_try(
    effects: Effects, name: str, hook: DBOSHook
) -> None:
    one = task(name)
    one.begin()  # this has no effect

    assert one.run()["sum"] == 60
    assert effects.of(name) == [1, 2, 3]
    assert workflows(hook, one) == {"task": "SUCCESS"}


def test_two_schedulers_at_once_start_it_once(effects: Effects, name: str, hook: DBOSHook) -> None:
    one = task(name)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(one.run())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [result["sum"] for result in found] == [60] * 4
    assert effects.of(name) == [1, 2, 3]
    assert workflows(hook, one) == {"task": "SUCCESS"}


def test_a_failure_names_the_step_and_the_error_and_no_retry_follows(effects: Effects, name: str) -> None:
    effects.break_(name, 2)

    with fails(AirflowFailException, r"step 2 'work'.*ValueError.*is broken"):
        task(name).run()


def test_a_failure_outside_steps_is_told_without_one(name: str) -> None:
    with fails(AirflowFailException, r"task\) failed: RuntimeError.*outside its steps"):
        task(name, workflow_name="outside").run()


@pytest.mark.parametrize(
    ("policy", "again", "ids"),
    [
        ("rewind", [1, 2, 2, 3], {"task": "SUCCESS"}),
        ("fork", [1, 2, 2, 3], {"task": "ERROR", "task#2": "SUCCESS"}),
        ("new", [1, 2, 1, 2, 3], {"task": "ERROR", "task#2": "SUCCESS"}),
    ],
)
def test_a_retry_of_a_failed_workflow_does_what_on_terminal_says(
    effects: Effects, name: str, hook: DBOSHook, policy: str, again: list[int], ids: dict[str, str]
) -> None:
    effects.break_(name, 2)
    one = task(name, on_terminal=policy)
    with fails(DBOSWorkflowError, "step 2"):
        one.run()
    effects.mend(name, 2)

    assert one.run()["sum"] == 60
    assert effects.of(name) == again
    assert workflows(hook, one) == ids


def test_a_cleared_task_begins_at_the_step_that_it_is_told(effects: Effects, name: str) -> None:
    one = task(name, on_terminal="rewind", from_step=3)

    assert one.run() == one.run()
    assert effects.of(name) == [1, 2, 3, 3]


def test_an_end_that_was_not_told_is_told_before_anything_runs_again(
    effects: Effects, name: str, hook: DBOSHook
) -> None:
    one = task(name, on_terminal="new")
    attempt = one.begin()
    wait_until(lambda: workflows(hook, one) == {"task": "SUCCESS"}, "ended")
    assert attempt.deferred  # and this worker is killed

    assert one.run()["sum"] == 60
    assert effects.of(name) == [1, 2, 3]
    assert one.run()["sum"] == 60  # cleared, after its end was reported
    assert effects.of(name) == [1, 2, 3, 1, 2, 3]


def test_tries_at_once_run_it_again_once(effects: Effects, name: str, hook: DBOSHook) -> None:
    one = task(name, on_terminal="fork")
    one.run()
    attempts = [one.begin(), one.begin()]

    assert [attempt.end()["sum"] for attempt in attempts] == [60, 60]
    assert workflows(hook, one) == {"task": "SUCCESS", "task#2": "SUCCESS"}


def test_a_stopped_task_cancels_its_workflow_and_a_cleared_one_resumes_it(
    effects: Effects, name: str, hook: DBOSHook
) -> None:
    effects.shut(name, 2)
    one = task(name)
    attempt = one.begin()
    effects.wait_for(name, 2)
    attempt.operator.on_kill()
    assert workflows(hook, one) == {"task": "CANCELLED"}
    effects.open(name, 2)

    assert one.run()["sum"] == 60
    assert effects.of(name)[0] == 1
    assert effects.of(name).count(1) == 1


def test_a_stopped_task_leaves_the_workflow_of_another_alone(
    effects: Effects, name: str, hook: DBOSHook
) -> None:
    effects.shut(name, 1)
    same: dict[str, Any] = {"deduplication_id": name, "duplication_policy": "return-existing"}
    first = task(name, **same).begin()
    attempt = task(name, **same).begin()

    attempt.operator.on_kill()
    asyncio.run(attempt.trigger.on_kill())

    effects.open(name, 1)
    assert first.end() == attempt.end() == {"name": name, "sum": 60}


def test_the_workflow_of_another_task_is_found_without_an_answer_of_the_triggerer(
    effects: Effects, name: str
) -> None:
    effects.shut(name, 1)
    same: dict[str, Any] = {"deduplication_id": name, "duplication_policy": "return-existing"}
    first = task(name, **same).begin()
    late, in_time = (task(name, **same, end_timeout=0.01).begin() for _ in range(2))

    with fails(DBOSWorkflowError, "have not ended in"):
        late.end_unanswered()

    effects.open(name, 1)
    assert first.end() == in_time.end_unanswered() == {"name": name, "sum": 60}


def test_a_workflow_that_somebody_else_cancelled_fails_the_task(
    effects: Effects, name: str, hook: DBOSHook
) -> None:
    effects.shut(name, 1)
    one = task(name, on_terminal="resume")
    attempt = one.begin()
    effects.wait_for(name, 1)
    hook.client.cancel_workflow(attempt.operator._running[0])
    effects.open(name, 1)

    with fails(DBOSWorkflowError, "was cancelled"):
        attempt.end()
    assert one.run()["sum"] == 60


def test_a_workflow_over_its_timeout_says_so(effects: Effects, name: str) -> None:
    effects.shut(name, 1)

    with fails(AirflowFailException, r"was cancelled, or reached its timeout of 0.3 s"):
        task(name, workflow_timeout=0.3).run()
    effects.open(name, 1)


def test_the_execution_timeout_ends_a_deferred_task_and_its_workflow(
    effects: Effects, name: str, hook: DBOSHook
) -> None:
    effects.shut(name, 1)
    one = task(name, execution_timeout=timedelta(seconds=1))
    attempt = one.begin()

    with pytest.raises(AirflowTaskTimeout, match="execution_timeout of 0:00:01 has passed"):
        attempt.end()
    attempt.operator.on_kill()  # Airflow calls it then

    assert workflows(hook, one) == {"task": "CANCELLED"}
    effects.open(name, 1)


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "in the worker"])
def test_what_never_starts_is_told_in_time(name: str, deferrable: bool, effects: Effects) -> None:
    effects.shut(f"{name}-first", 1)
    first = task(f"{name}-first", queue_name="one_by_one", wait=False).run()
    effects.wait_for(f"{name}-first", 1)

    one = task(name, queue_name="one_by_one", start_timeout=0.5, deferrable=deferrable)
    with fails(DBOSWorkflowError, r"has not started in 0:00:00.5.*queue 'one_by_one'"):
        one.run()
    effects.open(f"{name}-first", 1)
    assert first
    one.arguments["start_timeout"] = None
    assert one.run()["sum"] == 60


@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "in the worker"])
def test_what_does_not_end_goes_on_and_a_retry_waits_for_it(
    effects: Effects, name: str, deferrable: bool
) -> None:
    effects.shut(name, 1)
    one = task(name, wait=False, deferrable=deferrable)
    one.run()
    effects.wait_for(name, 1)

    one.arguments |= {"wait": True, "end_timeout": timedelta(seconds=0.5)}
    with fails(DBOSWorkflowError, "not ended in 0:00:00.5"):
        one.run()
    effects.open(name, 1)
    one.arguments["end_timeout"] = 60

    assert one.run()["sum"] == 60
    assert effects.of(name) == [1, 2, 3]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "queue": ({"queue_name": "ordres"}, r"no queue 'ordres'.*'by_customer'.*'one_by_one', 'orders'"),
    "version": ({"app_version": "v9"}, r"no application version 'v9'.*'v1'"),
    "schema": ({"dbos_schema": "dbso"}, r"schema 'dbso'.*'dbos'"),
    "application": (
        {"application": "other"},
        r"no queue 'orders' of application 'other'.*It belongs to 'shop'",
    ),
    "arguments": ({"workflow_kwargs": {"name": object()}}, "cannot be written as JSON"),
    "args that are no list": ({"workflow_args": "abc"}, "workflow_args must be a list"),
    "no partition": ({"queue_name": "by_customer"}, "'by_customer' is partitioned: .* partition_key"),
    "partition of a queue that has none": ({"partition_key": "x"}, "'orders' is not partitioned"),
    "arguments that are no text": ({"workflow_kwargs": {"name": "\ud800"}}, "cannot be written as JSON"),
    "attributes": ({"attributes": {"x": object()}}, "attributes must be a dict that JSON can hold"),
    "attributes that are no dict": ({"attributes": ["x"]}, "attributes must be a dict that JSON can hold"),
    "attributes that the server refuses": ({"attributes": {"x": "\0"}}, "cannot be converted to text"),
    "attributes of ours": ({"attributes": {"airflow": {}}}, "attributes must not have 'airflow'"),
    "no deduplication id": ({"deduplication_id": ""}, "deduplication_id was rendered to ''"),
    "no partition key": ({"partition_key": " "}, "partition_key was rendered to ' '"),
    "id that the server refuses": ({"workflow_id": "a\0b"}, "cannot contain NUL"),
    "id that is not text": ({"workflow_id": "a\ud800"}, "surrogates not allowed"),
    "no workflow": ({"workflow_name": ""}, "workflow_name was rendered to ''"),
    "connection": ({"lakebase_conn_id": "nope"}, "nope"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_wait_for_ever_fails_at_once(name: str, hook: DBOSHook, case: str) -> None:
    arguments, message = REFUSED[case]
    one = task(name, **arguments)

    with fails(AirflowFailException, message):
        one.run()
    assert workflows(hook, one) == {}


@pytest.mark.parametrize(
    "arguments",
    [
        {"priority": 0},
        {"priority": "high"},
        {"priority": 2**31},
        {"delay": -1},
        {"workflow_timeout": 0},
        {"start_timeout": timedelta(0)},
        {"end_timeout": -5},
    ],
    ids=str,
)
def test_a_number_that_cannot_be_fails_when_the_dag_is_parsed(arguments: dict[str, Any]) -> None:
    (name,) = arguments

    with pytest.raises(ValueError, match=f"{name} must be"):
        DBOSEnqueueOperator(task_id="task", workflow_name="job", queue_name="orders", **arguments)


def test_other_arguments_for_a_workflow_that_is_there_are_not_ignored(name: str, effects: Effects) -> None:
    one = task(name)
    one.run()
    one.arguments["workflow_kwargs"] = {"name": name, "steps": 1}

    with fails(AirflowFailException, "other arguments"):
        one.run()
    one.arguments["on_terminal"] = "new"
    assert one.run()["sum"] == 10


def test_another_workflow_under_the_id_is_refused(name: str) -> None:
    task(name, workflow_id=f"mine-{name}").run()

    with fails(AirflowFailException, "'job', not 'outside'"):
        task(name, workflow_id=f"mine-{name}", workflow_name="outside").run()


def test_a_workflow_that_its_program_pickled_is_not_unpickled(name: str) -> None:
    usual = {"workflow_id": "pickled", "workflow_kwargs": {"name": "pickled"}}

    with fails(AirflowFailException, "pickle.*serialization='native'"):
        task(name, **usual).run()
    assert task(name, **usual, serialization="native").run() == {"name": "pickled", "sum": 60}


def test_items_are_enqueued_once_whatever_their_order(effects: Effects, name: str, hook: DBOSHook) -> None:
    items = [{"name": f"{name}-{number}", "steps": 1} for number in range(20)]
    one = task(name, workflow_kwargs=None, items=items)
    attempt = one.begin()
    one.arguments["items"] = items[::-1]

    assert [result["name"] for result in one.run()] == [item["name"] for item in items[::-1]]
    assert [result["name"] for result in attempt.end()] == [item["name"] for item in items]
    assert all(effects.of(str(item["name"])) == [1] for item in items)
    assert len(workflows(hook, one)) == 20


def test_equal_items_are_a_workflow_each(name: str, hook: DBOSHook) -> None:
    one = task(name, workflow_kwargs={"steps": 1}, items=[name, name], workflow_args=[])

    assert [result["name"] for result in one.run()] == [name, name]
    assert len(workflows(hook, one)) == 2


def test_items_that_only_pickle_can_write_are_enqueued_once(name: str, hook: DBOSHook) -> None:
    arguments: dict[str, Any] = {"workflow_name": "echo", "workflow_kwargs": None, "serialization": "native"}
    # Both have another repr at each try.
    one = task(name, **arguments, items=[{"text": Template("a")}, {"text": {0, 8}}])
    one.begin()
    one.arguments["items"] = [{"text": Template("a")}, {"text": {8, 0}}]

    assert [getattr(result, "template", result) for result in one.run()] == ["a", {0, 8}]
    assert len(workflows(hook, one)) == 2


def test_items_may_be_objects_that_can_be_called(name: str, hook: DBOSHook) -> None:
    arguments: dict[str, Any] = {"workflow_name": "echo", "workflow_kwargs": None, "serialization": "native"}
    one = task(name, **arguments, items=[{"text": partial(int, base=base)} for base in (2, 3)])
    one.begin()

    assert [result("10") for result in one.run()] == [2, 3]
    assert len(workflows(hook, one)) == 2


def test_items_may_wait_for_long_once_one_has_ended(
    effects: Effects, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{name}-1", f"{name}-2", f"{name}-other"]
    for one in names:
        effects.shut(one, 1)
    how: dict[str, Any] = {"queue_name": "one_by_one", "workflow_kwargs": {"steps": 1}}
    attempt = task(name, **how, items=[[names[0]], [names[1]]], priority=9, start_timeout=0.1).begin()
    wait_until(lambda: effects.of(names[0]) or effects.of(names[1]), "one has begun")
    task(name, **how, workflow_args=[names[2]], priority=1, wait=False).run()
    effects.open(names[0] if effects.of(names[0]) else names[1], 1)
    effects.wait_for(names[2], 1)
    looks: list[Any] = []
    ask = poller.Poller._ask

    def note(*arguments: Any) -> Any:
        looks.append(arguments)
        return ask(*arguments)

    monkeypatch.setattr(poller.Poller, "_ask", note)

    with ThreadPoolExecutor() as pool:
        ended = pool.submit(attempt.end)
        wait_until(lambda: ended.done() or len(looks) > 2, "the trigger has looked twice")
        for one in names:
            effects.open(one, 1)

        assert [result["sum"] for result in ended.result()] == [10, 10]


def test_no_items_are_no_workflows(name: str) -> None:
    assert task(name, items=[]).run() == []


def test_of_many_items_those_that_failed_are_told_and_rewound(effects: Effects, name: str) -> None:
    effects.break_(f"{name}-1", 1)
    items = [[f"{name}-{number}", 1] for number in range(3)]
    one = task(name, workflow_kwargs=None, items=items, on_terminal="rewind")
    with fails(DBOSWorkflowError, "1 of 3 workflows failed.*step 1"):
        one.run()
    effects.mend(f"{name}-1", 1)

    assert len(one.run()) == 3
    assert [len(effects.of(f"{name}-{number}")) for number in range(3)] == [1, 2, 1]


def test_a_program_that_is_killed_goes_on_in_the_step_where_it_was(
    app: App, effects: Effects, name: str
) -> None:
    effects.shut(name, 2)
    attempt = task(name).begin()
    effects.wait_for(name, 2)
    app.kill()
    effects.open(name, 2)
    app.start()

    assert attempt.end()["sum"] == 60
    assert effects.of(name) == [1, 2, 2, 3]
