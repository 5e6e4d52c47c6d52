"""Workflows with results and errors that are hard to serialize."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from dbos import DBOS

# A class that Airflow cannot import.
Receipt = type("Receipt", (), {"__module__": "of_the_program_only"})
_module = ModuleType(Receipt.__module__)
_module.Receipt = Receipt  # type: ignore[attr-defined]  # a module made here has no attributes yet
sys.modules[Receipt.__module__] = _module


class OddError(Exception):
    """An error whose pickle cannot be read, because the keyword is missing then."""

    def __init__(self, order: int, *, bank: str) -> None:
        super().__init__(f"order {order} was refused by {bank}")


@DBOS.workflow(name="return_object")
def return_object(name: str) -> Any:
    """Return what JSON cannot hold, and no other program can unpickle."""
    return Receipt()


@DBOS.workflow(name="raise_odd")
def raise_odd(name: str) -> None:
    """Fail with an error that cannot be unpickled."""
    raise OddError(7, bank="the bank")


@DBOS.workflow(name="return_much")
def return_much(name: str, size: int) -> dict[str, str]:
    """Return a large result."""
    return {"text": "x" * size}


@DBOS.workflow(name="echo")
def echo(text: str) -> str:
    """Return the argument."""
    return text
