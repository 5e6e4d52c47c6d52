"""A role that may only look sees all that the owner sees, with the rights of the documents."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.commands.rights import missing_rights
from airflow_provider_lakets.monitoring.attention import needs_attention
from airflow_provider_lakets.monitoring.data import gather

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typer.testing import Result

    from tests.lab import Lab

DOCS = Path(__file__).parents[2] / "docs" / "permissions.md"
BLOCKS = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
(GRANTS,) = [block for block in BLOCKS if " TO a_viewer;" in block]


@pytest.fixture
def engine() -> str:
    return "ours"


@pytest.fixture
def world(lab: Lab) -> Lab:
    """Return two tables with chunks in all states, rows outside of them, and a RollUp."""
    lab.synced(days=6)
    lab.table("metrics", schema="plant", days=3)
    lab.conn.execute("SELECT lakets.enable_sync('metrics', p_schema_name => 'plant')")
    lab.conn.execute("SELECT lakets.add_tiered_retention_policy('metrics', '1 day', '2 days', 'plant')")
    lab.rollup("hourly")
    lab.flush()
    lab.hook().tier(lab.old_chunks()[:2])
    lab.hook().retain_all(["metrics", "plant.metrics"])
    lab.conn.execute("INSERT INTO metrics VALUES ('2001-01-01', 'a', 1)")
    lab.conn.execute("UPDATE metrics SET value = 2 WHERE at > now() - interval '1 day'")
    return lab


@pytest.fixture
def viewer(world: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Make the role, without rights; lakebase_default logs in as it."""
    role = f"viewer_{world.value('SELECT oid FROM pg_database WHERE datname = current_database()')}"
    world.conn.execute(f"CREATE ROLE {role} LOGIN")
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", world.connection(login=role))
    yield role
    world.conn.execute(f"DROP OWNED BY {role}")
    world.conn.execute(f"DROP ROLE {role}")


def grant(world: Lab, viewer: str, statements: str = GRANTS) -> None:
    world.conn.execute(statements.replace("a_viewer", viewer))


def report(lab: Lab) -> dict[str, Any]:
    """Return all that status, metrics and page show, without the time of the look."""
    hook = lab.hook()
    snapshot = gather(hook)
    status = hook.status().as_dict()
    chunks = [hook.show_chunks(one.table_name, schema_name=one.schema_name) for one in snapshot.tables]
    changing = ("lag_seconds", "database_size_bytes")
    metrics = [one for one in hook.lakets_metrics() if not one.metric_name.endswith(changing)]
    found = [asdict(one) for one in needs_attention(snapshot)]
    tables = [(one.name, one.runs, one.feed, one.lag_bytes, one.lakebase_bytes) for one in snapshot.tables]
    return {
        "status": status,
        "tables": tables,
        "attention": found,
        "history": snapshot.history,
        "troubles": snapshot.troubles,
        "chunks": chunks,
        "metrics": metrics,
    }


def test_a_viewer_with_the_documented_rights_sees_what_the_owner_sees(
    world: Lab, viewer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant(world, viewer)
    grant(world, viewer, "GRANT USAGE ON SCHEMA plant TO a_viewer")
    grant(world, viewer, "GRANT SELECT ON plant.metrics, plant.metrics_default TO a_viewer")

    seen = report(world)

    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", world.connection())
    assert seen == report(world)
    assert "rows-outside-chunks" in {one["code"] for one in seen["attention"]}


def test_a_schema_that_the_viewer_may_not_use_hides_nothing_else(
    world: Lab, viewer: str, in_lab: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    grant(world, viewer)  # not those on schema plant
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", world.connection(login=viewer))

    shown, seen = in_lab("status"), report(world)

    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", world.connection())
    assert (seen["tables"], seen["status"]) == ((full := report(world))["tables"], full["status"])
    assert "plant.metrics" in shown.stdout


def test_a_viewer_who_may_not_use_the_mirrors_is_told_so(world: Lab, viewer: str) -> None:
    grant(world, viewer)
    world.conn.execute(f"REVOKE USAGE ON SCHEMA lakets_cdf FROM {viewer}")

    found = [one for one in needs_attention(gather(world.hook())) if one.code == "feed-not-streaming"]

    assert {one.subject for one in found} == {"public.metrics", "plant.metrics"}
    assert all("the role may not use schema lakets_cdf" in one.said for one in found)


def test_the_doctor_lists_the_missing_rights_on_a_schema_that_may_not_be_used(
    world: Lab, viewer: str
) -> None:
    grant(world, viewer)

    assert "USAGE on schema plant" in [one.lacks for one in missing_rights(world.hook())]
