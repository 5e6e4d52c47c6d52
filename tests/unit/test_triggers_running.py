"""Triggers at work: each look is a login and a query on a real database; feeds move by hand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import pkgutil
import threading
import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from airflow_provider_lakets.triggers.durability import LakeTSDurabilityTrigger
from airflow_provider_lakets.triggers.retention import LakeTSRetentionTrigger
from airflow_provider_lakets.triggers.rollups import LakeTSRollupFreshTrigger
from airflow_provider_lakets.triggers.tiering import LakeTSTierTrigger
from tests.relay import STARTING_UP, Relay, refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from airflow_provider_lakets.triggers.base import LakeTSBaseTrigger
    from tests.control_plane import ControlPlane
    from tests.lab import Lab
    from tests.pauses import Pauses
    from tests.stage import Stage

COLD, OTHER = 1, 3
REACHED = {"status": "reached"}
LONG_AGO = datetime(2024, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def engine() -> str:
    """Our engine, where a test does not ask for the other."""
    return "ours"


@pytest.fixture(autouse=True)
def instead_of_sleeping(pauses: Pauses) -> None:
    """Let nothing sleep, expected or not."""


old_engine = pytest.mark.parametrize("engine", ["0.1"])


def in_an_hour() -> datetime:
    return datetime.now(timezone.utc) + timedelta(hours=1)


def tier(*chunks: str, **arguments: Any) -> LakeTSTierTrigger:
    return LakeTSTierTrigger(chunks=chunks, **{"deadline": in_an_hour(), **arguments})


def fire(trigger: LakeTSBaseTrigger) -> dict[str, Any]:
    """Run a trigger to its end, and return the payload of its only event."""

    async def collect() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(collect())
    assert json.loads(json.dumps(payload)) == payload  # it is stored as JSON
    return dict(payload)


def instead_of_explaining(lab: Lab, statements: str) -> None:
    """Have explain_durability do this, and then say that all is durable."""
    lab.conn.execute(
        "CREATE OR REPLACE FUNCTION lakets.explain_durability(p_chunk_name text) RETURNS text"
        f" LANGUAGE plpgsql AS $$ BEGIN {statements} RETURN NULL; END $$".encode()
    )


def write(lake: Stage, day: int, value: int = 100) -> None:
    lake.run("INSERT INTO metrics VALUES (%s, %s, %s)", value, lake.at(day, 1), value)


def overlap(lake: Stage, lab: Lab) -> None:
    """Let two writers overlap such that no position proves both flushed, and then fall idle."""
    with psycopg.connect(lab.conninfo) as first, psycopg.connect(lab.conninfo) as second:
        for conn, day in ((first, COLD), (second, OTHER)):
            conn.execute("INSERT INTO metrics VALUES (9, %s, 9)", [lake.at(day, 2)])
        first.commit()
        second.commit()


# Tiering


def test_fires_when_the_feed_has_flushed_the_chunk(lake: Stage, pauses: Pauses) -> None:
    feed = lake.synced()
    write(lake, COLD)
    assert lake.tier(COLD) is False
    pauses.then(feed.flush)

    event = fire(tier(lake.chunk(COLD)))

    assert event == REACHED
    assert lake.tier(COLD) is True


def test_does_not_fire_before_the_last_of_the_chunks_is_flushed(lake: Stage, pauses: Pauses) -> None:
    feed = lake.synced()
    write(lake, COLD)
    write(lake, OTHER)
    pauses.then(lambda: feed.flush(1), feed.flush)

    event = fire(tier(lake.chunk(COLD), lake.chunk(OTHER)))

    assert event == REACHED
    assert len(pauses.lengths) == 2


def test_overlapping_writers_that_fall_idle_while_it_waits_are_settled(
    lake: Stage, lab: Lab, pauses: Pauses
) -> None:
    # Explaining alone changes nothing: without a fence the feed of an idle table never moves again.
    feed = lake.synced()
    write(lake, COLD)
    assert lake.tier(COLD) is False
    pauses.then(lambda: overlap(lake, lab), feed.flush, feed.flush)

    assert fire(tier(lake.chunk(COLD))) == REACHED


def test_flags_nothing_itself(lake: Stage, pauses: Pauses) -> None:
    feed = lake.synced()
    write(lake, COLD)
    pauses.then(feed.flush)

    fire(tier(lake.chunk(COLD)))

    assert set(lake.statuses().values()) == {"active"}


@old_engine
def test_with_lakets_01_the_chunk_is_flagged_in_finding_out(lab: Lab, pauses: Pauses) -> None:
    lab.synced(days=8)
    chunk = lab.old_chunks()[0]
    pauses.then(lab.flush)

    event = fire(tier(chunk))

    assert event == REACHED
    assert lab.value("SELECT status FROM lakets._chunk_metadata WHERE chunk_name = %s", chunk) == "tiered"


# Durability


def test_fires_when_the_feed_of_a_table_has_caught_up(lake: Stage, pauses: Pauses) -> None:
    feed = lake.synced()
    write(lake, COLD)
    write(lake, OTHER)
    pauses.then(lambda: feed.flush(1), feed.flush)

    event = fire(LakeTSDurabilityTrigger(table="metrics", deadline=in_an_hour()))

    assert event == REACHED
    assert len(pauses.lengths) == 2


def test_table_whose_writers_overlapped_and_fell_idle_is_settled(
    lake: Stage, lab: Lab, pauses: Pauses
) -> None:
    feed = lake.synced()
    overlap(lake, lab)
    pauses.then(feed.flush)

    assert fire(LakeTSDurabilityTrigger(table="public.metrics", deadline=in_an_hour())) == REACHED


def test_table_without_a_feed_is_waited_for_until_it_has_one(lab: Lab, pauses: Pauses) -> None:
    lab.synced(days=2)
    pauses.then(lab.flush)

    assert fire(LakeTSDurabilityTrigger(table="metrics", deadline=in_an_hour())) == REACHED


def test_fires_when_the_chunks_are_durable_though_the_table_is_written(lake: Stage, pauses: Pauses) -> None:
    feed = lake.synced()
    write(lake, COLD)
    assert lake.tier(COLD) is False  # and that sets a fence
    write(lake, OTHER)
    pauses.then(lambda: feed.flush(2))

    event = fire(LakeTSDurabilityTrigger(chunks=[lake.chunk(COLD)], deadline=in_an_hour()))

    assert event == REACHED


def test_a_chunk_dropped_without_proof_is_not_waited_for(lake: Stage) -> None:
    lake.synced()
    write(lake, COLD)
    lake.run("SELECT lakets.execute_retention('metrics', p_force => true)")

    event = fire(LakeTSDurabilityTrigger(chunks=[lake.chunk(OTHER), lake.chunk(COLD)], deadline=in_an_hour()))

    assert (event["status"], event["retryable"]) == ("failed", False)
    assert f"{lake.chunk(COLD)} was dropped from Lakebase before it was proved" in event["message"]


@old_engine
@pytest.mark.parametrize("by", ["table", "chunks"])
def test_with_lakets_01_the_feed_of_the_table_decides(lab: Lab, pauses: Pauses, by: str) -> None:
    lab.synced(days=4)  # with a policy of type tiered_retention only
    what: Any = "metrics" if by == "table" else lab.old_chunks()[:1]
    pauses.then(lab.flush)

    event = fire(LakeTSDurabilityTrigger(**{by: what}, deadline=in_an_hour()))

    assert event == REACHED
    assert lab.values("SELECT DISTINCT status FROM lakets._chunk_metadata") == ["active"]


@old_engine
def test_with_lakets_01_a_tiered_chunk_is_durable(lab: Lab) -> None:
    lab.synced(days=4)
    chunk = lab.old_chunks()[0]
    lab.conn.execute("UPDATE lakets._chunk_metadata SET status = 'tiered' WHERE chunk_name = %s", [chunk])

    assert fire(LakeTSDurabilityTrigger(chunks=[chunk], deadline=in_an_hour())) == REACHED


# Retention


def expired(lake: Stage) -> LakeTSRetentionTrigger:
    chunks = [lake.chunk(day) for day in (1, 2)]
    return LakeTSRetentionTrigger(table="metrics", chunks=chunks, deadline=in_an_hour())


def test_fires_when_chunks_are_durable_and_absorbed(lake: Stage, pauses: Pauses) -> None:
    feed = lake.synced()
    lake.rollup("hourly")
    write(lake, COLD)
    pauses.then(feed.flush, lambda: lake.refresh("hourly"))

    event = fire(expired(lake))

    assert event == REACHED
    assert lake.value("SELECT lakets.execute_retention('metrics')") == 4


def test_chunks_that_nobody_waits_for_do_not_keep_others_waiting(lake: Stage) -> None:
    lake.synced()
    assert lake.tier(1)
    write(lake, OTHER)

    assert fire(expired(lake)) == REACHED


def test_overlapping_writers_do_not_keep_retention_waiting_for_ever(
    lake: Stage, lab: Lab, pauses: Pauses
) -> None:
    feed = lake.synced()
    overlap(lake, lab)
    pauses.then(feed.flush)

    assert fire(expired(lake)) == REACHED


@pytest.mark.parametrize("gone", ["table", "chunks"])
def test_what_somebody_else_dropped_meanwhile_is_not_waited_for(
    lake: Stage, pauses: Pauses, gone: str
) -> None:
    drop = {
        "table": "SELECT lakets.drop_chronotable('metrics')",
        "chunks": "SELECT lakets.execute_retention('metrics', p_force => true)",
    }
    lake.synced()
    write(lake, COLD)
    pauses.then(lambda: lake.run(drop[gone]))

    assert fire(expired(lake)) == REACHED


@old_engine
def test_with_lakets_01_retention_waits_for_the_feed(lab: Lab, pauses: Pauses) -> None:
    lab.synced(days=8)
    first, second, *_ = lab.old_chunks()
    pauses.then(lambda: None, lab.flush)

    event = fire(LakeTSRetentionTrigger(table="metrics", chunks=[first, second], deadline=in_an_hour()))

    assert event == REACHED


# RollUps


def fresh(**arguments: Any) -> LakeTSRollupFreshTrigger:
    return LakeTSRollupFreshTrigger(rollup="hourly", **{"deadline": in_an_hour(), **arguments})


def test_fires_when_the_watermark_is_reached(lake: Stage, pauses: Pauses) -> None:
    lake.table(days=[1, 2, 3, 4], rows=False)
    lake.rollup("hourly")
    pauses.then(
        lambda: write(lake, 3),  # not in the RollUp yet
        lambda: lake.refresh("hourly"),  # one hour short
        lambda: (lake.run("INSERT INTO metrics VALUES (7, %s, 7)", lake.at(3, 2)), lake.refresh("hourly")),
    )

    assert fire(fresh(watermark=lake.at(3, 2))) == REACHED


def test_fires_when_the_last_refresh_is_recent_whatever_it_found(lake: Stage, pauses: Pauses) -> None:
    lake.table()
    lake.rollup("hourly")
    old = "UPDATE lakets._rollup_registry SET last_refreshed_at = now() - interval '2 hours'"
    pauses.then(lambda: lake.run(old), lambda: lake.refresh("hourly"))

    assert fire(fresh(max_lag="1 hour")) == REACHED


def test_watermark_and_lag_must_both_hold(lake: Stage, pauses: Pauses) -> None:
    lake.table()
    lake.rollup("hourly")
    pauses.then(lambda: lake.refresh("hourly"))

    assert fire(fresh(max_lag="1 hour", watermark=lake.at(1))) == REACHED


@old_engine
def test_with_lakets_01_rollups_are_waited_for_too(lab: Lab, pauses: Pauses) -> None:
    lab.table("metrics", days=2)
    lab.rollup("hourly")
    lab.conn.execute("UPDATE lakets._rollup_registry SET last_refreshed_at = NULL")
    pauses.then(lambda: lab.conn.execute("SELECT lakets.refresh_rollup('hourly')"))

    assert fire(fresh(max_lag="1 hour")) == REACHED


# Time


def test_gives_up_at_the_deadline_and_tells_what_it_waited_for(lake: Stage) -> None:
    lake.synced()
    write(lake, COLD)

    event = fire(tier(lake.chunk(COLD), deadline=LONG_AGO))

    assert event == {
        "status": "timed_out",
        "waiting": {lake.chunk(COLD): "changes to it are not known to be flushed yet"},
        "message": None,
    }


def test_looks_once_more_though_the_deadline_passed_while_no_triggerer_ran(lake: Stage) -> None:
    lake.synced()

    assert fire(tier(lake.chunk(COLD), deadline=LONG_AGO)) == REACHED


def test_sleeps_the_interval_but_not_beyond_the_deadline(lake: Stage, pauses: Pauses) -> None:
    feed = lake.synced()
    write(lake, COLD)
    pauses.then(feed.flush)
    soon = datetime.now(timezone.utc) + timedelta(seconds=20)

    fire(tier(lake.chunk(COLD), poll_interval=60, deadline=soon))

    assert 0 < pauses.lengths[0] <= 20


def test_another_triggerer_goes_on_where_one_was_stopped(lake: Stage, pauses: Pauses) -> None:
    feed = lake.synced()
    write(lake, COLD)
    first = tier(lake.chunk(COLD))

    def stop() -> None:
        raise asyncio.CancelledError

    pauses.then(stop, feed.flush)
    with pytest.raises(asyncio.CancelledError):
        fire(first)
    path, kwargs = first.serialize()

    assert fire(pkgutil.resolve_name(path)(**kwargs)) == REACHED


# Sessions


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


# Errors


def test_waits_longer_and_longer_while_the_endpoint_does_not_answer(
    lake: Stage,
    lab: Lab,
    pauses: Pauses,
    postgres: EmbeddedPostgres,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lake.synced()
    pauses.then(lambda: None, lambda: None)
    with Relay(f"{postgres.socket_dir}/.s.PGSQL.5432", [refusal("57P03", STARTING_UP)] * 12) as relay:
        monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(host="127.0.0.1", port=relay.port))

        event = fire(tier(lake.chunk(COLD)))

    assert event == REACHED
    assert pauses.lengths == [60, 120]


@pytest.mark.parametrize(
    "mishap",
    ["PERFORM pg_terminate_backend(pg_backend_pid());", "RAISE EXCEPTION 'busy' USING ERRCODE = '55P03';"],
    ids=["cut", "contended"],
)
def test_looks_again_after_an_error_that_passes(lake: Stage, lab: Lab, pauses: Pauses, mishap: str) -> None:
    lake.synced()
    lab.conn.execute("CREATE SEQUENCE tried")
    instead_of_explaining(lab, f"IF nextval('public.tried') = 1 THEN {mishap} END IF;")
    pauses.then(lambda: None)

    assert fire(tier(lake.chunk(COLD))) == REACHED


def test_tells_at_the_deadline_what_kept_it_from_looking(
    lab: Lab, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(host="127.0.0.1", port=1))

    event = fire(tier("public.metrics_20240101_000000", deadline=LONG_AGO))

    assert event["status"] == "timed_out"
    assert "Connection 'lakebase_default': the login to 127.0.0.1" in event["message"]


def test_a_nudge_that_is_refused_is_no_matter(lake: Stage, lab: Lab, pauses: Pauses) -> None:
    feed = lake.synced()
    write(lake, COLD)
    lab.conn.execute(
        "CREATE OR REPLACE FUNCTION lakets.tier_chunk(p_chunk_name text) RETURNS boolean LANGUAGE plpgsql"
        " AS $$ BEGIN RAISE EXCEPTION 'no right' USING ERRCODE = '42501'; END $$"
    )
    pauses.then(feed.flush)

    assert fire(tier(lake.chunk(COLD))) == REACHED


def nowhere() -> LakeTSBaseTrigger:
    return tier("public.x_20240101_000000", lakebase_conn_id="nowhere")


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (nowhere, "The connection 'nowhere' is not defined"),
        (lambda: tier("public.x_20240101_000000"), "Chunk public.x_20240101_000000 does not exist"),
        (lambda: LakeTSDurabilityTrigger(table="x", deadline=in_an_hour()), "'x' is no ChronoTable"),
        (lambda: fresh(max_lag="1 hour"), "RollUp 'hourly' does not exist"),
        (lambda: fresh(max_lag="soon"), "invalid input syntax for type interval"),
    ],
    ids=["connection", "chunk", "table", "rollup", "interval"],
)
def test_fails_at_once_for_what_no_retry_cures(
    lab: Lab, trigger: Callable[[], LakeTSBaseTrigger], words: str
) -> None:
    event = fire(trigger())

    assert (event["status"], event["retryable"]) == ("failed", False)
    assert words in event["message"]


@old_engine
def test_with_lakets_01_an_unknown_chunk_is_told_too(lab: Lab) -> None:
    event = fire(LakeTSDurabilityTrigger(chunks=["public.x"], deadline=in_an_hour()))

    assert (event["status"], event["message"]) == ("failed", "Chunk 'public.x' does not exist.")


def test_fails_at_once_without_lakets(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.lab import Lab

    lab = Lab(empty_database, "none")
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection())
    lab.conn.close()

    event = fire(tier("public.x_20240101_000000"))

    assert (event["status"], event["retryable"]) == ("failed", False)
    assert "Run `lakets install`" in event["message"]


def test_fails_for_a_retry_to_cure_when_the_error_is_of_no_known_kind(lake: Stage, lab: Lab) -> None:
    lake.synced()
    instead_of_explaining(lab, "RAISE EXCEPTION 'disk on fire' USING ERRCODE = 'XX000';")

    event = fire(tier(lake.chunk(COLD)))

    assert (event["status"], event["retryable"]) == ("failed", True)
    assert "disk on fire" in event["message"]
