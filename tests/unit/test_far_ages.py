"""Ages and rows of many thousand years: policies that mean never, and clocks that are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.page_client import open_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

    from tests.lab import Lab

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def engine() -> str:
    return "ours"


@pytest.fixture(params=["10000 years", "3000000 years"])
def kept(request: pytest.FixtureRequest, lab: Lab) -> str:
    """Never drop the chunks of one table, and never tier those of another."""
    lab.synced(days=5)
    lab.conn.execute("SELECT lakets.remove_retention_policy('metrics')")
    lab.conn.execute("SELECT lakets.add_tiered_retention_policy('metrics', '2 days', %s)", [request.param])
    lab.table("other", days=3)
    lab.conn.execute("SELECT lakets.add_tiering_policy('other', %s)", [request.param])
    lab.flush()
    return str(request.param)


def test_commands_report_them(in_lab: Callable[..., Result], lab: Lab, kept: str) -> None:
    for command in (["status"], ["metrics"], ["run", "tier"], ["run", "retain"], ["doctor", "--wait", "0"]):
        done = in_lab(*command)
        assert done.exit_code == 0, (command, done.output)

    assert f"{kept} after its end" in in_lab("explain", lab.old_chunks()[0]).stdout
    assert f"{kept} after its end" in in_lab("explain", lab.old_chunks("other")[0]).stdout
    assert "never: the table has no retention policy" in in_lab("explain", lab.old_chunks("other")[0]).stdout


def test_page_shows_the_tables(lab: Lab, kept: str) -> None:
    with open_page("lakebase_default") as client:
        page = client.get("/", params={"look": "now"}).text

    assert "public.metrics" in page
    assert f"dropped when older than {kept}" not in page  # such a line is nowhere on the map


@pytest.mark.parametrize("at", ["55840-01-01", "4000-01-01 BC"])
def test_row_at_a_wrong_time_stops_neither_jobs_nor_reports(
    in_lab: Callable[..., Result], lab: Lab, at: str
) -> None:
    lab.synced(days=5)
    lab.rollup("hourly")
    lab.conn.execute("INSERT INTO metrics VALUES (%s, 'x', 1)", [at])
    lab.flush()

    for command in (["run", "partitions"], *[["run", "refresh"], ["run", "tier"], ["run", "retain"]] * 2):
        done = in_lab(*command)
        assert done.exit_code == 0, (command, done.output)
    for command in (["status"], ["status", "--json"], ["metrics"], ["explain", "hourly"]):
        done = in_lab(*command)
        assert done.exit_code == 0, (command, done.output)
    with open_page("lakebase_default") as client:
        assert "public.metrics" in client.get("/", params={"look": "now"}).text
