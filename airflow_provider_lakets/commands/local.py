"""`lakets local`: start, stop and disturb a Lakebase on this machine."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.client import LocalServer

app = typer.Typer(
    help="A Lakebase on this machine: REST API, TLS login, Postgres, change feed.", no_args_is_help=True
)

DEFAULT_FOLDER = Path(".lakets")

Folder = Annotated[Path, typer.Option(help="The folder with its data and settings.")]


def _port(help_text: str) -> Any:
    """Return the option of a port."""
    return typer.Option(min=1, max=65535, help=f"{help_text}; by default the last one used, or a free one.")


def _seconds(value: float) -> float:
    """Return the seconds between two rounds; refuse values that are too small or too large."""
    if not 0.1 <= value <= 86_400:  # NaN fails this, too
        raise typer.BadParameter(f"{value:g} is not between 0.1 and 86400 seconds.")
    return value


@contextlib.contextmanager
def _server(folder: Path, **options: Any) -> Iterator[LocalServer]:
    """Yield the Lakebase of a folder; turn errors that a user can correct into one message."""
    try:
        from airflow_provider_lakets.local.client import LocalServer
    except ModuleNotFoundError as err:
        if (err.name or "").startswith("airflow_provider_lakets"):
            raise
        _fail(f"This needs {err.name}: pip install 'airflow-provider-lakets[local]'")
    from airflow_provider_lakets.exceptions import LakeTSError

    try:
        yield LocalServer(folder, **options)
    except LakeTSError as err:
        _fail(str(err))
    except OSError as err:
        _fail(f"The folder {folder} cannot be used: {err.strerror or err}. Name another with --folder.")


def _fail(message: str, code: int = 1) -> NoReturn:
    typer.secho(message, err=True, fg="red")
    sys.exit(code)


@app.command()
def up(
    folder: Folder = DEFAULT_FOLDER,
    env: Annotated[
        bool, typer.Option("--env", help='Write shell exports: eval "$(lakets local up --env)"')
    ] = False,
    postgres_version: Annotated[int, typer.Option(help="Postgres major version: 16, 17 or 18.")] = 16,
    feed_interval: Annotated[
        float, typer.Option(help="Seconds between two rounds of the change feed.", callback=_seconds)
    ] = 15.0,
    port: Annotated[int | None, _port("Port of Postgres")] = None,
    api_port: Annotated[int | None, _port("Port of the REST API")] = None,
) -> None:
    """Start the Lakebase in the background, unless it runs."""
    asked = {"--port": port, "--api-port": api_port}
    arguments = [text for name, value in asked.items() if value for text in (name, str(value))]
    with _server(
        folder, version=postgres_version, feed_interval=feed_interval, arguments=arguments
    ) as server:
        server.start()
        state = server.state
        for option, value, found in (("--port", port, state.port), ("--api-port", api_port, state.api_port)):
            if value not in (None, found):
                _fail(
                    f"It runs already, on port {found} instead of {option} {value}. "
                    f"Stop it first: `{server.command('down')}`."
                )
        if env:
            from airflow_provider_lakets.local.environment import no_proxy_variables

            for name, text in {**server.env(), **no_proxy_variables(os.environ)}.items():
                typer.echo(f"export {name}={shlex.quote(text)}")
            return
        typer.echo(f"A Lakebase runs in {server.folder}: {state.url}, Postgres on port {state.port}.")
        typer.echo(f'Next: eval "$({server.command("up --env")})" and then lakets install')


@app.command()
def down(folder: Folder = DEFAULT_FOLDER) -> None:
    """Stop the Lakebase; its data stays in the folder."""
    with _server(folder) as server:
        was_running = server.is_running
        server.stop()
        typer.echo(f"{'Stopped' if was_running else 'Nothing runs'} in {server.folder}.")


@app.command()
def status(folder: Folder = DEFAULT_FOLDER) -> None:
    """Show whether the Lakebase runs, where, and its faults; exit code 1 if it does not run."""
    with _server(folder) as server:
        if not server.is_running:
            typer.echo(f"Nothing runs in {server.folder}. Start it with `{server.command('up')}`.")
            raise typer.Exit(1)
        state = server.state
        typer.echo(
            f"A Lakebase runs in {server.folder} (process {state.pid}): {state.url}, "
            f"Postgres port {state.port}."
        )
        for name, fault in server.faults().items():
            times = "until cleared" if fault["times"] is None else f"{fault['times']} more time(s)"
            typer.echo(f"fault {name}: {times}")


@app.command()
def fault(
    name: Annotated[str | None, typer.Argument(help="The fault; omit it to list all.")] = None,
    times: Annotated[int | None, typer.Option(help="How often it occurs; by default until --clear.")] = None,
    seconds: Annotated[float | None, typer.Option(help="How long a slow fault takes.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Clear all faults.")] = False,
    folder: Folder = DEFAULT_FOLDER,
) -> None:
    """Cause a fault, to see how your pipelines react."""
    with _server(folder) as server:
        from airflow_provider_lakets.local.api.faults import MEANINGS, FaultName

        if clear:
            typer.echo(f"Undone: {', '.join(server.clear_faults()) or 'nothing'}.")
        elif name is None:
            for fault_name, meaning in MEANINGS.items():
                typer.echo(f"{fault_name.value:16} {meaning}")
        elif name not in {known.value for known in FaultName}:
            _fail(f"There is no fault {name!r}; `lakets local fault` lists them.", 2)
        else:
            done = server.fault(FaultName(name), times=times, seconds=seconds)
            typer.echo(f"{name}: {MEANINGS[FaultName(name)]}{_sessions(done)}.")


def _sessions(done: dict[str, object]) -> str:
    return f"; {done['sessions']} session(s) ended" if "sessions" in done else ""
