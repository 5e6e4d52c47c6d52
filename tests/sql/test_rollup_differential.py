"""Random definitions, changes and drops: each is refused, or equals its query on a full copy."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.shapes import UPPER_BUCKETS, any_definition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres
    from tests.shapes import Definition

# Next to where clocks are set, months begin, and days begin in some zone.
EDGES = [
    "2024-03-10 10:00",
    "2024-03-31 01:00",
    "2024-04-06 15:00",
    "2024-04-25 22:00",
    "2024-03-01 00:00",
    "2024-03-31 14:00",
    "2024-04-01 00:00",
    "2024-04-30 18:15",
]
SATURDAYS = ["2024-02-24 00:00+00", "2024-03-02 00:00+00", "2024-03-09 00:00+00"]
_numbers = itertools.count()


class Pair:
    """A ChronoTable with a RollUp, and a full copy of its rows from which no chunk is dropped."""

    def __init__(self, conn: psycopg.Connection, dice: random.Random, definition: Definition) -> None:
        self.conn = conn
        self.dice = dice
        self.definition = definition
        number = next(_numbers)
        self.table, self.copy, self.name = f"m{number}", f"full_m{number}", f"r{number}"
        self.has_above = True
        self.kept: dict[str, list[str]] = {}  # by bucket, what stays for good
        self.dropped = "1970-01-01 00:00+00"

    def run(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = self.conn.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def both(self, statement: str) -> None:
        """Make a change in the table and in its copy."""
        self.run(statement.format(self.table))
        self.run(statement.format(self.copy))

    def instant(self) -> str:
        """Return a time that is resident, often at an edge."""
        edge = self.dice.choice(EDGES)
        minutes = self.dice.choice(
            [0, 0, -1, 1, 29, 30, 61, self.dice.randrange(-90, 90), self.dice.randrange(-9000, 9000)]
        )
        return f"greatest('{edge}+00'::timestamptz + interval '{minutes} min', '{self.dropped}')"

    def insert(self, count: int) -> None:
        rows = [
            f"({self.dice.randrange(1, 5)}, {self.instant()}, {self.dice.randrange(100)})"
            for _ in range(count)
        ]
        self.both("INSERT INTO {} VALUES " + ", ".join(rows))

    def change(self) -> None:
        for _ in range(self.dice.randrange(1, 4)):
            chosen = f"value % 7 = {self.dice.randrange(7)} AND at >= '{self.dropped}'"
            match self.dice.randrange(4):
                case 0:
                    self.insert(self.dice.randrange(1, 4))
                case 1:
                    self.both(f"UPDATE {{}} SET value = (value + 13) % 100 WHERE {chosen}")
                case 2:
                    some = f"{chosen} AND id = {self.dice.randrange(1, 5)}"
                    self.both(f"UPDATE {{}} SET at = {self.instant()} WHERE {some}")
                case 3:
                    start = self.instant()
                    self.both(f"DELETE FROM {{}} WHERE at BETWEEN {start} AND {start} + interval '3 hours'")

    def rows(self, query: str, bucket: str) -> dict[str, list[str]]:
        """Return a query's rows by bucket, as multisets."""
        found: dict[str, list[str]] = {}
        for label, row in self.run(
            f'SELECT "{bucket}"::text, to_jsonb(q)::text FROM ({query}) AS q ORDER BY 2'
        ):
            found.setdefault(label, []).append(row)
        return found

    @property
    def bucket(self) -> str:
        return str(
            self.run("SELECT bucket_column FROM lakets._rollup_registry WHERE name = %s", self.name)[0][0]
        )

    def expected(self) -> dict[str, list[str]]:
        fresh = self.rows(self.definition.over(self.copy), self.bucket)
        bucket = self.definition.bucket.replace("{t}", f"t::{self.definition.type}")
        frozen = {
            row[0]
            for row in self.run(
                f"SELECT DISTINCT ({bucket})::text FROM"
                " generate_series('2024-02-01'::timestamptz,"
                f" '{self.dropped}'::timestamptz - interval '1 us', '15 min') AS t"
            )
        }
        resident = {label: rows for label, rows in fresh.items() if label not in frozen}
        return resident | {label: rows for label, rows in self.kept.items() if label in frozen}

    def drop_chunks(self) -> None:
        """Drop the chunks of February and some of March, all absorbed."""
        self.kept = self.expected()
        self.dropped = self.dice.choice(SATURDAYS)  # where chunks begin
        self.run(
            "UPDATE lakets._chunk_metadata SET status = 'tiered' WHERE chunk_name LIKE %s AND range_end > %s",
            f"public.{self.table}\\_%",
            self.dropped,
        )
        self.run("SELECT lakets.drop_chunks(%s, '1 day')", self.table)
        self.run("UPDATE lakets._chunk_metadata SET status = 'active' WHERE status = 'tiered'")

    def create(self) -> bool:
        """Create the table and the RollUp; return whether the RollUp was accepted."""
        self.run(f"CREATE TABLE {self.table} (id integer, at {self.definition.type}, value integer)")
        self.run(f"CREATE TABLE {self.copy} (LIKE {self.table})")
        self.run(
            "SELECT lakets._ensure_partitions(lakets.create_chronotable(%s, 'at', '7 days'), 1, 1,"
            " '2024-02-18', '2024-05-12')",
            self.table,
        )
        starts_empty = self.dice.random() < 0.3
        if not starts_empty:
            self.insert(self.dice.randrange(1, 60))
        query = self.definition.over(self.table)
        try:
            self.run(
                "SELECT lakets.create_rollup(%s, %s, %s::interval)", self.name, query, self.definition.width
            )
        except psycopg.errors.RaiseException:
            return False
        if starts_empty:
            self.insert(40)
        self.run("SELECT lakets.create_rollup_view(%s, %s)", self.name, query)
        above = (f"{self.name}_above", self.above, self.definition.above.width)
        try:
            self.run("SELECT lakets.create_rollup(%s, %s, %s::interval)", *above)
        except psycopg.errors.RaiseException:
            assert self.definition.above != UPPER_BUCKETS[0], self.definition
            self.has_above = False
        return True

    @property
    def above(self) -> str:
        expression = self.definition.above.expression.replace("{b}", f'"{self.bucket}"')
        return f"SELECT {expression} AS above, count(*) AS n FROM _rollup_{self.name} GROUP BY 1"

    def check(self) -> None:
        self.run("SELECT lakets.refresh_rollup(%s, true)", self.name)
        found = self.rows(f"TABLE _rollup_{self.name}", self.bucket)
        assert found == self.expected(), self.definition
        if not self.has_above:
            return
        self.run("SELECT lakets.refresh_rollup(%s, true)", f"{self.name}_above")
        kept = f"SELECT * FROM _rollup_{self.name}_above"
        assert self.run(f"{kept} ORDER BY 1") == self.run(f"{self.above} ORDER BY 1"), self.definition

    def check_view(self) -> None:
        """Above the watermark the view is the query over the table."""
        above = f'"{self.bucket}" > (SELECT max("{self.bucket}") FROM _rollup_{self.name})'
        seen = self.rows(f"SELECT * FROM _rollup_rt_{self.name} WHERE {above}", self.bucket)
        live = self.rows(f"SELECT * FROM ({self.definition.over(self.copy)}) AS q WHERE {above}", self.bucket)
        assert seen == live, self.definition

    def forget(self) -> None:
        self.run("SELECT lakets.drop_chronotable(%s)", self.table)
        self.run(f"DROP TABLE IF EXISTS {self.table}, {self.copy}")


