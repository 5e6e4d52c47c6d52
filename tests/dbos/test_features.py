"""
The guarantees of DBOS hold on Lakebase, with each engine that a program can use.

The programs run beside the tests, and log in by OAuth through the front door. With our engine the
tests run each time; with the engine of a connection of Airflow's, and with that of DBOS'
documentation, in `make test-dbos`.
"""

from __future__ import annotations

import random
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pytest
from dbos import DBOSClient, DebouncerClient, error

from airflow_provider_lakets.dbos import create_lakebase_engine
from tests.dbos.conftest import App, session_url, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbos import WorkflowStatus

    from airflow_provider_lakets.local.client import LocalServer
    from tests.dbos.conftest import Effects

ENGINES = [
    "ours",
    pytest.param("hook", marks=pytest.mark.slow),
    pytest.param("documented", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest, lake: LocalServer, effects: Effects) -> Iterator[App]:
    """Yield a program with one of the engines, which runs for the whole module."""
    shop = App(lake, session_url(lake), f"features_{request.param}", engine=request.param)
    shop.start()
    yield shop
    shop.kill()


@pytest.fixture
def client(shop: App, url: str) -> Iterator[DBOSClient]:
    engine = create_lakebase_engine(url, pool_size=2)
    client = DBOSClient(system_database_engine=engine, dbos_system_schema=shop.schema)
    yield client
    client.destroy()
    engine.dispose()


@pytest.fixture
def start(client: DBOSClient) -> Callable[..., str]:
    """Return a function that enqueues a workflow and returns its id."""

    def start(workflow: str, *arguments: Any, queue: str = "orders", **options: Any) -> str:
        handle: Any = client.enqueue(
            {"workflow_name": workflow, "queue_name": queue, **options},  # type: ignore[typeddict-item]  # any options
            *arguments,
        )
        return str(handle.workflow_id)

    return start


@pytest.fixture
def status(client: DBOSClient) -> Callable[[str], WorkflowStatus]:
    return lambda workflow_id: client.retrieve_workflow(workflow_id).get_status()


@pytest.fixture
def end(client: DBOSClient, status: Callable[[str], WorkflowStatus]) -> Callable[[str], Any]:
    """Return a function that waits until a workflow has ended, and returns its result."""

    def end(workflow_id: str) -> Any:
        active = ("ENQUEUED", "DELAYED", "PENDING")
        wait_until(lambda: status(workflow_id).status not in active, f"{workflow_id} has ended")
        return client.retrieve_workflow(workflow_id).get_result()

    return end


# Queues


def most_at_once(found: list[int]) -> int:
    """Return the maximum of concurrent workers; each adds 1 at its start and -1 at its end."""
    return max(accumulate(1 if number > 0 else -1 for number in found))


def test_no_more_are_at_work_than_the_queue_allows(
    start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    ids = [start("busy", name, number, queue="two_by_two") for number in range(1, 11)]
    for one in ids:
        end(one)

    assert sorted(effects.of(name)) == [*range(-10, 0), *range(1, 11)]
    assert most_at_once(effects.of(name)) <= 2


@pytest.mark.slow
def test_several_programs_keep_to_the_limits_of_a_queue_together(
    lake: LocalServer,
    effects: Effects,
    name: str,
    shop: App,
    start: Callable[..., str],
    end: Any,
    status: Any,
) -> None:
    others = [
        App(lake, session_url(lake), shop.schema, engine=shop.engine, executor=f"other-{number}")
        for number in range(2)
    ]
    try:
        for other in others:
            other.start()
        ids = [start("busy", name, number, queue="two_by_two") for number in range(1, 41)]
        paced = [start("job", f"{name}-paced", 1, queue="four_a_second") for _ in range(20)]
        for one in [*ids, *paced]:
            end(one)
        executors = {status(one).executor_id for one in ids}
    finally:
        for other in others:
            other.kill()

    assert len(executors) > 1
    assert len(effects.of(name)) == 80
    assert most_at_once(effects.of(name)) <= 2
    assert shortest_span([status(one).dequeued_at for one in paced], 4) >= 1000


def shortest_span(instants: list[int], limit: int) -> int:
    """Return the shortest time in milliseconds in which more than a limit began."""
    found = sorted(instants)
    return min(later - earlier for earlier, later in zip(found, found[limit:], strict=False))


def test_no_more_begin_in_a_second_than_the_queue_allows(
    start: Callable[..., str], end: Callable[[str], Any], status: Any, effects: Effects, name: str
) -> None:
    ids = [start("job", name, 1, queue="four_a_second") for _ in range(9)]
    for one in ids:
        end(one)

    assert effects.of(name) == [1] * 9
    assert shortest_span([status(one).dequeued_at for one in ids], 4) >= 1000


def test_what_has_priority_goes_first(
    start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    effects.shut(f"{name}-first", 1)
    start("job", f"{name}-first", 1, queue="one_by_one")
    effects.wait_for(f"{name}-first", 1)
    order = {3: 30, 1: 10, 2: 20, None: 0}
    ids = [
        start("busy", name, number + 1, queue="one_by_one", **({"priority": priority} if priority else {}))
        for priority, number in order.items()
    ]
    effects.open(f"{name}-first", 1)
    for one in ids:
        end(one)

    assert [number for number in effects.of(name) if number > 0] == [1, 11, 21, 31]


def test_one_of_a_deduplication_id_is_in_the_queue(
    start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    effects.shut(name, 1)
    first = start("job", name, 1, deduplication_id=name)

    with pytest.raises(error.DBOSQueueDeduplicatedError):
        start("job", name, 1, deduplication_id=name)
    again = start("job", name, 1, deduplication_id=name, duplication_policy="return-existing")
    effects.open(name, 1)
    end(first)
    end(start("job", name, 1, deduplication_id=name))

    assert again == first
    assert effects.of(name) == [1, 1]


def test_a_partition_is_worked_off_in_order(
    start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    customers = [f"{name}-{letter}" for letter in "abc"]
    todo = [(customer, number) for number in range(1, 6) for customer in customers]
    ids = [
        start("busy", customer, number, queue="by_customer", queue_partition_key=customer)
        for customer, number in todo
    ]
    for one in ids:
        end(one)

    for customer in customers:
        assert effects.of(customer) == [sign * number for number in range(1, 6) for sign in (1, -1)]


def test_a_delay_is_kept(
    start: Callable[..., str], end: Callable[[str], Any], status: Any, name: str
) -> None:
    one = start("job", name, 1, delay_seconds=0.8)

    assert end(one) == {"name": name, "sum": 10}
    assert status(one).dequeued_at - status(one).created_at >= 790  # it is rounded down


def test_a_workflow_over_its_timeout_is_cancelled(
    start: Callable[..., str], status: Any, effects: Effects, name: str
) -> None:
    one = start("sleep", name, 30, workflow_timeout=0.3)

    wait_until(lambda: status(one).status == "CANCELLED", "cancelled")
    assert effects.of(name) == [1]


# Messages, events, sleep, steps


def test_messages_arrive_once_and_in_order(
    client: DBOSClient, start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    one = start("receive", name, 8)
    for number in range(1, 5):
        for _ in range(2):  # the sender tries again, because the answer was lost
            client.send(one, number, topic="numbers", idempotency_key=f"{name}-{number}")
    client.send(one, 99, topic="others")
    end(start("pass_on", one, [5, 6, 7, 8]))

    assert end(one) == [1, 2, 3, 4, 5, 6, 7, 8, None]
    assert effects.of(name) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_an_event_has_its_last_value(
    client: DBOSClient, start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    effects.shut(name, 2)
    one = start("announce", name, 3)
    effects.wait_for(name, 2)
    assert client.get_event(one, "progress", timeout_seconds=10) == 2
    effects.open(name, 2)
    end(one)

    assert client.get_event(one, "progress", timeout_seconds=10) == 3
    assert tuple(end(start("await_event", one))) == (3, None)
    assert effects.of(name) == [1, 2, 3]


def test_it_sleeps_as_long_as_it_says(
    client: DBOSClient, start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    one = start("sleep", name, 0.5)
    end(one)

    before, _, after = client.list_workflow_steps(one)
    assert before["completed_at_epoch_ms"]
    assert after["started_at_epoch_ms"]
    assert after["started_at_epoch_ms"] - before["completed_at_epoch_ms"] >= 490
    assert effects.of(name) == [1, 2]


def test_a_step_is_tried_again_as_often_as_it_may(
    start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    effects.break_(name, 1)

    with pytest.raises(Exception, match=r"(?i)max.*retries|exceeded"):
        end(start("insist", name))
    assert effects.of(name) == [1, 1, 1]
    effects.mend(name, 1)
    assert end(start("insist", name)) == "reached"


def test_a_transaction_and_its_note_are_one(
    start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    assert end(start("enter_all", name, 2)) == [{"name": name, "step": 1}, {"name": name, "step": 2}]
    assert effects.of(name) == [1, 2]


def test_steps_and_workflows_are_enqueued_and_the_same_id_starts_one(
    start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    done = end(start("start_many", name, 3))

    assert done[:3] == [0, 10, 20]
    assert [one["sum"] for one in done[3:]] == [10, 10, 10]
    assert sorted(effects.of(name)) == [0, 1, 2]
    assert effects.of(f"{name}-once") == [1]


def test_a_coroutine_is_a_workflow_too(
    start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    assert end(start("job_async", name, 3)) == 60
    assert effects.of(name) == [1, 2, 3]


def test_a_method_of_an_object_is_a_workflow_too(
    start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    one = start("take_at", name, class_name="Till", instance_name="counter")

    assert end(one) == "taken at the counter"
    assert effects.of(name) == [1]


# Control


@pytest.mark.parametrize("children", [False, True], ids=["alone", "with its children"])
def test_a_cancelled_workflow_takes_its_children_along_if_it_is_to(
    client: DBOSClient,
    start: Callable[..., str],
    status: Any,
    effects: Effects,
    name: str,
    children: bool,
) -> None:
    child = f"{name}-child"
    effects.shut(child, 1)
    one = start("parent", name)
    effects.wait_for(child, 1)
    client.cancel_workflow(one, cancel_children=children)
    effects.open(child, 1)
    (its_child,) = client.list_workflows(parent_workflow_id=one)
    expected = "CANCELLED" if children else "SUCCESS"
    wait_until(lambda: status(its_child.workflow_id).status == expected, expected)

    assert status(one).status == "CANCELLED"
    assert effects.of(child) == ([1] if children else [1, 2, 3])


def test_a_resumed_workflow_repeats_no_step_that_was_done(
    client: DBOSClient, start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    one = start("sleep", name, 1)
    wait_until(lambda: len(client.list_workflow_steps(one)) == 2, "it sleeps")
    client.cancel_workflow(one)
    client.resume_workflow(one)
    end(one)

    # The cancelled sleeper may wake up beside the resumed one: step 2 was not done when either
    # began it.
    assert effects.of(name).count(1) == 1


def test_a_rewound_workflow_runs_again_from_the_step_under_its_id(
    client: DBOSClient, start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    one = start("job", name)
    end(one)
    client.rewind_workflow(one, start_step=2)

    assert end(one)["sum"] == 60
    assert effects.of(name) == [1, 2, 3, 2, 3]


def test_a_forked_workflow_runs_from_the_step_under_another_id(
    client: DBOSClient, start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    one = start("job", name)
    end(one)
    other: Any = client.fork_workflow(one, 3)

    assert other.workflow_id != one
    assert end(other.workflow_id)["sum"] == 60
    assert effects.of(name) == [1, 2, 3, 3]


def test_a_schedule_fires_once_each_time(client: DBOSClient, effects: Effects, name: str) -> None:
    client.create_schedule(
        schedule_name=name, workflow_name="on_schedule", schedule="* * * * * *", context=name
    )
    wait_until(lambda: len(effects.of(name)) >= 3, "it has fired")
    client.delete_schedule(name)

    fired = effects.of(name)
    assert len(fired) == len(set(fired))
    assert {int(one) for one in fired} >= set(range(min(fired), min(fired) + 3))


def test_what_is_debounced_runs_once_with_what_came_last(
    client: DBOSClient, end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    debouncer = DebouncerClient(client, {"workflow_name": "job", "queue_name": "orders"})
    handles: list[Any] = [debouncer.debounce(name, 0.5, name, number) for number in (3, 1, 2)]

    assert {end(handle.workflow_id)["sum"] for handle in handles} == {30}
    assert effects.of(name) == [1, 2]


def test_many_at_once_are_all_done_once(
    start: Callable[..., str], end: Callable[[str], Any], effects: Effects, name: str
) -> None:
    names = [f"{name}-{number}" for number in range(30)]
    random.Random(1).shuffle(names)
    for one in [start("enter_all", one, 2) for one in names]:
        end(one)

    assert all(effects.of(one) == [1, 2] for one in names)
