"""A branch is a physical copy of a cluster with the same identifier; transaction ids continue."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pytest

from airflow_provider_lakets.engine import install_script
from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
from tests.conftest import THROWAWAY
from tests.stage import HandFeed, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHADOW = "_shadow_metrics"


class Side(NamedTuple):
    """The parent or the branch, and the feed that streams it."""

    stage: Stage
    feed: HandFeed

    def flush(self) -> None:
        self.feed.move(self.stage.position())

    def has(self, row: int) -> bool:
        """Return whether the RollUp counts the row with this number and value."""
        return row in self.stage.totals("hourly").values()


def settle(stage: Stage) -> None:
    """Create the tables: day 2 has changes after the last flush, days 3 and 4 are tiered."""
    stage.table()
    stage.rollup("hourly")
    feed = stage.sync()
    stage.run("SELECT lakets.add_tiered_retention_policy('metrics', '1 day', '2 days')")
    feed.move(stage.position())
    assert stage.tier(3)
    assert stage.tier(4)
    stage.refresh("hourly")
    stage.run("INSERT INTO metrics VALUES (40, %s, 40)", stage.at(2, 4))


@pytest.fixture
def sides(tmp_path: Path, postgres_version: int) -> Iterator[tuple[Side, Side]]:
    """Yield both sides after a stop, a copy of the folder and two starts."""
    with EmbeddedPostgres(tmp_path / "parent", version=postgres_version, settings=THROWAWAY) as server:
        with psycopg.connect(server.ensure_database("world"), autocommit=True) as conn:
            conn.execute(install_script())
        stage = Stage(server.conninfo("world"))
        settle(stage)
        stage.close()
    subprocess.run(["cp", "-a", tmp_path / "parent", tmp_path / "branch"], check=True)
    with (
        EmbeddedPostgres(tmp_path / "parent", version=postgres_version) as parent,
        EmbeddedPostgres(tmp_path / "branch", version=postgres_version) as branch,
    ):
        both = [
            Side(Stage(server.conninfo("world")), HandFeed(server.conninfo("world"), SHADOW))
            for server in (parent, branch)
        ]
        yield both[0], both[1]
        for side in both:
            side.feed.close()
            side.stage.close()


def test_neither_side_proves_or_absorbs_what_the_other_wrote(sides: tuple[Side, Side]) -> None:
    parent, branch = sides
    shown = "SELECT committed_lsn FROM wal2delta.tables"
    assert parent.stage.value(shown) == branch.stage.value(shown)

    for side, row in ((parent, 50), (branch, 60)):
        side.stage.run("INSERT INTO metrics VALUES (%s, %s, %s)", row, Stage.at(1, 3), row)
    # The hazard: both changes carry the same transaction id.
    written = "SELECT max(xid::text::bigint) FROM lakets._change_log"
    assert parent.stage.value(written) == branch.stage.value(written)
    parent.stage.refresh("hourly")
    parent.stage.tier(1)
    parent.flush()

    assert [parent.stage.tier(day) for day in (1, 2, 3)] == [True, True, True]
    assert [branch.stage.tier(day) for day in (1, 2, 3)] == [False, False, True]
    assert branch.stage.value("SELECT lakets.execute_retention('metrics')") == 2
    assert branch.stage.statuses() == {1: "active", 2: "active", 3: "dropped", 4: "dropped"}
    branch.stage.refresh("hourly")
    assert (parent.has(50), parent.has(60)) == (True, False)
    assert (branch.has(50), branch.has(60)) == (False, True)
    assert (parent.has(40), branch.has(40)) == (True, True)
    assert parent.stage.difference("hourly") == []

    branch.flush()
    assert [branch.stage.tier(day) for day in (1, 2)] == [True, True]
    assert branch.stage.value("SELECT lakets.execute_retention('metrics')") == 2
