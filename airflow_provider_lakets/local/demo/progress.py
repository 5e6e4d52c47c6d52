"""Show the progress: a line for each step, live on a terminal, and everything in a log file."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

log = logging.getLogger(__name__)

_TITLE = 31
_SECONDS = 8


class Step:
    """
    A running step, drawn as one line.

    :param title: What the step does.
    :param width: The maximal length of the line.
    :param spinner: The name of the spinner in front of it.
    """

    def __init__(self, title: str, *, width: int, spinner: str) -> None:
        self.title = title
        self.note = ""
        self._width = width
        self._spinner = Spinner(spinner)
        self._started = time.monotonic()

    def say(self, note: str) -> None:
        """Show the progress, and at the end the result."""
        if note != self.note:
            log.info("%s: %s", self.title, note)
        self.note = note

    def line(self, mark: Text | None = None) -> Text:
        """Return the line, with its mark once the step is over."""
        head = Text.assemble(f" {self.title} ".ljust(_TITLE + 2))
        note = Text(self.note, style="dim")
        note.truncate(self._width - len(head) - _SECONDS - 1, overflow="ellipsis", pad=True)
        seconds = f"{time.monotonic() - self._started:.1f} s".rjust(_SECONDS)
        first = mark if mark is not None else self._spinner.render(time.monotonic())
        return Text.assemble(first if isinstance(first, Text) else "", head, note, seconds)

    def __rich__(self) -> Text:
        """Return the line, each time the terminal is refreshed."""
        return self.line()


class Steps:
    """
    The steps, one after another.

    :param console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        unicode = console.encoding.lower().startswith("utf")
        self._done, self._failed = ("✔", "✘") if unicode else ("+", "x")
        self._spinner = "dots" if unicode else "line"

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show that a step runs, then whether it succeeded and how long it took."""
        log.info("%s ...", title)
        step = Step(title, width=self._console.width, spinner=self._spinner)
        mark = Text(self._failed, style="red")
        # Only a terminal can show a line that changes.
        live = Live(step, console=self._console, transient=True, refresh_per_second=8)
        with live if self._console.is_terminal else contextlib.nullcontext():
            try:
                yield step
                mark = Text(self._done, style="green")
            finally:
                live.stop()
                line = step.line(mark)
                log.info("%s", line.plain.strip())
                self._console.print(line, no_wrap=True, crop=True)
