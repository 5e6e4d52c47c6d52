"""`lakets local`: a Lakebase on this machine, up and down, and out of order on command."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from airflow_provider_lakets.local.client import LocalServer

app = typer.Typer(
    help="A Lakebase on this machine: REST API, TLS login, Postgres, change feed.", no_args_is_help=True
)

DEFAULT_FOLDER = Path(".lakets")

Folder = Annotated[Path, typer.Option(help="Holds all of it.")]


def _server(folder: Path, **options: object) -> LocalServer:
    try:
        from airflow_provider_lakets.local.client import LocalServer
    except ModuleNotFoundError as err:
        if (err.name or "").startswith("airflow_provider_lakets"):
            raise
        typer.secho(
            f"This needs {err.name}: pip install 'airflow-provider-lakets[local]'", err=True, fg="red"
        )
        sys.exit(1)
    return LocalServer(folder, **options)  # type: ignore[arg-type]


def _fail(error: Exception) -> None:
    typer.secho(str(error), err=True, fg="red")
    sys.exit(1)


@app.command()
def up(
    folder: Folder = DEFAULT_FOLDER,
    env: Annotated[
        bool, typer.Option("--env", help='Write shell exports: eval "$(lakets local up --env)"')
    ] = False,
    postgres_version: Annotated[int, typer.Option(help="Postgres major version: 16, 17 or 18.")] = 16,
    feed_interval: Annotated[
        float, typer.Option(help="Seconds between two rounds of the change feed.")
    ] = 15.0,
) -> None:
    """Start it, unless it runs, and leave it running."""
    from airflow_provider_lakets.exceptions import LakeTSError

    server = _server(folder, version=postgres_version, feed_interval=feed_interval)
    try:
        server.start()
    except LakeTSError as err:
        _fail(err)
    if env:
        for name, value in server.env().items():
            typer.echo(f"export {name}={shlex.quote(value)}")
        return
    state = server.state
    typer.echo(f"A Lakebase runs in {server.folder}: {state.url}, Postgres on port {state.port}.")
    typer.echo('Next: eval "$(lakets local up --env)" and then lakets install')


@app.command()
def down(folder: Folder = DEFAULT_FOLDER) -> None:
    """Stop it; its data stays in the folder."""
    server = _server(folder)
    was_running = server.is_running
    server.stop()
    typer.echo(f"{'Stopped' if was_running else 'Nothing runs'} in {server.folder}.")


@app.command()
def status(folder: Folder = DEFAULT_FOLDER) -> None:
    """Say whether it runs, where, and what is wrong on purpose; exit code 1 if it does not run."""
    server = _server(folder)
    if not server.is_running:
        typer.echo(f"Nothing runs in {server.folder}. Start it with `lakets local up`.")
        raise typer.Exit(1)
    state = server.state
    typer.echo(
        f"A Lakebase runs in {server.folder} (process {state.pid}): {state.url}, Postgres port {state.port}."
    )
    for name, fault in server.faults().items():
        times = "until cleared" if fault["times"] is None else f"{fault['times']} more time(s)"
        typer.echo(f"fault {name}: {times}")


@app.command()
def fault(
    name: Annotated[str | None, typer.Argument(help="Which; none lists them.")] = None,
    times: Annotated[int | None, typer.Option(help="How often it strikes; without, until --clear.")] = None,
    seconds: Annotated[float | None, typer.Option(help="How long, for the slow ones.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Undo every fault.")] = False,
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Make it misbehave, to see what your pipelines do."""
    from airflow_provider_lakets.exceptions import LakeTSError

    server = _server(folder)

    from airflow_provider_lakets.local.api.faults import MEANINGS, FaultName

    try:
        if clear:
            typer.echo(f"Undone: {', '.join(server.clear_faults()) or 'nothing'}.")
        elif name is None:
            for fault_name, meaning in MEANINGS.items():
                typer.echo(f"{fault_name.value:16} {meaning}")
        elif name not in {known.value for known in FaultName}:
            typer.secho(f"There is no fault {name!r}; `lakets local fault` lists them.", err=True, fg="red")
            sys.exit(2)
        else:
            done = server.fault(FaultName(name), times=times, seconds=seconds)
            typer.echo(f"{name}: {MEANINGS[FaultName(name)]}{_sessions(done)}.")
    except LakeTSError as err:
        _fail(err)


def _sessions(done: dict[str, object]) -> str:
    return f"; {done['sessions']} session(s) ended" if "sessions" in done else ""
