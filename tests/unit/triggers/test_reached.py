"""The condition of each trigger, and that the trigger fires when it is true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.triggers.durability import LakeTSDurabilityTrigger
from airflow_provider_lakets.triggers.retention import LakeTSRetentionTrigger
from tests.triggering import COLD, OTHER, REACHED, fire, fresh, in_an_hour, overlap, tier, write

if TYPE_CHECKING:
    from tests.lab import Lab
    from tests.pauses import Pauses
    from tests.stage import Stage

old_engine = pytest.mark.parametrize("engine", ["0.1"])


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


def test_a_table_in_quotes_as_in_sql_is_that_table(lake: Stage) -> None:
    lake.synced().flush()

    assert fire(LakeTSDurabilityTrigger(table='"public"."metrics"', deadline=in_an_hour())) == REACHED


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
