"""An install waits for another one, and neither blocks nor harms other sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.engine import install_script
from tests.isolation.conftest import PATIENCE_SECONDS

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
    # A busy machine takes its time from step to step, and an install would step back meanwhile.
    patience = "SET LOCAL lock_timeout = "
    assert head.count(f"{patience}'2s'") == 1
    return head.replace(f"{patience}'2s'", f"{patience}'{PATIENCE_SECONDS}s'")


# install/install: both replace the same functions, which fails in Postgres unless one waits for the
# other.
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


REFRESH = "SELECT lakets.refresh_rollup('hourly', true)"
RETAIN = "SELECT lakets.execute_retention('metrics', p_max_chunks => 1)"
TIER = "SELECT lakets.tier_chunk('public.metrics_20240103_000000')"
CANDIDATES = "SELECT count(*) FROM lakets._get_chunks_to_tier('metrics')"
PARTITION = (
    "SELECT lakets._ensure_partitions(id, p_range_start => '2024-02-01+00', p_range_end => '2024-02-04+00')"
    " FROM lakets._chronotable_registry"
)


@pytest.fixture
def at_work(stage: Stage) -> None:
    """Create tables with work for every job."""
    feed = stage.synced()
    stage.rollup("hourly")
    stage.run("UPDATE metrics SET value = 7 WHERE id = 3")
    feed.flush()


def check_all_is_well(stage: Stage) -> None:
    """Change something and see that it arrives; what is mirrored of a dropped chunk stays."""
    stage.run("UPDATE metrics SET value = 8 WHERE id = 4")
    stage.run("DELETE FROM metrics WHERE id = 2")
    stage.refresh("hourly")
    assert stage.totals("hourly") == {"1 12": 1, "3 12": 7, "4 12": 8}
    resident = (
        "SELECT * FROM lakets_cdf._shadow_metrics AS s"
        " WHERE NOT EXISTS (SELECT FROM lakets._chunk_metadata AS c WHERE c.status = 'dropped'"
        " AND s.at >= c.range_start AND s.at < c.range_end) ORDER BY id"
    )
    assert stage.run(resident) == stage.run("SELECT * FROM metrics ORDER BY id")


# job/install: an install does not disturb a running job. It waits for the table, or for the proof
# row, which a job creates when it first reads the feed.
@pytest.mark.parametrize(
    ("job", "result"),
    [(RETAIN, 1), (TIER, True), (CANDIDATES, 4), (PARTITION, 3)],
    ids=["retain", "tier", "candidates", "partition"],
)
def test_an_install_waits_for_a_job_that_has_what_it_needs(
    stage: Stage, at_work: None, sessions: Sessions, script: str, job: str, result: object
) -> None:
    worker, installer = sessions("worker"), sessions("installer")

    worker.begin()
    assert worker.value(job) == result
    installer.start(script)
    installer.wait_blocked_by(worker)
    worker.commit()
    installer.finish()
    installer.commit()

    check_all_is_well(stage)


# job/install: a refresh has the RollUp, and its source in a mode that the install goes along with.
def test_an_install_goes_on_beside_a_refresh(
    stage: Stage, at_work: None, sessions: Sessions, script: str
) -> None:
    worker, installer = sessions("worker"), sessions("installer")

    worker.begin()
    assert worker.value(REFRESH) is True
    assert installer.run(script) == [], "the refresh is open, so the install did not wait for it"
    worker.commit()
    installer.commit()

    check_all_is_well(stage)


# install/job: the job runs with the old functions, and its results are right for the new ones.
@pytest.mark.parametrize(
    ("job", "result"),
    [(REFRESH, True), (RETAIN, 1), (TIER, True), (CANDIDATES, 4), (PARTITION, 3)],
    ids=["refresh", "retain", "tier", "candidates", "partition"],
)
def test_a_job_goes_on_beside_an_install(
    stage: Stage, at_work: None, sessions: Sessions, script: str, job: str, result: object
) -> None:
    worker, installer = sessions("worker"), sessions("installer")

    installer.run(script)
    assert worker.value(job) == result, "the install is open, so the job did not wait for it"
    installer.commit()

    check_all_is_well(stage)
