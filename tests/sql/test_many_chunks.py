"""Thousands of chunks: every job does its work, and its cost does not grow quadratically."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets.engine import install_script
from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
from tests.conftest import THROWAWAY
from tests.stage import FEED, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FEW, MANY = 500, 5000
# Ten times the chunks may take ten times as long; by the square it would be a hundred times.
MOST = 30
# Shorter times are too noisy to compare.
FLOOR_SECONDS = 0.005


@pytest.fixture
def unanalyzed(tmp_path: Path, postgres_version: int) -> Iterator[Stage]:
    """A database that was never analyzed: the planner expects few rows."""
    settings = THROWAWAY | {"autovacuum": "off"}
    with EmbeddedPostgres(tmp_path / "pg", version=postgres_version, settings=settings) as server:
        with psycopg.connect(server.ensure_database("many_chunks"), autocommit=True) as conn:
            conn.execute(install_script())
        stage = Stage(server.conninfo("many_chunks"))
        yield stage
        stage.close()


def make(stage: Stage, name: str, count: int) -> None:
    """Make a table of hourly chunks with a row in each, all of it flushed and rolled up."""
    table_id = stage.table(name, days=())
    stage.run("SELECT lakets.set_chunk_interval(%s, '1 hour')", name)
    ensure = (
        "SELECT lakets._ensure_partitions(%s, p_range_start => '2024-01-01', p_max_chunks => 100,"
        " p_range_end => '2024-01-01'::timestamptz + %s * interval '1 hour')"
    )
    while stage.value(ensure, table_id, count) == 100:
        pass
    stage.run(
        f"INSERT INTO {name} SELECT n, '2024-01-01'::timestamptz + n * interval '1 hour', n"
        " FROM generate_series(0, %s - 1) AS n",
        count,
    )
    stage.rollup(f"hourly_{name}", reads=name)
    stage.run("SELECT lakets.enable_sync(%s)", name)
    stage.run("SELECT lakets.add_tiered_retention_policy(%s, '1 day', '2 days')", name)
    stage.run(FEED)
    stage.run(
        "INSERT INTO wal2delta.tables"
        " SELECT to_regclass('lakets_cdf._shadow_' || %s), 'STREAMING', 'FFFFFFFF/0'",
        name,
    )
    stage.refresh(f"hourly_{name}")


def seconds(act: Callable[[], object]) -> float:
    """Return how long something takes, the shortest of three times."""
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        act()
        taken.append(time.perf_counter() - started)
    return max(min(taken), FLOOR_SECONDS)


def change_and_refresh(stage: Stage, name: str) -> None:
    stage.run(f"UPDATE {name} SET value = value + 1 WHERE at = '2024-01-03'")
    stage.refresh(f"hourly_{name}")


def drop_some_beside_a_blocked_one(stage: Stage, name: str) -> None:
    stage.run(f"UPDATE {name} SET value = value + 1 WHERE at = '2024-01-01'")
    assert stage.value("SELECT lakets.execute_retention(%s, p_max_chunks => 20)", name) == 20


ACTS: dict[str, Callable[[Stage, str], object]] = {
    "ensure": lambda stage, name: stage.run(
        "SELECT lakets._ensure_partitions(id) FROM lakets._chronotable_registry WHERE table_name = %s", name
    ),
    "candidates": lambda stage, name: stage.run("SELECT * FROM lakets._get_chunks_to_tier(%s)", name),
    "tier": lambda stage, name: stage.tier(5, name),
    "write and refresh": change_and_refresh,
    "report": lambda stage, name: stage.run("SELECT * FROM lakets.retention_report(%s)", name),
    "show": lambda stage, name: stage.run("SELECT * FROM lakets.show_chunks(%s)", name),
    "health": lambda stage, name: stage.run("SELECT * FROM lakets.chunk_health()"),
    "retain": drop_some_beside_a_blocked_one,
}


@pytest.mark.slow
def test_no_job_grows_by_the_square_of_the_chunks(unanalyzed: Stage) -> None:
    stage = unanalyzed
    make(stage, "few", FEW)
    few = {name: seconds(lambda act=act: act(stage, "few")) for name, act in ACTS.items()}  # type: ignore[misc]
    make(stage, "many", MANY)
    candidates = stage.column("SELECT chunk_name FROM lakets._get_chunks_to_tier('many')")
    many = {name: seconds(lambda act=act: act(stage, "many")) for name, act in ACTS.items()}  # type: ignore[misc]

    truncated = [seconds(lambda name=name: stage.run(f"TRUNCATE {name}")) for name in ("few", "many")]  # type: ignore[misc]

    assert truncated[1] / truncated[0] < MOST
    assert len(candidates) == MANY
    assert {name: many[name] / few[name] for name in ACTS if many[name] / few[name] > MOST} == {}
    tiered = stage.column("SELECT chunk_name FROM lakets._chunk_metadata WHERE status = 'tiered'")
    assert set(tiered) == {stage.chunk(5, "few"), stage.chunk(5, "many")}
