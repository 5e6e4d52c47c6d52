"""
A program for any DBOS from 2.8 on, in an environment without Airflow: ``test_older_dbos.py``.

It kills itself in the middle if its argument says so, and prints what became of its workflow
otherwise.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from importlib.metadata import version
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, SetWorkflowID

from airflow_provider_lakets.dbos import create_lakebase_engine

IS_OLD = version("dbos").startswith("2.")
engine = create_lakebase_engine(pool_size=5)
config: DBOSConfig = {
    "name": "older",
    "application_version": "v1",
    "system_database_engine": engine,
    "dbos_system_schema": os.environ["APP_SCHEMA"],
}
DBOS(config=config)
if IS_OLD:
    from dbos import Queue

    queue: Any = Queue("older")


@DBOS.step()
def work(name: str, number: int, last: int) -> int:
    with engine.begin() as conn:
        conn.execute(sa.text("INSERT INTO app.effects VALUES (:n, :s)"), {"n": name, "s": number})
    if number == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@DBOS.workflow(name="job")
def job(name: str) -> int:
    last = int(sys.argv[1])
    return sum(work(name, number, last) for number in range(1, 6))


@DBOS.workflow(name="queued")
def queued(number: int) -> int:
    return number * 2


if __name__ == "__main__":
    name = os.environ["APP_SCHEMA"]
    DBOS.launch()
    if not IS_OLD:
        DBOS.register_queue("older", polling_interval_sec=0.1)
    with SetWorkflowID(name):
        handle: Any = DBOS.start_workflow(job, name)
    deadline = time.monotonic() + 60
    while handle.get_status().status != "SUCCESS" and time.monotonic() < deadline:
        time.sleep(0.1)
    enqueue = queue.enqueue if IS_OLD else lambda *given: DBOS.enqueue_workflow("older", *given)
    doubled = [enqueue(queued, number).get_result() for number in range(3)]
    sys.stdout.write(json.dumps({"sum": handle.get_result(), "doubled": doubled}) + "\n")
    DBOS.destroy()
