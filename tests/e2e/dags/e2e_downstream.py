"""Runs when the RollUp ``watched`` was refreshed, and tells what it was told about that."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_lakets.assets import rollup_asset

WATCHED = rollup_asset("watched")

with DAG(
    "e2e_downstream",
    schedule=[WATCHED],
    start_date=datetime(2025, 1, 1, tzinfo=timezone.utc),
    catchup=False,
):

    @task
    def told(triggering_asset_events: Any = None) -> list[dict[str, Any]]:
        """Return the extras of the events that this run is because of."""
        return [dict(event.extra) for event in triggering_asset_events[WATCHED]]

    told()
