"""Check the arguments of the hook and its engines: refuse unknown ones, never ignore them."""

from __future__ import annotations

import difflib
import inspect
from typing import TYPE_CHECKING, Any

from airflow_provider_lakets.exceptions import LakebaseSettingError, LakeTSError
from airflow_provider_lakets.login.fields import libpq_settings
from airflow_provider_lakets.login.gate import shown

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

DRIVER = "postgresql+psycopg"

# Arguments of hooks above LakebaseHook that their signatures do not show.
_INHERITED = {
    "connection",
    "database",
    "insert_statement_format",
    "replace_statement_format",
    "escape_word_format",
    "escape_column_names",
}

# Arguments of psycopg.connect that are not libpq's.
_OF_PSYCOPG = {"autocommit", "prepare_threshold", "row_factory", "cursor_factory", "context"}

# Where to: the connection says that.
_OF_THE_CONNECTION = {"host", "hostaddr", "port", "user", "password", "dbname"}


def check_arguments(
    hook: type, args: tuple[Any, ...], kwargs: Mapping[str, Any], of_the_extra: Collection[str]
) -> dict[str, Any]:
    """
    Refuse arguments that a Postgres hook would ignore, and so use another connection.

    Return those that are settings of a connection, for :func:`check_passed_on`.

    :param hook: The hook's class.
    :param args: Its positional arguments.
    :param kwargs: Its keyword arguments, but for those it took itself.
    :param of_the_extra: Names of the connection's extra, which SQL operators pass on to every hook.
    """
    from airflow.providers.common.sql.hooks.sql import DbApiHook

    conn_id_name: str = hook.conn_name_attr  # type: ignore[attr-defined]
    known = {conn_id_name, *_INHERITED}
    for base in hook.__mro__[: hook.__mro__.index(DbApiHook) + 1]:
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        known.update(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
    for name in kwargs:
        if name in known or name in of_the_extra:
            continue
        if name.endswith("conn_id"):
            raise TypeError(f"{hook.__name__} takes no {name}; the connection's id is {conn_id_name}.")
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]}?" if close else f"It takes {', '.join(sorted(known))}."
        raise TypeError(f"{hook.__name__} takes no {name}. {hint}")
    if len(args) + (conn_id_name in kwargs) > 1:
        raise TypeError(f"{hook.__name__} takes one positional argument, {conn_id_name}; name the others.")
    for conn_id in (*args, *(kwargs[name] for name in (conn_id_name,) if name in kwargs)):
        if not isinstance(conn_id, str) or not conn_id.strip():
            raise LakebaseSettingError(
                f"{conn_id_name} is {conn_id!r}. Give the id of an Airflow connection."
            )
    return {name: value for name, value in kwargs.items() if name not in known}


def check_passed_on(hook: type, passed: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
    """
    Refuse settings of a connection as arguments, unless they equal the connection's extra.

    :param hook: The hook's class.
    :param passed: The arguments.
    :param extra: The extra.
    """
    for name, value in passed.items():
        if value not in (None, "") and extra.get(name) != value:
            raise TypeError(
                f"{hook.__name__} takes no {name}; it is a setting of the connection. Set it in its extra."
            )


def driver(scheme: object) -> str:
    """Return SQLAlchemy's name of the driver; only psycopg 3 can mint inside a login."""
    if scheme in (None, "", DRIVER):
        return DRIVER
    raise LakebaseSettingError(
        f"sqlalchemy_scheme is {shown(scheme)}; Lakebase logins need {DRIVER!r}, the default. Take it out."
    )


def engine_query(extra: Mapping[str, Any]) -> dict[str, str]:
    """Return ``sqlalchemy_query`` of an extra: settings of libpq for engines."""
    query = extra.get("sqlalchemy_query")
    if query is None:
        return {}
    if not isinstance(query, dict) or not all(isinstance(value, str) for value in query.values()):
        raise LakebaseSettingError(
            "sqlalchemy_query in the extra is not an object of strings. Write it as "
            '{"sqlalchemy_query": {"application_name": "report"}}.'
        )
    engine_arguments(query)
    return query


def engine_arguments(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    Return ``connect_args`` of an engine as settings of libpq, and as arguments of psycopg itself.

    :param arguments: What was given.
    """
    if refused := sorted(_OF_THE_CONNECTION & set(arguments)):
        raise LakebaseSettingError(
            f"An engine is given {', '.join(refused)}; the connection says where to log in and as whom. Take "
            "it out, or use another connection."
        )
    settings = {name: value for name, value in arguments.items() if name not in _OF_PSYCOPG}
    options = {name: value for name, value in arguments.items() if name in _OF_PSYCOPG}
    return libpq_settings(settings, "The arguments of an engine", "The arguments of an engine"), options


def require_sqlalchemy_2(asked_for: str) -> None:
    """
    Raise unless SQLAlchemy knows psycopg 3, which it does from 2.0 on.

    :param asked_for: What needs it.
    """
    import sqlalchemy

    if int(sqlalchemy.__version__.partition(".")[0]) < 2:
        raise LakeTSError(
            f"{asked_for} needs SQLAlchemy 2.0 or later, which can use psycopg 3; {sqlalchemy.__version__} "
            "is installed. Upgrade SQLAlchemy, or use get_conn, get_records or get_pool, which need none."
        )
