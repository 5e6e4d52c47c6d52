"""Rows of LakeTS as records, names in order, and arguments that are left to their defaults."""

from __future__ import annotations

import dataclasses
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_lakets.hooks.results import Record

if TYPE_CHECKING:
    from airflow_provider_lakets.hooks._calls import Row

R = TypeVar("R", bound=Record)


def record(kind: type[R], row: Row) -> R:
    """Make a record of a row, by name; columns that the record does not know are left out."""
    values = {field.name: row[field.name] for field in dataclasses.fields(kind) if field.name in row}
    return kind(**{name: _plain(value) for name, value in values.items()})


def natural(name: str) -> tuple[list[str | int], str]:
    """Return the key that sorts names as people count: ``sensors_2`` before ``sensors_10``."""
    parts = re.split("([0-9]+)", name.casefold())
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], name


def _plain(value: Any) -> Any:
    """Turn a numeric into a number that JSON has."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def given(**arguments: Any) -> Row:
    """Leave out what is None, so that the function's own default applies."""
    return {name: value for name, value in arguments.items() if value is not None}
