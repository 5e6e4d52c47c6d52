"""Tries of tasks, step by step, as Airflow runs an operator, but without its database."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_lakets.dbos.enqueue import DBOSEnqueueOperator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.triggers.base import LakeTSBaseTrigger

_runs = itertools.count()


# Seconds after which a trigger that does not fire fails its test.
PATIENCE = 120


class Task:
    """
    A task of one DAG run; each try creates the operator again, as on another worker.

    :param operator: Its class.
    :param arguments: Of the operator.
    """

    def __init__(self, operator: type, *, map_index: int = -1, **arguments: Any) -> None:
        self.run_id = f"manual__2025-01-01T00:00:{next(_runs)}+00:00"
        self.map_index = map_index
        self._operator = operator
        self.arguments = {"task_id": "task", **arguments}
        self._tries = itertools.count(1)

    def context(self) -> Any:
        """Return the context of a new try."""
        notes: dict[str, Any] = {}  # Airflow deletes them before another try
        ti = SimpleNamespace(
            xcom_push=lambda key, value: notes.update({key: value}),
            xcom_pull=lambda key, **_: notes.get(key),
            dag_id="shop.orders",
            run_id=self.run_id,
            task_id="task",
            map_index=self.map_index,
            try_number=next(self._tries),
        )
        return {"ti": ti}

    def begin(self) -> Attempt:
        """Begin a try, which is deferred or over afterwards."""
        return Attempt(self._operator(**self.arguments), self.context())

    def run(self) -> Any:
        """Run a try to its end, and return the result."""
        return self.begin().end()


class Attempt:
    """One try of a task."""

    def __init__(self, operator: Any, context: Any) -> None:
        self.operator, self.context = operator, context
        self.deferred: TaskDeferred | None = None
        self.result: Any = None
        try:
            self.result = operator.execute(context)
        except TaskDeferred as deferred:
            self.deferred = deferred

    @property
    def trigger(self) -> LakeTSBaseTrigger:
        """The trigger, restored from its serialized form as in another process."""
        assert self.deferred is not None
        trigger: Any = self.deferred.trigger
        path, arguments = trigger.serialize()
        assert path == f"{type(trigger).__module__}.{type(trigger).__name__}"
        made: LakeTSBaseTrigger = type(trigger)(**arguments)
        return made

    def end(self) -> Any:
        """Wait until the trigger fires, and return what the task then returns."""
        if self.deferred is None:
            return self.result
        event = fire(self.trigger)
        kwargs = {**(self.deferred.kwargs or {}), "event": event}
        return self.operator.resume_execution("execute_complete", kwargs, self.context)

    def end_unanswered(self) -> Any:
        """Return what the task returns after its timeout if no triggerer has answered."""
        return self.operator.resume_execution("__fail__", {"error": "Trigger timeout"}, self.context)


def task(name: str, **arguments: Any) -> Task:
    """Return a task that starts the workflow ``job`` of the tests' program."""
    usual = {
        "workflow_name": "job",
        "queue_name": "orders",
        "workflow_kwargs": {"name": name},
        "poll_interval": 0.05,
    }
    return Task(DBOSEnqueueOperator, **{**usual, **arguments})


def fire(trigger: LakeTSBaseTrigger) -> dict[str, Any]:
    """Run a trigger to its end, and return the payload of its only event."""

    async def collect() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(asyncio.wait_for(collect(), PATIENCE))
    assert json.loads(json.dumps(payload)) == payload  # it is stored as JSON
    return dict(payload)


@contextlib.contextmanager
def fails(kind: type[Exception], words: str) -> Iterator[None]:
    """Expect an error with words in this order in its message, however its lines are broken."""
    with pytest.raises(kind) as failure:
        yield
    message = " ".join(str(failure.value).split())
    assert re.search(words, message), message
    assert "Traceback" not in message
