"""What all scenarios have left behind tells no secret. Runs last."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.conftest import World

pytestmark = pytest.mark.short


def _written(world: World) -> Iterator[Path]:
    """Yield the logs of every part and task, and Airflow's database: XComs, rendered templates, triggers."""
    yield from world.airflow.home.rglob("*.log")
    yield from world.airflow.home.glob("airflow.db*")
    yield world.cloud.log_file
    yield from world.cloud.folder.glob("*.log")


def test_no_secret_is_in_a_log_or_the_database(world: World) -> None:
    state = world.cloud.state
    passwords = json.loads((world.airflow.home / "passwords.json").read_text())
    secrets = {
        "secret of the jobs": state.jobs.client_secret,
        "secret of the owner": state.owner.client_secret,
        "admin token": state.admin_token,
        **{f"password of {user}": password for user, password in passwords.items()},
        "a token": "eyJ",
    }

    files = sorted({*_written(world)})
    told = []
    for file in files:
        content = file.read_bytes()
        told += [f"{what} is in {file}" for what, secret in secrets.items() if secret.encode() in content]

    assert told == []
    assert any("task_id=tier" in str(file) for file in files)
    assert len({file.name for file in files} & {"scheduler.log", "triggerer.log", "airflow.db"}) == 3
