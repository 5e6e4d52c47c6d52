"""Databases in the state in which tests begin: created once, then copied."""

from __future__ import annotations

import itertools
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Callable

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


class Copyable:
    """
    One database and a session in it; what tests begin with is done once, and then copied.

    :param conninfo: The database.
    :param copies: Where copies are kept; none are without.
    :param made: What the database was made from, if not always from the same.
    """

    def __init__(self, conninfo: str, copies: Copies | None = None, *made: str) -> None:
        self.conninfo = conninfo
        self._copies = copies
        # What was done to a fresh database, as long as no test did anything else to it.
        self._acts: tuple[str, ...] | None = made if copies else None
        self._connect()

    def _connect(self) -> None:
        self._conn = psycopg.connect(self.conninfo, autocommit=True)

    @property
    def conn(self) -> psycopg.Connection:
        """The session. After it is used, the content of the database is unknown."""
        self._acts = None
        return self._conn

    def once(self, act: Callable[..., object], *arguments: Any, **named: Any) -> None:
        """
        Do what tests begin with: ``act(self, ...)``, a function of a module or a class.

        As long as nothing else is done to the database, a copy of one to which the same was done
        before is as good. Not where somebody else is in it, or a slot keeps its WAL.
        """
        made, self._acts = self._acts, None
        if self._copies is None or made is None or self._is_shared():
            act(self, *arguments, **named)
            return
        acts = (*made, f"{act.__module__}.{act.__qualname__}{arguments}{sorted(named.items())}")
        assert "<locals>" not in acts[-1], "what a local function does is not known by its name"
        name = self._conn.info.dbname
        self._conn.close()
        there = self._copies.put(name, acts)
        if not there:
            self._connect()
            act(self, *arguments, **named)
            self._conn.close()
            self._copies.keep(name, acts)
        self._connect()
        self._acts = acts

    def _is_shared(self) -> bool:
        found = self._conn.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend' UNION ALL"
            " SELECT FROM pg_replication_slots WHERE database = current_database()"
        )
        return found.fetchone() is not None
