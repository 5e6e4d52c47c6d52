"""Promises 5 to 7 against a model: random writes and jobs on a table, and what its RollUps then hold."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

if TYPE_CHECKING:
    from tests.stage import Stage

HOUR, DAY = 60, 24 * 60
# Times are minutes since the first of January 2024; this is how long after the origin of time_bucket.
SINCE_2000 = 8766 * DAY
START = 1704067200


class Chunk(NamedTuple):
    start: float
    end: float
    is_dropped: bool


class Kind(NamedTuple):
    """One RollUp: the length of its buckets, where they are counted from, and the SQL of that."""

    length: int
    origin: int
    bucket: str
    interval: str


# Each reads the table; "daily" reads "hourly" and is dealt with apart.
KINDS = {
    "hourly": Kind(HOUR, 0, "lakets.time_bucket('1 hour', at)", "1 hour"),
    "wide": Kind(3 * DAY, -SINCE_2000, "lakets.time_bucket('3 days', at)", "3 days"),
    "local": Kind(DAY, 5 * HOUR, "date_trunc('day', at, 'Etc/GMT+5')", "1 day"),
}

Row = dict[str, Any]
Values = dict[float, tuple[int, int, int]]

_tables = itertools.count()

minutes = st.one_of(
    st.builds(
        lambda day, hour, minute: float(day * DAY + hour * HOUR + minute),
        st.integers(0, 8),
        st.sampled_from([0, 0, 5, 12, 23]),  # where buckets and chunks meet
        st.sampled_from([0, 0, 30, 59]),
    ),
    st.sampled_from([math.inf, -math.inf, math.nan]),  # nan stands for null
)
values = st.integers(-5, 5)
some_rows = st.lists(st.tuples(minutes, values), min_size=1, max_size=5)


def instant(minute: float) -> str:
    """Return the SQL of a time."""
    if math.isnan(minute):
        return "NULL::timestamptz"
    if math.isinf(minute):
        return f"'{'-' if minute < 0 else ''}infinity'::timestamptz"
    return f"'2024-01-01 00:00+00'::timestamptz + interval '{minute:.0f} minutes'"


def minutes_of(column: str) -> str:
    """Return the SQL of a time as minutes."""
    return f"(extract(epoch FROM {column}) - {START})::float8 / 60"


def summed(rows: list[Row], kind: Kind) -> Values:
    """Aggregate the table as the RollUp's query does."""
    found = defaultdict(list)
    for row in rows:
        if math.isfinite(row["at"]):
            found[(row["at"] - kind.origin) // kind.length * kind.length + kind.origin].append(row["value"])
    return {bucket: (sum(v), len(v), max(v)) for bucket, v in found.items()}


class RollUps(RuleBasedStateMachine):
    """A table, three RollUps of it and one on top, and what they must hold."""

    stage: Stage

    def __init__(self) -> None:
        super().__init__()
        self.name = f"metrics_{next(_tables)}"
        self.ids = itertools.count(1)
        self.rows: dict[int, Row] = {}
        self.table_id = self.stage.table(self.name, days=range(1, 7), keyed=False, rows=False)
        self.stage.run("SELECT lakets.add_retention_policy(%s, '1 day')", self.name)
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
        self.expected: dict[str, Values] = {kind: {} for kind in self.rollups}
        # What each RollUp of the table has not absorbed: times; for some, all may have changed.
        self.unabsorbed: dict[str, set[float]] = {kind: set() for kind in KINDS}
        self.all_changed: set[str] = set()
        self.had_rows: set[str] = set()
        self.chunks = self._read_chunks()
        # Every schedule has something to work on from the start.
        self.insert([(float(n * 300 % (8 * DAY)), n % 7) for n in range(40)])
        self.insert([(math.inf, 1), (math.nan, 2)])
        self.teardown()

    def _kept(self, kind: str) -> str:
        return f'public."_rollup_{self.rollups[kind]}"'

    def _create(self, kind: str, every: str, bucket: str, source: str, total: str, n: str, top: str) -> None:
        self.stage.rollup(
            self.rollups[kind],
            every=every,
            query=f"SELECT {bucket} AS bucket, {total}::bigint AS total, {n}::bigint AS n,"
            f" max({top})::bigint AS top FROM {source} GROUP BY 1",
        )

    # Where rows are

    def _read_chunks(self) -> list[Chunk]:
        rows = self.stage.run(
            f"SELECT {minutes_of('range_start')}, {minutes_of('range_end')}, status = 'dropped' FROM"
            " lakets._chunk_metadata WHERE chronotable_id = %s AND range_start < '2025-06-01' ORDER BY 1",
            self.table_id,
        )
        return [Chunk(*row) for row in rows]

    def _place(self, at: float) -> float | None:
        """Return the start of the chunk that takes a row in, or None: it is kept outside every chunk."""
        return next((c.start for c in self.chunks if c.start <= at < c.end and not c.is_dropped), None)

    def _touch(self, *times: float) -> None:
        for pending in self.unabsorbed.values():
            pending.update(time for time in times if math.isfinite(time))

    def _put(self, number: int, at: float, value: int) -> None:
        self.rows[number] = {"at": at, "value": value, "chunk": self._place(at)}
        self._touch(at)

    # Writes

    def _literals(self, rows: list[tuple[float, int]]) -> tuple[list[int], str]:
        numbers = [next(self.ids) for _ in rows]
        return numbers, ", ".join(
            f"({number}, {instant(at)}, {value})" for number, (at, value) in zip(numbers, rows, strict=True)
        )

    @rule(rows=some_rows)
    def insert(self, rows: list[tuple[float, int]]) -> None:
        numbers, literals = self._literals(rows)
        self.stage.run(f"INSERT INTO {self.name} VALUES {literals}")
        for number, (at, value) in zip(numbers, rows, strict=True):
            self._put(number, at, value)

    @rule(rows=some_rows)
    def copy(self, rows: list[tuple[float, int]]) -> None:
        numbers = [next(self.ids) for _ in rows]
        times = self.stage.column(" UNION ALL ".join(f"SELECT ({instant(at)})::text" for at, _ in rows))
        with self.stage.conn.cursor().copy(f"COPY {self.name} FROM STDIN".encode()) as copy:
            for number, at, (_, value) in zip(numbers, times, rows, strict=True):
                copy.write_row((number, at, value))
        for number, (at, value) in zip(numbers, rows, strict=True):
            self._put(number, at, value)

    @rule(rows=some_rows, moved_to=minutes)
    def write_and_roll_back(self, rows: list[tuple[float, int]], moved_to: float) -> None:
        _, literals = self._literals(rows)
        self.stage.run("BEGIN")
        self.stage.run(f"INSERT INTO {self.name} VALUES {literals}")
        self.stage.run(f"UPDATE {self.name} SET at = {instant(moved_to)}")
        self.stage.run("ROLLBACK")

    @rule(divisor=st.integers(1, 5), value=values)
    def set_values(self, divisor: int, value: int) -> None:
        self.stage.run(f"UPDATE {self.name} SET value = {value} WHERE id % {divisor} = 0")
        for number, row in self.rows.items():
            if number % divisor == 0:
                row["value"] = value
                self._touch(row["at"])

    @rule(divisor=st.integers(2, 6), at=minutes)
    def gather(self, divisor: int, at: float) -> None:
        """Move rows, across buckets and chunks, to one time."""
        self.stage.run(f"UPDATE {self.name} SET at = {instant(at)} WHERE id % {divisor} = 1")
        for number, row in list(self.rows.items()):
            if number % divisor == 1:
                self._touch(row["at"])
                # A row that was outside and would be put into a chunk is moved there by the update.
                self._put(number, at, row["value"])

    @rule(hours=st.integers(-72, 72), divisor=st.integers(1, 4))
    def shift(self, hours: int, divisor: int) -> None:
        """Move rows by the same length, so that each lands elsewhere."""
        self.stage.run(
            f"UPDATE {self.name} SET at = at + interval '{hours} hours'"
            f" WHERE id % {divisor} = 0 AND isfinite(at)"
        )
        for number, row in list(self.rows.items()):
            if number % divisor == 0 and math.isfinite(row["at"]):
                self._touch(row["at"])
                self._put(number, row["at"] + hours * HOUR, row["value"])

    @rule(divisor=st.integers(2, 5), rest=st.integers(0, 4))
    def delete(self, divisor: int, rest: int) -> None:
        self.stage.run(f"DELETE FROM {self.name} WHERE id % {divisor} = {rest}")
        for number in [number for number in self.rows if number % divisor == rest]:
            self._touch(self.rows.pop(number)["at"])

    @rule(dice=st.integers(0, 3))
    def truncate(self, dice: int) -> None:
        if dice == 0:
            self.stage.run(f"TRUNCATE {self.name}")
            self.rows.clear()
            self.all_changed.update(KINDS)

    # Jobs

    @rule(kind=st.sampled_from(list(KINDS)))
    def refresh(self, kind: str) -> None:
        assert self.stage.refresh(self.rollups[kind])
        self._expect(kind)

    @rule()
    def refresh_daily(self) -> None:
        assert self.stage.refresh(self.rollups["daily"])
        self._expect_daily()

    @rule()
    def cascade(self) -> None:
        done = self.stage.cascade(self.rollups["daily"])
        assert set(done.values()) == {True}
        self._expect("hourly")
        self._expect_daily()

    def _expect(self, kind: str) -> None:
        """Let a RollUp be its query afresh, but for buckets with a dropped chunk, which keep their value."""
        definition, old = KINDS[kind], self.expected[kind]
        fresh = summed(list(self.rows.values()), definition)
        self.expected[kind] = {
            bucket: value
            for bucket in fresh.keys() | old.keys()
            if (value := (old if self._is_frozen(bucket, definition.length) else fresh).get(bucket))
        }
        self.unabsorbed[kind].clear()
        self.all_changed.discard(kind)
        if self.expected[kind]:
            self.had_rows.add(kind)

    def _expect_daily(self) -> None:
        found = defaultdict(list)
        for bucket, sums in self.expected["hourly"].items():
            found[bucket // DAY * DAY].append(sums)
        self.expected["daily"] = {
            day: (sum(s[0] for s in v), sum(s[1] for s in v), max(s[2] for s in v))
            for day, v in found.items()
        }

    def _is_frozen(self, bucket: float, length: int) -> bool:
        return any(c.is_dropped and c.start < bucket + length and c.end > bucket for c in self.chunks)

    @rule(kind=st.sampled_from(list(KINDS)), first=st.integers(0, 8), days=st.integers(1, 4))
    def invalidate(self, kind: str, first: int, days: int) -> None:
        if kind not in self.had_rows:
            return  # its grid is not known yet: then everything is loaded anew
        start, end = first * DAY, (first + days) * DAY
        self.stage.run(
            f"SELECT lakets.invalidate_rollup_range(%s, {instant(start)}, {instant(end)})", self.rollups[kind]
        )
        definition = KINDS[kind]
        bucket = (start - definition.origin) // definition.length * definition.length + definition.origin
        for marked in range(bucket, end, definition.length):
            if not self._is_frozen(marked, definition.length):
                # Every time of the bucket counts as changed.
                self.unabsorbed[kind].update(range(marked, marked + definition.length, HOUR))

    @rule(kind=st.sampled_from(list(KINDS)))
    def forget_what_was_absorbed(self, kind: str) -> None:
        self.stage.run(
            "UPDATE lakets._rollup_registry SET absorbed = NULL WHERE name = %s", self.rollups[kind]
        )
        self.all_changed.add(kind)

    @rule(most=st.integers(1, 2))
    def retain(self, most: int) -> None:
        gone = [
            chunk
            for chunk in self.chunks
            if not chunk.is_dropped
            and not self.all_changed
            and not any(
                chunk.start <= at < chunk.end for pending in self.unabsorbed.values() for at in pending
            )
        ][:most]

        dropped = self.stage.value("SELECT lakets.execute_retention(%s, p_max_chunks => %s)", self.name, most)

        assert dropped == len(gone)
        self.chunks = [chunk._replace(is_dropped=chunk.is_dropped or chunk in gone) for chunk in self.chunks]
        starts = {chunk.start for chunk in gone}
        self.rows = {number: row for number, row in self.rows.items() if row["chunk"] not in starts}
        assert self._read_chunks() == self.chunks

    @rule(first=st.integers(0, 8), days=st.integers(1, 3))
    def ensure(self, first: int, days: int) -> None:
        self.stage.run(
            "SELECT lakets._ensure_partitions("
            f"%s, 1, 1, {instant(first * DAY)}, {instant((first + days) * DAY)})",
            self.table_id,
        )
        self.chunks = self._read_chunks()
        for row in self.rows.values():
            if row["chunk"] is None:
                row["chunk"] = self._place(row["at"])

    @rule(interval=st.sampled_from(["1 day", "6 hours", "2 days"]))
    def set_interval(self, interval: str) -> None:
        self.stage.run("SELECT lakets.set_chunk_interval(%s, %s)", self.name, interval)

    # Checks

    def teardown(self) -> None:
        """Once writers have stopped, one refresh of each makes all right."""
        for kind in KINDS:
            self.refresh(kind)
        self.refresh_daily()
        self.holds_what_the_model_holds()

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        kept = self.stage.run(f"SELECT id, {minutes_of('at')}, value FROM {self.name}")
        assert {number: (repr(math.nan if at is None else at), value) for number, at, value in kept} == {
            number: (repr(row["at"]), row["value"]) for number, row in self.rows.items()
        }
        for kind in self.rollups:
            held = self.stage.run(f"SELECT {minutes_of('bucket')}, total, n, top FROM {self._kept(kind)}")
            assert {bucket: (total, n, top) for bucket, total, n, top in held} == self.expected[kind], kind
            assert len(held) == len(self.expected[kind]), kind


@pytest.fixture
def machine(stage: Stage) -> type[RollUps]:
    return type("Machine", (RollUps,), {"stage": stage})


def run(machine: type[RollUps], *, examples: int, steps: int, **options: Any) -> None:
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


def test_rollups_hold_what_the_model_holds(machine: type[RollUps]) -> None:
    run(machine, examples=15, steps=30, derandomize=True)


@pytest.mark.slow
def test_rollups_hold_what_the_model_holds_over_ten_thousand_steps(machine: type[RollUps]) -> None:
    run(machine, examples=125, steps=80)
