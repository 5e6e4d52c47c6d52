"""A DBOS program as users write them, a process of its own; what its steps do is counted in a table."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, SetWorkflowID

from airflow_provider_lakets.dbos import create_lakebase_engine

engine = create_lakebase_engine(os.environ["APP_URL"], pool_size=10)


def note(name: str, step: int) -> None:
    with engine.begin() as conn:
        conn.execute(sa.text("INSERT INTO app.effects VALUES (:n, :s)"), {"n": name, "s": step})


def is_set(table: str, name: str, step: int) -> bool:
    with engine.begin() as conn:
        query = sa.text(f"SELECT count(*) FROM app.{table} WHERE name = :n AND step = :s")
        return bool(conn.execute(query, {"n": name, "s": step}).scalar_one())


@DBOS.step()
def work(name: str, number: int) -> int:
    """Note that the step has begun; wait while its gate is shut; fail while it is broken."""
    note(name, number)
    while is_set("shut", name, number):
        time.sleep(0.02)
    if is_set("broken", name, number):
        raise ValueError(f"step {number} of {name} is broken")
    return number * 10


@DBOS.workflow(name="job")
def job(name: str, steps: int = 3) -> dict[str, Any]:
    return {"name": name, "sum": sum(work(name, number) for number in range(1, steps + 1))}


@DBOS.workflow(name="outside")
def outside(name: str) -> None:
    raise RuntimeError(f"{name} failed outside its steps")


@DBOS.workflow(name="parent")
def parent(name: str) -> str:
    handle = DBOS.start_workflow(job, f"{name}-child")
    handle.get_result()
    return "done"


if __name__ == "__main__":
    config: DBOSConfig = {
        "name": os.environ.get("APP_NAME", "shop"),
        "application_version": os.environ.get("APP_VERSION", "v1"),
        "system_database_engine": engine,
        "dbos_system_schema": os.environ.get("APP_SCHEMA", "dbos"),
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue("orders", polling_interval_sec=0.1)
    DBOS.register_queue("one_by_one", global_concurrency=1, polling_interval_sec=0.1)
    DBOS.register_queue("by_customer", partition_concurrency=1, polling_interval_sec=0.1)
    if sys.argv[1:] == ["pickled"]:  # a workflow that the program starts itself, with its own serializer
        with SetWorkflowID("pickled"):
            DBOS.start_workflow(job, "pickled").get_result()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    threading.Event().wait()
