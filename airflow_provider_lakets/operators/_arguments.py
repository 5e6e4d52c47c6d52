"""
Parse arguments after templates and mappings have been resolved.

An argument that renders to nothing is an error and never means "all": otherwise an empty template
could drop, refresh or wait for the wrong objects. Only an omitted argument, or ``*``, means "all".
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import re
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_lakets.compat import fail

# Texts that an empty template result is rendered to.
NOTHING = ("", "None", "[]", "()", "{}")

# What filters of Jinja such as map return. A check for an empty value would take its first element.
ONCE = "an iterator, which can be read only once: end the template with '| list'"

# Every table or every RollUp. For a range it means no range, so that the job does what is due.
ALL = "*"

_DATED = re.compile(r"\d{4}")  # a year

_TRUE = ("true", "t", "yes", "y", "on", "1")
_FALSE = ("false", "f", "no", "n", "off", "0")


class _LeftOut:
    """The default of an argument for which a template or a mapping may return None."""

    def __repr__(self) -> str:
        return "left out"


LEFT_OUT: Any = _LeftOut()


def is_left_out(task: object, argument: object) -> bool:
    """
    Return whether the author of a task omitted an argument, or passed None.

    In a mapped task, None is the result of another task and not a choice of the author.
    """
    mapped = getattr(task, "_BaseOperator__from_mapped", False)
    return argument is LEFT_OUT or (argument is None and not mapped)


def is_nothing(value: object) -> bool:
    """Return whether a template or a mapping gave nothing: None, empty text or an empty list."""
    if isinstance(value, str):
        return value.strip() in NOTHING
    return value is None or (isinstance(value, Iterable) and not any(True for _ in value))


def as_bool(value: object, name: str) -> bool:
    """
    Parse a switch; any other value fails the task without retries, since a guess could drop data.

    :param value: The switch, or its rendered template.
    :param name: The name of the argument.
    """
    text = str(value).strip().lower()
    if text not in _TRUE + _FALSE:
        fail(f"{name} must be true or false, not {value!r}.")
    return text in _TRUE


def as_name(value: object, name: str) -> str:
    """Parse one name; a number is accepted, because native rendering turns ``2024`` into one."""
    if is_nothing(value):
        fail(f"{name} was rendered to {value!r}, which names nothing. {_remedy(name)}")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        fail(f"{name} must be a name, not {value!r}. Write the name as text.")
    return _unquoted(str(value))


def _unquoted(text: str) -> str:
    """Remove the quotes that a template added (tojson) to keep a name text."""
    if text[:1] == '"' == text[-1:]:
        with contextlib.suppress(ValueError):
            return str(json.loads(text))
    return text


def as_names(value: object, name: str) -> list[str]:
    """Parse names: one, several, or a list that a template rendered to text."""
    try:
        return names_in(value, name)
    except ValueError as err:
        fail(f"{err} {_remedy(name)}")


def names_in(value: object, name: str) -> list[str]:
    """Return the names, or raise a ValueError that describes the problem."""
    if isinstance(value, Iterator):
        raise ValueError(f"{name} was rendered to {ONCE}.")  # noqa: TRY004 - a wrong value, as below
    if is_nothing(value):
        raise ValueError(f"{name} was rendered to {value!r}, which names nothing.")
    if isinstance(value, str) and value.strip()[0] in "[(":
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            raise ValueError(f"{name} was rendered to {value!r}, which is not a list of names.") from None
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
    """Parse names; return None for all."""
    return None if value == ALL else as_names(value, name)


def as_batches(value: object, name: str) -> list[str | list[str]]:
    """Parse names or batches of names; an empty list is valid and means that nothing is due."""
    if isinstance(value, str) and value.strip()[:1] == "[":
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError):
            fail(f"{name} was rendered to {value!r}, which is not a list. {_remedy(name)}")
    if isinstance(value, str) and not is_nothing(value):
        return [value]
    if isinstance(value, (str, bytes, dict)) or not isinstance(value, Iterable):
        fail(f"{name} was rendered to {value!r}: the task that lists the work returned no list.")
    return [one if isinstance(one, str) and one.strip() else as_names(one, name) for one in value]


def flat(batches: Iterable[str | list[str]]) -> list[str]:
    """Flatten a list of names and batches of names."""
    return [name for one in batches for name in ([one] if isinstance(one, str) else one)]


def as_instant(value: object, name: str) -> datetime:
    """Parse a time, as datetime or in ISO 8601; without a zone it is UTC."""
    from airflow.sdk.timezone import parse

    if is_nothing(value):
        fail(f"{name} was rendered to {value!r}: this run has no such time. {_remedy(name)}")
    instant: object = value
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        try:
            # Nothing is guessed: 01/02 may be in January or in February, and 12:30 on any day.
            text = str(value).strip().removesuffix("UTC").rstrip()
            instant = parse(text, timezone="UTC", strict=True) if _DATED.match(text) else None
        except (ValueError, TypeError):
            instant = None
    if not isinstance(instant, datetime):
        fail(f"{name} is {value!r}, which is not a time. Give one such as 2025-03-01T00:00:00Z.")
    return instant if instant.tzinfo else instant.replace(tzinfo=timezone.utc)


def as_range(start: object, end: object) -> tuple[datetime, datetime] | tuple[None, None]:
    """Parse both ends of a range; one without the other fails the task without retries."""
    if start == ALL and end == ALL:
        return None, None
    if ALL in (start, end):
        fail(f"range_start and range_end go together; given are {start} and {end}.")
    first, last = as_instant(start, "range_start"), as_instant(end, "range_end")
    if first > last:
        fail(f"range_start is {first}, after range_end, {last}. Give the earlier one first.")
    if first == last:
        fail(
            f"The range is empty: it begins and ends at {first}. If it is the data interval of a run: a DAG "
            "whose schedule is a plain cron expression has none; use CronDataIntervalTimetable."
        )
    return first, last


def as_interval(value: object, name: str) -> str:
    """Return an interval as Postgres text."""
    if isinstance(value, timedelta):
        return f"{value.total_seconds()} seconds"
    if is_nothing(value):
        fail(f"{name} was rendered to {value!r}, which is not an interval. {_remedy(name)}")
    if not isinstance(value, str):
        fail(f"{name} must be a timedelta or a Postgres interval such as '30 minutes', not {value!r}.")
    return value


def check_range(start: object, end: object) -> None:
    """Refuse one end of a range without the other when the DAG is parsed."""
    if (start == ALL) != (end == ALL):
        raise ValueError("range_start and range_end go together: give both, or neither")


# Arguments that may be omitted, and what the omission means.
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


# Settings are not templated, so invalid values are refused when the DAG is parsed. Otherwise an
# empty text would silently mean off for a switch, and "False" would mean on.


def switch(value: object, name: str) -> bool:
    """Check a switch."""
    if isinstance(value, bool):
        return value
    raise ValueError(f"{name} must be True or False, not {value!r}")


def count(value: object, name: str, *, least: int = 1, most: int | None = None) -> int:
    """Check a whole number between bounds."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= (most or value):
        return value
    bounds = f"{least} or more" if most is None else f"a whole number from {least} to {most}"
    raise ValueError(f"{name} must be {bounds}, not {value!r}")


def seconds(value: object, name: str) -> float:
    """Return an interval in seconds; a number is in seconds."""
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
    """Return an interval longer than zero in seconds."""
    if found := seconds(value, name):
        return found
    raise ValueError(f"{name} must be more than 0 seconds, not {value!r}")


def one_of(value: object, name: str, allowed: Collection[str]) -> str:
    """Check that a value is one of the allowed words."""
    if isinstance(value, str) and value in allowed:
        return value
    raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def text(value: object, name: str) -> str:
    """Check that a text is not empty."""
    if isinstance(value, str) and value.strip() not in NOTHING:
        return value
    raise ValueError(f"{name} must be a text, not {value!r}")
