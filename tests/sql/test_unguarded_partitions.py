"""What can be written past the guards of chunks is no chunk, or not durable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.stage import Stage

NESTED = (
    "CREATE TABLE nest PARTITION OF metrics FOR VALUES FROM ('2023-12-01+00') TO ('2023-12-02+00')"
    " PARTITION BY LIST (id); CREATE TABLE leaf PARTITION OF nest DEFAULT"
)


def test_a_partition_that_is_partitioned_itself_is_no_chunk(kept: Stage, warned: list[str]) -> None:
    kept.sync()
    kept.run(NESTED)

    assert kept.value("SELECT lakets.adopt_partitions('metrics')") == 0

    assert [text.split(";")[0] for text in warned if "cannot be" in text] == [
        "Partition public.nest cannot be a chunk: it is partitioned itself, and rows written to its own"
        " partitions are not tracked"
    ]
    kept.run("INSERT INTO leaf VALUES (50, '2023-12-01 01:00+00', 50)")
    kept.run(
        "ALTER TABLE metrics DETACH PARTITION nest; CREATE TABLE flat (LIKE nest);"
        " INSERT INTO flat TABLE nest; ALTER TABLE metrics ATTACH PARTITION flat"
        " FOR VALUES FROM ('2023-12-01+00') TO ('2023-12-02+00')"
    )
    assert kept.value("SELECT lakets.adopt_partitions('metrics')") == 1
    kept.run("SELECT lakets.enable_sync('metrics')")
    assert 50 in kept.column("SELECT id FROM lakets_cdf._shadow_metrics")


@pytest.mark.parametrize("synced", [True, False], ids=["synced", "not synced"])
def test_a_chunk_that_is_partitioned_itself_is_neither_durable_nor_dropped(kept: Stage, synced: bool) -> None:
    feed = kept.sync() if synced else None
    kept.run(NESTED)
    kept.run(
        "SELECT lakets._adopt_partition(lakets._chronotable(1), 'nest',"
        " '[2023-12-01 00:00+00,2023-12-02 00:00+00)')"
    )
    kept.run("INSERT INTO leaf VALUES (50, '2023-12-01 01:00+00', 50)")
    if feed is not None:
        kept.run("SELECT lakets._get_chunks_to_tier('metrics')")
        feed.flush()
        feed.move(kept.position())
        assert not kept.value("SELECT lakets.tier_chunk('public.metrics_20231201_000000')")
        assert kept.tier(1)

    assert kept.value("SELECT lakets.execute_retention('metrics')") > 0

    (reason,) = kept.column("SELECT blocked_by FROM lakets.retention_report('metrics')")
    assert "it is partitioned itself" in reason
    assert kept.column("SELECT id FROM leaf") == [50]


OPEN_DEFAULTS = {
    "partitioned itself": (
        "ALTER TABLE metrics DETACH PARTITION metrics_default; DROP TABLE metrics_default;"
        " CREATE TABLE mine PARTITION OF metrics DEFAULT PARTITION BY LIST (id);"
        " CREATE TABLE leaf PARTITION OF mine DEFAULT",
        "leaf",
    ),
    "without its guard": ("DROP TRIGGER lakets_no_direct_write ON metrics_default", "metrics_default"),
}


@pytest.mark.parametrize("kind", OPEN_DEFAULTS)
def test_rows_of_a_default_partition_that_is_open_are_not_taken_for_mirrored(kept: Stage, kind: str) -> None:
    change, opened = OPEN_DEFAULTS[kind]
    kept.sync()
    kept.run(change)
    if opened == "leaf":
        kept.run("SELECT lakets.enable_sync('metrics')")
    assert kept.value("SELECT count(*) FROM lakets._mirror_gap") == 0
    kept.run(f"INSERT INTO {opened} VALUES (50, '2023-12-01 01:00+00', 50)")

    assert kept.value("SELECT lakets._ensure_partitions(1)") == 1

    assert kept.column("SELECT id FROM metrics_20231201_000000") == [50]
    assert kept.value("SELECT count(*) FROM lakets._mirror_gap") == 1
    kept.run("SELECT lakets.enable_sync('metrics')")
    assert 50 in kept.column("SELECT id FROM lakets_cdf._shadow_metrics")
