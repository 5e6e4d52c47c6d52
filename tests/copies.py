"""Databases in the state in which tests begin: created once, then copied."""

from __future__ import annotations

import itertools
from datetime import date, datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

if TYPE_CHECKING:
    from collections.abc import Callable

# Databases of 10 MB each, in memory.
MOST = 24

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

    They are kept for a day of UTC: rows and chunks count from today. Of those, only the copies that
    were used last are kept.

    :param admin: A session of the server's administrator, in another database.
    """

    def __init__(self, admin: psycopg.Connection) -> None:
        self._admin = admin
        self._kept: dict[tuple[date, tuple[str, ...]], Copy] = {}

    def keep(self, database: str, acts: tuple[str, ...]) -> None:
        """Keep a copy of a database without sessions."""
        name = f"kept_{next(_numbers)}"
        self._run("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, database)
        row = self._admin.execute("SELECT oid FROM pg_database WHERE datname = %s", [database]).fetchone()
        assert row is not None
        self._kept[_today(), acts] = Copy(name, int(row[0]))
        if len(self._kept) > MOST:
            oldest = next(iter(self._kept))
            self._run("DROP DATABASE {}", self._kept.pop(oldest).name)

    def put(self, database: str, acts: tuple[str, ...]) -> bool:
        """Replace a database without sessions by its copy, if there is one."""
        kept = self._kept.pop((_today(), acts), None)
        if kept is None:
            return False
        self._kept[_today(), acts] = kept  # the last that was used
        self._run("DROP DATABASE {}", database)
        # LakeTS keeps the oid of its database, and takes another one for a restored dump.
        statement = f"CREATE DATABASE {{}} TEMPLATE {{}} STRATEGY file_copy OID {kept.oid}"
        self._run(statement, database, kept.name)
        return True

    def mark(self) -> str:
        """Return a mark that changes when anybody writes to any database of the server."""
        row = self._admin.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchone()
        assert row is not None
        return str(row[0])

    def is_used(self, database: str, but: int = 0) -> bool:
        """Return whether a database has another session, or a slot that keeps its WAL."""
        found = self._admin.execute(
            "SELECT FROM pg_stat_activity WHERE datname = %(name)s AND pid <> %(but)s"
            " AND backend_type = 'client backend' UNION ALL"
            " SELECT FROM pg_replication_slots WHERE database = %(name)s",
            {"name": database, "but": but},
        )
        return found.fetchone() is not None

    def close(self) -> None:
        for kept in self._kept.values():
            self._run("DROP DATABASE {}", kept.name)

    def _run(self, statement: str, *names: str) -> None:
        self._admin.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


class Copyable:
    """
    One database, and a session in it that is opened when it is needed.

    What tests begin with is done once, and then copied.

    :param conninfo: The database.
    :param copies: Where copies are kept; without it nothing is copied.
    :param made: What the database was made from: the name of its template.
    """

    def __init__(self, conninfo: str, copies: Copies | None = None, *made: str) -> None:
        self.conninfo = conninfo
        self.made = made
        self._copies = copies
        self._session: psycopg.Connection | None = None
        # What was done to a fresh database, as long as no test did anything else to it.
        self._acts: tuple[str, ...] | None = made if copies else None
        self._mark = copies.mark() if copies else ""

    def _open(self) -> psycopg.Connection:
        if self._session is None:
            self._session = psycopg.connect(self.conninfo, autocommit=True)
        return self._session

    @property
    def conn(self) -> psycopg.Connection:
        """The session. After it is used, the content of the database is unknown."""
        self._acts = None
        return self._open()

    def once(self, act: Callable[..., object], *arguments: Any, **named: Any) -> None:
        """
        Do what tests begin with: ``act(self, ...)``, a function of a module or a class.

        As long as nothing else is done to the database, a copy of one to which the same was done
        before is as good. Not where somebody else is or was in it, or a slot keeps its WAL.
        """
        made, self._acts = self._acts, None
        if self._copies is None or made is None or not self._is_untouched(self._copies):
            act(self, *arguments, **named)
            return
        acts = (*made, f"{act.__module__}.{act.__qualname__}{arguments}{sorted(named.items())}")
        assert "<locals>" not in acts[-1], "what a local function does is not known by its name"
        name = str(conninfo_to_dict(self.conninfo)["dbname"])
        self._leave()
        if not self._copies.put(name, acts):
            act(self, *arguments, **named)
            self._leave()
            self._copies.keep(name, acts)
        # Postgres has statistics by oid. If nobody was in the database since it got an oid that was
        # used before, Postgres may fail to drop it.
        self._open()
        self._acts, self._mark = acts, self._copies.mark()

    def is_fresh(self) -> bool:
        """Return whether nothing was done to the database since it was made."""
        copies = self._copies
        return copies is not None and self._acts == self.made and self._is_untouched(copies)

    def _is_untouched(self, copies: Copies) -> bool:
        name = str(conninfo_to_dict(self.conninfo)["dbname"])
        own = self._session.info.backend_pid if self._session else 0
        return copies.mark() == self._mark and not copies.is_used(name, own)

    def close(self) -> None:
        self._leave()

    def _leave(self) -> None:
        """Close the session, if there is one."""
        if self._session is not None:
            self._session.close()
            self._session = None
