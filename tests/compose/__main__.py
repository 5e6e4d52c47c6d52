"""
Try docker-compose.yaml end to end on the Docker engine at hand: ``make compose-test``.

Takes some minutes, and needs nothing but Python, Docker and Compose. KEEP=1 leaves everything
running.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.compose import checks
from tests.compose.stack import BASE_IMAGES, SERVICES, Stack, StackError, run

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> int:
    """Run all checks that apply here; return 0 if all pass."""
    try:
        stack = Stack()
        run(["docker", "info"])
    except (StackError, FileNotFoundError) as err:
        _say(f"No Docker engine with Compose to try it on: {err}")
        return 1
    _say(f"Project {stack.name}, by {' '.join(stack.command)}")
    try:
        return 0 if _try(stack) else 1
    finally:
        if "KEEP" in os.environ:
            _say(f"Left running; its end: {' '.join(stack.command)} -p {stack.name} down --volumes")
        else:
            stack.compose("down", "--volumes")


def _try(stack: Stack) -> bool:
    if not _check("built", lambda: _build(stack)) or not _check("up and healthy", lambda: _up(stack)):
        return False
    each = [
        ("no service runs as root", checks.runs_without_rights),
        ("DAGs are parsed and on", checks.dags_are_on),
        ("connections work", checks.connections_work),
        ("the four jobs succeed", checks.jobs_succeed),
        ("cold data is in Delta", checks.cold_data_is_in_delta),
        ("a DBOS program is driven", checks.dbos_is_driven),
        ("a killed Lakebase", checks.survives_its_lakebase),
        ("no secret is told", checks.tells_no_secret),
        ("down and up again", checks.comes_back),
        ("stops cleanly", checks.stops_cleanly),
    ]
    if is_near():
        each.insert(0, ("reached from here", checks.is_reached_from_here))
    held = [_check(what, lambda check=check: check(stack)) for what, check in each]  # type: ignore[misc]
    for what in unchecked(stack):
        _say(f"not checked: {what}")
    _say(f"{sum(held)} passed, {len(held) - sum(held)} failed")
    return all(held)


def _check(what: str, check: Callable[[], str]) -> bool:
    started = time.monotonic()
    try:
        found, holds = check(), True
    except (checks.WrongError, StackError, OSError, ValueError, KeyError) as err:
        found, holds = f"{type(err).__name__}: {err}", False
    seconds = time.monotonic() - started
    _say(f"{'ok  ' if holds else 'FAIL'} {seconds:5.0f} s  {what}: {found}")
    return holds


def _build(stack: Stack) -> str:
    stack.compose("build")
    return str(json.loads(run(["docker", "image", "inspect", "airflow-provider-lakets-local"]))[0]["Id"])


def _up(stack: Stack) -> str:
    stack.compose("up", "--detach")
    stack.wait_healthy(SERVICES, checks.UP_SECONDS)
    return ", ".join(SERVICES)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - this is what it is run for


def is_near() -> bool:
    """Return whether the ports of the Docker engine are those of this machine."""
    return os.environ.get("DOCKER_HOST", "unix:").startswith("unix:")


def unchecked(stack: Stack) -> list[str]:
    """Return what these checks cannot cover here."""
    left = ["what the pages look like in a browser"]
    for image in BASE_IMAGES:
        digests = json.loads(run(["docker", "image", "inspect", image]))[0]["RepoDigests"]
        if not digests:
            left.append(f"the published image {image}: what has this name here was made on this machine")
    other = {"v1": "version 2 of Compose", "v2": "version 1 of Compose"}
    version = subprocess.run([*stack.command, "version", "--short"], capture_output=True, text=True).stdout
    left.append(f"{other['v1' if version.startswith('1.') else 'v2']}, which others have")
    if not is_near():
        left.append("the published port: the engine is on another machine")
    return left


if __name__ == "__main__":
    sys.exit(main())
