"""Templates, and how sizes, ages and names are written."""

from __future__ import annotations

import unicodedata
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

if TYPE_CHECKING:
    from datetime import timedelta

NOTHING = "\N{EN DASH}"
FOLDER = Path(__file__).parent
# Control, format (which turn the direction of text), private and unassigned characters, line
# separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def name(text: Any) -> str:
    """Return a name of somebody else's with characters that cannot be seen written out."""
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


def ago(at: datetime | None, now: datetime | None = None) -> str:
    """Return how long ago something was."""
    if at is None:
        return "never"
    return f"{duration(((now or datetime.now(timezone.utc)) - at).total_seconds())} ago"


def instant(at: datetime | None) -> str:
    """Return a time with its zone, which is always UTC here."""
    return at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC") if at else NOTHING


def day(at: datetime) -> str:
    """Return the start or end of a chunk: a date alone where it is midnight."""
    utc = at.astimezone(timezone.utc)
    return utc.strftime("%Y-%m-%d" if (utc.hour, utc.minute) == (0, 0) else "%Y-%m-%d %H:%M")


def seconds_of(length: timedelta | None) -> float | None:
    """Return a length of time in seconds."""
    return None if length is None else length.total_seconds()


@cache
def environment() -> Environment:
    """Return the templates; whatever they insert is escaped."""
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(name=name, size=size, duration=duration, ago=ago, instant=instant, day=day)
    found.globals["query"] = lambda **given: urlencode({k: v for k, v in given.items() if v is not None})
    return found


def render(template: str, **values: Any) -> str:
    """Return a page."""
    return environment().get_template(template).render(**values)
