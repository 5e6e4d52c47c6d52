"""Shared helpers of the tests of trimmed shadows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.stage import HandFeed, Stage


RETAIN = "SELECT lakets.execute_retention('metrics')"


def expire(stage: Stage, day: int, *, trimmed: bool = True) -> None:
    """Let retention drop all chunks before a day of January 2024."""
    if stage.value("SELECT count(*) FROM lakets.show_retention_policy('metrics')"):
        stage.run("SELECT lakets.remove_retention_policy('metrics')")
    stage.run(
        "SELECT lakets.add_tiered_retention_policy("
        "'metrics', '1 day', now() - %s::timestamptz, p_trim_shadow => %s)",
        stage.at(day),
        trimmed,
    )


def report_log(stage: Stage, status: str | None) -> None:
    """Set what the feed reports about the log of trims."""
    stage.run("DELETE FROM wal2delta.tables WHERE table_oid = 'lakets_cdf._trim_log'::regclass")
    if status is not None:
        stage.run("INSERT INTO wal2delta.tables VALUES ('lakets_cdf._trim_log'::regclass, %s, '0/0')", status)


def prepared(stage: Stage, *, keyed: bool = True) -> HandFeed:
    """Drop days 1 and 2 of four; their rows may be trimmed."""
    feed = stage.synced(keyed=keyed)
    expire(stage, 3)
    report_log(stage, "STREAMING")
    assert stage.tier(1)
    assert stage.value(RETAIN) == 2
    return feed
