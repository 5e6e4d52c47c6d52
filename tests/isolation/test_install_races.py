"""An install waits for another, and neither holds up nor harms who is at work in the database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.engine import install_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Session
    from tests.stage import Stage

    Sessions = Callable[[str], Session]


@pytest.fixture(scope="module")
def script() -> str:
    """Return the install, without its COMMIT, so that a session can stand at its end."""
    head, found, rest = install_script().rpartition("COMMIT;")
    assert found
    assert not rest.strip()
    return head


# install/install: both replace the same functions, which fails in Postgres unless one waits for the other.
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_the_second_of_two_installs_waits_for_the_first(
    stage: Stage, sessions: Sessions, script: str, end: str
) -> None:
    stage.synced()
    first, second = sessions("first"), sessions("second")

    first.run(script)
    second.start(script)
    second.wait_blocked_by(first)
    first.run(end)
    second.finish()
    second.commit()

    assert stage.value("SELECT count(*) FROM lakets._version") == 1
    stage.run("UPDATE metrics SET value = 7 WHERE id = 1")
    assert stage.value("SELECT value FROM lakets_cdf._shadow_metrics WHERE id = 1") == 7


# install/writer: a statement under way goes on with the functions that it began with.
def test_an_open_writer_goes_on_beside_an_install(stage: Stage, sessions: Sessions, script: str) -> None:
    stage.synced()
    stage.rollup("hourly")
    writer, installer = sessions("writer"), sessions("installer")

    writer.begin()
    writer.run("UPDATE metrics SET value = 7 WHERE id = 1")
    installer.run(script)
    writer.run("UPDATE metrics SET value = 8 WHERE id = 2")
    writer.commit()
    installer.commit()
    writer.run("UPDATE metrics SET value = 9 WHERE id = 3")
    stage.refresh("hourly")

    table = stage.run("SELECT * FROM metrics ORDER BY id")
    assert stage.run("SELECT * FROM lakets_cdf._shadow_metrics ORDER BY id") == table
    assert stage.difference("hourly") == []


# install/job: an install does not pull the ground from under a job that is at it.
@pytest.mark.parametrize(
    "job",
    [
        "SELECT lakets.refresh_rollup('hourly', true)",
        "SELECT lakets.execute_retention('metrics', p_max_chunks => 1)",
        "SELECT lakets.tier_chunk('public.metrics_20240103_000000')",
        "SELECT lakets._ensure_partitions(id, 1, 9) FROM lakets._chronotable_registry",
    ],
    ids=["refresh", "retain", "tier", "partition"],
)
def test_a_job_and_an_install_come_through_in_either_order(
    stage: Stage, sessions: Sessions, script: str, job: str
) -> None:
    feed = stage.synced()
    stage.rollup("hourly")
    stage.run("UPDATE metrics SET value = 7 WHERE id = 3")
    feed.flush()
    worker, installer = sessions("worker"), sessions("installer")

    worker.begin()
    worker.run(job)
    installer.start(script)
    worker.commit()
    installer.finish()
    worker.start(job)
    installer.commit()

    assert worker.finish()
    stage.refresh("hourly")
    resident = "SELECT * FROM metrics EXCEPT SELECT * FROM lakets_cdf._shadow_metrics"
    assert stage.run(resident) == []
