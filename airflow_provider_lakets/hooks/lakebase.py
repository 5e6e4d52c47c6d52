"""Postgres sessions on Lakebase: identity, endpoint, and a new credential for each login."""

from __future__ import annotations

import contextlib
import os
import weakref
from contextlib import closing
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import psycopg
import tenacity
from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]
from airflow.sdk import Connection

from airflow_provider_lakets.driver import PsycopgHook
from airflow_provider_lakets.exceptions import (
    LakebaseCredentialError,
    LakebaseResolutionError,
    LakeTSError,
)
from airflow_provider_lakets.hooks._session import hang_up
from airflow_provider_lakets.login.fields import PASTED, libpq_names, read_extra
from airflow_provider_lakets.login.gate import printable
from airflow_provider_lakets.login.hook_arguments import (
    check_arguments,
    check_passed_on,
    driver,
    engine_arguments,
    engine_query,
    require_sqlalchemy_2,
)
from airflow_provider_lakets.login.login import Login
from airflow_provider_lakets.login.login_error import RETRY_POLICY
from airflow_provider_lakets.login.place import PLACE
from airflow_provider_lakets.login.settings import SESSION, server_settings
from airflow_provider_lakets.login.who.stored import NOT_DEFINED, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from airflow.providers.openlineage.sqlparser import DatabaseInfo
    from psycopg_pool import ConnectionPool
    from sqlalchemy.engine import URL, Engine
    from typing_extensions import Self

C = TypeVar("C", bound=psycopg.Connection[Any])

# Refusals that outdated cached settings may cause.
_OUT_OF_DATE = (LakebaseCredentialError, LakebaseResolutionError)

# A session outlives its credential, which is valid for an hour. Pools still replace sessions before
# that time, so that a revoked role takes effect within the hour.
POOLED_SECONDS = 45 * 60

CANCEL_TIMEOUT = 5.0  # seconds; a killed task has little time


