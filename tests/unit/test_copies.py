"""The databases in which tests begin: a copy is used only where it is as good as doing it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.copies import Copies, Copyable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

NAME = "copied"


def make(one: Copyable, table: str) -> None:
    one.conn.execute(f"CREATE TABLE {table} ()")


def tables(one: Copyable) -> set[str]:
    found = one.conn.execute("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    return {row[0] for row in found}


@pytest.fixture
def copies(postgres: EmbeddedPostgres) -> Iterator[Copies]:
    with psycopg.connect(postgres.conninfo(), autocommit=True) as admin:
        copies = Copies(admin)
        yield copies
        copies.close()


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[str]:
    yield postgres.ensure_database(NAME)
    postgres.drop_database(NAME)


@pytest.fixture
def kept(postgres: EmbeddedPostgres, database: str, copies: Copies) -> str:
    """Keep a copy with one table, of which the test sees whether it is used: it has another one."""
    first = Copyable(database, copies, "one")
    first.once(make, "asked_for")
    first.close()
    kept = next(iter(copies._kept.values())).name
    with psycopg.connect(postgres.conninfo(kept), autocommit=True) as conn:
        conn.execute("CREATE TABLE of_the_copy ()")
    postgres.drop_database(NAME)
    return postgres.ensure_database(NAME)


def test_what_was_done_before_is_copied(kept: str, copies: Copies) -> None:
    again = Copyable(kept, copies, "one")

    again.once(make, "asked_for")

    assert tables(again) == {"asked_for", "of_the_copy"}
    again.close()


@pytest.mark.parametrize(
    ("template", "table"), [("two", "asked_for"), ("one", "another")], ids=["another template", "another act"]
)
def test_what_was_not_done_before_is_done(kept: str, copies: Copies, template: str, table: str) -> None:
    other = Copyable(kept, copies, template)

    other.once(make, table)

    assert tables(other) == {table}
    other.close()


@pytest.mark.parametrize("by", ["its session", "one that has ended"])
def test_what_somebody_wrote_in_between_stays(kept: str, copies: Copies, by: str) -> None:
    again = Copyable(kept, copies, "one")
    if by == "its session":
        make(again, "in_between")
    else:
        with psycopg.connect(kept, autocommit=True) as conn:
            conn.execute("CREATE TABLE in_between ()")

    again.once(make, "asked_for")

    assert tables(again) == {"asked_for", "in_between"}
    again.close()


def test_a_database_with_another_session_is_not_replaced(kept: str, copies: Copies) -> None:
    again = Copyable(kept, copies, "one")
    with psycopg.connect(kept, autocommit=True):
        again.once(make, "asked_for")

    assert tables(again) == {"asked_for"}
    again.close()
