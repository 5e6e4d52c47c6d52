"""A table that is locked for long: jobs and queries end as contended within seconds."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from airflow_provider_lakets.exceptions import LakeTSContendedError
from airflow_provider_lakets.hooks._deferred import past_retention

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.hooks.results import PastChunk
    from tests.lab import Lab


# Functions that wait 2 s for a lock wait less.
SHORT_WAITS = """DO $$ DECLARE waiting regprocedure; BEGIN
    FOR waiting IN SELECT oid FROM pg_proc WHERE proconfig::text LIKE '%lock_timeout=2s%' LOOP
        EXECUTE format('ALTER FUNCTION %s SET lock_timeout = ''200ms''', waiting);
    END LOOP; END $$"""


@pytest.fixture
def engine() -> str:
    return "ours"


@pytest.fixture
def held(lab: Lab) -> Iterator[Lab]:
    """A synced table with a RollUp and chunks for every job, locked by another session."""
    lab.synced(days=8)
    lab.rollup("hourly")
    lab.conn.execute("INSERT INTO metrics VALUES (now(), 'b', 1)")
    lab.flush()
    lab.hook().tier(lab.old_chunks()[:1])
    lab.conn.execute(SHORT_WAITS)
    with psycopg.connect(lab.conninfo) as holder:
        holder.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")
        yield lab
        holder.rollback()


@pytest.fixture
def hook(held: Lab) -> LakeTSHook:
    """A hook without retries, whose statement timeout ends waits beyond the lock timeout."""
    return held.hook(tries=1, statement_timeout="15s")


JOBS: dict[str, Callable[[LakeTSHook, Lab], Any]] = {
    "partition": lambda hook, lab: hook.partition(future_count=20),
    "tier": lambda hook, lab: hook.tier(lab.old_chunks()[1:2]),
    "retain": lambda hook, lab: hook.retain("metrics"),
    "retain by force": lambda hook, lab: hook.retain("metrics", force=True),
    "retain approved": lambda hook, lab: hook.retain("metrics", force=True, approved=lab.old_chunks()),
    "retain several": lambda hook, lab: hook.retain_all(["metrics", "metrics"]),
    "refresh": lambda hook, lab: hook.refresh("hourly"),
    "plan partitions": lambda hook, lab: hook.plan_partitions(future_count=20),
    "plan tiering": lambda hook, lab: hook.plan_tiering(lab.old_chunks()[1:2]),
}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_job_on_a_held_table_ends_as_contended(
    hook: LakeTSHook, held: Lab, job: Callable[[LakeTSHook, Lab], Any]
) -> None:
    results = job(hook, held)

    outcomes = {one.outcome for one in (results if isinstance(results, list) else [results])}
    assert outcomes == {"contended"}


def test_chunks_are_not_forced_instead_of_those_that_another_session_drops(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.synced(days=8)
    first, second, *others = [stays.chunk for stays in lab.hook().retain("metrics").deferred]

    def then_dropped_by_another(*args: Any) -> list[PastChunk]:
        found = past_retention(*args)
        with psycopg.connect(lab.conninfo, autocommit=True) as other:
            other.execute("SET statement_timeout = '300ms'")
            with contextlib.suppress(psycopg.errors.QueryCanceled):  # it waits for the hook
                other.execute("SELECT lakets.execute_retention('metrics', 'public', true, 2)")
        return found

    with monkeypatch.context() as patched:
        patched.setattr("airflow_provider_lakets.hooks.lakets.past_retention", then_dropped_by_another)
        lab.hook().retain("metrics", force=True, approved=[first, second])

    assert [stays.chunk for stays in lab.hook().retain("metrics").deferred] == others


def test_tiering_notices_a_held_table_at_two_chunks_and_goes_on_with_the_others(held: Lab) -> None:
    held.synced("other", days=3)
    held.flush()
    of_held, of_other = held.old_chunks()[1:], held.old_chunks("other")

    results = held.hook(tries=1).tier([*of_held, *of_other])

    first, second, *more = results[: len(of_held)]
    assert {one.outcome for one in (first, second, *more)} == {"contended"}
    for one in (first, second):
        assert "another session holds a lock" in str(one.detail)
    assert {one.detail for one in more} == {
        f"not tried, because {of_held[0]} and {of_held[1]} of the same table are locked"
    }
    assert {one.outcome for one in results[len(of_held) :]} <= {"tiered", "deferred"}


LOOKS: dict[str, Callable[[LakeTSHook], Any]] = {
    "candidates": lambda hook: hook.tier_candidates(),
    "plan candidates": lambda hook: hook.plan_candidates(),
    "plan retention": lambda hook: hook.plan_retention("metrics"),
    "plan refresh": lambda hook: hook.plan_refresh(),
    "tables": lambda hook: hook.chronotables(),
    "metrics of chunks": lambda hook: hook.chunk_health(),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_look_that_needs_no_lock_does_not_wait(hook: LakeTSHook, look: Callable[[LakeTSHook], Any]) -> None:
    look(hook)


def test_a_look_at_sizes_is_contended(hook: LakeTSHook) -> None:
    with pytest.raises(LakeTSContendedError):
        hook.show_chunks("metrics")


def test_the_status_names_the_table_that_is_locked(hook: LakeTSHook) -> None:
    status = hook.status()

    assert status.busy == ["public.metrics"]
    assert [table.name for table in status.tables] == ["public.metrics"]