class LakebaseHook(PsycopgHook):
    """
    Connect to Databricks Lakebase Postgres; otherwise it is a :class:`PostgresHook`.

    A connection with a password uses a native Postgres login. Without a password it uses OAuth: a
    Databricks identity (``databricks_conn_id``, or that of the environment) mints a credential
    for each physical login, which is never stored. If the connection has no host, the host of the
    endpoint is used. If it has no login, the role is ``LAKETS_PG_ROLE`` or that of the identity.

    The extra may contain ``project``, ``branch``, ``endpoint`` or ``instance``,
    ``databricks_conn_id``, and libpq settings. ``LAKETS_LAKEBASE_ENDPOINT`` replaces them if they
    are missing, and replaces ``lakebase_default`` if that connection is not defined.

    :param lakebase_conn_id: Id of the Airflow connection; also the first positional argument.
    :param databricks_conn_id: Id of the Databricks connection to log in as. Takes precedence over
        the extra.
    :param statement_timeout: The longest time that a statement may run: a timedelta, or text such
        as '30min'; '0' means no limit. The default is ``options`` in the extra, or 12 hours.
    :param lock_timeout: The longest time that a statement may wait for a lock, in the same format.
        The default is 10 minutes.
    :param application_name: Name of the sessions; the default is DAG, task and run.
    """

    conn_name_attr = "lakebase_conn_id"
    default_conn_name = "lakebase_default"
    conn_type = "lakebase"
    hook_name = "Databricks Lakebase"
    ignored_extra_options = PsycopgHook.ignored_extra_options | {
        # read by DbApiHook
        "dialect",
        "placeholder",
        "insert_statement_format",
        "replace_statement_format",
        "escape_word_format",
        "escape_column_names",
    }

    _login_defaults: ClassVar[Mapping[str, Any]] = SESSION

    def __init__(
        self,
        *args: Any,
        databricks_conn_id: str | None = None,
        statement_timeout: timedelta | str | None = None,
        lock_timeout: timedelta | str | None = None,
        application_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        of_the_extra = {*libpq_names(), *PLACE, PASTED, *self.ignored_extra_options}
        passed_on = check_arguments(type(self), args, kwargs, of_the_extra)
        super().__init__(*args, **kwargs)
        if passed_on:
            check_passed_on(type(self), passed_on, self.connection_extra)
        self.database: str | None = kwargs.get("database") or kwargs.get("schema")
        self._is_given = kwargs.get("connection") is not None
        self.databricks_conn_id = databricks_conn_id
        self.application_name = application_name
        self._settings = server_settings(statement_timeout=statement_timeout, lock_timeout=lock_timeout)
        self._opened: weakref.WeakSet[psycopg.Connection[Any]] = weakref.WeakSet()

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """
        Return the connection; the environment can replace ``lakebase_default``.

        It replaces no other connection, so that a misspelt id does not lead to another database.
        """
        try:
            connection = stored(conn_id)
        except NOT_DEFINED as err:
            if conn_id == cls.default_conn_name and os.environ.get("LAKETS_LAKEBASE_ENDPOINT"):
                return Connection(conn_id=conn_id, conn_type=cls.conn_type)
            raise AirflowNotFoundException(
                f"The connection {conn_id!r} is not defined. Define it; or, in place of "
                f"{cls.default_conn_name!r}, set DATABRICKS_HOST, DATABRICKS_CLIENT_ID, "
                "DATABRICKS_CLIENT_SECRET and LAKETS_LAKEBASE_ENDPOINT (projects/<project> is enough)."
            ) from err
        return connection

    def get_conn(self) -> psycopg.Connection[Any]:
        """Open a session; ``cursor`` in the extra sets the type of its rows."""
        cursor = self.connection_extra.get("cursor")
        options = {"row_factory": self._get_cursor(cursor)} if cursor else {}
        self.conn = connection = self._open(psycopg.Connection.connect, **options)
        return connection

    async def aget_conn(self) -> psycopg.AsyncConnection[Any]:
        """Open an autocommit session from an event loop, such as the triggerer's."""
        from asgiref.sync import sync_to_async

        # Looking up connections and minting credentials block. asyncio.to_thread does not work: the
        # triggerer of Airflow 3.1 answers a lookup only in a thread that asgiref started.
        prepare = sync_to_async(self._fresh_login, thread_sensitive=False)

        async def open_once() -> psycopg.AsyncConnection[Any]:
            arguments = await prepare()
            try:
                return await psycopg.AsyncConnection.connect(**arguments, autocommit=True)
            except Exception as err:
                failure = self.login.explain(err, arguments)
            raise failure

        retrying = tenacity.AsyncRetrying(**RETRY_POLICY)
        remembers = self._remembers
        try:
            return await retrying(open_once)
        except _OUT_OF_DATE as err:
            if not await sync_to_async(self._start_over, thread_sensitive=False)(err, remembers):
                raise
        return await retrying(open_once)

    def get_pool(self, **options: Any) -> ConnectionPool[psycopg.Connection[Any]]:
        """
        Return a pool that mints a credential for each physical login; open it in a ``with`` block.

        :param options: Arguments of :class:`psycopg_pool.ConnectionPool`.
        """
        from psycopg_pool import ConnectionPool

        hook = self

        class FreshLogin(psycopg.Connection[Any]):
            @classmethod
            def connect(cls, conninfo: str = "", **arguments: Any) -> Self:
                return hook._open(super().connect, **arguments)

        options = {
            "min_size": 1,
            "max_lifetime": POOLED_SECONDS,
            "check": ConnectionPool.check_connection,  # an endpoint that suspends closes idle sessions
            **options,
        }
        return ConnectionPool(connection_class=FreshLogin, open=False, **options)

    def get_sqlalchemy_engine(self, engine_kwargs: dict[str, Any] | None = None) -> Engine:
        """
        Return a psycopg engine that mints a credential for each physical login; needs SQLAlchemy 2.

        :param engine_kwargs: Arguments of :func:`sqlalchemy.create_engine`.
        """
        require_sqlalchemy_2("An engine")
        given = {**(engine_kwargs or {})}
        # With a creator SQLAlchemy does not use them, and Airflow would write them into its log.
        more = {**engine_query(self.connection_extra), **(given.pop("connect_args", None) or {})}
        settings, arguments = engine_arguments(more)
        options = {
            "creator": lambda: self._open(psycopg.Connection.connect, settings, **arguments),
            "pool_pre_ping": True,
            "pool_recycle": POOLED_SECONDS,
        }
        return super().get_sqlalchemy_engine({**options, **given})

    @property
    def sqlalchemy_scheme(self) -> str:
        """SQLAlchemy's name of the driver: psycopg 3, which can mint a credential at each login."""
        return driver(self._sqlalchemy_scheme or self.connection_extra.get("sqlalchemy_scheme"))

    @property
    def sqlalchemy_url(self) -> URL:
        """The connection as a URL for SQLAlchemy 2, with host, role and a native password."""
        require_sqlalchemy_2("The URL of an engine")
        from sqlalchemy.engine import URL

        login = self.login.arguments()
        query = {name: str(login[name]) for name in ("sslmode", "sslrootcert") if login.get(name)}
        query.update(engine_query(self.connection_extra))
        host: str | None = login["host"]
        if host and host.startswith(("/", "@")):
            query["host"] = host  # a Unix socket cannot be the host of a URL
            host = None
        return URL.create(
            drivername=self.sqlalchemy_scheme,
            username=login["user"],
            password=self.login.native_password,
            host=host,
            port=login["port"],
            database=self._dbname,
            query=query,
        )

    @property
    def connection_extra(self) -> dict[str, Any]:
        """The extra of the connection, which must be an object."""
        return read_extra(self.connection)

    def test_connection(self) -> tuple[bool, str]:  # type: ignore[override]  # there unannotated
        """Log in and return the role and the database, or the problem and what to do about it."""
        query = "SELECT current_user, current_database(), current_setting('server_version')"
        try:
            with closing(self._open(psycopg.Connection.connect)) as connection:
                role, database, version = connection.execute(query).fetchone() or ("", "", "")
        except (LakeTSError, AirflowNotFoundException, psycopg.Error) as err:
            return False, str(err)
        return (
            True,
            f"Logged in to database {database} as {role}, Postgres {version}, with {self.login.means}.",
        )

    def project_page(self) -> str | None:
        """Return the project's page in the workspace; None if finding it needs a request."""
        return self.login.page()

    def lineage_names(self) -> tuple[str, str]:
        """Return the OpenLineage names of the server and the database."""
        return f"postgres://{self.login.address}", self._dbname

    def get_openlineage_database_info(self, connection: Connection) -> DatabaseInfo:
        """Return the connection for OpenLineage, with the host looked up if none is given."""
        from airflow.providers.openlineage.sqlparser import DatabaseInfo

        return DatabaseInfo(scheme="postgres", authority=self.login.address, database=self._dbname)

    def cancel(self) -> None:
        """Cancel the running statements of this hook, without a new login; for ``on_kill``."""
        for connection in list(self._opened):
            if not connection.closed:
                try:
                    connection.cancel_safe(timeout=CANCEL_TIMEOUT)
                except psycopg.Error as err:
                    self.log.warning(
                        "Connection %r: a statement was not cancelled: %s", self.get_conn_id(), err
                    )

    def hang_up(self) -> None:
        """End the sessions of this hook without asking the server; running statements fail."""
        for connection in list(self._opened):
            if not connection.closed:
                hang_up(connection)

    def _open(self, connect: Callable[..., C], more: Mapping[str, Any] | None = None, **options: Any) -> C:
        """
        Log in; retry while a suspended endpoint wakes up.

        :param connect: ``connect`` of a psycopg connection class.
        :param more: libpq settings that replace those of the connection.
        :param options: Arguments of psycopg.
        """
        retrying = tenacity.Retrying(**RETRY_POLICY)
        remembers = self._remembers
        try:
            connection: C = retrying(self._open_once, connect, more, options)
        except _OUT_OF_DATE as err:
            if not self._start_over(err, remembers):
                raise
            connection = retrying(self._open_once, connect, more, options)
        if self.enable_log_db_messages:
            connection.add_notice_handler(self._notice_handler)
        self._opened.add(connection)
        return connection

    def _open_once(
        self, connect: Callable[..., C], more: Mapping[str, Any] | None, options: dict[str, Any]
    ) -> C:
        arguments = self._fresh_login(more)
        try:
            return connect(**{**options, **arguments})
        except Exception as err:
            failure = self.login.explain(err, arguments)
        # Raised outside the handler: psycopg's error contains the password and must not be chained.
        raise failure

    def _fresh_login(self, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return {**self.login.fresh(more), "dbname": self._dbname}

    @property
    def _remembers(self) -> bool:
        """Whether the next login uses settings that an earlier one has cached."""
        login: Login | None = self.__dict__.get("login")
        return login is not None and (login.remembers or login.is_native)

    def _start_over(self, err: LakeTSError, remembers: bool) -> bool:
        """
        Discard cached settings, which may be outdated, for example after an endpoint was replaced.

        :param err: The refusal.
        :param remembers: Whether anything was cached before the login.
        """
        if not remembers:
            return False
        before: Connection = self.connection
        if not self._is_given:
            with contextlib.suppress(LakeTSError, AirflowNotFoundException):
                self._connection = self.get_connection(self.get_conn_id())
        is_native = self.login.is_native
        self.__dict__.pop("login", None)
        if is_native and _same(before, self.connection):
            return False  # the same password would be refused again
        self.log.info("%s Reading the connection and its endpoint again.", err)
        return True

    def _notice_handler(self, notice: psycopg.errors.Diagnostic) -> None:
        self.log.info(printable(str(notice.message_primary).strip()))

    @cached_property
    def login(self) -> Login:
        """The login of this hook: identity, server and settings."""
        return Login(
            self.connection,
            ignored=self.ignored_extra_options,
            databricks_conn_id=self.databricks_conn_id,
            options=" ".join(filter(None, [self._settings, self.options])),
            name=self.application_name,
            defaults=self._login_defaults,
        )

    @property
    def _dbname(self) -> str:
        # BaseSQLOperator sets `schema` to its `database`, unless the connection's type is postgres.
        return self.database or getattr(self, "schema", None) or self.login.database


def _same(one: Connection, other: Connection) -> bool:
    return all(
        getattr(one, name) == getattr(other, name)
        for name in ("host", "port", "login", "password", "schema", "extra")
    )
