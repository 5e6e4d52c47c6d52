"""Every command has a help text, with an example that works."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from airflow_provider_lakets.cli import app


def commands(command: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return each command, by the words that a user types."""
    found = {" ".join(path): command}
    for name, one in getattr(command, "commands", {}).items():
        found |= commands(one, (*path, name))
    return found


COMMANDS = commands(get_command(app))
EXAMPLES = {path: command for path, command in COMMANDS.items() if command.epilog}


@pytest.mark.parametrize("path", COMMANDS)
def test_each_command_has_help_by_either_option(path: str) -> None:
    short, long = (CliRunner().invoke(app, [*path.split(), option]) for option in ("-h", "--help"))

    assert (short.exit_code, short.stdout) == (0, long.stdout)


@pytest.mark.parametrize("path", EXAMPLES)
def test_the_example_of_a_command_is_one_that_it_takes(path: str) -> None:
    typed = shlex.split(EXAMPLES[path].epilog.removeprefix("Example: lakets ").partition(" >")[0])
    depth = len(path.split())

    context = EXAMPLES[path].make_context(path, typed[depth:])

    assert " ".join(typed[:depth]) == path
    assert context.params


def test_the_jobs_and_what_looks_at_them_have_an_example() -> None:
    jobs = {f"run {job}" for job in ("partitions", "tier", "retain", "refresh")}

    assert {*EXAMPLES} >= {*jobs, "install", "status", "doctor", "metrics", "explain", "demo"}


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("lakets ", {"run", "status", "doctor"}),
        ("lakets run ", {"tier", "retain"}),
        ("lakets status --", {"--watch"}),
    ],
    ids=["commands", "jobs", "options"],
)
def test_the_shell_completes_what_is_typed(typed: str, offered: set[str]) -> None:
    words = typed.split(" ")
    asked = {"_LAKETS_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}

    done = CliRunner().invoke(app, [], env=asked, prog_name="lakets")

    assert offered <= {*done.stdout.split()}
