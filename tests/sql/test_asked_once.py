"""With many chunks that must stay, their common conditions are read once, not for each chunk."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.stage import FEED

if TYPE_CHECKING:
    from tests.stage import Stage

FEW, MANY = range(1, 4), range(1, 13)


def synced(stage: Stage) -> None:
    stage.run("SELECT lakets.enable_sync(table_name) FROM lakets._chronotable_registry")
    stage.run(FEED)
    stage.run(
        "INSERT INTO wal2delta.tables SELECT to_regclass('lakets_cdf.' || quote_ident(shadow_table_name)),"
        " 'STREAMING', pg_current_wal_insert_lsn() FROM lakets._chronotable_registry"
    )


def skipped(stage: Stage) -> None:
    synced(stage)
    stage.run("UPDATE wal2delta.tables SET status = 'SKIPPED'")


def unflushed(stage: Stage) -> None:
    synced(stage)
    for _ in range(2):
        stage.run("SELECT lakets._prove(reg) FROM lakets._chronotable_registry AS reg")
        stage.run("UPDATE wal2delta.tables SET committed_lsn = pg_current_wal_insert_lsn()")
    stage.run("UPDATE few SET value = 0; UPDATE many SET value = 0")


def in_doubt(stage: Stage) -> None:
    synced(stage)
    stage.run(
        "INSERT INTO lakets._mirror_check (chronotable_id, compared)"
        " SELECT id, '{}' FROM lakets._chronotable_registry"
    )
    # The jobs compare chunks that are in doubt while the feed streams.
    stage.run("UPDATE wal2delta.tables SET status = 'PENDING'")


def marked(stage: Stage) -> None:
    for name in ("few", "many"):
        stage.rollup(f"of_{name}", reads=name)
        stage.run("SELECT lakets.invalidate_rollup_range(%s, '2024-01-01', '2024-02-01')", f"of_{name}")


def changed(stage: Stage) -> None:
    for name in ("few", "many"):
        stage.rollup(f"of_{name}", reads=name)
        stage.rollup(f"another_of_{name}", reads=name)
        stage.run(f"UPDATE {name} SET value = 0")


def untracked(stage: Stage) -> None:
    for name in ("few", "many"):
        stage.rollup(f"of_{name}", reads=name)
        stage.run("SELECT lakets.disable_rollup_invalidation(%s)", f"of_{name}")
        stage.run("UPDATE lakets._rollup_registry SET watermark = NULL")


OBSTACLES = {
    "not synced": lambda stage: stage.run(
        "UPDATE lakets._policy_registry SET policy_type = 'tiered_retention'"
    ),
    "the feed does not stream": skipped,
    "not flushed": unflushed,
    "in doubt": in_doubt,
    "not absorbed": changed,
    "a bucket is marked": marked,
    "a RollUp is not tracked": untracked,
}


def calls(stage: Stage, query: str, name: str) -> Counter[str]:
    """Return how often each function of LakeTS is called by a query."""
    counts = "SELECT funcname, calls FROM pg_stat_xact_user_functions WHERE schemaname = 'lakets'"
    with stage.conn.transaction():
        stage.run("SET LOCAL track_functions = 'all'")
        before = Counter(dict(stage.run(counts)))
        stage.run(query, name)
        return Counter(dict(stage.run(counts))) - before


@pytest.mark.parametrize(
    "query",
    ["SELECT lakets.execute_retention(%s)", "SELECT * FROM lakets.retention_report(%s)"],
    ids=["retention", "report"],
)
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_blocked_chunks_are_asked_about_once(stage: Stage, obstacle: str, query: str) -> None:
    for name, days in (("few", FEW), ("many", MANY)):
        stage.table(name, days=days)
        stage.run("SELECT lakets.add_retention_policy(%s, '1 day')", name)
    OBSTACLES[obstacle](stage)
    for name in ("few", "many"):  # what is learnt once is known to both
        stage.run("SELECT lakets.execute_retention(%s)", name)

    few, many = calls(stage, query, "few"), calls(stage, query, "many")

    assert few["_retention_gaps"] >= 1
    assert many - few == Counter()
    blocked = "SELECT count(*) FROM lakets.retention_report(%s) WHERE blocked_by IS NOT NULL"
    assert (stage.value(blocked, "few"), stage.value(blocked, "many")) == (len(FEW), len(MANY))
