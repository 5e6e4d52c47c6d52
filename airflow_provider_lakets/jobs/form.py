"""
The params of the trigger form of a manual run, and the templates that read them.

The templates need a DAG with ``render_template_as_native_obj=True``. An empty field means the
default: every table, every RollUp, no range. Airflow may send it as null or as a list of empty
lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Param

if TYPE_CHECKING:
    from collections.abc import Sequence

TABLES = "{{ (params.tables or []) | map('trim') | select | list or '*' }}"
# Quoted, so that native rendering does not turn a RollUp named 2024 into a number.
ROLLUP = "{{ ((params.rollup or '') | trim or '*') | tojson }}"
# A backfill run processes its data interval.
RANGE_START = "{{ data_interval_start if dag_run.run_type == 'backfill' else params.start or '*' }}"
RANGE_END = "{{ data_interval_end if dag_run.run_type == 'backfill' else params.end or '*' }}"
DRY_RUN = "{{ params.dry_run or false }}"
FORCE = "{{ params.force or false }}"

# Without "null" among its types a field is marked as required.
_TABLES = {"type": ["null", "array"], "items": {"type": "string"}}
_TEXT = {"type": ["null", "string"]}
_INSTANT = {"type": ["null", "string"], "format": "date-time"}
_SWITCH = {"type": ["null", "boolean"]}

_FIELDS: dict[str, dict[str, Any]] = {
    "tables": {
        **_TABLES,
        "title": "Tables",
        "description": "One table on each line, as schema.table. Leave empty for all.",
        "section": "What",
    },
    "rollup": {
        **_TEXT,
        "title": "RollUp",
        "description": "Its name; the RollUps that it reads are refreshed, too. Leave empty for all.",
        "section": "What",
    },
    "start": {
        **_INSTANT,
        "title": "From",
        "description": "Start of a range. Leave empty for what is due now.",
        "section": "What",
    },
    "end": {
        **_INSTANT,
        "title": "To",
        "description": "End of the range. Give both ends, or neither.",
        "section": "What",
    },
    "force": {
        **_SWITCH,
        "title": "Force",
        "description": "Also drop chunks that are not proved durable. A user must approve this.",
        "section": "How",
    },
    "dry_run": {
        **_SWITCH,
        "title": "Dry run",
        "description": "Report what would happen. Change nothing.",
        "section": "How",
    },
}


def params(*names: str, tables: Sequence[str] = (), rollup: str | None = None) -> dict[str, Param]:
    """
    Return params for a DAG.

    :param names: The fields: ``tables``, ``rollup``, ``start``, ``end``, ``force``, ``dry_run``.
    :param tables: The default tables; empty for all.
    :param rollup: The default RollUp; None for all.
    """
    unknown = [name for name in names if name not in _FIELDS]
    if unknown:
        raise ValueError(f"there is no field {unknown[0]!r}; there are {', '.join(_FIELDS)}")
    defaults: dict[str, Any] = {"tables": list(tables), "rollup": rollup, "force": False, "dry_run": False}
    return {name: Param(defaults.get(name), **_FIELDS[name]) for name in names}


def described(*names: str) -> str:
    """Return what the fields are for, as a list in Markdown."""
    return "\n".join(f"- `{name}`: {_FIELDS[name]['description']}" for name in names)
