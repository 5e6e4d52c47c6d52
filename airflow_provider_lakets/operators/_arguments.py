"""Arguments that a template may have turned into text."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from airflow_provider_lakets.compat import fail

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

_TRUE = ("true", "t", "yes", "y", "on", "1")
_FALSE = ("false", "f", "no", "n", "off", "0", "none", "")


def as_bool(value: bool | str | None, name: str) -> bool:
    """
    Read a switch; what is neither on nor off fails the task for good, since a guess could drop data.

    :param value: The switch, or what a template made of it.
    :param name: What it is called.
    """
    text = str(value).strip().lower()
    if text not in _TRUE + _FALSE:
        fail(f"{name} must be true or false, not {value!r}.")
    return text in _TRUE


def as_list(names: str | Sequence[str] | None) -> list[str] | None:
    """Take one name for a list of one, and a list that a template made text of for that list."""
    if not isinstance(names, str):
        return None if names is None else list(names)
    if names in ("", "None"):
        return None
    return [str(name) for name in ast.literal_eval(names)] if names.startswith("[") else [names]


def as_instant(value: datetime | str | None) -> datetime | None:
    """Read an instant; text without a zone is UTC."""
    from airflow.sdk.timezone import parse

    if not isinstance(value, str):
        return value
    return None if value in ("", "None") else parse(value, timezone="UTC")


def as_range(
    start: datetime | str | None, end: datetime | str | None
) -> tuple[datetime, datetime] | tuple[None, None]:
    """Read both ends of a range; one without the other fails the task for good."""
    first, last = as_instant(start), as_instant(end)
    if first is None and last is None:
        return None, None
    if first is None or last is None:
        fail(f"range_start and range_end go together; given are {first} and {last}.")
    return first, last


def check_range(start: object, end: object) -> None:
    """Refuse, when the DAG is parsed, one end of a range without the other."""
    if (start is None) != (end is None):
        raise ValueError("range_start and range_end go together: give both, or neither")
