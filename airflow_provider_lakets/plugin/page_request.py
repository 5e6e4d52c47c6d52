"""The request, as every page reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class PageRequest:
    """A request: URLs, the connections that the user may see, and the one that is shown."""

    base: str
    airflow: str
    allowed: dict[str, list[str]]
    conn: str | None
    wake: bool
    now: datetime
