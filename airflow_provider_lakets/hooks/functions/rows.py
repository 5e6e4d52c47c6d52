"""Rows as records, natural sorting of names, and arguments without those that are None."""

from __future__ import annotations

import dataclasses
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_lakets.hooks.results import Record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_lakets.hooks._calls import Row

R = TypeVar("R", bound=Record)

FLOAT_MAX = 10**308

# A quoted identifier, or one that needs no quotes.
_PART = re.compile(r'"(?:[^"]|"")+"|[^".]+')
_QUOTED = re.compile(rf"(?:{_PART.pattern})(?:\.(?:{_PART.pattern}))?")


def record(kind: type[R], row: Row) -> R:
    """Create a record from a row, by name; unknown columns are left out."""
    values = {field.name: row[field.name] for field in dataclasses.fields(kind) if field.name in row}
    return kind(**{name: _plain(value) for name, value in values.items()})


def natural(name: str) -> tuple[list[str | int], str]:
    """Return the key for natural sorting: ``sensors_2`` before ``sensors_10``."""
    parts = re.split("([0-9]+)", name.casefold())
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], name


def _plain(value: Any) -> Any:
    """Convert a numeric to a JSON number, within what Airflow can pass on as a result."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return float(value) if abs(value) < FLOAT_MAX else str(value)
    return value


def several(names: Iterable[str]) -> list[str]:
    """Return the names as a list; a text is one name, and not its letters."""
    return [names] if isinstance(names, str) else list(names)


def unquoted(name: str) -> str:
    """Return a name without the quotes of SQL, as in ``"Plant"."metrics"``."""
    if not _QUOTED.fullmatch(name):
        return name
    parts = (part.group() for part in _PART.finditer(name))
    return ".".join(part[1:-1].replace('""', '"') if part[0] == '"' else part for part in parts)


def given(**arguments: Any) -> Row:
    """Leave out arguments that are None, so that the default of the function applies."""
    return {name: value for name, value in arguments.items() if value is not None}
