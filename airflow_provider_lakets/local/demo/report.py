"""The report at the end: what each job did, and what the audit found."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from airflow_provider_lakets.local.demo.airflow import outcomes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console

    from airflow_provider_lakets.local.demo.airflow.runs import DagRun
    from airflow_provider_lakets.local.demo.audit import Audit

_INDENT = "  "
# The width of the columns beside the widest one.
_OTHER_COLUMNS = 29


def print_jobs(console: Console, runs: Iterable[DagRun]) -> None:
    """Print what each run of a DAG did, from the results of its tasks."""
    table = plain_table("What each job did, run by Airflow")
    table.add_column("DAG", style="bold")
    table.add_column("did")
    table.add_column("time", justify="right")
    width = console.width - _OTHER_COLUMNS
    for run in runs:
        lines = [
            textwrap.fill(said, width, subsequent_indent=_INDENT * 2) for said in _DIGESTS[run.dag_id](run)
        ]
        table.add_row(run.dag_id.removeprefix("lakets_"), Text("\n".join(lines)), f"{run.seconds:.1f} s")
    console.print(table)


def summarise(run: DagRun) -> str:
    """Return in one line what a run did."""
    return "; ".join(_DIGESTS[run.dag_id](run, brief=True))


def _install(run: DagRun, *, brief: bool = False) -> Iterator[str]:
    done = outcomes.installed(run)
    yield f"LakeTS {done['after']} installed" + (f" over {done['before']}" if done["before"] else "")


def _partitions(run: DagRun, *, brief: bool = False) -> Iterator[str]:
    if brief:
        yield f"{_count(sum(len(done['created']) for done in outcomes.partitions(run)), 'chunk')} created"
        return
    for done in outcomes.partitions(run):
        made = _count(len(done["created"]), "chunk")
        yield (
            f"{_bare(done['name'])}: {made} created"
            if done["created"]
            else f"{_bare(done['name'])}: complete"
        )


def _tiering(run: DagRun, *, brief: bool = False) -> Iterator[str]:
    results = outcomes.tiered(run)
    if brief:
        yield _tally(results) or "nothing due"
        return
    by_table: dict[str, Counter[str]] = defaultdict(Counter)
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for done in results:
        table, day = _chunk(done["name"])
        by_table[table][done["outcome"]] += 1
        if done["outcome"] != "tiered":
            reasons[table, f"{done['outcome']}: {done['detail']}"].append(day)
    for table, counts in by_table.items():
        yield f"{table}: {_count(counts['tiered'], 'chunk')} tiered"
        for (name, reason), days in reasons.items():
            if name == table:
                yield f"{_INDENT}{len(days)} {reason} ({_some(days)})"
    if not results:
        yield "no chunk was due"


def _retention(run: DagRun, *, brief: bool = False) -> Iterator[str]:
    results = outcomes.retained(run)
    if brief:
        dropped, deferred = (sum(len(done[key]) for done in results) for key in ("dropped", "deferred"))
        yield ", ".join([f"{dropped} dropped"] + ([f"{deferred} deferred"] if deferred else []))
        return
    for done in results:
        yield f"{_bare(done['name'])}: {_count(len(done['dropped']), 'chunk')} dropped from Lakebase"
        reasons: dict[str, list[str]] = defaultdict(list)
        for stays in done["deferred"]:
            reasons[stays["reason"]].append(_chunk(stays["chunk"])[1])
        for reason, days in reasons.items():
            yield f"{_INDENT}{len(days)} deferred: {reason} ({_some(days)})"


def _refresh(run: DagRun, *, brief: bool = False) -> Iterator[str]:
    results = outcomes.refreshed(run)
    if brief:
        yield _tally(results)
        return
    for done in results:
        if done["outcome"] != "refreshed":
            yield f"{done['name']}: {done['outcome']}, {done['detail']}"
    chains: dict[str, list[str]] = defaultdict(list)
    for done in results:
        chain, _, level = done["name"].rpartition("_")
        chains[chain].append(f"{level} {done['ms']} ms")
    for chain, levels in sorted(chains.items()):
        yield f"{chain}: {', '.join(levels)}"


def _tally(results: Iterable[outcomes.Result]) -> str:
    counts = Counter(done["outcome"] for done in results)
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items())


_DIGESTS: dict[str, Any] = {
    "lakets_install": _install,
    "lakets_partition_manager": _partitions,
    "lakets_tiering": _tiering,
    "lakets_retention": _retention,
    "lakets_rollup_refresh": _refresh,
}


def print_audit(console: Console, audit: Audit) -> None:
    """Print the counts of the audit."""
    rows = plain_table("Audit of the rows: the source, Lakebase, and the Delta history replayed")
    rows.add_column("table", style="bold", no_wrap=True)
    for title in ("source", "Lakebase", "Delta", "both", "Delta only", "lost", "wrong", "extra"):
        rows.add_column(title, justify="right", no_wrap=True)
    for one in audit.tables:
        rows.add_row(
            one.name,
            *(f"{n:,}" for n in (one.source, one.in_lakebase, one.in_delta, one.in_both)),
            f"{len(one.delta_only):,}",
            *(_zero(n) for n in (one.missing, one.altered, one.extra)),
        )
    console.print(rows)
    rollups = plain_table("Audit of the RollUps, compared with their queries")
    rollups.add_column("RollUp", style="bold")
    for title in ("equal to the query", "source dropped, value kept", "wrong buckets"):
        rollups.add_column(title, justify="right")
    for up in audit.rollups:
        rollups.add_row(up.name, f"{up.equal:,}", f"{up.kept:,}" if up.kept else "-", _zero(up.wrong))
    console.print(rollups)


def plain_table(title: str) -> Table:
    """Return an empty table in the common style."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )


def _zero(count: int) -> Text:
    return Text(f"{count:,}", style="red" if count else "green")


def _bare(name: str) -> str:
    return name.removeprefix("public.")


def _chunk(name: str) -> tuple[str, str]:
    """Return the table of a chunk and the day it begins."""
    table, day, _ = _bare(name).rsplit("_", 2)
    return table, f"{day[:4]}-{day[4:6]}-{day[6:]}"


def _some(days: Sequence[str]) -> str:
    return f"{days[0]} and {len(days) - 1} more" if len(days) > 1 else days[0]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
