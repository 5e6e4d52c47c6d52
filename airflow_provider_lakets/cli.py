"""`lakets`: install LakeTS, run and check its jobs, find problems, try it on a laptop."""

from __future__ import annotations

import json
import sys
import time
from io import TextIOWrapper
from typing import Annotated

import typer

from airflow_provider_lakets.commands import local, run
from airflow_provider_lakets.commands.connection import AsJson, ConnId, Uri, explain_errors, open_hook, stop
from airflow_provider_lakets.monitoring.words import name as visible

app = typer.Typer(
    help="The LakeTS time-series lifecycle on Databricks Lakebase Postgres.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they may hold a password
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(local.app, name="local")
app.add_typer(run.app, name="run")


@app.callback(invoke_without_command=True)
def main(
    version: Annotated[bool, typer.Option("--version", help="Show the provider's version.")] = False,
) -> None:
    """The LakeTS time-series lifecycle on Databricks Lakebase Postgres."""
    if isinstance(sys.stdout, TextIOWrapper):
        # The names of tables may have characters that the terminal or the locale of cron has not.
        sys.stdout.reconfigure(errors="backslashreplace")
    if version:
        from airflow_provider_lakets import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command(epilog="Example: lakets install --print > lakets.sql")
def install(
    print_only: Annotated[
        bool, typer.Option("--print", help="Write the install as one SQL script, for any client.")
    ] = False,
    conn_id: ConnId = "lakebase_default",
    uri: Uri = None,
) -> None:
    """Install or upgrade LakeTS in a database; safe to repeat."""
    if print_only:
        from airflow_provider_lakets.engine import install_script

        typer.echo(install_script(), nl=False)
        return
    with explain_errors():
        from airflow_provider_lakets.commands.progress import progress

        with progress("Installing LakeTS") as report:
            done = open_hook(conn_id, uri).install(on_progress=report)
    typer.echo(f"LakeTS {done.after} is installed (before: {done.before or 'none'}).")
    for note in done.notes:
        typer.echo(f"- {visible(note)}")


@app.command(epilog="Example: lakets status --watch 10")
def status(
    conn_id: ConnId = "lakebase_default",
    uri: Uri = None,
    as_json: AsJson = False,
    watch: Annotated[
        float | None, typer.Option(min=1, help="Repeat every so many seconds, until Ctrl-C.")
    ] = None,
) -> None:
    """Show problems that need attention, ChronoTables, chunks, the change feed and RollUps."""
    if as_json and watch:
        raise typer.BadParameter("--json and --watch do not go together.")
    with explain_errors():
        from airflow.exceptions import AirflowException  # type: ignore[attr-defined]

        from airflow_provider_lakets.commands.status import console, show
        from airflow_provider_lakets.exceptions import LakeTSError
        from airflow_provider_lakets.monitoring.attention import needs_attention
        from airflow_provider_lakets.monitoring.data import gather
        from airflow_provider_lakets.monitoring.words import instant

        hook = open_hook(conn_id, uri)
        before = None
        while True:
            problem = None
            try:
                with hook.session():
                    found, before = hook.status(), gather(hook, before)
            except (LakeTSError, AirflowException) as err:
                if before is None:
                    raise
                problem = str(err)  # Lakebase may come back
            if watch:
                console().clear()
            if problem:
                typer.secho(f"Not seen since {instant(before.at)}: {problem}\n", fg=typer.colors.RED)
            show(found, needs_attention(before), as_json=as_json)
            if not watch:
                return
            time.sleep(watch)


@app.command(epilog="Example: lakets doctor --wait 60 --json")
def doctor(
    conn_id: ConnId = "lakebase_default",
    uri: Uri = None,
    as_json: AsJson = False,
    wait: Annotated[
        float, typer.Option(min=0, max=3600, help="Seconds to wait for a lagging change feed to advance.")
    ] = 20.0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if there is a warning.")] = False,
) -> None:
    """Check everything from the login to the last job runs: exit code 0, or 1 if a check failed."""
    with explain_errors():
        from airflow_provider_lakets.commands.doctor import examine
        from airflow_provider_lakets.commands.findings import show

        found = show(examine(open_hook(conn_id, uri), wait=wait), as_json=as_json)
    raise typer.Exit(1 if "fail" in found else 3 if strict and "warn" in found else 0)


@app.command(epilog="Example: lakets metrics > lakets.tmp && mv lakets.tmp lakets.prom")
def metrics(conn_id: ConnId = "lakebase_default", uri: Uri = None) -> None:
    """Print the gauges of LakeTS in the text format of Prometheus."""
    with explain_errors():
        from airflow_provider_lakets.commands.metrics import exposition, of_attention
        from airflow_provider_lakets.monitoring.attention import needs_attention
        from airflow_provider_lakets.monitoring.data import gather

        with open_hook(conn_id, uri).session() as hook:
            found = [*hook.lakets_metrics(), *of_attention(needs_attention(gather(hook)))]
    typer.echo(exposition(found), nl=False)


@app.command(epilog="Example: lakets explain public.metrics_20250101_000000")
def explain(
    name: Annotated[str, typer.Argument(help="A chunk as schema.chunk, or a RollUp.")],
    conn_id: ConnId = "lakebase_default",
    uri: Uri = None,
    as_json: AsJson = False,
) -> None:
    """Explain the state of a chunk or a RollUp, and what happens next."""
    with explain_errors():
        from airflow_provider_lakets.commands.explain import explain as ask
        from airflow_provider_lakets.commands.explain import in_lines

        found = ask(open_hook(conn_id, uri), name)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for line in in_lines(found):
        typer.echo(line)


@app.command(epilog="Example: lakets demo --keep")
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
        stop(f"The demo needs {err.name}: pip install 'airflow-provider-lakets[local]'")
    raise typer.Exit(code)
