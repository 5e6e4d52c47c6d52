"""On 3.1 a retry resumes with the event of the previous try."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.deferral import this_try
from airflow_provider_lakets.operators.retention import LakeTSRetentionOperator
from airflow_provider_lakets.operators.tiering import LakeTSTierOperator
from airflow_provider_lakets.sensors.durability import LakeTSDurabilitySensor

if TYPE_CHECKING:
    from collections.abc import Callable

TASKS = {
    "tier": lambda: LakeTSTierOperator(task_id="x", chunks="public.x", deferrable=True),
    "retention": lambda: LakeTSRetentionOperator(task_id="x", table="metrics", deferrable=True),
    "sensor": lambda: LakeTSDurabilitySensor(task_id="x", table="metrics", deferrable=True),
}


def context(try_number: int) -> Any:
    return {"ti": SimpleNamespace(try_number=try_number)}


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize(("try_number", "does"), [(1, "goes on"), (2, "begins anew")])
def test_only_the_try_that_waited_goes_on_from_its_event(
    task: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, try_number: int, does: str
) -> None:
    operator = task()
    monkeypatch.setattr(operator, "execute", lambda context: "begins anew")
    monkeypatch.setattr(operator, "execute_complete", lambda context, event: "goes on")
    stored = {**this_try(context(1)), "event": {"status": "failed"}}

    done = operator.resume_execution("execute_complete", stored, context(try_number))

    assert done == does
