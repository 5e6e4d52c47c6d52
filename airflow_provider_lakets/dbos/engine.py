"""SQLAlchemy engines on Lakebase for programs without Airflow, such as those of DBOS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.dbos.sessions import APPLICATION_NAME, name_sessions

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

# The settings of the engine that DBOS creates itself.
IDLE_IN_TRANSACTION = "-c idle_in_transaction_session_timeout=60s"
POOL = {"pool_size": 20, "max_overflow": 0, "pool_timeout": 30}

# A credential is valid for an hour. Sessions are renewed within it, so that a role that lost its
# access is locked out.
RECYCLED_SECONDS = 45 * 60


def create_lakebase_engine(
    database_url: str | None = None, endpoint: str | None = None, **engine_options: Any
) -> Engine:
    """
    Return an engine that logs in to Lakebase with a new credential each time; does not connect.

    A connection string with a password uses a native Postgres login. Without a password, the
    identity is the default of the Databricks SDK, from the environment or a profile. Pass the
    engine to DBOS as ``DBOSConfig["system_database_engine"]``, to ``SQLAlchemyDatasource`` or to
    ``DBOSClient``.

    :param database_url: Connection string as the Lakebase console shows it. The default is
        ``DBOS_SYSTEM_DATABASE_URL``. Without either, the host is that of the endpoint, the role
        that of the identity, and the database ``databricks_postgres``.
    :param endpoint: ``projects/<project>/branches/<branch>/endpoints/<endpoint>``. The default is
        ``DATABRICKS_LAKEBASE_ENDPOINT``. It may be omitted if the host identifies the endpoint.
    :param engine_options: Arguments of :func:`sqlalchemy.create_engine`.
    """
    import psycopg
    import sqlalchemy

    from airflow_provider_lakets.dbos.logins import Logins

    options, settings, of_driver = _prepare(engine_options)
    logins = Logins(database_url, endpoint, name=APPLICATION_NAME, options=IDLE_IN_TRANSACTION)

    def connect() -> psycopg.Connection[Any]:
        return logins.open(psycopg.Connection.connect, settings, **of_driver)

    engine = sqlalchemy.create_engine(_url(logins.fields), **{"creator": connect, **options})
    name_sessions(engine)
    return engine


def create_lakebase_async_engine(
    database_url: str | None = None, endpoint: str | None = None, **engine_options: Any
) -> AsyncEngine:
    """
    Return the asyncio form of :func:`create_lakebase_engine`, for ``AsyncSQLAlchemyDatasource``.

    :param database_url: As for :func:`create_lakebase_engine`.
    :param endpoint: As for :func:`create_lakebase_engine`.
    :param engine_options: Arguments of :func:`sqlalchemy.ext.asyncio.create_async_engine`.
    """
    import psycopg
    from sqlalchemy.ext.asyncio import create_async_engine

    from airflow_provider_lakets.dbos.logins import Logins

    options, settings, of_driver = _prepare(engine_options)
    logins = Logins(database_url, endpoint, name=APPLICATION_NAME, options=IDLE_IN_TRANSACTION)

    async def connect() -> psycopg.AsyncConnection[Any]:
        return await logins.aopen(psycopg.AsyncConnection.connect, settings, **of_driver)

    return create_async_engine(_url(logins.fields), **{"async_creator": connect, **options})


def _prepare(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the options of the engine, and ``connect_args`` split between libpq and psycopg."""
    from sqlalchemy.pool import NullPool

    from airflow_provider_lakets.login.hook_arguments import engine_arguments, require_sqlalchemy_2

    require_sqlalchemy_2("An engine")
    options = {**given}
    settings, of_driver = engine_arguments(options.pop("connect_args", None) or {})
    usual: dict[str, Any] = {"pool_pre_ping": True, "pool_recycle": RECYCLED_SECONDS, **POOL}
    if options.get("poolclass") is NullPool:
        usual = {}
    elif "poolclass" in options:
        usual = {name: usual[name] for name in ("pool_pre_ping", "pool_recycle")}
    return {**usual, **options}, settings, of_driver


def _url(fields: dict[str, Any]) -> URL:
    """Return the URL that DBOS logs, without a password."""
    from sqlalchemy.engine import URL

    host = fields["host"]
    is_socket = bool(host) and host.startswith(("/", "@"))
    return URL.create(
        "postgresql+psycopg",
        username=fields["login"],
        host=None if is_socket else host,
        port=fields["port"],
        database=fields["database"],
        query={"host": host} if is_socket else {},
    )
