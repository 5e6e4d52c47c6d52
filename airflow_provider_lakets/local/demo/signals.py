"""Stop on the first signal, and ignore others during the cleanup."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Whether a signal still stops the demo: only the first one does, and none during cleanup."""

    def __init__(self) -> None:
        self._ignored = False

    def ignore(self) -> None:
        """Ignore all signals from now on."""
        self._ignored = True

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the demo, as Ctrl-C does."""
        if not self._ignored:
            self._ignored = True
            raise KeyboardInterrupt


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Turn the first signal to stop into a KeyboardInterrupt."""
    stop = Stop()
    before = {number: signal.signal(number, stop.handle) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
