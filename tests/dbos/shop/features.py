"""A workflow for each thing that DBOS can do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from dbos import (
    DBOS,
    DBOSConfiguredInstance,
    SetEnqueueOptions,
    SetWorkflowID,
    SetWorkflowTimeout,
    SQLAlchemyDatasource,
)

from tests.dbos.shop.engines import new_engine
from tests.dbos.shop.work import is_set, job, note, work

if TYPE_CHECKING:
    from datetime import datetime

# An engine of its own: with that of DBOS, each transaction holds a session while DBOS waits for
# another one.
ledger = SQLAlchemyDatasource.create("postgresql+psycopg://", engine=new_engine(), schema="ledger")


@DBOS.step()
def hold(name: str, number: int) -> None:
    """Record when it begins and, with a negative number, when it ends."""
    note(name, number)
    time.sleep(0.05)
    note(name, -number)


@DBOS.workflow(name="busy")
def busy(name: str, number: int) -> None:
    """Take a moment."""
    hold(name, number)


@DBOS.workflow(name="receive")
def receive(name: str, count: int) -> list[Any]:
    """Receive messages one after another; a missing message is None."""
    found = []
    for _ in range(count):
        message = DBOS.recv("numbers", timeout_seconds=30)
        work(name, message)
        found.append(message)
    return [*found, DBOS.recv("numbers", timeout_seconds=0.1)]


@DBOS.workflow(name="pass_on")
def pass_on(to: str, numbers: list[int]) -> None:
    """Send messages to another workflow."""
    for number in numbers:
        DBOS.send(to, number, topic="numbers")


@DBOS.workflow(name="announce")
def announce(name: str, count: int) -> None:
    """Set an event repeatedly."""
    for number in range(1, count + 1):
        DBOS.set_event("progress", number)
        work(name, number)


@DBOS.workflow(name="await_event")
def await_event(of: str) -> tuple[Any, Any]:
    """Return an event of another workflow, and one that it does not set."""
    return (
        DBOS.get_event(of, "progress", timeout_seconds=30),
        DBOS.get_event(of, "nothing", timeout_seconds=0.1),
    )


@DBOS.workflow(name="sleep")
def sleep(name: str, seconds: float) -> None:
    """Sleep durably between two steps."""
    work(name, 1)
    DBOS.sleep(seconds)
    work(name, 2)


@DBOS.step(retries_allowed=True, max_attempts=3, interval_seconds=0.05)
def flaky(name: str) -> str:
    """Fail while it is broken; DBOS retries it."""
    note(name, 1)
    if is_set("broken", name, 1):
        raise ConnectionError("not reached")
    return "reached"


@DBOS.workflow(name="insist")
def insist(name: str) -> str:
    """Call a function that sometimes fails."""
    return flaky(name)


@ledger.transaction()
def enter(name: str, number: int) -> int:
    """Write into a table; DBOS records the step in the same transaction."""
    query = sa.text("INSERT INTO app.effects VALUES (:n, :s)")
    ledger.sql_session().execute(query, {"n": name, "s": number})
    return number


@ledger.transaction()
def read(name: str) -> list[dict[str, Any]]:
    """Return the rows of the table."""
    query = sa.text("SELECT name, step FROM app.effects WHERE name = :n ORDER BY step")
    return [dict(row._mapping) for row in ledger.sql_session().execute(query, {"n": name})]


@DBOS.workflow(name="enter_all")
def enter_all(name: str, count: int) -> list[dict[str, Any]]:
    """Write and read, each in a transaction."""
    for number in range(1, count + 1):
        enter(name, number)
    return read(name)


@DBOS.workflow(name="on_schedule")
def on_schedule(scheduled_at: datetime, context: Any) -> None:
    """Record the second at which it was due."""
    work(context, int(scheduled_at.timestamp()))


@DBOS.step()
async def work_async(name: str, number: int) -> int:
    """Do the same as the other step, in an event loop."""
    note(name, number)
    return number * 10


@DBOS.workflow(name="job_async")
async def job_async(name: str, steps: int) -> int:
    """Do steps in an event loop."""
    await DBOS.sleep_async(0.05)
    return sum([await work_async(name, number) for number in range(1, steps + 1)])


@DBOS.dbos_class("Till")
class Till(DBOSConfiguredInstance):
    """A class whose objects have workflows."""

    def __init__(self, place: str) -> None:
        self.place = place
        super().__init__(config_name=place)

    @DBOS.step()
    def take(self, name: str) -> str:
        note(name, 1)
        return self.place

    @DBOS.workflow(name="take_at")
    def take_at(self, name: str) -> str:
        return f"taken at the {self.take(name)}"


tills = [Till("door"), Till("counter")]


@DBOS.workflow(name="start_many")
def start_many(name: str, count: int) -> list[Any]:
    """Enqueue steps and workflows, and wait for all; the same id starts only one."""
    handles: list[Any] = [DBOS.enqueue_workflow("orders", work, name, number) for number in range(count)]
    with SetEnqueueOptions(priority=1), SetWorkflowTimeout(30):
        handles.append(DBOS.enqueue_workflow("orders", job, f"{name}-job", 1))
    for _ in range(2):
        with SetWorkflowID(f"{DBOS.workflow_id}-once"):
            handles.append(DBOS.start_workflow(job, f"{name}-once", 1))
    return [handle.get_result() for handle in handles]
