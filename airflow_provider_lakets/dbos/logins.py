"""Logins of a program to one database; each OAuth login mints a new credential."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity

from airflow_provider_lakets.dbos.place import ProgramConnection, find_connection
from airflow_provider_lakets.exceptions import LakebaseCredentialError, LakebaseResolutionError, LakeTSError
from airflow_provider_lakets.login.fields import read
from airflow_provider_lakets.login.login import DEFAULT_DATABASE, Login
from airflow_provider_lakets.login.login_error import RETRY_POLICY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

C = TypeVar("C")

# Errors that an outdated lookup may cause.
_OUT_OF_DATE = (LakebaseCredentialError, LakebaseResolutionError)


class Logins:
    """
    Log in, and retry while a suspended endpoint resumes; look everything up again after a refusal.

    :param database_url: A connection string; None for that of the environment.
    :param endpoint: The resource name of an endpoint; None for that of the environment.
    :param name: The name of the sessions, unless the string has another.
    :param options: Settings for the server, in libpq's form, unless the string has others.
    """

    def __init__(self, database_url: str | None, endpoint: str | None, *, name: str, options: str) -> None:
        self._connection: ProgramConnection = find_connection(database_url, endpoint, options=options)
        self._name = name
        self._lock = threading.Lock()
        self._login = self._new_login()

    @property
    def fields(self) -> dict[str, Any]:
        """Host, port, login and database of the connection, without a lookup."""
        found = read(self._connection, ())
        return {
            "host": found.host,
            "port": found.port,
            "login": found.role,
            "database": found.database or DEFAULT_DATABASE,
        }

    def open(self, connect: Callable[..., C], more: Mapping[str, Any], **options: Any) -> C:
        """
        Log in.

        :param connect: ``connect`` of a psycopg connection class.
        :param more: Settings of libpq in place of the connection's.
        :param options: Arguments of psycopg.
        """
        retrying = tenacity.Retrying(**RETRY_POLICY)
        login = self._login
        known = login.remembers
        try:
            connection: C = retrying(_open, login, connect, more, options)
        except _OUT_OF_DATE:
            if not known:
                raise
            connection = retrying(_open, self._start_over(login), connect, more, options)
        return connection

    async def aopen(self, connect: Callable[..., Awaitable[C]], more: Mapping[str, Any], **options: Any) -> C:
        """Log in from an event loop without blocking it; the arguments are as for :meth:`open`."""
        retrying = tenacity.AsyncRetrying(**RETRY_POLICY)
        login = self._login
        known = login.remembers
        try:
            return await retrying(_aopen, login, connect, more, options)
        except _OUT_OF_DATE:
            if not known:
                raise
        return await retrying(_aopen, self._start_over(login), connect, more, options)

    def _new_login(self) -> Login:
        return Login(self._connection, name=self._name)

    def _start_over(self, failed: Login) -> Login:
        """Discard what was looked up; if several threads fail together, only the first does so."""
        with self._lock:
            if self._login is failed:
                self._login = self._new_login()
            return self._login


def _arguments(login: Login, more: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    return {**options, **login.fresh(more), "dbname": login.database}


# An error of psycopg contains the password. The new error is raised outside the except block, so
# that it does not chain it.


def _open(login: Login, connect: Callable[..., C], more: Mapping[str, Any], options: Mapping[str, Any]) -> C:
    arguments = _arguments(login, more, options)
    try:
        return connect(**arguments)
    except Exception as err:
        failure: LakeTSError = login.explain(err, arguments)
    raise failure


async def _aopen(
    login: Login,
    connect: Callable[..., Awaitable[C]],
    more: Mapping[str, Any],
    options: Mapping[str, Any],
) -> C:
    arguments = await asyncio.to_thread(_arguments, login, more, options)
    try:
        return await connect(**arguments)
    except Exception as err:
        failure: LakeTSError = login.explain(err, arguments)
    raise failure
