"""Check the arguments of the hook and its engines; unknown arguments are rejected, not ignored."""

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

# Arguments of the base classes of LakebaseHook that are not in their signatures.
_INHERITED = {
    "connection",
    "database",
    "insert_statement_format",
    "replace_statement_format",
    "escape_word_format",
    "escape_column_names",
}

# Arguments of psycopg.connect that are not settings of libpq.
_OF_PSYCOPG = {"autocommit", "prepare_threshold", "row_factory", "cursor_factory", "context"}

# Settings that only the connection may define.
_OF_THE_CONNECTION = {"host", "hostaddr", "port", "user", "password", "dbname"}


def check_arguments(
    hook: type, args: tuple[Any, ...], kwargs: Mapping[str, Any], of_the_extra: Collection[str]
) -> dict[str, Any]:
    """
    Reject arguments that a Postgres hook would ignore, because it could use a wrong connection.

    Return the arguments that are settings of a connection, for :func:`check_passed_on`.

    :param hook: The class of the hook.
    :param args: Its positional arguments.
    :param kwargs: Its keyword arguments, except those that its own signature names.
    :param of_the_extra: Keys of the connection's extra, which SQL operators pass to every hook.
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
    Reject settings of a connection as arguments, unless they equal the connection's extra.

    :param hook: The class of the hook.
    :param passed: The arguments.
    :param extra: The extra.
    """
    for name, value in passed.items():
        if value not in (None, "") and extra.get(name) != value:
            raise TypeError(
                f"{hook.__name__} takes no {name}; it is a setting of the connection. Set it in its extra."
            )


def driver(scheme: object) -> str:
    """Return the SQLAlchemy name of the driver; it must be psycopg 3, to mint for each login."""
    if scheme in (None, "", DRIVER):
        return DRIVER
    raise LakebaseSettingError(
        f"sqlalchemy_scheme is {shown(scheme)}; Lakebase logins need {DRIVER!r}, the default. Remove it."
    )


def engine_query(extra: Mapping[str, Any]) -> dict[str, str]:
    """Return ``sqlalchemy_query`` of an extra: the settings of libpq for engines."""
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
    Split ``connect_args`` of an engine into settings of libpq and arguments of psycopg.

    :param arguments: The ``connect_args``.
    """
    if refused := sorted(_OF_THE_CONNECTION & set(arguments)):
        raise LakebaseSettingError(
            f"An engine was given {', '.join(refused)}; only the connection may set this. Remove it, or use "
            "another connection."
        )
    settings = {name: value for name, value in arguments.items() if name not in _OF_PSYCOPG}
    options = {name: value for name, value in arguments.items() if name in _OF_PSYCOPG}
    return libpq_settings(settings, "The arguments of an engine", "The arguments of an engine"), options


def require_sqlalchemy_2(asked_for: str) -> None:
    """
    Raise an error unless SQLAlchemy supports psycopg 3, which needs version 2.0 or later.

    :param asked_for: The feature that needs it, for the message.
    """
    import sqlalchemy

    if int(sqlalchemy.__version__.partition(".")[0]) < 2:
        raise LakeTSError(
            f"{asked_for} needs SQLAlchemy 2.0 or later, which can use psycopg 3; {sqlalchemy.__version__} "
            "is installed. Upgrade SQLAlchemy, or use get_conn, get_records or get_pool instead."
        )
