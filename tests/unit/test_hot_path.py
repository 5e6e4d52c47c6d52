"""The modules that a task imports before its login, because every task pays for them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks.overhead import by_package, imported

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.control_plane import ControlPlane
    from tests.lab import Lab

HEAVY = {"databricks", "pandas", "numpy", "pyarrow", "deltalake", "fastapi", "openlineage", "httpx"}

CODE = """
import json, sys
from types import SimpleNamespace
import airflow.sdk.execution_time.task_runner
from airflow_provider_lakets.operators.partitions import LakeTSPartitionOperator
before = set(sys.modules)
context = {"ti": SimpleNamespace(try_number=1, map_index=-1, xcom_push=lambda **_: None)}
result = LakeTSPartitionOperator(task_id="x").execute(context)
print(json.dumps([result, sorted({name.partition(".")[0] for name in set(sys.modules) - before})]))
"""


@pytest.fixture
def engine() -> str:
    """Use only our engine, because these tests cover the login."""
    return "ours"


@pytest.mark.parametrize("by", ["environment", "connection"])
def test_a_task_that_logs_in_by_oauth_loads_nothing_heavy(
    lab: Lab, principal: ControlPlane, define: Callable[..., None], monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    lab.conn.execute(f'ALTER ROLE "{principal.client_id}" SUPERUSER')
    extra = {"project": "weather"}
    if by == "connection":
        for name in ("HOST", "CLIENT_ID", "CLIENT_SECRET"):
            monkeypatch.delenv(f"DATABRICKS_{name}")
        define(
            conn_id="dbx",
            conn_type="databricks",
            host=principal.host,
            login=principal.client_id,
            password=principal.client_secret,
            extra={"service_principal_oauth": True},
        )
        extra["databricks_conn_id"] = "dbx"
    define(schema=lab.conn.info.dbname, extra=extra)
    lab.table("metrics")

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True, check=True
    )

    ((result,), loaded) = json.loads(done.stdout.splitlines()[-1])
    assert (result["name"], len(principal.minted)) == ("public.metrics", 1)
    assert "psycopg" in loaded  # so these are the imports of execute
    assert HEAVY.isdisjoint(loaded)


def test_the_benchmark_lists_what_was_imported_within_the_task() -> None:
    log = "\n".join(
        [
            "import time: self [us] | cumulative | imported package",
            "import time:      9000 |       9000 | before",
            "execute",
            "import time:       500 |        500 |   urllib3.util",
            "import time:      1500 |       2000 | urllib3",
            "2026 a line of a log",
            "import time:      4000 |       4000 | airflow.providers.common.sql.hooks",
            "first row",
            "import time:      9000 |       9000 | after",
        ]
    )

    modules = imported(log + "\n")

    assert modules == {"airflow.providers.common.sql.hooks": 4.0, "urllib3": 1.5, "urllib3.util": 0.5}
    assert by_package(modules) == {"airflow.providers.common.sql": 4.0, "urllib3": 2.0}
