"""Databases in the state in which tests begin: created once, then copied."""

from __future__ import annotations

import itertools
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql

if TYPE_CHECKING:
    import psycopg

_numbers = itertools.count()


def _today() -> date:
    return datetime.now(timezone.utc).date()


class Copy(NamedTuple):
    """The database that is copied, and the oid of the one that it is a copy of."""

    name: str
    oid: int


class Copies:
    """
    Keeps copies of databases by what was done to them. To copy costs a fifth of doing it again.

    They are kept for a day of UTC: rows and chunks count from today.

    :param admin: A session of the server's administrator, in another database.
    """

    def __init__(self, admin: psycopg.Connection) -> None:
        self._admin = admin
        self._kept: dict[tuple[date, tuple[str, ...]], Copy] = {}

    def keep(self, database: str, acts: tuple[str, ...]) -> None:
        """Keep a copy of a database without sessions."""
        name = f"kept_{next(_numbers)}"
        self._run("CREATE DATABASE {} TEMPLATE {}", name, database)
        row = self._admin.execute("SELECT oid FROM pg_database WHERE datname = %s", [database]).fetchone()
        assert row is not None
        self._kept[_today(), acts] = Copy(name, int(row[0]))

    def put(self, database: str, acts: tuple[str, ...]) -> bool:
        """Replace a database without sessions by its copy, if there is one."""
        kept = self._kept.get((_today(), acts))
        if kept is None:
            return False
        self._run("DROP DATABASE {}", database)
        # LakeTS keeps the oid of its database, and takes another one for a restored dump.
        self._run(f"CREATE DATABASE {{}} TEMPLATE {{}} OID {kept.oid}", database, kept.name)
        return True

    def close(self) -> None:
        for kept in self._kept.values():
            self._run("DROP DATABASE {}", kept.name)

    def _run(self, statement: str, *names: str) -> None:
        self._admin.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
