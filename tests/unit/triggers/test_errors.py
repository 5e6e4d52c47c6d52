"""Temporary errors are retried; others end the trigger at once, with their cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.triggers import watch
from airflow_provider_lakets.triggers.durability import LakeTSDurabilityTrigger
from tests.relay import STARTING_UP, Relay, refusal
from tests.triggering import (
    COLD,
    LONG_AGO,
    REACHED,
    fire,
    fresh,
    in_an_hour,
    instead_of_explaining,
    tier,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from airflow_provider_lakets.triggers.base import LakeTSBaseTrigger
    from tests.lab import Lab
    from tests.pauses import Pauses
    from tests.stage import Stage


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


def test_looks_again_where_a_connection_stays_open_without_an_answer(
    lake: Stage, lab: Lab, pauses: Pauses, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.synced()
    monkeypatch.setattr(watch, "ANSWER_SECONDS", 0.5)
    pauses.then(lambda: None)
    path = f"{postgres.socket_dir}/.s.PGSQL.5432"
    with Relay(path, [], silent_at=b"explain_durability") as relay:
        monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(host="127.0.0.1", port=relay.port))

        assert fire(tier(lake.chunk(COLD))) == REACHED
    assert relay.callers == 2


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


def test_a_connection_that_airflow_cannot_read_for_the_moment_is_read_again(
    lake: Stage, lab: Lab, pauses: Pauses, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.synced()
    monkeypatch.delenv("AIRFLOW_CONN_LAKEBASE_DEFAULT")
    pauses.then(lambda: None, lambda: monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection()))

    assert fire(tier(lake.chunk(COLD))) == REACHED


@pytest.mark.parametrize(
    ("conn_id", "words"),
    [
        ("nowhere", "The connection 'nowhere' is not defined"),
        (
            "lakebase_default",
            "names the Databricks connection 'gone' (databricks_conn_id), which is not defined",
        ),
    ],
    ids=["connection", "Databricks connection"],
)
def test_a_connection_that_stays_undefined_fails_for_good(
    pauses: Pauses, define: Callable[..., None], conn_id: str, words: str
) -> None:
    define(extra={"project": "weather", "databricks_conn_id": "gone"})
    pauses.then(lambda: None, lambda: None)

    event = fire(tier("public.x_20240101_000000", lakebase_conn_id=conn_id))

    assert (event["status"], event["retryable"]) == ("failed", False)
    assert words in event["message"]


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        (lambda: tier("public.x_20240101_000000"), "Chunk public.x_20240101_000000 does not exist"),
        (lambda: LakeTSDurabilityTrigger(table="x", deadline=in_an_hour()), "'x' is not a ChronoTable"),
        (lambda: fresh(max_lag="1 hour"), "RollUp 'hourly' does not exist"),
        (lambda: fresh(max_lag="soon"), "invalid input syntax for type interval"),
    ],
    ids=["chunk", "table", "rollup", "interval"],
)
def test_fails_at_once_for_what_no_retry_cures(
    lab: Lab, trigger: Callable[[], LakeTSBaseTrigger], words: str
) -> None:
    event = fire(trigger())

    assert (event["status"], event["retryable"]) == ("failed", False)
    assert words in event["message"]


@pytest.mark.parametrize("engine", ["0.1"])
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
