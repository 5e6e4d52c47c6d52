"""Changes made while triggers of LakeTS were disabled, as by pg_restore --disable-triggers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stage import HandFeed, Stage

CANDIDATES = "SELECT chunk_name FROM lakets._get_chunks_to_tier('metrics')"
PARTITIONS = "SELECT lakets._ensure_partitions(1)"
RETAIN = "SELECT lakets.execute_retention('metrics')"
SHADOW = "TABLE lakets_cdf._shadow_metrics"
TABLES = {"table": "metrics", "chunk": "metrics_20240101_000000"}


def load(stage: Stage, relation: str, which: str = "ALL", at: str | None = None) -> None:
    """Write a row while triggers are disabled."""
    stage.run(f"ALTER TABLE {relation} DISABLE TRIGGER {which}")
    stage.run(f"INSERT INTO {relation} VALUES (77, %s, 77)", at or stage.at(1, 13))
    stage.run(f"ALTER TABLE {relation} ENABLE TRIGGER {which}")


def unmirrored(stage: Stage) -> list[tuple[object, ...]]:
    return stage.run(f"TABLE metrics EXCEPT ALL {SHADOW}") + stage.run(f"{SHADOW} EXCEPT ALL TABLE metrics")


@pytest.fixture
def feed(stage: Stage) -> HandFeed:
    """Make a synced ChronoTable of four cold chunks, the first of which is tiered."""
    feed = stage.synced()
    assert stage.tier(1)
    return feed


@pytest.mark.parametrize("which", ["ALL", "USER"])
@pytest.mark.parametrize("relation", TABLES.values(), ids=TABLES)
def test_nothing_counts_as_durable_until_the_jobs_have_compared(
    stage: Stage, feed: HandFeed, relation: str, which: str
) -> None:
    load(stage, relation, which)
    assert stage.value("SELECT lakets.explain_durability(%s)", stage.chunk(1)) is not None
    assert stage.value("SELECT count(*) FROM lakets.pending_repairs()") == 1

    for _ in range(4):
        stage.value(RETAIN)
    assert stage.statuses()[1] != "dropped"
    stage.value(PARTITIONS)
    assert stage.chunk(1) in stage.column(CANDIDATES)
    stage.tier(1)
    feed.flush()
    for _ in range(9):
        stage.value(RETAIN)
        feed.flush()

    assert set(stage.statuses().values()) == {"dropped"}
    assert stage.value("SELECT count(*) FROM lakets_cdf._shadow_metrics WHERE id = 77") == 1


@pytest.mark.parametrize("relation", TABLES.values(), ids=TABLES)
def test_a_flag_is_removed_by_the_next_tiering_run(stage: Stage, feed: HandFeed, relation: str) -> None:
    load(stage, relation)

    tiered = stage.tier(1)

    assert (tiered, stage.statuses()[1]) == (False, "active")


@pytest.mark.parametrize(
    "relation", ["metrics", "metrics_20240101_000000", "metrics_default"], ids=["table", "chunk", "default"]
)
def test_syncing_again_compares_and_tracks(stage: Stage, feed: HandFeed, relation: str) -> None:
    load(stage, relation, at=stage.at(20) if relation == "metrics_default" else None)

    stage.run("SELECT lakets.enable_sync('metrics')")

    assert unmirrored(stage) == []
    assert stage.run("SELECT * FROM lakets.pending_repairs()") == []
    assert stage.value("SELECT lakets._is_tracked('metrics')")
    stage.run("DELETE FROM metrics WHERE id = 77")
    assert unmirrored(stage) == []


def test_a_dropped_trigger_that_a_job_puts_back_is_noted(stage: Stage, feed: HandFeed) -> None:
    stage.run("DROP TRIGGER lakets_track_insert ON metrics")
    stage.run("INSERT INTO metrics VALUES (77, %s, 77)", stage.at(1, 13))

    stage.value(PARTITIONS)

    assert stage.value("SELECT count(*) FROM lakets._mirror_gap") == 1
    while stage.value("SELECT lakets.compare_chunks('metrics')"):
        pass
    assert unmirrored(stage) == []


@pytest.mark.parametrize("job", [PARTITIONS, RETAIN, "SELECT lakets.guard_chunks('metrics')"])
def test_a_guard_that_was_off_is_put_back_and_its_chunk_compared(
    stage: Stage, feed: HandFeed, job: str
) -> None:
    load(stage, "metrics_20240101_000000")

    stage.value(job)

    assert stage.value("SELECT lakets._unguarded_partitions('metrics')::text") == "{}"
    while stage.value("SELECT lakets.compare_chunks('metrics')"):
        pass
    assert unmirrored(stage) == []
    assert stage.run("SELECT * FROM lakets._mirror_check") == []


def test_a_row_written_into_the_default_partition_is_mirrored_once_it_is_in_a_chunk(
    stage: Stage, feed: HandFeed
) -> None:
    load(stage, "metrics_default", at=stage.at(20))

    stage.value(PARTITIONS)
    while stage.value("SELECT lakets.compare_chunks('metrics')"):
        pass

    assert 20 in stage.statuses()
    assert unmirrored(stage) == []


def test_an_install_sees_what_was_off(stage: Stage, feed: HandFeed) -> None:
    for relation in TABLES.values():
        load(stage, relation, at=stage.at(1, 13 if relation == "metrics" else 14))

    stage.run("SELECT lakets._adopt_chronotable(reg) FROM lakets._chronotable_registry AS reg")

    assert stage.value("SELECT lakets._unguarded_partitions('metrics')::text") == "{}"
    while stage.value("SELECT lakets.compare_chunks('metrics')"):
        pass
    assert unmirrored(stage) == []


# RollUps


@pytest.mark.parametrize("relation", TABLES.values(), ids=TABLES)
def test_rollups_of_a_table_that_is_not_synced_are_computed_again(stage: Stage, relation: str) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.refresh("hourly")
    load(stage, relation)

    stage.value(PARTITIONS)
    stage.refresh("hourly")

    assert stage.difference("hourly") == []
    stage.run("INSERT INTO metrics VALUES (78, %s, 78)", stage.at(2, 13))
    stage.refresh("hourly")
    assert stage.difference("hourly") == []


@pytest.mark.parametrize("relation", TABLES.values(), ids=TABLES)
def test_retention_waits_for_rollups_of_what_was_not_logged(stage: Stage, relation: str) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.refresh("hourly")
    stage.run("SELECT lakets.add_retention_policy('metrics', '1 day')")
    load(stage, relation)

    while stage.value(RETAIN):
        pass

    assert stage.statuses()[1] == "active"
    stage.refresh("hourly")
    assert stage.value("SELECT sum(total) FROM public._rollup_hourly") == 77 + 1 + 2 + 3 + 4
    stage.value(RETAIN)
    assert stage.statuses()[1] == "dropped"


@pytest.mark.parametrize(
    "repair", ["SELECT lakets.refresh_rollup('hourly', true)", "SELECT lakets.enable_sync('hourly')"]
)
@pytest.mark.parametrize("damage", ["disabled", "dropped"])
def test_the_mirror_of_a_rollup_is_compared(stage: Stage, repair: str, damage: str) -> None:
    stage.table()
    stage.rollup("hourly")
    stage.run("SELECT lakets.enable_sync('hourly')")
    if damage == "dropped":
        stage.run("DROP TRIGGER lakets_track_insert ON public._rollup_hourly")
    else:
        stage.run("ALTER TABLE public._rollup_hourly DISABLE TRIGGER ALL")
    stage.run("INSERT INTO metrics VALUES (78, %s, 78)", stage.at(2, 13))
    if damage == "disabled":
        stage.run("INSERT INTO public._rollup_hourly VALUES (%s, 5, 5)", stage.at(9))
        stage.run("ALTER TABLE public._rollup_hourly ENABLE TRIGGER ALL")

    stage.run(repair)
    stage.refresh("hourly")

    same = "TABLE public._rollup_hourly EXCEPT ALL TABLE lakets_cdf._shadow_rollup_hourly"
    assert stage.run(same) == []
    assert stage.run("SELECT * FROM lakets._mirror_gap") == []


def test_the_last_value_cache_is_filled_again(stage: Stage) -> None:
    stage.table()
    stage.run("SELECT lakets.enable_lvc('metrics', '{id}', '{value}')")
    load(stage, "metrics")
    assert stage.value("SELECT enabled FROM lakets.lvc_stats()") is False

    stage.value(PARTITIONS)

    assert stage.value("SELECT value FROM _lvc_metrics WHERE id = 77") == 77
    assert stage.value("SELECT enabled FROM lakets.lvc_stats()") is True
