"""The sessions of a trigger: named, with separate credentials, and closed at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets.triggers import base
from airflow_provider_lakets.triggers.durability import LakeTSDurabilityTrigger
from airflow_provider_lakets.triggers.retention import LakeTSRetentionTrigger
from tests.triggering import COLD, REACHED, fire, fresh, in_an_hour, instead_of_explaining, tier, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.triggers.base import LakeTSBaseTrigger
    from tests.control_plane import ControlPlane
    from tests.lab import Lab
    from tests.pauses import Pauses
    from tests.stage import Stage


def sessions(lab: Lab) -> int:
    """Count the other sessions of the hook; a closed one is listed a moment longer."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'airflow-provider%%'"
    )
    patience = time.monotonic() + 5
    while (held := int(lab.value(query))) and time.monotonic() < patience:
        threading.Event().wait(0.02)
    return held


def test_holds_no_session_while_it_sleeps(lake: Stage, lab: Lab, pauses: Pauses) -> None:
    feed = lake.synced()
    write(lake, COLD)
    held: list[int] = []
    pauses.then(lambda: held.append(sessions(lab)), feed.flush)

    fire(tier(lake.chunk(COLD)))

    assert held == [0]


def test_follows_a_connection_that_is_changed(
    lake: Stage, lab: Lab, pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.synced()
    write(lake, COLD)
    monkeypatch.setattr(base, "HOOK_SECONDS", 0.0)
    changed = lab.connection(extra={"sslmode": "disable", "no": "setting"})
    pauses.then(lambda: monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", changed))

    event = fire(tier(lake.chunk(COLD)))

    assert (event["status"], event["retryable"]) == ("failed", False)
    assert "sets 'no', which is not a known setting" in event["message"]


def test_logs_in_with_a_credential_of_its_own_each_time(
    lake: Stage, lab: Lab, pauses: Pauses, principal: ControlPlane, define: Callable[..., None]
) -> None:
    lab.conn.execute(f'ALTER ROLE "{principal.client_id}" SUPERUSER')
    define(schema=lab.conn.info.dbname, extra={"project": "weather"})
    feed = lake.synced()
    write(lake, COLD)
    pauses.then(lambda: None, feed.flush)

    event = fire(tier(lake.chunk(COLD)))

    assert event == REACHED
    assert len(set(principal.minted)) == 3


def test_no_secret_is_stored_told_or_logged(
    principal: ControlPlane, define: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    define(extra={"project": "weather"})
    principal.on_mint = lambda credential: None  # it is refused by Postgres
    caplog.set_level(logging.DEBUG)
    trigger = tier("public.metrics_20240101_000000")

    event = fire(trigger)

    shown = f"{caplog.text}{event}{trigger.serialize()}{trigger!r}"
    assert "was refused" in event["message"]
    assert [secret for secret in [principal.client_secret, *principal.minted] if secret in shown] == []


def test_sessions_are_named_after_the_task(lake: Stage, lab: Lab) -> None:
    lake.synced()
    lab.conn.execute("CREATE TABLE named (name text)")
    instead_of_explaining(lab, "INSERT INTO public.named VALUES (current_setting('application_name'));")
    trigger = tier(lake.chunk(COLD))
    trigger.task_instance = SimpleNamespace(dag_id="nightly", task_id="tier", run_id="manual")  # type: ignore[assignment]

    fire(trigger)

    assert lab.values("SELECT name FROM named") == ["nightly/tier/manual"]


def test_a_trigger_that_is_stopped_in_mid_look_leaves_nothing_running(lake: Stage, lab: Lab) -> None:
    lake.synced()
    instead_of_explaining(lab, "PERFORM pg_sleep(60);")

    async def stop() -> None:
        running = asyncio.ensure_future(anext(tier(lake.chunk(COLD)).run()))
        await asyncio.to_thread(lab.wait_until_asleep)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(stop())

    assert lab.sleepers() == 0


@pytest.mark.parametrize(
    "trigger",
    [
        lambda: tier("public.metrics_20240101_000000"),
        lambda: LakeTSDurabilityTrigger(table="metrics", deadline=in_an_hour()),
        lambda: LakeTSDurabilityTrigger(chunks=["public.metrics_20240101_000000"], deadline=in_an_hour()),
        lambda: LakeTSRetentionTrigger(table="metrics", chunks=["public.x"], deadline=in_an_hour()),
        lambda: fresh(max_lag="1 hour"),
    ],
    ids=["tier", "table", "chunks", "retention", "rollup"],
)
def test_each_trigger_that_is_stopped_while_it_is_held_up_leaves_no_session(
    lake: Stage, lab: Lab, trigger: Callable[[], LakeTSBaseTrigger]
) -> None:
    lake.synced()
    lake.rollup("hourly")
    held_up = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    held_up += " AND application_name LIKE 'airflow-provider%%' AND wait_event_type = 'Lock'"

    async def stop() -> None:
        running = asyncio.ensure_future(anext(trigger().run()))
        while not lab.value(held_up):
            assert not running.done()
            await asyncio.sleep(0.02)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    with psycopg.connect(lab.conninfo) as other:
        other.execute("LOCK lakets._chronotable_registry, lakets._rollup_registry IN ACCESS EXCLUSIVE MODE")
        asyncio.run(asyncio.wait_for(stop(), 20))

        assert sessions(lab) == 0
