"""
A shop as a DBOS program on Lakebase: it finishes what it has begun, even if it is killed.

Run it beside a local Lakebase, or with the environment of a real one:

    eval "$(lakets local up --env)"
    python examples/dbos_app/app.py
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import uvicorn
from dbos import DBOS, DBOSConfig, SetWorkflowID, SQLAlchemyDatasource
from fastapi import FastAPI, HTTPException

from airflow_provider_lakets.dbos import create_lakebase_engine

if TYPE_CHECKING:
    from datetime import datetime

config: DBOSConfig = {
    "name": "shop",
    "application_version": "1",
    "system_database_engine": create_lakebase_engine(),
}
DBOS(config=config)

# A separate engine, because a transaction holds a session while DBOS needs another one.
shop_engine = create_lakebase_engine(pool_size=10)
shop = SQLAlchemyDatasource.create("postgresql+psycopg://", engine=shop_engine, schema="shop")
api = FastAPI(title="Shop")
outage = {"is_on": False}


@DBOS.step(retries_allowed=True, max_attempts=3, interval_seconds=0.2)
def ask_bank(order: int, amount: float) -> str:
    """Call a bank that may not answer; the step is tried three times."""
    if outage["is_on"]:
        raise ConnectionError("the bank does not answer")
    return f"bank-{order}-{amount:g}"


@shop.transaction()
def book(order: int, amount: float, reference: str) -> None:
    """Record the charge. The transaction also records the step, so it happens once."""
    query = sa.text("INSERT INTO shop.charge (number, amount, reference) VALUES (:number, :amount, :ref)")
    shop.sql_session().execute(query, {"number": order, "amount": amount, "ref": reference})


@shop.transaction()
def total() -> float:
    """Return the sum of all charges."""
    query = sa.text("SELECT coalesce(sum(amount), 0) FROM shop.charge")
    return float(shop.sql_session().execute(query).scalar_one())


@DBOS.step()
def look_up(order: int) -> float:
    """Return what an order costs."""
    return 10.0 + order % 90


@DBOS.workflow(name="charge_order")
def charge_order(order: int) -> dict[str, Any]:
    """Charge an order; Airflow starts this workflow for each announced order."""
    amount = look_up(order)
    reference = ask_bank(order, amount)
    book(order, amount, reference)
    DBOS.set_event("receipt", reference)
    return {"order": order, "amount": amount, "reference": reference}


@DBOS.workflow(name="approved_order")
def approved_order(order: int, patience: float = 3600) -> dict[str, Any]:
    """Wait for an approval, even across restarts, and then charge."""
    if DBOS.recv("approval", timeout_seconds=patience) is not True:
        return {"order": order, "status": "not approved"}
    charge: Any = DBOS.enqueue_workflow("orders", charge_order, order)
    return {"status": "charged", **charge.get_result()}


@DBOS.workflow(name="remind")
def remind(order: int, seconds: float) -> str:
    """Sleep durably: after a restart, the workflow sleeps for the rest of the time."""
    DBOS.sleep(seconds)
    return f"order {order} is due"


@DBOS.workflow(name="report")
def report(scheduled_at: datetime, context: Any) -> None:
    """Report the total, on a schedule."""
    DBOS.set_event("total", total())


@api.post("/orders/{order}", status_code=202)
def place(order: int) -> dict[str, str]:
    """Start the charge of an order; repeated requests start it only once."""
    with SetWorkflowID(f"order-{order}"):
        return {"workflow_id": DBOS.enqueue_workflow("orders", charge_order, order).workflow_id}


@api.get("/orders/{order}")
def receipt(order: int) -> dict[str, Any]:
    """Return the status of an order, and its receipt if it has one."""
    found = DBOS.list_workflows(workflow_ids=[f"order-{order}"])
    if not found:
        raise HTTPException(404, f"there is no order {order}")
    return {
        "status": found[0].status,
        "receipt": DBOS.get_event(f"order-{order}", "receipt", timeout_seconds=0),
    }


@api.post("/orders/{order}/approval", status_code=202)
def approve(order: int, patience: float = 3600, *, is_good: bool = True) -> dict[str, str]:
    """Start an order that waits for its approval, and approve it; the key prevents duplicates."""
    with SetWorkflowID(f"approved-{order}"):
        handle: Any = DBOS.start_workflow(approved_order, order, patience)
    DBOS.send(handle.workflow_id, is_good, "approval", idempotency_key=f"approval-{order}")
    return {"workflow_id": handle.workflow_id}


@api.post("/orders/{order}/reminder", status_code=202)
def start_reminder(order: int, seconds: float) -> dict[str, str]:
    """Start a reminder."""
    return {"workflow_id": DBOS.start_workflow(remind, order, seconds).workflow_id}


@api.post("/workflows/{workflow_id:path}/fork", status_code=202)
def fork(workflow_id: str, step: int) -> dict[str, str]:
    """Run a workflow again from a step on; it keeps the results of earlier steps."""
    return {"workflow_id": DBOS.fork_workflow(workflow_id, step).workflow_id}


@api.get("/workflows/{workflow_id:path}")
def look(workflow_id: str) -> dict[str, Any]:
    """Return the status of a workflow."""
    (found,) = DBOS.list_workflows(workflow_ids=[workflow_id])
    return {"status": found.status, "result": found.output, "error": str(found.error or "")}


@api.put("/outage")
def switch(*, is_on: bool) -> dict[str, bool]:
    """Make the bank fail, to run failed workflows again with dags/dbos/dbos_refork.py."""
    outage["is_on"] = is_on
    return outage


def main() -> None:
    """Create the table, start DBOS with its queue and its schedule, and serve."""
    with shop_engine.begin() as conn:
        columns = "number int, amount float8, reference text, at timestamptz DEFAULT now()"
        conn.execute(sa.text(f"CREATE TABLE IF NOT EXISTS shop.charge ({columns})"))
    DBOS.launch()
    DBOS.register_queue("orders", global_concurrency=4, limiter={"limit": 50, "period": 1})
    DBOS.apply_schedules(
        [{"schedule_name": "shop_report", "workflow_fn": report, "schedule": "0 * * * *", "context": None}]
    )
    where = os.environ.get("SHOP_HOST", "127.0.0.1")
    uvicorn.run(api, host=where, port=int(os.environ.get("SHOP_PORT", "8000")))


if __name__ == "__main__":
    main()
