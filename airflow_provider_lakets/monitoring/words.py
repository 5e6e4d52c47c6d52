"""Format names, sizes, times and ages for the page and the terminal."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime, timezone
from typing import Any

NOTHING = "\N{EN DASH}"
# Control, format (which can reverse the direction of text), surrogate, private and unassigned
# characters, and line separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def name(text: Any) -> str:
    """Return a name with its invisible characters escaped."""
    return "".join(
        f"\\u{{{ord(one):X}}}" if unicodedata.category(one) in _UNSEEN else one for one in str(text)
    )


def size(count: int | float | None) -> str:
    """Return a number of bytes in its unit."""
    if count is None:
        return NOTHING
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """Return a length of time in its two largest units."""
    if seconds is None:
        return NOTHING
    left = max(0, round(seconds))
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        if len(parts) == 2 or (parts and unit == "d" and count >= 10):
            break
    return " ".join(parts)


def interval(text: str | None) -> str:
    """Return an interval of Postgres, with units for its hours, minutes and seconds."""
    if not text:
        return NOTHING

    def in_units(found: re.Match[str]) -> str:
        hours, minutes, seconds = found.groups()
        return duration(int(hours) * 3600 + int(minutes) * 60 + float(seconds))

    return re.sub(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)$", in_units, text)


def ago(at: datetime | None, now: datetime | None = None) -> str:
    """Return how long ago a time was."""
    if at is None:
        return "never"
    return f"{duration(((now or datetime.now(timezone.utc)) - at).total_seconds())} ago"


def instant(at: datetime | None) -> str:
    """Return a time in UTC."""
    return at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC") if at else NOTHING


def day(at: datetime) -> str:
    """Return the start or end of a chunk in UTC, without the time if it is midnight."""
    utc = at.astimezone(timezone.utc)
    return utc.strftime("%Y-%m-%d" if (utc.hour, utc.minute) == (0, 0) else "%Y-%m-%d %H:%M")
