"""`lakets run`: the four jobs without Airflow, for cron, a container or a shell."""

from __future__ import annotations

import json
from enum import Enum
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from airflow_provider_lakets.commands.connection import AsJson, ConnId, Uri, explain_errors, open_hook, stop
from airflow_provider_lakets.commands.progress import progress
from airflow_provider_lakets.monitoring.words import name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from airflow_provider_lakets.commands.progress import Report
    from airflow_provider_lakets.hooks.lakets import LakeTSHook
    from airflow_provider_lakets.hooks.results import JobResult

    # Yields, for each part of the work, the total number of items and the results of the part. A
    # long part reports its own progress.
    Parts = Callable[[LakeTSHook, Report], Iterator[tuple[int, Sequence[JobResult]]]]

# The number of tables or chunks per call, as in a mapped task of the sample DAGs.
BATCH = 20
# EX_TEMPFAIL of sysexits.h: try again later.
TRY_AGAIN = 75

app = typer.Typer(
    invoke_without_command=True,
    help="Run one of the four jobs now, with the code of the operators. Exit code 0: all is done; 75: try "
    "again later, for example because another session locks a table; 1: something failed permanently.",
)

Tables = Annotated[
    list[str] | None,
    typer.Option("--table", help="Only this ChronoTable (schema.table); repeat for several."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Report what would be done, and change nothing.")]


class Runner(str, Enum):
    """The runners that can run the jobs on schedules, besides Airflow."""

    DBOS = "dbos"


@app.callback()
def run(
    context: typer.Context,
    runner: Annotated[
        Runner | None,
        typer.Option("--with", help="Run all jobs on their schedules until stopped, with this runner."),
    ] = None,
    conn_id: ConnId = "lakebase_default",
    uri: Uri = None,
) -> None:
    """See the help of the group."""
    if context.invoked_subcommand is not None:
        return
    if runner is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)
    with explain_errors():
        if find_spec("dbos") is None:
            stop("--with dbos needs DBOS: pip install 'airflow-provider-lakets[dbos]'")
        from airflow_provider_lakets.dbos import jobs

        jobs.run(lambda: open_hook(conn_id, uri), open_hook(conn_id, uri).get_sqlalchemy_engine())


@app.command(epilog="Example: lakets run partitions --table public.metrics")
def partitions(
    table: Tables = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    conn_id: ConnId = "lakebase_default",
    uri: Uri = None,
) -> None:
    """Create the chunks that writers will need."""

    def parts(hook: LakeTSHook, _: Report) -> Iterator[tuple[int, Sequence[JobResult]]]:
        work = hook.plan_partitions if dry_run else hook.partition
        if table:
            yield 0, work(table)
            return
        names = [one.name for one in hook.chronotables()]
        for batch in _batches(names):
            yield len(names), work(batch)

    _run(parts, conn_id, uri, as_json=as_json)


@app.command(epilog="Example: lakets run tier --dry-run")
def tier(
    table: Tables = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    conn_id: ConnId = "lakebase_default",
    uri: Uri = None,
) -> None:
    """Flag the cold chunks that are proved durable in Unity Catalog; nothing is dropped."""

    def parts(hook: LakeTSHook, _: Report) -> Iterator[tuple[int, Sequence[JobResult]]]:
        look = hook.plan_candidates if dry_run else hook.tier_candidates
        left_out: list[JobResult] = []
        names = [one.chunk_name for one in look(table, left_out=left_out)]
        for batch in _batches(names):
            yield len(names), hook.plan_tiering(batch) if dry_run else hook.tier(batch)
        yield 0, left_out

    _run(parts, conn_id, uri, as_json=as_json)


@app.command(epilog="Example: lakets run retain --table public.metrics --dry-run --json")
def retain(
    table: Tables = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also drop chunks that are not proved durable. Needs --table.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    conn_id: ConnId = "lakebase_default",
    uri: Uri = None,
) -> None:
    """Drop the expired chunks that are durable in Unity Catalog, from Lakebase only."""
    if force and not table:
        raise typer.BadParameter("--force needs --table, because it drops data that may exist nowhere else.")

    def parts(hook: LakeTSHook, _: Report) -> Iterator[tuple[int, Sequence[JobResult]]]:
        work = hook.plan_retentions if dry_run else hook.retain_all
        if table:
            yield 0, work(table, force=force)
            return
        names = [one.name for one in hook.chronotables(policy="retention")]
        for batch in _batches(names):
            yield len(names), work(batch, force=force)

    _run(parts, conn_id, uri, as_json=as_json)


@app.command(epilog="Example: lakets run refresh --rollup hourly --parallelism 2")
def refresh(
    rollup: Annotated[
        str | None, typer.Option(help="Only this RollUp and those it reads; the default is all.")
    ] = None,
    parallelism: Annotated[int, typer.Option(min=1, help="How many to refresh at a time.")] = 4,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    conn_id: ConnId = "lakebase_default",
    uri: Uri = None,
) -> None:
    """Aggregate the buckets that changed; each RollUp is refreshed after those it reads."""

    def parts(hook: LakeTSHook, report: Report) -> Iterator[tuple[int, Sequence[JobResult]]]:
        if dry_run:
            yield 0, hook.plan_refresh(rollup)
        else:
            yield 0, hook.refresh(rollup, parallelism=parallelism, on_progress=report)

    _run(parts, conn_id, uri, as_json=as_json)


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while batch := list(islice(rest, BATCH)):
        yield batch


def _run(parts: Parts, conn_id: str, uri: str | None, *, as_json: bool) -> None:
    """Do the work, show its progress on a terminal, print the results, and set the exit code."""
    results: list[JobResult] = []
    with (
        explain_errors(temporary=TRY_AGAIN),
        progress("Logging in") as report,
        (hook := open_hook(conn_id, uri)).session(),
    ):
        report(0, 0, "Working")
        for total, done in parts(hook, report):
            results += done
            report(len(results), total or len(results))
    if as_json:
        typer.echo(json.dumps([one.as_dict() for one in results], indent=2))
    else:
        for one in results:
            typer.echo(_line(one))
        typer.echo(_summary(results))
    problems = [one for one in results if not one.ok]
    if problems:
        raise typer.Exit(TRY_AGAIN if all(one.retryable for one in problems) else 1)


def _line(one: JobResult) -> str:
    """Return a result as a line: its name, outcome and details."""
    plain = one.as_dict()
    counts = [
        f"{len(plain[key])} {'chunk' if len(plain[key]) == 1 else 'chunks'} {key}"
        for key in ("planned", "created", "dropped", "deferred")
        if plain.get(key)
    ]
    if plain.get("rows") is not None and one.outcome == "refreshed":
        counts.append(f"{plain['rows']} rows written")
    reasons = sorted({kept["reason"] for kept in plain.get("deferred") or []})
    more = "; ".join(filter(None, [", ".join(counts), one.detail, *reasons]))
    return name(f"{one.name}: {one.outcome}" + (f" ({more})" if more else ""))


def _summary(results: list[JobResult]) -> str:
    outcomes = [one.outcome for one in results]
    counts = [f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(outcomes)]
    return ", ".join(counts) or "Nothing is due."
