"""What every page is told of the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True)
class Asked:
    """What every page is told: where it is, which connections there are, and which one is shown."""

    base: str
    airflow: str
    allowed: dict[str, list[str]]
    conn: str | None
    wake: bool
    now: datetime
