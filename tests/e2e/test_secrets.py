"""What all scenarios have left behind tells no secret. Runs last."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import World

pytestmark = pytest.mark.short


def _written(world: World) -> Iterator[tuple[str, str]]:
    """Yield all that was written: logs of parts and tasks, XComs, rendered templates, triggers."""
    for folder in (world.airflow.home, world.cloud.folder):
        for file in folder.rglob("*.log*"):
            yield str(file), file.read_text(errors="replace")
    with psycopg.connect(world.metadata) as conn:
        for (table,) in conn.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall():
            rows = conn.execute(sql.SQL("SELECT t::text FROM {} AS t").format(sql.Identifier(table)))
            yield f"table {table}", "\n".join(row for (row,) in rows)


def test_no_secret_is_in_a_log_or_the_database(world: World) -> None:
    state = world.cloud.state
    secrets = {
        "secret of the jobs": state.jobs.client_secret,
        "secret of the owner": state.owner.client_secret,
        "admin token": state.admin_token,
        "password of the user": world.airflow.server.password,
        "a token": "eyJ",
    }

    written = dict(_written(world))
    told = [
        f"{what} is in {where}"
        for where, text in written.items()
        for what, secret in secrets.items()
        if secret in text
    ]

    assert told == []
    assert any("task_id=tier" in where for where in written)
    assert any(where.endswith("/scheduler.log") for where in written)
    assert "public.metrics_" in written["table xcom"]
