"""Call LakeTS functions: reuse sessions, repeat calls where that helps, and explain errors."""

from __future__ import annotations

import contextlib
import os
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.string import TextLoader
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from airflow_provider_lakets.hooks._errors import is_transient, translate
from airflow_provider_lakets.hooks._session import NearestTimeLoader, Sessions
from airflow_provider_lakets.hooks.lakebase import LakebaseHook
from airflow_provider_lakets.login.settings import CALLS, PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from typing_extensions import Self

T = TypeVar("T")
Row = dict[str, Any]

# The limit of the LakeTS functions that take locks; statements that only read use it, too.
LOCK_TIMEOUT = "2s"


class LakeTSCalls(LakebaseHook):
    """
    Base of LakeTSHook: sessions, calls, retries, errors.

    Every call is a separate transaction. After a lost connection, a lock timeout, a deadlock or a
    serialisation conflict, a call is repeated immediately, but only a few times; longer waits are
    left to Airflow's retries. Repeating is safe because every LakeTS job can run twice.

    :param tries: The largest number of times that a call is made.
    :param lock_timeout: The longest time that a statement waits for a lock; the default is 2 s.
    """

    _login_defaults = CALLS

    def __init__(
        self,
        *args: Any,
        tries: int = 4,
        lock_timeout: timedelta | str | None = LOCK_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, lock_timeout=lock_timeout, **kwargs)
        self._settings = f"{self._settings} {PLAIN}"
        self._tries = tries
        self._sessions = Sessions(self._open_session)
        self._arguments: dict[str, set[str]] | None = None

    @contextlib.contextmanager
    def session(self) -> Iterator[Self]:
        """Log in once for all calls inside the block; each call still commits separately."""
        with self._sessions.keep():
            yield self

    def borrow_session(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """Lend an open session to a ``with`` block; open one if none is free."""
        return self._sessions.borrow()

    def cancel(self) -> None:
        """Cancel the running statements and start no more; safe in threads and signal handlers."""
        self._sessions.stop()
        super().cancel()

    def _open_session(self) -> psycopg.Connection[Any]:
        conn = self.get_conn()
        conn.autocommit = True
        if os.environ.get("PGDATESTYLE"):  # libpq sends it after `options`, so that it wins over PLAIN
            conn.execute("SET datestyle = ISO")
        # psycopg would convert an interval to a timedelta, in which a month is 30 days.
        conn.adapters.register_loader("interval", TextLoader)
        conn.adapters.register_loader("timestamptz", NearestTimeLoader)
        return conn

    def call(self, function: str, *, repeatable: bool = True, **arguments: Any) -> list[Row]:
        """
        Call a function of LakeTS with every argument by name and return its rows.

        :param function: The name of the function in schema ``lakets``.
        :param repeatable: Whether repeating the call is safe.
        :param arguments: Its arguments; pass only those that the oldest supported LakeTS accepts.
        """
        named = sql.SQL(", ").join(
            sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in arguments
        )
        query = sql.SQL("SELECT * FROM lakets.{}({})").format(sql.Identifier(function), named)
        shown = ", ".join(f"{name} => {_brief(value)}" for name, value in arguments.items())
        return self.query(query, arguments, doing=f"lakets.{function}({shown})", repeatable=repeatable)

    def call_value(self, function: str, *, repeatable: bool = True, **arguments: Any) -> Any:
        """Call a function that returns one value."""
        (row,) = self.call(function, repeatable=repeatable, **arguments)
        return next(iter(row.values()))

    def query(
        self, query: str | sql.Composed, parameters: Row | None = None, *, doing: str, repeatable: bool = True
    ) -> list[Row]:
        """Run a query and return its rows as dicts; parameters without a time zone are UTC."""
        parameters = parameters and {name: as_utc(value) for name, value in parameters.items()}

        def fetch(conn: psycopg.Connection[Any]) -> list[Row]:
            with conn.cursor(row_factory=dict_row) as cursor:
                return cursor.execute(query, parameters).fetchall()

        return self.run_in_session(fetch, doing=doing, repeatable=repeatable)

    def run_in_session(
        self, work: Callable[[psycopg.Connection[Any]], T], *, doing: str, repeatable: bool = True
    ) -> T:
        """Run work in a session, repeat it where that helps, and explain the final error."""
        role = None
        retrying = Retrying(
            retry=retry_if_exception(lambda error: repeatable and is_transient(error)),
            stop=stop_after_attempt(self._tries),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            before_sleep=lambda state: self.log.info("Retrying %s: %s", doing, _reason(state.outcome)),
            reraise=True,
        )
        try:
            for attempt in retrying:
                with attempt, self.borrow_session() as conn:
                    role = conn.info.user
                    return work(conn)
        except psycopg.Error as err:
            raise translate(err, doing=doing, role=role, conn_id=self.get_conn_id()) from err
        raise AssertionError("unreachable: the last attempt returns or raises")

    def is_older(self) -> bool:
        """Return whether LakeTS 0.1.x is installed."""
        return not self.supports("explain_durability")

    def supports(self, function: str, argument: str | None = None) -> bool:
        """Return whether the installed LakeTS has a function, and optionally an argument of it."""
        if self._arguments is None:
            rows = self.query(
                "SELECT proname, coalesce(proargnames, '{}') AS names FROM pg_catalog.pg_proc"
                " WHERE pronamespace = pg_catalog.to_regnamespace('lakets')",
                doing="Looking up the functions of LakeTS",
            )
            known: dict[str, set[str]] = {}
            for row in rows:
                known.setdefault(row["proname"], set()).update(row["names"])
            self._arguments = known
        names = self._arguments.get(function)
        return names is not None and (argument is None or argument in names)


def as_utc(value: Any) -> Any:
    """Return a value; a time without a zone becomes UTC, whatever the zone of the session."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=timezone.utc)
    return value


def _brief(value: Any) -> str:
    """Return a value for a message, shortened, because the query of a RollUp is long."""
    text = repr(str(value) if isinstance(value, (datetime, timedelta)) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _reason(outcome: Any) -> str:
    """Return the first line of the error of an attempt."""
    return str(outcome.exception()).partition("\n")[0] if outcome else ""
