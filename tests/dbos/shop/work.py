"""The work of steps, counted in a table; a test can delay it or make it fail."""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa
from dbos import DBOS

from tests.dbos.shop.engines import engine


def note(name: str, step: int) -> None:
    """Count a step that has begun."""
    with engine.begin() as conn:
        conn.execute(sa.text("INSERT INTO app.effects VALUES (:n, :s)"), {"n": name, "s": step})


def is_set(table: str, name: str, step: int) -> bool:
    """Return whether a test blocks a step."""
    with engine.begin() as conn:
        query = sa.text(f"SELECT count(*) FROM app.{table} WHERE name = :n AND step = :s")
        return bool(conn.execute(query, {"n": name, "s": step}).scalar_one())


@DBOS.step()
def work(name: str, number: int) -> int:
    """Record that the step has begun; wait while it is blocked; fail while it is broken."""
    note(name, number)
    while is_set("shut", name, number):
        time.sleep(0.02)
    if is_set("broken", name, number):
        raise ValueError(f"step {number} of {name} is broken")
    return number * 10


@DBOS.workflow(name="job")
def job(name: str, steps: int = 3) -> dict[str, Any]:
    """Do some steps one after another."""
    return {"name": name, "sum": sum(work(name, number) for number in range(1, steps + 1))}


@DBOS.workflow(name="outside")
def outside(name: str) -> None:
    """Fail outside of a step."""
    raise RuntimeError(f"{name} failed outside its steps")


@DBOS.workflow(name="parent")
def parent(name: str) -> str:
    """Wait for a workflow that it starts."""
    handle = DBOS.start_workflow(job, f"{name}-child")
    handle.get_result()
    return "done"
