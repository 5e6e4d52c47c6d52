"""How often the page reads a Lakebase, and for how long."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.monitoring.data import gather
from airflow_provider_lakets.plugin import snapshots
from airflow_provider_lakets.plugin.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from tests.lab import Lab

pytestmark = pytest.mark.usefixtures("lab")


@pytest.fixture
def engine() -> str:
    return "ours"


class Looks:
    """Count the reads, and make each wait until the test releases it."""

    def __init__(self, gather: Callable[..., Any]) -> None:
        self._gather = gather
        self.count = 0
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        self.count += 1
        self.begun.set()
        assert self.go_on.wait(30)
        return self._gather(*arguments)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    counted = Looks(gather)
    monkeypatch.setattr("airflow_provider_lakets.plugin.snapshots.gather", counted)
    return counted


def test_many_who_ask_at_once_get_the_answer_to_one_look(looks: Looks) -> None:
    page = Snapshots()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(page.look, "lakebase_default", wake=True) for _ in range(8)]
        assert looks.begun.wait(30)
        looks.go_on.set()
        answers = [one.result(60) for one in asked]

    assert looks.count == 1
    assert len({id(one.snapshot) for one in answers}) == 1
    assert answers[0].snapshot is not None


def test_who_knows_something_does_not_wait_for_a_look_that_takes_long(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Snapshots()
    looks.go_on.set()
    before = page.look("lakebase_default", wake=True)
    looks.go_on.clear()
    looks.begun.clear()
    monkeypatch.setattr(snapshots, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(snapshots._Entry, "is_fresh", lambda *_, **__: False)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(page.look, "lakebase_default", wake=True)
        assert looks.begun.wait(30)

        assert page.look("lakebase_default", wake=True) is before

        looks.go_on.set()
        assert slow.result(60).snapshot is not before.snapshot


def test_who_asks_again_soon_gets_the_same_answer(looks: Looks) -> None:
    page = Snapshots()
    looks.go_on.set()
    page.look("lakebase_default", wake=True)

    page.look("lakebase_default")

    assert looks.count == 1


def test_a_look_gives_up_soon(lab: Lab) -> None:
    page = Snapshots()

    def limits(hook: LakeTSHook) -> list[Any]:
        names = ("statement_timeout", "lock_timeout", "application_name")
        return [hook.query(f"SHOW {name}", doing="Asking")[0][name] for name in names]

    assert page.ask("lakebase_default", limits, wake=True) == ["5s", "500ms", "LakeTS page"]
