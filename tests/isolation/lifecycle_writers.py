"""The writers of the lifecycle model: what they do to the table, and what the model knows of it."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tests.isolation.lifecycle import DAY, HOUR, START, Model, Row, Touched, Writer

if TYPE_CHECKING:
    from tests.isolation.conftest import Session
    from tests.stage import Stage

WRITERS = 3  # a row belongs to one of them by its number, so that they never wait for each other's rows

_tables = itertools.count()

finite = st.builds(
    lambda day, hour, minute: float(day * DAY + hour * HOUR + minute),
    st.integers(0, 8),
    st.sampled_from([0, 0, 5, 12, 23]),  # where buckets and chunks meet
    st.sampled_from([0, 0, 30, 59]),
)
minutes = st.one_of(finite, finite, st.sampled_from([math.inf, -math.inf, math.nan]))  # nan stands for null
values = st.integers(-5, 5)
some_rows = st.lists(st.tuples(minutes, values), min_size=1, max_size=5)
writers = st.integers(0, WRITERS - 1)
divisors = st.integers(1, 5)


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


class Writing(RuleBasedStateMachine):
    """A table, and three writers that keep transactions open."""

    stage: Stage
    sessions: list[Session]

    def __init__(self) -> None:
        super().__init__()
        self.name = f"metrics_{next(_tables)}"
        self.model = Model()
        self.writers = [Writer() for _ in range(WRITERS)]
        self.numbers = [itertools.count(WRITERS + n, WRITERS) for n in range(WRITERS)]
        self.touched: dict[int, Touched] = {}
        self.is_keyed = False

    @rule(number=writers)
    def begin(self, number: int) -> None:
        if not self.writers[number].is_open:
            self.sessions[number].begin()
            self.writers[number].is_open = True

    @rule(number=writers)
    def commit(self, number: int) -> None:
        writer, session = self.writers[number], self.sessions[number]
        if writer.is_open:
            if writer.times:
                xid = session.xid
                session.commit()
                self.touched[xid] = self.model.commit(writer)
            else:
                session.commit()
            self.writers[number] = Writer()

    @rule(number=writers)
    def roll_back(self, number: int) -> None:
        if self.writers[number].is_open:
            self.sessions[number].rollback()
            self.writers[number] = Writer()

    @rule(number=writers, at=finite, divisor=divisors)
    def try_and_undo(self, number: int, at: float, divisor: int) -> None:
        """Write in a subtransaction that is rolled back."""
        if self.writers[number].is_open:
            session = self.sessions[number]
            session.run("SAVEPOINT tried")
            session.run(f"UPDATE {self.name} SET at = {instant(at)} WHERE {self._chosen(number, divisor)}")
            session.run("ROLLBACK TO tried")

    def _chosen(self, number: int, divisor: int, rest: int = 0) -> str:
        return f"id % {WRITERS} = {number} AND id / {WRITERS} % {divisor} = {rest}"

    def _write(self, number: int, statement: str, changed: dict[int, Row | None]) -> None:
        """Write in the open transaction, or in one of its own."""
        is_open = self.writers[number].is_open
        self.begin(number)
        self.sessions[number].run(statement)
        self._note(number, changed)
        if not is_open:
            self.commit(number)

    def _note(self, number: int, changed: dict[int, Row | None]) -> None:
        writer, before = self.writers[number], self._own(number)
        for one, row in changed.items():
            writer.times |= {seen.at for seen in (before.get(one), row) if seen is not None}
            writer.rows[one] = row

    def _own(self, number: int) -> dict[int, Row]:
        """Return a writer's rows as it sees them."""
        rows = {one: row for one, row in self.model.rows.items() if one % WRITERS == number}
        for one, row in self.writers[number].rows.items():
            if row is None:
                rows.pop(one, None)
            else:
                rows[one] = row
        return rows

    def _own_chosen(self, number: int, divisor: int, rest: int = 0) -> dict[int, Row]:
        return {
            one: row for one, row in self._own(number).items() if one // WRITERS % divisor == rest % divisor
        }

    def _new(self, number: int, rows: list[tuple[float, int]]) -> dict[int, Row | None]:
        fit = [(at, value) for at, value in rows if not (self.is_keyed and math.isnan(at))]
        return {next(self.numbers[number]): Row(at, value, self.model.place(at)) for at, value in fit}

    @rule(number=writers, rows=some_rows)
    def insert(self, number: int, rows: list[tuple[float, int]]) -> None:
        new = self._new(number, rows)
        literals = ", ".join(f"({one}, {instant(row.at)}, {row.value})" for one, row in new.items() if row)
        if literals:
            self._write(number, f"INSERT INTO {self.name} VALUES {literals}", new)

    @rule(number=writers, rows=some_rows)
    def copy(self, number: int, rows: list[tuple[float, int]]) -> None:
        new = self._new(number, rows)
        is_open = self.writers[number].is_open
        self.begin(number)
        with self.sessions[number].conn.cursor().copy(f"COPY {self.name} FROM STDIN".encode()) as copy:
            for one, row in new.items():
                at = self.stage.value(f"SELECT ({instant(row.at)})::text") if row else None
                copy.write_row((one, at, row.value if row else None))
        self._note(number, new)
        if not is_open:
            self.commit(number)

    @rule(number=writers, divisor=divisors, value=values)
    def set_values(self, number: int, divisor: int, value: int) -> None:
        self._write(
            number,
            f"UPDATE {self.name} SET value = {value} WHERE {self._chosen(number, divisor)}",
            {one: row._replace(value=value) for one, row in self._own_chosen(number, divisor).items()},
        )

    @rule(number=writers, divisor=divisors, at=minutes)
    def gather(self, number: int, divisor: int, at: float) -> None:
        """Move rows, across buckets and chunks, to one time."""
        if self.is_keyed and math.isnan(at):
            return
        # A row that was outside and would be put into a chunk is moved there by the update.
        place = self.model.place(at)
        self._write(
            number,
            f"UPDATE {self.name} SET at = {instant(at)} WHERE {self._chosen(number, divisor)}",
            {one: Row(at, row.value, place) for one, row in self._own_chosen(number, divisor).items()},
        )

    @rule(number=writers, divisor=divisors, hours=st.integers(-72, 72))
    def shift(self, number: int, divisor: int, hours: int) -> None:
        """Move rows by the same length, so that each lands elsewhere."""
        self._write(
            number,
            f"UPDATE {self.name} SET at = at + interval '{hours} hours'"
            f" WHERE {self._chosen(number, divisor)} AND isfinite(at)",
            {
                one: Row(at, row.value, self.model.place(at))
                for one, row in self._own_chosen(number, divisor).items()
                if math.isfinite(at := row.at + hours * HOUR)
            },
        )

    @rule(number=writers, divisor=st.integers(2, 5), rest=st.integers(0, 4))
    def delete(self, number: int, divisor: int, rest: int) -> None:
        rest %= divisor
        self._write(
            number,
            f"DELETE FROM {self.name} WHERE {self._chosen(number, divisor, rest)}",
            dict.fromkeys(self._own_chosen(number, divisor, rest)),
        )
