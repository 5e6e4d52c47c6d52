"""The shell commands of the documents parse, and their subcommands and options exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from airflow_provider_lakets.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def shell_blocks() -> Iterator[tuple[str, str]]:
    """Yield each shell block of the documents, with the document that it is in."""
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        for block in re.findall(r"^ *```sh\n(.*?)^ *```", path.read_text(), re.DOTALL | re.MULTILINE):
            yield str(path.relative_to(ROOT)), block


BLOCKS = list(shell_blocks())


def lakets_calls() -> Iterator[tuple[str, str]]:
    """Yield each call of ``lakets`` in blocks and in running text, with its document."""
    for document, block in BLOCKS:
        for line in block.replace("\\\n", " ").splitlines():
            for call in re.findall(r"(?:^|[\s(])lakets ((?:[^&|;)\"#]|\"[^\"]*\")+)", line):
                yield document, call
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]):
        for call in re.findall(r"`lakets ([a-z][^`]*)`", path.read_text()):
            yield str(path.relative_to(ROOT)), call


def misuse(call: str) -> str | None:
    """Return which subcommand or options of a call do not exist; None if all do."""
    command: Any = typer.main.get_command(app)
    words = shlex.split(call, comments=True)
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"no command {words[0]!r}"
        command = command.commands[words.pop(0)]
    known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    return f"no option {sorted(options - known)}" if options - known - {"--help"} else None


@pytest.mark.parametrize(("document", "block"), BLOCKS, ids=[document for document, _ in BLOCKS])
def test_a_shell_block_parses(document: str, block: str) -> None:
    parsed = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)

    assert parsed.returncode == 0, f"{document}: {parsed.stderr}"


def test_every_documented_call_of_lakets_has_commands_and_options_that_exist() -> None:
    calls = list(lakets_calls())

    assert len(calls) > 20
    assert [(document, call, wrong) for document, call in calls if (wrong := misuse(call))] == []


def test_every_documented_make_target_exists() -> None:
    called = {
        target
        for _, block in BLOCKS
        for target in re.findall(r"^make (?:\w+=\S+ )*([a-z0-9-]+)", block, re.MULTILINE)
    }

    assert {"demo", "test"} <= called
    assert called - TARGETS == set()
