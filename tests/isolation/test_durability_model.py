"""Promises 1 to 4 in random schedules: writers, feed and provers, checked after each step."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.stage import HandFeed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.isolation.conftest import Session
    from tests.stage import Stage

DAYS = (1, 2, 3)
KEPT = 9  # a day of which one row always stays, so that there is something to fence with

INSERT = "INSERT INTO {table} VALUES (%(id)s, %(at)s, 0) RETURNING id"
CHANGES = {
    "update": "UPDATE {table} SET value = value + 1 WHERE id = %(day)s RETURNING id",
    "delete": "DELETE FROM {table} WHERE id = (SELECT max(id) FROM {table} WHERE id > 100"
    " AND at >= %(day_start)s AND at < %(day_end)s) RETURNING id",
    "move": "UPDATE {table} SET at = %(other)s WHERE id = (SELECT max(id) FROM {table} WHERE id > 100"
    " AND at >= %(day_start)s AND at < %(day_end)s) RETURNING id",
}

_tables = itertools.count()


class Writer:
    """A session that writes, and what its open transaction has touched."""

    def __init__(self, session: Session) -> None:
        self.session = session
        # A prover in an open transaction may hold the shadow for a fence: then this one gives up.
        session.run("SET lock_timeout = '30ms'")
        session.run("SET synchronous_commit = on")  # which waits for a standby that there is not
        self.forget()

    def forget(self) -> None:
        self.is_open = self.is_unconfirmed = False
        self.touched: set[int] = set()
        self.xid = 0


class Durability(RuleBasedStateMachine):
    """A table of three chunks, three writers, a feed, and two provers, one of which stays open."""

    stage: Stage
    sessions: list[Session]

    def __init__(self) -> None:
        super().__init__()
        self.table = f"metrics_{next(_tables)}"
        self.stage.table(self.table, days=(*DAYS, KEPT))
        self.stage.run("SELECT lakets.add_tiered_retention_policy(%s, '1 day', '2 days')", self.table)
        self.stage.run("SELECT lakets.enable_sync(%s)", self.table)
        self.feed = HandFeed(self.stage.conninfo, f"_shadow_{self.table}")
        self.feed.move(self.stage.position())
        self.writers = [Writer(session) for session in self.sessions[:3]]
        self.prover = self.sessions[3]
        self.prover_is_open = False
        self.touched_by: dict[int, set[int]] = {}
        self.ids = itertools.count(101)

    @initialize(position=st.sampled_from(["start", "end"]))
    def choose_position(self, position: Any) -> None:
        self.feed.position = position

    # Writers

    writers_all = st.integers(0, 2)

    @rule(number=writers_all, isolation=st.sampled_from(["READ COMMITTED", "REPEATABLE READ"]))
    def begin(self, number: int, isolation: str) -> None:
        writer = self.writers[number]
        if not writer.is_open:
            writer.session.begin(isolation)
            writer.session.run("SELECT 1")
            writer.is_open = True

    @rule(
        number=writers_all,
        day=st.sampled_from(DAYS),
        other=st.sampled_from(DAYS),
        kind=st.sampled_from(["insert", "insert", "insert", *CHANGES]),
    )
    def write(self, number: int, day: int, other: int, kind: str) -> None:
        writer = self.writers[number]
        if writer.is_unconfirmed:
            return
        if not writer.is_open:
            self.begin(number, "READ COMMITTED")
        values = {
            "id": next(self.ids),
            "day": day,
            "at": self.stage.at(day, 1),
            "day_start": self.stage.at(day),
            "day_end": self.stage.at(day + 1),
            "other": self.stage.at(other, 2),
        }
        query = CHANGES.get(kind, INSERT).format(table=self.table)
        try:
            rows = writer.session.conn.execute(query.encode(), values).fetchall()
            if rows:
                writer.touched |= {day, other} if kind == "move" else {day}
                writer.xid = writer.session.xid
        except (psycopg.errors.LockNotAvailable, psycopg.errors.SerializationFailure):
            self.abort(number)

    @rule(number=writers_all)
    def try_and_undo(self, number: int) -> None:
        """Write in a subtransaction that is rolled back: the lock on the shadow goes with it."""
        writer = self.writers[number]
        if writer.is_open and not writer.is_unconfirmed:
            try:
                writer.session.run("SAVEPOINT s")
                writer.session.run(f"INSERT INTO {self.table} VALUES (100, '2024-01-01 03:00+00', 0)")
                writer.session.run("ROLLBACK TO s")
            except psycopg.errors.LockNotAvailable:
                self.abort(number)

    @rule(number=writers_all)
    def commit(self, number: int) -> None:
        writer = self.writers[number]
        if writer.is_open and not writer.is_unconfirmed:
            self._write_down(writer)
            writer.session.run("SET LOCAL synchronous_commit = local")
            writer.session.commit()
            writer.forget()

    @rule(number=writers_all)
    def commit_unconfirmed(self, number: int) -> None:
        """Commit, but so that the feed can have it before anybody sees it."""
        writer = self.writers[number]
        if writer.is_open and not writer.is_unconfirmed and writer.touched:
            self._write_down(writer)
            writer.session.start("COMMIT")
            writer.session.wait_for_event("SyncRep")
            writer.is_unconfirmed = True

    @rule(number=writers_all)
    def confirm(self, number: int) -> None:
        writer = self.writers[number]
        if writer.is_unconfirmed:
            writer.session.cancel()
            writer.session.finish()
            writer.forget()

    @rule(number=writers_all)
    def abort(self, number: int) -> None:
        writer = self.writers[number]
        if writer.is_open and not writer.is_unconfirmed:
            writer.session.rollback()
            writer.forget()

    def _write_down(self, writer: Writer) -> None:
        if writer.touched:
            self.touched_by[writer.xid] = set(writer.touched)

    # The feed

    @rule(count=st.integers(1, 3))
    def flush(self, count: int) -> None:
        self.feed.flush(count)

    # Provers

    @rule(day=st.sampled_from(DAYS))
    def tier(self, day: int) -> None:
        self._tier(self.stage, day)

    @rule(day=st.sampled_from(DAYS))
    def tier_and_stay_open(self, day: int) -> None:
        if not self.prover_is_open:
            self.prover.begin()
            self.prover_is_open = True
        self._tier(self.prover, day)

    def _tier(self, session: Session | Stage, day: int) -> None:
        if self._prove(session, "SELECT lakets.tier_chunk(%s)", self.stage.chunk(day, self.table)):
            # A commit that nobody can see yet is a write to come.
            unseen = {writer.xid for writer in self.writers if writer.is_unconfirmed}
            self._check(day, "flagged", unseen)

    @precondition(lambda self: self.prover_is_open)
    @rule(end=st.sampled_from(["COMMIT", "ROLLBACK"]))
    def end_prover(self, end: str) -> None:
        self.prover.run(end)
        self.prover_is_open = False

    @rule()
    def list_candidates(self) -> None:
        self._prove(self.stage, "SELECT lakets._get_chunks_to_tier(%s)", self.table)

    @rule()
    def prune(self) -> None:
        self._prove(
            self.stage,
            "SELECT lakets._prune_change_log(reg) FROM lakets._chronotable_registry AS reg"
            " WHERE table_name = %s",
            self.table,
        )

    @rule()
    def retain_one(self) -> None:
        before = self.stage.statuses(self.table)
        if self._prove(self.stage, "SELECT lakets.execute_retention(%s, p_max_chunks => 1)", self.table):
            ((day, _),) = before.items() - self.stage.statuses(self.table).items()
            self._check(day, "dropped", unseen=set())

    def _prove(self, session: Session | Stage, query: str, *parameters: Any) -> Any:
        """Return what a job says; nothing when it is contended or the chunk was dropped before."""
        try:
            return (session.run(query, *parameters) or [(None,)])[0][0]
        except (psycopg.errors.LockNotAvailable, psycopg.errors.RaiseException):
            if session is self.prover:
                self.end_prover("ROLLBACK")
            return None

    def _check(self, day: int, what: str, unseen: set[int]) -> None:
        """Check a chunk against what the feed has not flushed, exactly."""
        late = [commit.xid for commit in self.feed.unflushed() if day in self.touched_by.get(commit.xid, ())]
        assert unseen.issuperset(late), f"chunk {day} is {what}, and {late} not flushed"

    def teardown(self) -> None:
        """Check that, with all writers idle and all flushed, two rounds flag everything."""
        try:
            if self.prover_is_open:
                self.end_prover("ROLLBACK")
            for number in range(3):
                self.confirm(number)
                self.commit(number)
            self.feed.flush()
            rounds = [self._tier_all(), self._flush_and_tier_all()]
            assert all(rounds[-1].values()), f"not flagged: {rounds}"
        finally:
            for number in range(3):
                self.confirm(number)
                self.abort(number)
            self.feed.close()

    def _tier_all(self) -> dict[int, bool]:
        standing = [day for day, status in self.stage.statuses(self.table).items() if status != "dropped"]
        return {day: self.stage.tier(day, self.table) for day in standing}

    def _flush_and_tier_all(self) -> dict[int, bool]:
        self.feed.flush()
        return self._tier_all()


@pytest.fixture
def machine(
    stage: Stage, sessions: Callable[[str], Session], unconfirmed: Callable[[Session], None]
) -> type[Durability]:
    stage.set_lock_timeout("10ms")
    names = ("first writer", "second writer", "third writer", "prover")
    return type("Machine", (Durability,), {"stage": stage, "sessions": [sessions(name) for name in names]})


def run(machine: type[Durability], *, examples: int, steps: int, **options: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            **options,
        ),
    )


def test_nothing_unflushed_is_flagged_or_dropped_at_any_schedule(machine: type[Durability]) -> None:
    run(machine, examples=25, steps=30, derandomize=True)


@pytest.mark.slow
def test_nothing_unflushed_is_flagged_or_dropped_at_very_many_schedules(machine: type[Durability]) -> None:
    run(machine, examples=400, steps=60)
