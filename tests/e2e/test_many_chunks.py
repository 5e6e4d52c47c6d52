"""Ten thousand candidates at once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.airflow import Airflow
    from tests.e2e.lake import Lake

TABLES, CHUNKS = 10, 1000
LIMIT_SECONDS = 1200.0


@pytest.mark.slow
def test_ten_thousand_candidates_become_few_tasks_and_all_are_flagged(
    airflow: Airflow, lake: Lake, record_property: Callable[[str, object], None]
) -> None:
    for number in range(TABLES):
        lake.table_of_hours(f"metrics_{number}", CHUNKS)
    lake.lakebase.wait_flushed(LIMIT_SECONDS)
    due = sum(len(lake.candidates(f"metrics_{number}")) for number in range(TABLES))
    lake.time_functions()

    started = time.monotonic()
    run = airflow.trigger("lakets_tiering").succeed(LIMIT_SECONDS)
    wall = time.monotonic() - started

    tiered = lake.column("SELECT count(*) FROM lakets._chunk_metadata WHERE status = 'tiered'")[0]
    tasks = run.tasks()
    busy = sum(task.seconds for task in tasks)
    engine = lake.seconds_in_functions()
    record_property(
        "note",
        f"{due:,} chunks in {len(tasks)} tasks: {wall:.0f} s in all. Tasks ran {busy:.0f} s, 4 at a time,"
        f" {engine:.0f} s of it in Lakebase: {1 - engine / busy:.0%} is Airflow's own, imports and logins.",
    )
    assert due >= TABLES * CHUNKS
    assert tiered == due
    assert len(tasks) <= 110
