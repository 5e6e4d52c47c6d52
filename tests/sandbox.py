"""A database for tests that need one session only, and that are undone."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    Rows = list[tuple[Any, ...]]


class Sandbox:
    """
    One session in a transaction that is rolled back: its roles and tables leave no trace.

    :param conn: The session.
    :param schema: Where tables are looked for.
    """

    def __init__(self, conn: psycopg.Connection, schema: str = "public") -> None:
        self.conn = conn
        self.schema = schema

    def run(self, query: str, *parameters: Any) -> Rows:
        cursor = self.conn.execute(query.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, query: str, *parameters: Any) -> Any:
        rows = self.run(query, *parameters)
        return rows[0][0] if rows else None

    def column(self, query: str, *parameters: Any) -> list[Any]:
        return [row[0] for row in self.run(query, *parameters)]

    @contextlib.contextmanager
    def refused(self, condition: str, match: str | None = None) -> Iterator[None]:
        """Expect the block to fail with this Postgres condition, and undo what it did."""
        with pytest.raises(psycopg.errors.lookup(condition), match=match), self.conn.transaction():
            yield

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """Undo what the block does."""
        with self.conn.transaction(force_rollback=True):
            yield

    def chronotable(
        self,
        columns: str = "ts timestamptz, device text, value float8",
        *,
        name: str = "metrics",
        interval: str = "1 day",
        schema: str | None = None,
        synced: bool = False,
    ) -> int:
        """Create a ChronoTable on its column ts; return its id."""
        schema = schema or self.schema
        self.run(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        self.run(f'CREATE TABLE "{schema}"."{name}" ({columns})')
        table_id = self.value(
            "SELECT lakets.create_chronotable(%s, 'ts', %s::interval, %s)", name, interval, schema
        )
        if synced:
            self.run("SELECT lakets.enable_sync(%s, %s)", name, schema)
        return int(table_id)

    def sync(self, name: str = "metrics") -> None:
        """Mirror a ChronoTable, or see that its mirror is right."""
        self.run("SELECT lakets.enable_sync(%s, %s)", name, self.schema)

    def shadow(self, name: str = "metrics", schema: str | None = None) -> str:
        """Return the name of a ChronoTable's shadow, quoted."""
        return str(
            self.value(
                "SELECT format('lakets_cdf.%%I', shadow_table_name) FROM lakets._chronotable_registry"
                " WHERE table_name = %s AND schema_name = %s",
                name,
                schema or self.schema,
            )
        )

    def mirror_difference(self, name: str = "metrics", schema: str | None = None) -> Rows:
        """Return how a shadow differs from its table: rows as text, and how often each has them."""
        schema = schema or self.schema
        columns = self.value(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
            " WHERE attrelid = format('%%I.%%I', %s::text, %s::text)::regclass AND attnum > 0"
            " AND NOT attisdropped AND attgenerated <> 'v'",
            schema,
            name,
        )
        relation = f'"{schema}"."{name}"'
        held = f"SELECT ROW({columns})::text AS image, count(*) AS copies FROM {{}} GROUP BY 1"
        return self.run(
            "SELECT coalesce(t.image, s.image), t.copies, s.copies"
            f" FROM ({held.format(relation)}) AS t"
            f" FULL JOIN ({held.format(self.shadow(name, schema))}) AS s USING (image)"
            " WHERE t.copies IS DISTINCT FROM s.copies"
        )
