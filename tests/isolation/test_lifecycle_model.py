"""Promises 1 to 7 against a model: open transactions, the feed and every job, at random."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.isolation.lifecycle import DAY, EVERYTHING, KINDS, Chunk
from tests.isolation.lifecycle_writers import WRITERS, Writing, instant, minutes_of
from tests.stage import HandFeed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.isolation.conftest import Session
    from tests.stage import Stage


def listed(rows: Iterable[tuple[int, float | None, int]]) -> list[tuple[int, str, int]]:
    """Return rows so that they can be compared, null and all."""
    return sorted((number, repr(math.nan if at is None else at), value) for number, at, value in rows)


class Lifecycle(Writing):
    """A synced table, three RollUps of it and one on top, three writers, a feed, and the jobs."""

    steps: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.is_streaming = True
        self.feed: HandFeed | None = None

    @initialize(is_keyed=st.booleans(), position=st.sampled_from(["start", "end"]))
    def make(self, is_keyed: bool, position: Any) -> None:
        self.is_keyed, self.position = is_keyed, position
        self.table_id = self.stage.table(self.name, days=range(1, 7), keyed=is_keyed, rows=False)
        self.stage.run("SELECT lakets.add_tiered_retention_policy(%s, '12 hours', '1 day')", self.name)
        self.rollups = {kind: f"{kind}_{self.name}" for kind in (*KINDS, "daily")}
        for kind, definition in KINDS.items():
            self._create(
                kind, definition.interval, definition.bucket, self.name, "sum(value)", "count(*)", "value"
            )
        self._create(
            "daily",
            "1 day",
            "lakets.time_bucket('1 day', bucket)",
            self._kept("hourly"),
            "sum(total)",
            "sum(n)",
            "top",
        )
        self.stage.run("SELECT lakets.enable_sync(%s)", self.rollups["hourly"])
        self.sync_again()
        self.model.ensure(0, 6 * DAY)
        # Every schedule has something to work on from the start.
        for number in range(WRITERS):
            self.insert(number, [(float(n * 300 % (8 * DAY)), n % 7) for n in range(number, 40, 3)])
        self.insert(0, [(math.inf, 1), (math.nan, 2)])
        for kind in KINDS:
            self.refresh(kind)
        self.refresh_daily()

    def _kept(self, kind: str) -> str:
        return f'public."_rollup_{self.rollups[kind]}"'

    def _create(self, kind: str, every: str, bucket: str, source: str, total: str, n: str, top: str) -> None:
        self.stage.rollup(
            self.rollups[kind],
            every=every,
            query=f"SELECT {bucket} AS bucket, {total}::bigint AS total, {n}::bigint AS n,"
            f" max({top})::bigint AS top FROM {source} GROUP BY 1",
        )

    def _read_chunks(self) -> list[Chunk]:
        rows = self.stage.run(
            f"SELECT {minutes_of('range_start')}, {minutes_of('range_end')}, status FROM"
            " lakets._chunk_metadata WHERE chronotable_id = %s AND range_start < '2025-06-01' ORDER BY 1",
            self.table_id,
        )
        return [Chunk(*row) for row in rows]

    def _names(self) -> dict[str, float]:
        """Return the start of each chunk by its name."""
        return dict(
            self.stage.run(
                f"SELECT chunk_name, {minutes_of('range_start')} FROM lakets._chunk_metadata"
                " WHERE chronotable_id = %s",
                self.table_id,
            )
        )

    # What everybody is locked out of: contended while a writer has the table

    def _alone(self, *statements: str) -> bool:
        """Run statements in a transaction that touches everything; False if the table is locked."""
        try:
            with self.stage.conn.transaction():
                self.stage.run("SET LOCAL lock_timeout = '20ms'")
                for statement in statements:
                    self.stage.run(statement)
                xid = self.stage.value("SELECT pg_current_xact_id()::text::bigint") & 0xFFFFFFFF
        except psycopg.errors.LockNotAvailable:
            assert any(writer.is_open for writer in self.writers)
            return False
        self.touched[xid] = EVERYTHING
        return True

    @rule(dice=st.integers(0, 4))
    def truncate(self, dice: int) -> None:
        if dice == 0 and self._alone(f"TRUNCATE {self.name}"):
            self.model.truncate()

    # A feed cannot begin while transactions are open.
    @precondition(lambda self: not any(writer.is_open for writer in self.writers))
    @rule(dice=st.integers(0, 6))
    def sync_anew(self, dice: int) -> None:
        """Leave the shadow with its evicted rows behind, and begin another."""
        if dice == 0 and self._alone(f"SELECT lakets.disable_sync('{self.name}')"):
            self.model.evicted.clear()
            self.sync_again()

    @precondition(lambda self: not any(writer.is_open for writer in self.writers))
    @rule()
    def sync_again(self) -> None:
        is_new = not self.stage.value(
            "SELECT sync_enabled FROM lakets._chronotable_registry WHERE id = %s", self.table_id
        )
        self.stage.run("SELECT lakets.enable_sync(%s)", self.name)
        if not is_new:
            return
        if self.feed is not None:
            self.feed.close()
        self.feed = HandFeed(self.stage.conninfo, f"_shadow_{self.name}", self.position)
        self.feed.move(self.stage.position())  # the first copy is part of the first reading
        self.is_streaming = True
        self.model.all_changed.update(KINDS)

    # The feed

    @rule(count=st.integers(1, 4))
    def flush(self, count: int) -> None:
        assert self.feed is not None
        self.feed.flush(count)

    @rule(status=st.sampled_from(["STREAMING", "STREAMING", "SKIPPED"]))
    def report(self, status: str) -> None:
        assert self.feed is not None
        self.feed.report(status)
        self.is_streaming = status == "STREAMING"

    def _is_flushed(self, chunk: Chunk) -> bool:
        assert self.feed is not None
        pending = [self.touched.get(commit.xid) for commit in self.feed.unflushed()]
        return not any(touched.meets(chunk) for touched in pending if touched)

    # Jobs

    @rule(kind=st.sampled_from(list(KINDS)))
    def refresh(self, kind: str) -> None:
        assert self.stage.refresh(self.rollups[kind])
        self.model.refresh(kind)

    @rule()
    def refresh_daily(self) -> None:
        assert self.stage.refresh(self.rollups["daily"])
        self.model.refresh_daily()

    @rule()
    def cascade(self) -> None:
        done = self.stage.cascade(self.rollups["daily"])
        assert set(done.values()) == {True}
        self.model.refresh("hourly")
        self.model.refresh_daily()

    @rule(kind=st.sampled_from(list(KINDS)), first=st.integers(0, 8), days=st.integers(1, 4))
    def invalidate(self, kind: str, first: int, days: int) -> None:
        if kind not in self.model.had_rows:
            return  # its grid is not known yet: then everything is loaded anew
        start, end = first * DAY, (first + days) * DAY
        self.stage.run(
            f"SELECT lakets.invalidate_rollup_range(%s, {instant(start)}, {instant(end)})", self.rollups[kind]
        )
        self.model.invalidate(kind, start, end)

    @rule(kind=st.sampled_from(list(KINDS)))
    def forget_what_was_absorbed(self, kind: str) -> None:
        self.stage.run(
            "UPDATE lakets._rollup_registry SET absorbed = NULL WHERE name = %s", self.rollups[kind]
        )
        self.model.all_changed.add(kind)

    @rule(first=st.integers(0, 8), days=st.integers(1, 3))
    def ensure(self, first: int, days: int) -> None:
        try:
            made = self.stage.value(
                "SELECT lakets._ensure_partitions("
                f"%s, 1, 1, {instant(first * DAY)}, {instant((first + days) * DAY)})",
                self.table_id,
            )
        except psycopg.errors.LockNotAvailable:
            assert any(writer.is_open for writer in self.writers)
        else:
            assert made == self.model.ensure(first * DAY, (first + days) * DAY)

    @rule(interval=st.sampled_from(["1 day", "6 hours", "2 days"]))
    def set_interval(self, interval: str) -> None:
        self.stage.run("SELECT lakets.set_chunk_interval(%s, %s)", self.name, interval)
        self.model.interval = interval

    @rule(data=st.data())
    def tier(self, data: st.DataObject) -> None:
        names = {start: name for name, start in self._names().items()}
        if standing := self.model.standing():
            chunk = data.draw(st.sampled_from(standing))
            self._tier(chunk, names[chunk.start])

    def _tier(self, chunk: Chunk, name: str) -> bool:
        is_tiered = bool(self.stage.value("SELECT lakets.tier_chunk(%s)", name))
        assert not is_tiered or (self.is_streaming and self._is_flushed(chunk)), f"{name} is not flushed"
        self.model.flag(chunk.start, "tiered" if is_tiered else "active")
        return is_tiered

    @rule()
    def list_candidates(self) -> None:
        listed = self.stage.column("SELECT chunk_name FROM lakets._get_chunks_to_tier(%s)", self.name)
        names = self._names()
        found = {names[name] for name in listed}
        if not self.is_streaming:
            assert found == set()
            return
        for chunk in self.model.standing():
            if chunk.status == "active" or not self._is_flushed(chunk):
                assert chunk.start in found
            if chunk.start in found:
                self.model.flag(chunk.start, "active")

    @rule(most=st.integers(1, 2))
    def retain(self, most: int) -> None:
        fit = [c for c in self.model.standing() if self.model.is_absorbed(c) and self._is_flushed(c)]
        try:
            count = self.stage.value(
                "SELECT lakets.execute_retention(%s, p_max_chunks => %s)", self.name, most
            )
        except psycopg.errors.LockNotAvailable:
            assert any(writer.is_open for writer in self.writers)
            return
        gone = {c.start for c in self._read_chunks() if c.is_dropped} - {
            c.start for c in self.model.chunks if c.is_dropped
        }
        assert count == len(gone) <= most
        assert gone <= {chunk.start for chunk in fit if self.is_streaming}
        self.model.drop(gone)

    @rule(most=st.integers(1, 3))
    def settle(self, most: int) -> None:
        """Let writers end and the feed catch up: two rounds flag all, and drop what is absorbed."""
        assert self.feed is not None
        for number in range(WRITERS):
            self.commit(number)
        self.report("STREAMING")
        names = {start: name for name, start in self._names().items()}
        for _ in range(2):
            self.feed.flush()
            answers = {chunk: self._tier(chunk, names[chunk.start]) for chunk in self.model.standing()}
        why = "SELECT lakets.explain_durability(%s)"
        assert all(answers.values()), {
            self.stage.value(why, names[chunk.start]) for chunk, is_tiered in answers.items() if not is_tiered
        }
        self.feed.flush()
        fit = [chunk.start for chunk in self.model.standing() if self.model.is_absorbed(chunk)][:most]

        dropped = self.stage.value("SELECT lakets.execute_retention(%s, p_max_chunks => %s)", self.name, most)

        assert dropped == len(fit)
        self.model.drop(set(fit))

    # Checks

    def teardown(self) -> None:
        """Once writers have stopped, one refresh of each makes all right."""
        try:
            if self.feed is not None:
                self.settle(1)
                for kind in KINDS:
                    self.refresh(kind)
                self.refresh_daily()
                self.holds_what_the_model_holds()
        finally:
            for number in range(WRITERS):
                self.roll_back(number)
            if self.feed is not None:
                self.feed.close()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        if self.feed is None:
            return
        self.steps[0] += 1
        rows = [(number, row.at, row.value) for number, row in self.model.rows.items()]
        kept = self.stage.run(f"SELECT id, {minutes_of('at')}, value FROM {self.name}")
        assert listed(kept) == listed(rows)
        mirrored = self.stage.run(f"SELECT id, {minutes_of('at')}, value FROM lakets_cdf._shadow_{self.name}")
        evicted = [(number, row.at, row.value) for number, row in self.model.evicted]
        assert listed(mirrored) == listed([*rows, *evicted])
        assert self._read_chunks() == self.model.chunks
        for kind in self.rollups:
            held = self.stage.run(f"SELECT {minutes_of('bucket')}, total, n, top FROM {self._kept(kind)}")
            assert {bucket: (total, n, top) for bucket, total, n, top in held} == self.model.rollups[kind], (
                kind
            )
            assert len(held) == len(self.model.rollups[kind]), kind
        assert (
            self.stage.run(
                f"TABLE {self._kept('hourly')} EXCEPT ALL"
                f" TABLE lakets_cdf._shadow_rollup_{self.rollups['hourly']}"
            )
            == []
        )


@pytest.fixture
def machine(stage: Stage, sessions: Callable[[str], Session]) -> Iterator[type[Lifecycle]]:
    """Yield a machine in whose database nobody else takes a lock, not even the vacuum."""
    stage.run("ALTER SYSTEM SET autovacuum = off")
    stage.run("SELECT pg_reload_conf()")
    stage.set_lock_timeout("20ms")
    writers = [sessions(f"writer {number}") for number in range(WRITERS)]
    yield type("Machine", (Lifecycle,), {"stage": stage, "sessions": writers, "steps": [0]})
    stage.run("ALTER SYSTEM RESET autovacuum")
    stage.run("SELECT pg_reload_conf()")


def run(machine: type[Lifecycle], *, examples: int, steps: int, **options: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            **options,
        ),
    )


def test_all_is_as_the_model_says_at_any_schedule(machine: type[Lifecycle]) -> None:
    run(machine, examples=8, steps=40, derandomize=True)


@pytest.mark.slow
def test_all_is_as_the_model_says_over_ten_thousand_steps(machine: type[Lifecycle]) -> None:
    while machine.steps[0] < 10_000:
        run(machine, examples=50, steps=80)
