"""`lakets`: install LakeTS, see how it stands, find out what is wrong, try it on a laptop."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from airflow_provider_lakets.commands import local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.hooks.lakets import LakeTSHook

app = typer.Typer(
    help="The LakeTS time-series lifecycle on Databricks Lakebase Postgres.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they may hold a password
    add_completion=False,
)

app.add_typer(local.app, name="local")

ConnId = Annotated[
    str,
    typer.Option(
        help="Airflow connection, from wherever Airflow keeps them. Where lakebase_default is not defined, "
        "LAKETS_LAKEBASE_ENDPOINT and DATABRICKS_... in the environment do."
    ),
]
Uri = Annotated[
    str | None,
    typer.Option(
        help="Connection string postgresql://<role>@<host>/<database>, instead of a connection. "
        "Without a password: OAuth."
    ),
]


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Show the provider's version.")] = False,
) -> None:
    """The LakeTS time-series lifecycle on Databricks Lakebase Postgres."""
    if version:
        from airflow_provider_lakets import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command()
def install(
    print_only: Annotated[
        bool, typer.Option("--print", help="Write the install as one SQL script, for any client.")
    ] = False,
    conn_id: ConnId = "lakebase_default",
    uri: Uri = None,
) -> None:
    """Install LakeTS into a database, or bring it up to date; safe to repeat."""
    if print_only:
        from airflow_provider_lakets.engine import install_script

        typer.echo(install_script(), nl=False)
        return
    with _told():
        done = _hook(conn_id, uri).install()
    typer.echo(f"LakeTS {done.after} is installed (before: {done.before or 'none'}).")
    for note in done.notes:
        typer.echo(f"- {note}")


@app.command()
def status(
    conn_id: ConnId = "lakebase_default",
    uri: Uri = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of tables.")] = False,
) -> None:
    """Show ChronoTables, chunks, the change feed and RollUps."""
    with _told():
        found = _hook(conn_id, uri).status()

    from airflow_provider_lakets.commands.status import show

    show(found, as_json=as_json)


@app.command()
def doctor(conn_id: ConnId = "lakebase_default", uri: Uri = None) -> None:
    """Check everything between here and a working LakeTS, one thing after another."""
    with _told():
        from airflow_provider_lakets.commands.doctor import examine, show

        healthy = show(examine(_hook(conn_id, uri)))
    raise typer.Exit(0 if healthy else 1)


@app.command()
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the Lakebase running at the end, until Ctrl-C.")
    ] = False,
) -> None:
    """Run the whole lifecycle through Airflow, on an embedded Lakebase with real data."""
    try:
        from airflow_provider_lakets.local.demo import run_demo

        code = run_demo(keep=keep)
    except ModuleNotFoundError as err:
        if (err.name or "").startswith("airflow_provider_lakets"):
            raise
        _stop(f"The demo needs {err.name}: pip install 'airflow-provider-lakets[local]'")
    raise typer.Exit(code)


def _hook(conn_id: str, uri: str | None) -> LakeTSHook:
    """Return a hook for a connection, defined or given."""
    from airflow_provider_lakets.compat import stored_connection
    from airflow_provider_lakets.hooks.lakets import LakeTSHook

    if uri is not None:
        from airflow_provider_lakets.login.fields import pasted_connection

        return LakeTSHook("--uri", connection=pasted_connection(uri, "--uri"))
    return LakeTSHook(conn_id, connection=stored_connection(conn_id))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn what a user can do something about into one message and exit code 1."""
    # Airflow logs to standard output, which is for results here; whoever wants its remarks sets the level.
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    # As Airflow's own command does it, to be let at the connections in the metadata database.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    from airflow.exceptions import AirflowException  # type: ignore[attr-defined]

    from airflow_provider_lakets.exceptions import LakeTSError

    try:
        yield
    except (LakeTSError, AirflowException) as err:
        _stop(str(err))


def _stop(message: str) -> NoReturn:
    typer.secho(message, err=True, fg=typer.colors.RED)
    sys.exit(1)
