"""Triggers at work: what is waited for, and a triggerer that waits for nothing else."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import psycopg

from airflow_provider_lakets.triggers.rollups import LakeTSRollupFreshTrigger
from airflow_provider_lakets.triggers.tiering import LakeTSTierTrigger

if TYPE_CHECKING:
    from airflow_provider_lakets.triggers.base import LakeTSBaseTrigger
    from tests.lab import Lab
    from tests.stage import Stage

COLD, OTHER = 1, 3
REACHED = {"status": "reached"}
LONG_AGO = datetime(2024, 1, 1, tzinfo=timezone.utc)


def in_an_hour() -> datetime:
    return datetime.now(timezone.utc) + timedelta(hours=1)


def tier(*chunks: str, **arguments: Any) -> LakeTSTierTrigger:
    return LakeTSTierTrigger(chunks=chunks, **{"deadline": in_an_hour(), **arguments})


def fresh(**arguments: Any) -> LakeTSRollupFreshTrigger:
    return LakeTSRollupFreshTrigger(rollup="hourly", **{"deadline": in_an_hour(), **arguments})


def fire(trigger: LakeTSBaseTrigger) -> dict[str, Any]:
    """Run a trigger to its end, and return the payload of its only event."""

    async def collect() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(collect())
    assert json.loads(json.dumps(payload)) == payload  # it is stored as JSON
    return dict(payload)


def instead_of_explaining(lab: Lab, statements: str) -> None:
    """Let explain_durability do this, and then return that everything is durable."""
    lab.conn.execute(
        "CREATE OR REPLACE FUNCTION lakets.explain_durability(p_chunk_name text) RETURNS text"
        f" LANGUAGE plpgsql AS $$ BEGIN {statements} RETURN NULL; END $$".encode()
    )


def write(lake: Stage, day: int, value: int = 100) -> None:
    lake.run("INSERT INTO metrics VALUES (%s, %s, %s)", value, lake.at(day, 1), value)


def overlap(lake: Stage, lab: Lab) -> None:
    """Let two writers overlap so that no position proves both flushed, and then become idle."""
    with psycopg.connect(lab.conninfo) as first, psycopg.connect(lab.conninfo) as second:
        for conn, day in ((first, COLD), (second, OTHER)):
            conn.execute("INSERT INTO metrics VALUES (9, %s, 9)", [lake.at(day, 2)])
        first.commit()
        second.commit()
