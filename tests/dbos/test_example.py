"""The example program on a local Lakebase, controlled over HTTP and by Airflow."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

from airflow_provider_lakets.dbos.enqueue import DBOSEnqueueOperator
from airflow_provider_lakets.dbos.operators import DBOSForkOperator, DBOSListWorkflowsOperator
from tests.dbos.conftest import wait_until
from tests.dbos.tasks import Task, fails
from tests.superuser import superuser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.client import LocalServer

ROOT = Path(__file__).parents[2]
APP = ROOT / "examples" / "dbos_app" / "app.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database(lake: LocalServer) -> str:
    """Return the connection string of a separate database for the example."""
    with lake.connect() as conn:
        conn.execute("CREATE DATABASE example")
    state = lake.state
    return f"postgresql://{state.owner.client_id}@127.0.0.1:{state.port}/example?sslmode=require"


@contextlib.contextmanager
def serving(command: list[str], environ: dict[str, str], log: Path) -> Iterator[httpx.Client]:
    """Run the example, and yield a client once it accepts requests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {**os.environ, **environ, "SHOP_PORT": str(port), "PYTHONPATH": str(ROOT)}
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, *command], env=environ, stdout=file, stderr=file)
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}")

    def serves() -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            return client.get("/openapi.json").is_success
        except httpx.TransportError:
            return False

    try:
        wait_until(serves, "the example serves")
        yield client
    finally:
        client.close()
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def shop(
    lake: LocalServer, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """Yield a client of the example."""
    environ = {**lake.env(), "DBOS_SYSTEM_DATABASE_URL": database}
    with serving([str(APP)], environ, tmp_path_factory.mktemp("example") / "log") as client:
        yield client


def test_a_container_runs_it_as_the_owner(lake: LocalServer, database: str, tmp_path: Path) -> None:
    identity = ("DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET", "DATABRICKS_HOST")
    environ = {**dict.fromkeys(identity, ""), "DBOS_SYSTEM_DATABASE_URL": database}
    command = [str(ROOT / "docker" / "dbos_app.py"), str(lake.folder), str(APP)]

    with serving(command, environ, tmp_path / "log") as client:
        assert ended(client, post(client, "/orders/6"))["status"] == "SUCCESS"


def ended(shop: httpx.Client, workflow_id: str) -> dict[str, Any]:
    """Wait until a workflow has ended, and return its status."""
    wait_until(lambda: look(shop, workflow_id)["status"] in ("SUCCESS", "ERROR"), f"{workflow_id} has ended")
    return look(shop, workflow_id)


def look(shop: httpx.Client, workflow_id: str) -> dict[str, Any]:
    return dict(shop.get(f"/workflows/{workflow_id}").raise_for_status().json())


def post(shop: httpx.Client, path: str) -> str:
    return str(shop.post(path).raise_for_status().json()["workflow_id"])


def charges(lake: LocalServer, order: int) -> int:
    with psycopg.connect(superuser(lake), dbname="example") as conn:
        row = conn.execute("SELECT count(*) FROM shop.charge WHERE number = %s", [order]).fetchone()
    return int(row[0]) if row else 0


def test_an_order_is_charged_once_however_often_it_is_placed(shop: httpx.Client, lake: LocalServer) -> None:
    placed = {post(shop, "/orders/7") for _ in range(3)}

    assert placed == {"order-7"}
    assert ended(shop, "order-7")["result"] == {"order": 7, "amount": 17, "reference": "bank-7-17"}
    assert shop.get("/orders/7").json() == {"status": "SUCCESS", "receipt": "bank-7-17"}
    assert shop.get("/orders/70").status_code == 404
    assert charges(lake, 7) == 1


def test_an_order_waits_for_its_approval(shop: httpx.Client) -> None:
    approved, refused = (
        post(shop, "/orders/8/approval"),
        post(shop, "/orders/9/approval?is_good=false"),
    )

    assert ended(shop, approved)["result"]["status"] == "charged"
    assert ended(shop, refused)["result"] == {"order": 9, "status": "not approved"}


def test_a_reminder_comes_when_it_is_due(shop: httpx.Client) -> None:
    assert ended(shop, post(shop, "/orders/10/reminder?seconds=0.2"))["result"] == "order 10 is due"


def test_airflow_charges_orders_and_forks_what_failed(
    shop: httpx.Client, lake: LocalServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = url.replace("postgresql://", "lakebase://").replace("/databricks_postgres", "/example")
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", there)
    usual: dict[str, Any] = {"workflow_name": "charge_order", "queue_name": "orders", "poll_interval": 0.2}
    charge = Task(DBOSEnqueueOperator, **usual, items=[{"order": 11}, {"order": 12}])
    shop.put("/outage", params={"is_on": True})
    with fails(Exception, "2 of 2 workflows failed.*step 2 'ask_bank'"):
        charge.run()
    shop.put("/outage", params={"is_on": False})

    failed = Task(DBOSListWorkflowsOperator, failed_in_step="ask_bank").run()
    forked = Task(DBOSForkOperator, workflow_id=failed).run()

    assert [ended(shop, one)["result"]["order"] for one in forked] in ([11, 12], [12, 11])
    assert charges(lake, 11) == charges(lake, 12) == 1
