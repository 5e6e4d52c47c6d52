"""
Arguments as templates and mappings leave them.

What renders to nothing is an error, never "all": a template that finds nothing must not drop,
refresh or wait for something else than its author meant. What means "all" is an argument that is
left out, or ``*``.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_lakets.compat import fail

# What a template makes of nothing.
NOTHING = ("", "None", "[]", "()", "{}")

# Every table, every RollUp; of a range: none, so that the job does what is due.
ALL = "*"

_TRUE = ("true", "t", "yes", "y", "on", "1")
_FALSE = ("false", "f", "no", "n", "off", "0")


class _LeftOut:
    """The default of an argument whose None may come from a template or a mapping."""

    def __repr__(self) -> str:
        return "left out"


LEFT_OUT: Any = _LeftOut()


def is_left_out(task: object, argument: object) -> bool:
    """
    Return whether the author of a task left an argument out, or gave None for it.

    In a mapped task None is no such choice: it is what the task before made of it.
    """
    mapped = getattr(task, "_BaseOperator__from_mapped", False)
    return argument is LEFT_OUT or (argument is None and not mapped)


def is_nothing(value: object) -> bool:
    """Return whether a template or a mapping left nothing: None, empty text, an empty list."""
    if isinstance(value, str):
        return value.strip() in NOTHING
    return value is None or (isinstance(value, Iterable) and not any(True for _ in value))


def as_bool(value: object, name: str) -> bool:
    """
    Read a switch; any other value fails the task for good, because a guess could drop data.

    :param value: The switch, or what a template made of it.
    :param name: What it is called.
    """
    text = str(value).strip().lower()
    if text not in _TRUE + _FALSE:
        fail(f"{name} must be true or false, not {value!r}.")
    return text in _TRUE


def as_name(value: object, name: str) -> str:
    """Read one name; a number is accepted too, because native rendering turns ``2024`` into one."""
    if is_nothing(value):
        fail(f"{name} was rendered to {value!r}, which names nothing. {_remedy(name)}")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        fail(f"{name} must be a name, not {value!r}. Write the name as text.")
    return _unquoted(str(value))


def _unquoted(text: str) -> str:
    """Take off the quotes that a template put around a name (tojson) so that it stays text."""
    if text[:1] == '"' == text[-1:]:
        with contextlib.suppress(ValueError):
            return str(json.loads(text))
    return text


def as_names(value: object, name: str) -> list[str]:
    """Read names: one, several, or a list that a template made text of."""
    try:
        return names_in(value, name)
    except ValueError as err:
        fail(f"{err} {_remedy(name)}")


def names_in(value: object, name: str) -> list[str]:
    """Return the names; a ValueError says what is wrong with them."""
    if is_nothing(value):
        raise ValueError(f"{name} was rendered to {value!r}, which names nothing.")
    if isinstance(value, str) and value.strip()[0] in "[(":
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            raise ValueError(f"{name} was rendered to {value!r}, which is no list of names.") from None
    if isinstance(value, (str, int)):
        return [as_name(value, name)]
    if not isinstance(value, Iterable) or isinstance(value, (bytes, dict)):
        raise ValueError(f"{name} must be names, not {value!r}.")  # noqa: TRY004 - a wrong value, as above
    names = list(value)
    for place, one in enumerate(names):
        if is_nothing(one) or isinstance(one, bool) or not isinstance(one, (str, int)):
            raise ValueError(f"{name} must be names; number {place + 1} of {len(names)} is {one!r}.")
    return [str(one) for one in names]


def as_names_or_all(value: object, name: str) -> list[str] | None:
    """Read names; None stands for all of them."""
    return None if value == ALL else as_names(value, name)


def as_batches(value: object, name: str) -> list[str | list[str]]:
    """Read names or batches of names; an empty list is valid: no work was found for it."""
    if isinstance(value, str) and value.strip()[:1] == "[":
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            fail(f"{name} was rendered to {value!r}, which is no list. {_remedy(name)}")
    if isinstance(value, str) and not is_nothing(value):
        return [value]
    if isinstance(value, (str, bytes, dict)) or not isinstance(value, Iterable):
        fail(f"{name} was rendered to {value!r}: the task that finds what there is to do left no list.")
    return [one if isinstance(one, str) and one.strip() else as_names(one, name) for one in value]


def flat(batches: Iterable[str | list[str]]) -> list[str]:
    """Return the names in names or batches of names."""
    return [name for one in batches for name in ([one] if isinstance(one, str) else one)]


def as_instant(value: object, name: str) -> datetime:
    """Read an instant; without a zone it is UTC, as text or not."""
    from airflow.sdk.timezone import parse

    if is_nothing(value):
        fail(f"{name} was rendered to {value!r}: this run has no such instant. {_remedy(name)}")
    instant: object = value
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        try:
            instant = parse(str(value).strip(), timezone="UTC")
        except (ValueError, TypeError):
            instant = None
    if not isinstance(instant, datetime):
        fail(f"{name} is {value!r}, which is no instant. Give one such as 2025-03-01T00:00:00Z.")
    return instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)


def as_range(start: object, end: object) -> tuple[datetime, datetime] | tuple[None, None]:
    """Read both ends of a range; one without the other fails the task for good."""
    if start == ALL and end == ALL:
        return None, None
    if ALL in (start, end):
        fail(f"range_start and range_end go together; given are {start} and {end}.")
    first, last = as_instant(start, "range_start"), as_instant(end, "range_end")
    if first > last:
        fail(f"range_start is {first}, after range_end, {last}. Give the earlier one first.")
    return first, last


def as_interval(value: object, name: str) -> str:
    """Read a length of time, as Postgres writes it."""
    if isinstance(value, timedelta):
        return f"{value.total_seconds()} seconds"
    if is_nothing(value):
        fail(f"{name} was rendered to {value!r}, which is no length of time. {_remedy(name)}")
    if not isinstance(value, str):
        fail(f"{name} must be a timedelta or a Postgres interval such as '30 minutes', not {value!r}.")
    return value


def check_range(start: object, end: object) -> None:
    """Refuse, when the DAG is parsed, one end of a range without the other."""
    if (start == ALL) != (end == ALL):
        raise ValueError("range_start and range_end go together: give both, or neither")


# What may be left out, and what leaving it out means.
_OPTIONAL = {
    "tables": "for every table",
    "rollup": "for every RollUp",
    "range_start": "for no range",
    "range_end": "for no range",
}


def _remedy(name: str) -> str:
    if name in _OPTIONAL:
        return f"Correct the template, or give '{ALL}' {_OPTIONAL[name]}."
    return "Correct the template, or the task that it reads."


# Settings, which no template changes: what cannot be meant is refused when the DAG is parsed.
# An empty text for a switch would else be off without a word, and "False" on.


def switch(value: object, name: str) -> bool:
    """Return a switch."""
    if isinstance(value, bool):
        return value
    raise ValueError(f"{name} must be True or False, not {value!r}")


def count(value: object, name: str, *, least: int = 1, most: int | None = None) -> int:
    """Return a whole number between bounds."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= (most or value):
        return value
    bounds = f"{least} or more" if most is None else f"a whole number from {least} to {most}"
    raise ValueError(f"{name} must be {bounds}, not {value!r}")


def seconds(value: object, name: str) -> float:
    """Return a length of time in seconds; a number is one already."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value >= 0
    ):
        return float(value)
    raise ValueError(f"{name} must be a timedelta, or seconds from 0 on, not {value!r}")


def interval(value: object, name: str) -> float:
    """Return a length of time that is more than nothing, in seconds."""
    if found := seconds(value, name):
        return found
    raise ValueError(f"{name} must be more than 0 seconds, not {value!r}")


def one_of(value: object, name: str, allowed: Collection[str]) -> str:
    """Return one of a few words."""
    if isinstance(value, str) and value in allowed:
        return value
    raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def text(value: object, name: str) -> str:
    """Return a text that says something."""
    if isinstance(value, str) and value.strip() not in NOTHING:
        return value
    raise ValueError(f"{name} must be a text, not {value!r}")
