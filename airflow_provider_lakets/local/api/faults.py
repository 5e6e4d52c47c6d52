"""The faults that a local Lakebase can simulate."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class FaultName(str, Enum):
    """The faults, by the names that ``lakets local fault`` takes."""

    TOKEN_EXPIRED = "token-expired"  # noqa: S105 - a fault's name
    TOKEN_WRONG_KIND = "token-wrong-kind"  # noqa: S105 - a fault's name
    MINT_SLOW = "mint-slow"
    MINT_429 = "mint-429"
    MINT_500 = "mint-500"
    SUSPENDED = "suspended"
    CUT = "cut"
    SHUTDOWN = "shutdown"
    FEED_PAUSED = "feed-paused"
    FEED_LAGGING = "feed-lagging"
    FEED_SKIPPED = "feed-skipped"
    FEED_UNREADABLE = "feed-unreadable"
    DISK_FULL = "disk-full"


MEANINGS = {
    FaultName.TOKEN_EXPIRED: "minted credentials have expired already",
    FaultName.TOKEN_WRONG_KIND: "minting returns a workspace token instead of a database credential",
    FaultName.MINT_SLOW: "minting takes --seconds",
    FaultName.MINT_429: "minting fails with 429, Retry-After: 1",
    FaultName.MINT_500: "minting fails with 500",
    FaultName.SUSPENDED: "the endpoint is suspended: --times logins fail, then it is active",
    FaultName.CUT: "all connections are cut now, even while statements run",
    FaultName.SHUTDOWN: "an administrator's command ends all sessions now",
    FaultName.FEED_PAUSED: "the change feed is paused",
    FaultName.FEED_LAGGING: "the change feed waits --seconds between two rounds",
    FaultName.FEED_SKIPPED: "every shadow is skipped: its replica identity is no longer FULL",
    FaultName.FEED_UNREADABLE: "only the administrator may read the feed's state",
    FaultName.DISK_FULL: "Delta tables cannot be written",
}

# Faults that happen once, at once, and are then over.
MOMENTARY = {FaultName.CUT, FaultName.SHUTDOWN}


@dataclass
class Fault:
    """
    An active fault.

    :param times: How many more times it happens; None for until it is cleared.
    :param seconds: The duration, for faults that have one.
    """

    times: int | None = None
    seconds: float = 5.0


@dataclass
class Faults:
    """The active faults."""

    active: dict[FaultName, Fault] = field(default_factory=dict)

    def take(self, name: FaultName) -> Fault | None:
        """Return a fault if it is active, and count down its times."""
        fault = self.active.get(name)
        if fault is not None and fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                del self.active[name]
        return fault
