"""The cost of a task that starts a DBOS workflow and defers, beside one that runs a statement."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_lakets.local.client import LocalServer
from benchmarks.measure import Figure

if TYPE_CHECKING:
    from benchmarks.scale import Scale
    from benchmarks.server import Server

# It creates the system tables and the queue, and ends: only Airflow's part is measured.
PROGRAM = """
from dbos import DBOS
from airflow_provider_lakets.dbos import create_lakebase_engine

DBOS(config={"name": "bench", "application_version": "1", "system_database_engine": create_lakebase_engine()})
DBOS.launch()
DBOS.register_queue("bench")
DBOS.destroy()
"""

# In a process that has imported Airflow's task runner and the DAG file, as that of a worker.
TASK = """
import json, sys, time
from types import SimpleNamespace

import airflow.sdk.execution_time.task_runner
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk.exceptions import TaskDeferred
from airflow_provider_lakets.dbos.enqueue import DBOSEnqueueOperator

ti = SimpleNamespace(
    dag_id="bench", run_id=sys.argv[2], task_id="task", map_index=-1, try_number=1, xcom_push=lambda **_: None
)
task = {
    "enqueue": lambda: DBOSEnqueueOperator(
        task_id="task", workflow_name="job", queue_name="bench", workflow_kwargs={"number": 1}
    ),
    "statement": lambda: SQLExecuteQueryOperator(task_id="task", conn_id="lakebase_default", sql="SELECT 1"),
}[sys.argv[1]]()
start = time.perf_counter()
try:
    task.execute({"ti": ti})
    end = "returned"
except TaskDeferred:
    end = "deferred"
print(json.dumps({"ms": (time.perf_counter() - start) * 1000, "end": end}))
"""


def run(server: Server, scale: Scale) -> list[Figure]:
    """Run both in turn in fresh processes, against a local Lakebase with OAuth and TLS."""
    with (
        tempfile.TemporaryDirectory(prefix="lake-", ignore_cleanup_errors=True) as folder,
        LocalServer(Path(folder)) as lakebase,
    ):
        env = {
            **os.environ,
            "AIRFLOW_HOME": f"{folder}/airflow",
            **lakebase.env(),
            **lakebase.airflow_env(),
        }
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # a worker has its bytecode
        _python(env, PROGRAM)
        for kind in ("enqueue", "statement"):
            _measure(env, kind)  # which writes the bytecode
        rounds = [(_measure(env, "enqueue"), _measure(env, "statement")) for _ in range(scale.rounds)]
    return [
        Figure(
            "Overhead",
            "enqueue a DBOS workflow and defer, OAuth, fresh process",
            "ms",
            [ours for ours, _ in rounds],
            floor=[theirs for _, theirs in rounds],
            floor_name="SQLExecuteQueryOperator, `SELECT 1`",
        )
    ]


def _measure(env: dict[str, str], kind: str) -> float:
    """Return the milliseconds of a task from the start of ``execute`` on."""
    told = json.loads(_python(env, TASK, kind, f"manual__{uuid.uuid4()}").splitlines()[-1])
    assert told["end"] == ("deferred" if kind == "enqueue" else "returned")
    return float(told["ms"])


def _python(env: dict[str, str], code: str, *arguments: str) -> str:
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"What is measured failed: {done.stderr[-2000:]}")
    return done.stdout
