"""LakeTS 0.1.3 as a stand-in: the SQL that makes it, and its public interface as data."""

from __future__ import annotations

import re
from pathlib import Path

_HERE = Path(__file__).parent

#: The stand-in, to be run in an empty database.
LAKETS_01 = "\n".join(path.read_text() for path in sorted((_HERE / "lakets_01").glob("*.sql")))

#: The public functions, a line each: ``name(arguments) -> result``.
FUNCTIONS_01 = (_HERE / "sql" / "interface_0_1_3.txt").read_text().splitlines()

#: The tables, a line for each column and constraint.
TABLES_01 = (_HERE / "lakets_01" / "tables.txt").read_text().splitlines()

_SHORT = {
    "timestamp with time zone": "timestamptz",
    "double precision": "float8",
    "integer": "int",
    "boolean": "bool",
    "'01:00:00'": "'1 hour'",
}


def in_short(text: str) -> str:
    """Write a catalog signature like the interface: short types, defaults without casts."""
    text = re.sub(r"(?<=[')L])::[a-z ]+(\[\])?", "", text)
    for long, short in _SHORT.items():
        text = text.replace(long, short)
    return text
