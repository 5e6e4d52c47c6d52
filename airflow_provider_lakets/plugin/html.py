"""Templates of the page."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from airflow_provider_lakets.monitoring.finding import KINDS, NAMED, PAGES, all_alike, found_of, next_step
from airflow_provider_lakets.monitoring.words import ago, duration, instant, interval, name, size

# The names of the severities on the page.
MARKS = {"fail": "Broken", "warn": "Look", "info": "Note"}
FOLDER = Path(__file__).parent


def marked(text: str) -> Markup:
    """Return a text as HTML, with the parts between backticks as code."""
    parts = name(text).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


@cache
def environment() -> Environment:
    """Return the templates, which escape all values."""
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for written in (name, size, duration, interval, ago, instant, marked, found_of, next_step, all_alike):
        found.filters[written.__name__] = written
    found.globals["kinds"] = KINDS
    found.globals["marks"] = MARKS
    found.globals["paged"] = PAGES
    found.globals["named"] = NAMED
    found.globals["query"] = lambda **given: urlencode({k: v for k, v in given.items() if v is not None})
    return found


def render(template: str, **values: Any) -> str:
    """Return a page."""
    return environment().get_template(template).render(**values)
