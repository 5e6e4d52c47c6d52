"""The changes that a job reports, for asset events and lineage."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_lakets.hooks.results import RefreshResult
    from tests.lab import Lab

ours_only = pytest.mark.parametrize("engine", ["ours"])
old_engine = pytest.mark.parametrize("engine", ["0.1"])


@pytest.fixture
def rolled(lab: Lab) -> Lab:
    """Two days of a table, in an hourly and a daily RollUp."""
    lab.table("metrics", days=2)
    lab.rollup("hourly")
    lab.rollup("daily", reads="hourly")
    return lab


def refresh(lab: Lab, since: datetime | None = None) -> dict[str, RefreshResult]:
    return {result.name: result for result in lab.hook().refresh(since=since)}


def test_a_rollup_whose_source_was_written_has_changed(rolled: Lab) -> None:
    refresh(rolled)
    rolled.conn.execute("INSERT INTO metrics VALUES (now(), 'new', 1)")

    done = refresh(rolled)

    assert [done[name].changed for name in ("hourly", "daily")] == [True, True]
    assert min(done["hourly"].rows or 0, done["daily"].rows or 0) >= 1


@ours_only
def test_a_refresh_that_finds_nothing_new_changes_nothing(rolled: Lab) -> None:
    refresh(rolled)

    done = refresh(rolled)

    assert {result.outcome for result in done.values()} == {"refreshed"}
    assert [(one.rows, one.removed, one.changed) for one in done.values()] == [(0, 0, False)] * 2


@ours_only
def test_rows_are_counted_of_each_refresh_by_itself_though_the_session_is_the_same(rolled: Lab) -> None:
    # The server reports a session's counters about once a second: those of both refreshes are in
    # one report.
    hook = rolled.hook()
    rolled.conn.execute("SELECT lakets.refresh_rollup('hourly')")
    counts = []

    with hook.session():
        for _ in range(2):
            rolled.conn.execute("INSERT INTO metrics VALUES ('2024-05-05 12:00+00', 'a', 1)")
            counts += [one.rows for one in hook.refresh("hourly")]

    assert counts == [1, 1]


@ours_only
def test_a_rollup_that_only_lost_rows_has_changed(rolled: Lab) -> None:
    refresh(rolled)
    rolled.conn.execute("DELETE FROM metrics")

    done = refresh(rolled)

    assert done["hourly"].rows == 0
    assert done["hourly"].changed


@old_engine
def test_with_lakets_01_each_refresh_may_have_changed_all(rolled: Lab) -> None:
    rolled.conn.execute("DELETE FROM metrics")
    refresh(rolled)

    assert refresh(rolled)["hourly"].changed


def test_without_the_server_s_counters_the_counts_are_unknown(rolled: Lab) -> None:
    rolled.conn.execute("ALTER ROLE CURRENT_USER SET track_counts = off")
    try:
        done = refresh(rolled)
    finally:
        rolled.conn.execute("ALTER ROLE CURRENT_USER RESET track_counts")

    assert (done["hourly"].rows, done["hourly"].changed) == (None, True)


def test_a_rollup_that_is_skipped_has_not_changed(rolled: Lab) -> None:
    rolled.conn.execute("UPDATE lakets._rollup_registry SET refresh_lag = '1 day', last_refreshed_at = now()")

    done = refresh(rolled)

    assert [(one.outcome, one.changed) for one in done.values()] == [("unchanged", False)] * 2


@ours_only
def test_what_an_earlier_try_refreshed_counts_as_changed(rolled: Lab) -> None:
    begun = rolled.value("SELECT now()")
    rolled.conn.execute("SELECT lakets.refresh_rollup('hourly')")
    rolled.conn.execute("UPDATE lakets._rollup_registry SET last_refreshed_at = NULL WHERE name = 'daily'")
    rolled.conn.execute("DELETE FROM lakets._rollup_invalidation_log")

    done = refresh(rolled, since=begun)

    assert (done["hourly"].changed, done["daily"].changed) == (True, False)


def test_a_chunk_is_new_to_the_run_that_flags_it(lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    first, second, *_ = lab.old_chunks()
    hook = lab.hook()
    hook.tier([first])

    done = hook.tier([first, second])

    assert [(one.outcome, one.new) for one in done] == [("tiered", False), ("tiered", True)]


@pytest.mark.parametrize(("ago", "new"), [(1, True), (-1, False)], ids=["by this run", "before it"])
def test_a_chunk_that_an_earlier_try_flagged_is_new_to_the_retry(lab: Lab, ago: int, new: bool) -> None:
    lab.synced(days=8)
    lab.flush()
    chunk = lab.old_chunks()[0]
    lab.hook().tier([chunk])

    (done,) = lab.hook().tier([chunk], since=datetime.now(timezone.utc) - timedelta(hours=ago))

    assert done.new is new