def play(conn: psycopg.Connection, seed: int, of_type: str, above: int) -> None:
    dice = random.Random(seed)
    definition = any_definition(dice, of_type, above)
    pair = Pair(conn, dice, definition)
    is_accepted = pair.create()
    assert is_accepted or not definition.is_sound, definition
    if is_accepted:
        for turn in range(4):
            pair.check()
            if turn == 2:
                pair.drop_chunks()
            pair.change()
            pair.check_view()
        pair.check()
    pair.forget()


class Playground:
    """A database for pairs, one after the other."""

    PAIRS = 40  # of a session: what it keeps of tables that are gone makes it slower with each

    def __init__(self, database: str) -> None:
        self.database = database
        self._conn: psycopg.Connection | None = None
        self._played = 0

    def session(self) -> psycopg.Connection:
        """Return a session for one more pair."""
        if self._conn is None or self._played == self.PAIRS:
            self.close()
            self._conn = psycopg.connect(self.database, autocommit=True)
            self._conn.execute("SET timezone = 'UTC'; SET client_min_messages = error")
        self._played += 1
        return self._conn

    def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
        self._conn, self._played = None, 0


@pytest.fixture(scope="module")
def playground(postgres: EmbeddedPostgres, template: str) -> Iterator[Playground]:
    name = "rollup_playground"
    playground = Playground(postgres.ensure_database(name, template=template))
    playground.session().execute(
        "CREATE TABLE device AS SELECT n AS id, 'd' || n % 3 AS name FROM generate_series(1, 4) AS n"
    )
    yield playground
    playground.close()
    postgres.drop_database(name)


SEEDS = st.integers(min_value=0, max_value=2**32)
TYPES = st.sampled_from(["timestamptz", "timestamp"])
ABOVE = st.integers(min_value=0, max_value=len(UPPER_BUCKETS) - 1)
# A smaller seed is not a simpler example.
PHASES = (Phase.explicit, Phase.generate)


@given(seed=SEEDS, of_type=TYPES, above=ABOVE)
# Hours where a clock is set back by half an hour.
@example(seed=50133, of_type="timestamptz", above=0)
# The month of a week that ends in another month, and the chunks before are gone.
@example(seed=699, of_type="timestamptz", above=0)
@settings(max_examples=12, deadline=None, derandomize=True, phases=PHASES, database=None)
def test_definition_is_refused_or_right(playground: Playground, seed: int, of_type: str, above: int) -> None:
    play(playground.session(), seed, of_type, above)


@pytest.mark.slow
@given(seed=SEEDS, of_type=TYPES, above=ABOVE)
@settings(
    max_examples=5000, deadline=None, phases=PHASES, database=None, suppress_health_check=list(HealthCheck)
)
def test_thousands_of_definitions_are_refused_or_right(
    playground: Playground, seed: int, of_type: str, above: int
) -> None:
    play(playground.session(), seed, of_type, above)
