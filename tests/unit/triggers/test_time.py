"""Deadlines, intervals, and a triggerer that takes over from another."""

from __future__ import annotations

import asyncio
import pkgutil
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from tests.triggering import COLD, LONG_AGO, REACHED, fire, tier, write

if TYPE_CHECKING:
    from tests.pauses import Pauses
    from tests.stage import Stage


def test_gives_up_at_the_deadline_and_tells_what_it_waited_for(lake: Stage) -> None:
    lake.synced()
    write(lake, COLD)

    event = fire(tier(lake.chunk(COLD), deadline=LONG_AGO))

    assert event == {
        "status": "timed_out",
        "waiting": {lake.chunk(COLD): "changes to it are not known to be flushed yet"},
        "message": None,
    }


def test_looks_once_more_though_the_deadline_passed_while_no_triggerer_ran(lake: Stage) -> None:
    lake.synced()

    assert fire(tier(lake.chunk(COLD), deadline=LONG_AGO)) == REACHED


def test_sleeps_the_interval_but_not_beyond_the_deadline(lake: Stage, pauses: Pauses) -> None:
    feed = lake.synced()
    write(lake, COLD)
    pauses.then(feed.flush)
    soon = datetime.now(timezone.utc) + timedelta(seconds=20)

    fire(tier(lake.chunk(COLD), poll_interval=60, deadline=soon))

    assert 0 < pauses.lengths[0] <= 20


def test_another_triggerer_goes_on_where_one_was_stopped(lake: Stage, pauses: Pauses) -> None:
    feed = lake.synced()
    write(lake, COLD)
    first = tier(lake.chunk(COLD))

    def stop() -> None:
        raise asyncio.CancelledError

    pauses.then(stop, feed.flush)
    with pytest.raises(asyncio.CancelledError):
        fire(first)
    path, kwargs = first.serialize()

    assert fire(pkgutil.resolve_name(path)(**kwargs)) == REACHED
