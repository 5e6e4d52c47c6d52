"""Show progress on standard error: a bar on a terminal, or plain lines otherwise."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from airflow_provider_lakets.monitoring.words import name

if TYPE_CHECKING:
    from collections.abc import Iterator


class Report(Protocol):
    """A function that shows progress."""

    def __call__(self, done: int, total: int, what: str = ...) -> None:
        """Show how many of the total are done (0 for an unknown total), and the current step."""


def console() -> Console:
    """Return a console on standard error: standard output is for results."""
    return Console(stderr=True)


@contextlib.contextmanager
def progress(begin: str) -> Iterator[Report]:
    """
    Yield a function that shows progress.

    :param begin: The step that is shown until the function is called.
    """
    out = console()
    if not out.is_terminal:
        yield _print_line
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=out, transient=True) as shown:
        # Without a total, the bar only shows activity.
        task = shown.add_task(begin, total=None, count="")

        def show(done: int, total: int, what: str = "") -> None:
            count = f"{done} of {total}" if total else f"{done} done"
            shown.update(task, completed=done, total=total or None, count=count)
            if what:
                shown.update(task, description=name(what))

        yield show


def _print_line(done: int, total: int, what: str = "") -> None:
    """Print a line for each part except the last, which the results report."""
    if done < total:
        typer.echo(name(f"{what or 'Progress'}: {done} of {total}"), err=True)
