"""What a local Lakebase can be told to do wrong."""

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
    FaultName.TOKEN_WRONG_KIND: "a workspace token is handed out where a database credential is asked for",
    FaultName.MINT_SLOW: "minting takes --seconds",
    FaultName.MINT_429: "minting is answered 429, Retry-After: 1",
    FaultName.MINT_500: "minting is answered 500",
    FaultName.SUSPENDED: "the endpoint sleeps: logins fail --times, then it is awake",
    FaultName.CUT: "every session is cut now, in the middle of what it does",
    FaultName.SHUTDOWN: "every session is ended now by an administrator's command",
    FaultName.FEED_PAUSED: "the change feed stands still",
    FaultName.FEED_LAGGING: "the change feed lets --seconds pass between two rounds",
    FaultName.FEED_SKIPPED: "every shadow is skipped: its replica identity is no longer FULL",
    FaultName.FEED_UNREADABLE: "no role but the administrator may read the feed's state",
    FaultName.DISK_FULL: "Delta tables cannot be written",
}

# Over as soon as they have happened.
MOMENTARY = {FaultName.CUT, FaultName.SHUTDOWN}


@dataclass
class Fault:
    """
    A fault that is on.

    :param times: How often it still strikes; None until it is cleared.
    :param seconds: How long, where that has a meaning.
    """

    times: int | None = None
    seconds: float = 5.0


@dataclass
class Faults:
    """The faults that are on."""

    active: dict[FaultName, Fault] = field(default_factory=dict)

    def strike(self, name: FaultName) -> Fault | None:
        """Return a fault if it is on, and count it down."""
        fault = self.active.get(name)
        if fault is not None and fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                del self.active[name]
        return fault
