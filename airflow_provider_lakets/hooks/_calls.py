"""How LakeTS is called: in a reused session, again where that helps, with errors explained."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.string import TextLoader
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from airflow_provider_lakets.hooks._errors import is_transient, translate
from airflow_provider_lakets.hooks._session import Sessions
from airflow_provider_lakets.hooks.lakebase import LakebaseHook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from typing_extensions import Self

T = TypeVar("T")
Row = dict[str, Any]

# As long as the functions of LakeTS that take locks; what only reads must not queue longer either.
LOCK_TIMEOUT = "2s"


class LakeTSCalls(LakebaseHook):
    """
    Base of LakeTSHook: sessions, calls, retries, errors.

    Every call is one transaction of its own. A call that lost its connection, a lock, a deadlock or
    a serialisation conflict is made again, at once and a few times only: the longer waits are
    Airflow's retries. That is safe because every LakeTS job can be run twice.

    :param tries: How often a call is made at most.
    :param lock_timeout: Longest a statement may wait for a lock; by default 2 seconds.
    """

    def __init__(
        self,
        *args: Any,
        tries: int = 4,
        lock_timeout: timedelta | str | None = LOCK_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, lock_timeout=lock_timeout, **kwargs)
        self._tries = tries
        self._sessions = Sessions(self._open_session)
        self._arguments: dict[str, set[str]] | None = None

    @contextlib.contextmanager
    def session(self) -> Iterator[Self]:
        """Log in once for all calls made inside the block; each still commits by itself."""
        with self._sessions.keep():
            yield self

    def borrow_session(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """Lend one of the open sessions to a ``with`` block; opens one when none is free."""
        return self._sessions.borrow()

    def cancel(self) -> None:
        """Cancel the running statements and start no more, from any thread or a signal handler."""
        self._sessions.stop()
        super().cancel()

    def _open_session(self) -> psycopg.Connection[Any]:
        conn = self.get_conn()
        conn.autocommit = True
        # A month is not thirty days: psycopg's timedelta would say so.
        conn.adapters.register_loader("interval", TextLoader)
        return conn

    def call(self, function: str, *, repeatable: bool = True, **arguments: Any) -> list[Row]:
        """
        Call a function of LakeTS with every argument by name and return its rows.

        :param function: Its name in schema ``lakets``.
        :param repeatable: Whether making the call twice does no more than making it once.
        :param arguments: Its arguments; pass only what the oldest supported LakeTS takes.
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
        """Run a query in a session and return its rows as dicts; times without a zone are UTC."""
        parameters = parameters and {name: as_utc(value) for name, value in parameters.items()}

        def fetch(conn: psycopg.Connection[Any]) -> list[Row]:
            with conn.cursor(row_factory=dict_row) as cursor:
                return cursor.execute(query, parameters).fetchall()

        return self.run_in_session(fetch, doing=doing, repeatable=repeatable)

    def run_in_session(
        self, work: Callable[[psycopg.Connection[Any]], T], *, doing: str, repeatable: bool = True
    ) -> T:
        """Run work in a session, again where that helps, and explain what it raises in the end."""
        role = None
        retrying = Retrying(
            retry=retry_if_exception(lambda error: repeatable and is_transient(error)),
            stop=stop_after_attempt(self._tries),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            before_sleep=lambda state: self.log.info("%s is tried again: %s", doing, _reason(state.outcome)),
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
        """Return whether the installed LakeTS has a function, and this argument of it."""
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
    """Return a value, with the zone that an instant without one means: not that of the session."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=timezone.utc)
    return value


def _brief(value: Any) -> str:
    """Return a value for a message: a RollUp's query would drown it."""
    text = repr(str(value) if isinstance(value, (datetime, timedelta)) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _reason(outcome: Any) -> str:
    """Return the first line of what went wrong in an attempt."""
    return str(outcome.exception()).partition("\n")[0] if outcome else ""
