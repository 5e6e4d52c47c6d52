"""DBOS workflows: one per run, waited for in the triggerer; one per item; one that is slow."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn

from airflow.sdk import DAG

from airflow_provider_lakets.dbos.enqueue import DBOSEnqueueOperator

USUAL: dict[str, Any] = {
    "start_date": datetime(2025, 1, 1, tzinfo=timezone.utc),
    "catchup": False,
    "default_args": {"retries": 2, "retry_delay": timedelta(seconds=3)},
}
TASK: dict[str, Any] = {
    "queue_name": "orders",
    "workflow_name": "job",
    "dbos_schema": "dbos_e2e",
    "poll_interval": 1,
    "on_terminal": "rewind",
}


class Dawdling(DBOSEnqueueOperator):
    """In its first try it takes its time between the start of the workflow and its own deferral."""

    def _defer(self, context: Any, *args: Any) -> NoReturn:
        if context["ti"].try_number == 1:
            time.sleep(300)
        super()._defer(context, *args)


with DAG("e2e_dbos", schedule="@daily", **USUAL):
    DBOSEnqueueOperator(task_id="job", workflow_kwargs={"name": "{{ run_id }}"}, **TASK)

with DAG("e2e_dbos_items", schedule=None, **USUAL):
    items = [{"name": f"item-{number}", "steps": 1} for number in range(1000)]
    DBOSEnqueueOperator(task_id="jobs", items=items, **TASK)

with DAG("e2e_dbos_dawdling", schedule=None, **USUAL):
    Dawdling(task_id="job", workflow_kwargs={"name": "{{ run_id }}"}, **TASK)
