"""
Start a DBOS workflow for each order that an asset event announces, and charge the order once.

Each order has one workflow, even if the task is retried or cleared. Afterwards an event of another
asset starts the DAGs that wait for it. Requires the extra `dbos`.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import chain
from typing import Any

from airflow.sdk import DAG, Asset, task

from airflow_provider_lakets.dbos.enqueue import DBOSEnqueueOperator

ORDERED, CHARGED = Asset("dbos_orders"), Asset("dbos_charged")

with DAG(
    "dbos_orders",
    schedule=[ORDERED],
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["dbos"],
    doc_md=__doc__,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
):

    @task
    def orders(**context: Any) -> list[dict[str, Any]]:
        """Return the arguments of each event's workflow, from its extra, such as {"order": 7}."""
        events = chain.from_iterable(context["triggering_asset_events"].values())
        # Not the whole extra: Airflow adds keys to events created by hand or by its REST API.
        return [{"order": event.extra["order"]} for event in events]

    DBOSEnqueueOperator(
        task_id="charge",
        workflow_name="charge_order",
        queue_name="orders",
        items=orders(),
        on_terminal="rewind",  # a retry runs what failed again, from the step that failed
        outlets=[CHARGED],
    )
