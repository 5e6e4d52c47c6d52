"""A suspended endpoint: the page asks the workspace, and logs in only on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.plugin import snapshots
from airflow_provider_lakets.plugin.snapshots import Snapshots
from tests.page_client import open_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.control_plane import ControlPlane

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PRIMARY = "projects/weather/branches/production/endpoints/primary"


@pytest.fixture
def endpoint(
    principal: ControlPlane, define: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> ControlPlane:
    """Return the workspace of a connection whose answers the page does not keep."""
    define(extra={"project": "weather"})
    monkeypatch.setattr(snapshots, "FRESH_SECONDS", 0.0)
    return principal


def fall(plane: ControlPlane, state: str) -> None:
    """Set the state of the endpoint."""
    plane.resources[PRIMARY]["status"]["current_state"] = state


@pytest.mark.parametrize("state", ["IDLE", "SUSPENDED"])
def test_a_sleeping_endpoint_is_not_logged_in_to_unasked(endpoint: ControlPlane, state: str) -> None:
    fall(endpoint, state)

    known = Snapshots().look("lakebase_default")

    assert (known.asleep, known.snapshot, known.problem) == (True, None, None)
    assert endpoint.minted == []


def test_a_sleeping_endpoint_is_logged_in_to_when_somebody_says_so(endpoint: ControlPlane) -> None:
    fall(endpoint, "IDLE")

    known = Snapshots().look("lakebase_default", wake=True)

    assert known.snapshot is not None
    assert known.asleep is False


def test_what_was_known_before_it_fell_asleep_stays_with_its_time(endpoint: ControlPlane) -> None:
    kept = Snapshots()
    before = kept.look("lakebase_default").snapshot
    logins = len(endpoint.minted)
    fall(endpoint, "IDLE")

    known = kept.look("lakebase_default")
    more = kept.ask("lakebase_default", lambda hook: hook.version())

    assert before is not None
    assert (known.asleep, known.snapshot) == (True, before)
    assert more is None
    assert len(endpoint.minted) == logins


def test_a_sleeping_endpoint_is_the_first_thing_said_with_its_next_step(endpoint: ControlPlane) -> None:
    fall(endpoint, "IDLE")

    with open_page("lakebase_default") as page:
        text = page.get("/").text
        main = text[text.index("<main") :]

    assert main.index("The endpoint is asleep") < main.index("The page does not wake it by itself")
    assert 'href="/?conn=lakebase_default&amp;look=now">Wake it and look</a>' in main
    assert endpoint.minted == []
