"""The cost of a task before its work: from the start of ``execute`` to the first row, by OAuth."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.engine import install_script
from airflow_provider_lakets.local.client import LocalServer
from benchmarks.measure import Bar, Figure

if TYPE_CHECKING:
    from benchmarks.scale import Scale
    from benchmarks.server import Server

# Before a worker's process calls execute, it has imported Airflow's task runner and the DAG file
# with its operators. The first row is that of the first statement, the list of ChronoTables.
CHILD = """
import json, sys, time
from types import SimpleNamespace

import airflow.sdk.execution_time.task_runner
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator

task = LakeTSPartitionOperator(task_id="measured")
context = {"ti": SimpleNamespace(try_number=1, map_index=-1, xcom_push=lambda **_: None), "dag_run": None}
before = set(sys.modules)
marks = {}

print("execute", file=sys.stderr, flush=True)
marks["start"] = time.perf_counter()
from airflow_provider_lakets.hooks import _calls, lakets  # what execute imports first of all
marks["imported"] = time.perf_counter()

query = _calls.LakeTSCalls.query
def noting(hook, *arguments, **named):
    rows = query(hook, *arguments, **named)
    if "first_row" not in marks:
        marks.update(first_row=time.perf_counter(), rows=len(rows))
        print("first row", file=sys.stderr, flush=True)
    return rows
_calls.LakeTSCalls.query = noting

task.execute(context)
print(json.dumps({**marks, "loaded": sorted(set(sys.modules) - before)}))
"""

_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|(\s+)(\S+)")


def run(server: Server, scale: Scale) -> list[Figure]:
    """Run a task in fresh processes, round by round, on a local Lakebase with OAuth and TLS."""
    with (
        tempfile.TemporaryDirectory(prefix="lake-", ignore_cleanup_errors=True) as folder,
        LocalServer(Path(folder)) as lakebase,
    ):
        with lakebase.connect() as conn:
            conn.execute(install_script().encode())
            conn.execute(
                "CREATE TABLE metrics (at timestamptz); SELECT lakets.create_chronotable('metrics', 'at')"
            )
        env = {**os.environ, "AIRFLOW_HOME": f"{folder}/airflow", **lakebase.airflow_env()}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # a worker has its bytecode
        _measure(env)  # this run writes it
        runs = [_measure(env)[0] for _ in range(scale.rounds)]
        imports = imported(_measure(env, "-X", "importtime")[1])
    names = {name.partition(".")[0] for one in runs for name in one["loaded"]}
    assert "databricks" not in names, "a task imports databricks-sdk, which costs seconds"
    return [
        Figure(
            "Overhead",
            "start of execute to the first row, OAuth, fresh process",
            "ms",
            [(one["first_row"] - one["start"]) * 1000 for one in runs],
            bar=Bar(1_500, of="figure"),
            details={"imports_ms": imports},
        ),
        Figure(
            "Overhead",
            "of that the imports",
            "ms",
            [(one["imported"] - one["start"]) * 1000 for one in runs],
        ),
    ]


def _measure(env: dict[str, str], *options: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, *options, "-W", "ignore", "-c", CHILD]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The measured task failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def imported(log: str) -> dict[str, float]:
    """
    Return the imports between the start of execute and the first row, slowest first, in ms.

    :param log: What ``python -X importtime`` and the task wrote.
    """
    own: dict[str, float] = {}
    for line in log.partition("execute\n")[2].partition("first row\n")[0].splitlines():
        if match := _LINE.match(line):
            own[match[4]] = int(match[1]) / 1000
    return dict(sorted(own.items(), key=lambda item: -item[1]))


def by_package(imports: dict[str, float]) -> dict[str, float]:
    """
    Return the ms of all modules of each package, slowest first.

    :param imports: What :func:`imported` returns.
    """
    packages: dict[str, float] = {}
    for name, ms in imports.items():
        parts = name.split(".")
        package = ".".join(parts[:4] if parts[:2] == ["airflow", "providers"] else parts[:1])
        packages[package] = packages.get(package, 0) + ms
    return dict(sorted(packages.items(), key=lambda item: -item[1]))


def main() -> None:
    """Print the figures, and the imports one by one: ``python -m benchmarks.overhead``."""
    from benchmarks.scale import SCALES

    total, imports = run(None, SCALES["small"])  # type: ignore[arg-type]
    for figure in (total, imports):
        samples = ", ".join(f"{ms:.0f}" for ms in figure.engine)
        print(f"{figure.name}: {median(figure.engine):,.0f} ms ({samples})")
    for heading, listed in (
        ("package", by_package(dict(total.details["imports_ms"]))),
        ("module", total.details["imports_ms"]),
    ):
        print(f"\n{'ms':>8}  {heading}")
        for name, ms in listed.items():
            print(f"{ms:8.1f}  {name}")


if __name__ == "__main__":
    main()
