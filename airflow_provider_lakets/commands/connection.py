"""Shared code of the commands: the options for the connection, and errors as one message."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn
from urllib.parse import urlsplit

import typer

from airflow_provider_lakets.commands.metadata import use_temporary_metadata
from airflow_provider_lakets.monitoring.words import name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.hooks.lakets import LakeTSHook


class _Typed(str):
    """The id of a connection that was given as an argument."""

    __slots__ = ()


def _mark_typed(context: typer.Context, value: str) -> str:
    source = context.get_parameter_source("conn_id")
    return value if source is None or source.name == "DEFAULT" else _Typed(value)


ConnId = Annotated[
    str,
    typer.Option(
        callback=_mark_typed,
        help="Airflow connection. If lakebase_default is not defined, LAKETS_LAKEBASE_ENDPOINT and "
        "DATABRICKS_... in the environment are used.",
    ),
]
Uri = Annotated[
    str | None,
    typer.Option(
        help="Connection string postgresql://<role>@<host>/<database>, instead of a connection. "
        "Without a password the login is OAuth. <role>:@<host>, with a colon, asks for the password. Set a "
        "string with a password as LAKETS_URI, because other users can read arguments.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]


IN_ARGUMENTS = (
    "--uri contains a password, which every user of this machine can read in the list of processes, and "
    "which the shell keeps in its history. Put the string into the environment as LAKETS_URI instead."
)


def open_hook(conn_id: str, uri: str | None) -> LakeTSHook:
    """Return a hook for a defined connection or for a connection string."""
    from airflow_provider_lakets.compat import stored_connection
    from airflow_provider_lakets.hooks.lakets import LakeTSHook

    where = "--uri"
    if uri is None and not isinstance(conn_id, _Typed):  # an argument takes precedence over the environment
        uri, where = os.environ.get("LAKETS_URI"), "LAKETS_URI"
    if uri is not None:
        from airflow_provider_lakets.login.pasted import pasted_connection

        connection = pasted_connection(uri, where)
        if connection.password and where == "--uri":
            typer.secho(IN_ARGUMENTS, err=True, fg=typer.colors.YELLOW)
        elif urlsplit(uri).password == "":  # a colon without a password
            asked = f"Password of {name(connection.login)}"
            connection.password = typer.prompt(asked, hide_input=True, err=True)
        return LakeTSHook(where, connection=connection)
    return LakeTSHook(conn_id, connection=stored_connection(conn_id))


@contextlib.contextmanager
def explain_errors(*, temporary: int = 1) -> Iterator[None]:
    """
    Turn errors that a user can correct into one message and exit code 1.

    :param temporary: The exit code for errors that a retry may fix.
    """
    # Airflow logs to standard output, which is for results here; users can set the level. The error
    # is reported once, by the message below.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "CRITICAL")
    # Airflow's own command sets this, too. It gives access to connections in the metadata database.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    use_temporary_metadata()
    from airflow.exceptions import AirflowException  # type: ignore[attr-defined]

    from airflow_provider_lakets.exceptions import PERMANENT, LakeTSError

    try:
        yield
    except (AirflowException, *PERMANENT) as err:
        stop(str(err))
    except LakeTSError as err:
        stop(str(err), temporary)


def stop(message: str, code: int = 1) -> NoReturn:
    """End with a message on standard error and an exit code."""
    # The message may contain names with invisible characters.
    visible = "\n".join(map(name, message.split("\n")))
    typer.secho(visible, err=True, fg=typer.colors.RED)
    sys.exit(code)
