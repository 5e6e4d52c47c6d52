"""The cascade: its order, parallel refreshes, and the effect of failures."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets.exceptions import LakebaseConnectionError, LakeTSArgumentError
from airflow_provider_lakets.hooks._cascade import run_cascade
from airflow_provider_lakets.hooks.results import RefreshResult, Rollup

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.lab import Lab


def rollups(**reads: list[str]) -> dict[str, Rollup]:
    return {name: Rollup(name, depends_on, "1 day", None, None, None) for name, depends_on in reads.items()}


def all_refreshed(name: str) -> RefreshResult:
    return RefreshResult(name, "refreshed")


def all_but(unlike: str, outcome: str) -> Callable[[str], RefreshResult]:
    return lambda name: RefreshResult(name, outcome if name == unlike else "refreshed")


def cascade(
    graph: dict[str, Rollup], refresh: Callable[[str], RefreshResult], *, parallelism: int = 2
) -> list[RefreshResult]:
    return run_cascade(graph, refresh, parallelism=parallelism, stop=lambda: None)


def outcomes(results: list[RefreshResult]) -> dict[str, str]:
    return {result.name: result.outcome for result in results}


def test_refreshes_what_is_read_before_what_reads_it() -> None:
    graph = rollups(monthly=["daily"], daily=["hourly"], hourly=[], weekly=["daily"])

    results = cascade(graph, all_refreshed, parallelism=4)

    order = [result.name for result in results]
    assert order[:2] == ["hourly", "daily"]
    assert set(order[2:]) == {"monthly", "weekly"}


def test_independent_rollups_run_side_by_side() -> None:
    together = threading.Barrier(2, timeout=10)  # breaks unless both are running at once

    def refresh(name: str) -> RefreshResult:
        together.wait()
        return RefreshResult(name, "refreshed")

    results = cascade(rollups(a=[], b=[]), refresh, parallelism=2)

    assert outcomes(results) == {"a": "refreshed", "b": "refreshed"}


def test_parallelism_bounds_how_many_run_at_once() -> None:
    running = 0
    most = 0
    lock = threading.Lock()

    def refresh(name: str) -> RefreshResult:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return RefreshResult(name, "refreshed")

    cascade(rollups(a=[], b=[], c=[], d=[], e=[]), refresh, parallelism=2)

    assert most == 2


def test_a_failure_takes_down_only_what_reads_it() -> None:
    graph = rollups(bad=[], sibling=[], above=["bad", "sibling"], top=["above"], beside=["sibling"])

    results = cascade(graph, all_but("bad", "failed"))

    assert outcomes(results) == {
        "bad": "failed",
        "sibling": "refreshed",
        "beside": "refreshed",
        "above": "skipped",
        "top": "skipped",
    }
    assert {result.name: result.detail for result in results if result.outcome == "skipped"} == {
        "above": "reads RollUps that were not refreshed: bad",
        "top": "reads RollUps that were not refreshed: above",
    }


def test_an_unchanged_rollup_holds_nothing_up() -> None:
    graph = rollups(hourly=[], daily=["hourly"])

    results = cascade(graph, all_but("hourly", "unchanged"))

    assert outcomes(results) == {"hourly": "unchanged", "daily": "refreshed"}


@pytest.mark.parametrize(
    ("graph", "circle"),
    [
        (
            rollups(a=["c"], b=["a"], c=["b"], free=[]),
            "(a -> c -> b -> a|c -> b -> a -> c|b -> a -> c -> b)",
        ),
        (rollups(self=["self"]), "self -> self"),
    ],
    ids=["of three", "of itself"],
)
def test_a_circle_is_named(graph: dict[str, Rollup], circle: str) -> None:
    with pytest.raises(LakeTSArgumentError, match=circle):
        cascade(graph, all_refreshed)


def test_a_database_that_is_gone_ends_the_cascade_but_not_what_runs() -> None:
    gone = threading.Event()

    def refresh(name: str) -> RefreshResult:
        if name == "a":
            gone.set()
            raise LakebaseConnectionError("The database is gone.")
        assert gone.wait(10)
        return RefreshResult(name, "refreshed")

    results = cascade(rollups(a=[], b=[], above=["b"], beside=["b"]), refresh, parallelism=2)

    assert outcomes(results) == {"a": "failed", "b": "refreshed", "above": "skipped", "beside": "skipped"}
    assert all(result.retryable for result in results)


def test_an_interrupted_cascade_stops_what_runs_and_starts_no_more() -> None:
    stopped = threading.Event()
    started: list[str] = []

    def refresh(name: str) -> RefreshResult:
        started.append(name)
        if name == "a":
            raise KeyboardInterrupt
        assert stopped.wait(10)
        return RefreshResult(name, "failed")

    with pytest.raises(KeyboardInterrupt):
        run_cascade(rollups(a=[], b=[], c=[], d=["a"]), refresh, parallelism=2, stop=stopped.set)

    assert stopped.is_set()
    assert "d" not in started


@pytest.fixture
def chain(lab: Lab) -> Lab:
    """A table with an hourly RollUp, a daily one that reads it, and an independent one."""
    lab.table("metrics", days=3)
    lab.rollup("hourly")
    lab.rollup("daily", reads="hourly")
    lab.rollup("apart")
    return lab


def test_refresh_brings_late_rows_into_every_rollup(chain: Lab) -> None:
    chain.conn.execute("INSERT INTO metrics VALUES (now() - interval '1 day', 'a', 1000)")

    results = chain.hook().refresh()

    assert outcomes(results) == {"hourly": "refreshed", "daily": "refreshed", "apart": "refreshed"}
    for name in ("hourly", "daily", "apart"):
        assert chain.value(f'SELECT sum(total) FROM public."_rollup_{name}"') == 1003


def test_refresh_of_one_refreshes_all_that_it_reads_and_no_other(chain: Lab) -> None:
    results = chain.hook().refresh("daily")

    assert [result.name for result in results] == ["hourly", "daily"]


def test_a_rollup_that_fails_leaves_its_siblings_refreshed(chain: Lab) -> None:
    chain.break_rollup("hourly")

    results = chain.hook().refresh()

    assert outcomes(results) == {"hourly": "failed", "daily": "skipped", "apart": "refreshed"}
    assert chain.value("SELECT sum(total) FROM public._rollup_apart") == 4
    failed = next(result for result in results if result.name == "hourly")
    assert "check constraint" in str(failed.detail)


def test_refresh_too_soon_is_unchanged_and_says_so(chain: Lab) -> None:
    hook = chain.hook()
    hook.refresh("apart")
    chain.conn.execute("UPDATE lakets._rollup_registry SET refresh_lag = '1 hour'")

    (result,) = hook.refresh("apart")

    assert result.outcome == "unchanged"
    assert "refresh_lag" in str(result.detail)


def test_what_another_session_refreshes_is_contended_and_says_so(chain: Lab) -> None:
    with psycopg.connect(chain.conninfo) as other:
        other.execute("SELECT lakets.refresh_rollup('apart')")  # not committed yet

        (result,) = chain.hook().refresh("apart")

    assert (result.outcome, result.detail) == ("contended", "another session is refreshing it")


def test_force_refreshes_within_the_refresh_lag_or_says_what_it_needs(chain: Lab) -> None:
    hook = chain.hook()
    hook.refresh("apart")
    chain.conn.execute("UPDATE lakets._rollup_registry SET refresh_lag = '1 hour'")

    (result,) = hook.refresh("apart", force=True)

    if chain.engine == "0.1":
        assert (result.outcome, result.retryable) == ("failed", False)
        assert "needs LakeTS 0.2" in str(result.detail)
    else:
        assert result.outcome == "refreshed"


def test_an_unknown_rollup_is_refused_with_the_known_ones(chain: Lab) -> None:
    with pytest.raises(
        LakeTSArgumentError, match=r"'dayly' does not exist.*there are: apart, daily, hourly\. Correct"
    ):
        chain.hook().refresh("dayly")


def test_a_circle_in_the_registry_is_named(chain: Lab) -> None:
    chain.conn.execute(
        "UPDATE lakets._rollup_registry SET depends_on ="
        " ARRAY(SELECT id FROM lakets._rollup_registry WHERE name = 'daily') WHERE name = 'hourly'"
    )

    with pytest.raises(LakeTSArgumentError, match=r"read each other in a cycle.*daily"):
        chain.hook().refresh()


def test_the_cascade_logs_in_once_for_each_that_runs_at_a_time(chain: Lab) -> None:
    hook = chain.hook()
    logins = []
    connect = hook.get_conn
    hook.get_conn = lambda: logins.append(1) or connect()  # type: ignore[method-assign, func-returns-value]

    with hook.session():
        hook.refresh(parallelism=2)
        hook.refresh(parallelism=2)

    assert 1 <= len(logins) <= 3
