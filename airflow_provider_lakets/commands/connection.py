"""What the commands share: which database, and errors as one message."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn
from urllib.parse import urlsplit

import typer

from airflow_provider_lakets.commands.metadata import make_no_airflow
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
        help="Airflow connection, from wherever Airflow keeps them. Where lakebase_default is not defined, "
        "LAKETS_LAKEBASE_ENDPOINT and DATABRICKS_... in the environment do.",
    ),
]
Uri = Annotated[
    str | None,
    typer.Option(
        help="Connection string postgresql://<role>@<host>/<database>, instead of a connection. "
        "Without a password: OAuth. <role>:@<host>, with a colon, asks for the password. One with a password "
        "belongs into LAKETS_URI: others can read arguments.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]


SEEN = (
    "--uri holds a password, which every user of this machine can read in the list of processes, and which "
    "the shell keeps in its history. Put the string into the environment as LAKETS_URI instead."
)


def open_hook(conn_id: str, uri: str | None) -> LakeTSHook:
    """Return a hook for a connection, defined or given."""
    from airflow_provider_lakets.compat import stored_connection
    from airflow_provider_lakets.hooks.lakets import LakeTSHook

    where = "--uri"
    if uri is None and not isinstance(conn_id, _Typed):  # what is typed wins over the environment
        uri, where = os.environ.get("LAKETS_URI"), "LAKETS_URI"
    if uri is not None:
        from airflow_provider_lakets.login.pasted import pasted_connection

        connection = pasted_connection(uri, where)
        if connection.password and where == "--uri":
            typer.secho(SEEN, err=True, fg=typer.colors.YELLOW)
        elif urlsplit(uri).password == "":  # there is a colon for it
            asked = f"Password of {name(connection.login)}"
            connection.password = typer.prompt(asked, hide_input=True, err=True)
        return LakeTSHook(where, connection=connection)
    return LakeTSHook(conn_id, connection=stored_connection(conn_id))


@contextlib.contextmanager
def explain_errors() -> Iterator[None]:
    """Turn what a user can do something about into one message and exit code 1."""
    # Airflow logs to standard output, which is for results here; whoever wants its remarks sets the
    # level. What went wrong is told once, by the message below.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "CRITICAL")
    # As Airflow's own command does it, to be let at the connections in the metadata database.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    make_no_airflow()
    from airflow.exceptions import AirflowException  # type: ignore[attr-defined]

    from airflow_provider_lakets.exceptions import LakeTSError

    try:
        yield
    except (LakeTSError, AirflowException) as err:
        stop(str(err))


def stop(message: str) -> NoReturn:
    """End with a message on standard error and exit code 1."""
    # It may quote a name of somebody else's.
    visible = "\n".join(map(name, message.split("\n")))
    typer.secho(visible, err=True, fg=typer.colors.RED)
    sys.exit(1)
