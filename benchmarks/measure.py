"""Measuring variants of one operation side by side, and judging the figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import psycopg

# One round of one variant: does the work of that round and returns its figure.
Step = Callable[[int], float]


@dataclass(frozen=True)
class Bar:
    """
    The limit of a figure.

    :param limit: The figure's limit.
    :param of: Whether the limit is on the ratio to the floor or on the engine's own figure.
    :param at_least: Whether more is better.
    """

    limit: float
    of: Literal["ratio", "figure"] = "ratio"
    at_least: bool = False

    def met_by(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Figure:
    """
    One line of the table: the engine's samples beside those of its floor.

    :param unit: ``ms`` or ``floors`` (less is better), or ``/s`` (more is better).
    """

    group: str
    name: str
    unit: str
    engine: list[float]
    floor: list[float] | None = None
    floor_name: str = ""
    bar: Bar | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Engine to floor, the median over the rounds, because the speed of a machine drifts."""
        if not self.floor:
            return None
        return median(engine / floor for engine, floor in zip(self.engine, self.floor, strict=True))

    @property
    def passed(self) -> bool | None:
        """Whether the bar is met; None where there is no bar."""
        if self.bar is None:
            return None
        value = self.ratio if self.bar.of == "ratio" else median(self.engine)
        assert value is not None, f"{self.name} has a bar on its ratio but no floor"
        return self.bar.met_by(value)


def measure(variants: Mapping[str, Step], *, rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """
    Run the variants in turn, round after round, and return the samples of each.

    The order changes every round, so that no variant always runs first, and other load on the
    machine affects all of them.

    :param variants: The variants to compare, by name.
    :param rounds: The number of samples of each to keep.
    :param warm_up: The number of rounds before that to discard.
    """
    samples: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for number in range(-warm_up, rounds):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            figure = variants[name](number + warm_up)
            if number >= 0:
                samples[name].append(figure)
    return samples


def timed(conn: psycopg.Connection, *statements: str) -> float:
    """Run statements as one transaction of an autocommit session and return how many ms it took."""
    script = ";\n".join(statements)  # sent at once, it is a transaction by itself
    started = time.perf_counter()
    conn.execute(script)
    return (time.perf_counter() - started) * 1000
