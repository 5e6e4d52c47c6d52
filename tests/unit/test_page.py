"""The LakeTS page: its content from a real database, its rights, and its foreign input."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_lakets.monitoring.words import name
from airflow_provider_lakets.plugin import connections

with warnings.catch_warnings():
    # Importing Airflow's API server warns on the lowest packages.
    warnings.simplefilter("ignore", DeprecationWarning)
    from airflow.api_fastapi.core_api import security as airflow_security
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from airflow_provider_lakets.plugin import pages, security
    from airflow_provider_lakets.plugin.app import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab import Lab

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HOSTILE = ['<script>alert("x")</script>', "a\u202etxt.exe", "n" * 63, 'it\'s & "so"', "tab\there"]


class Manager:
    """An auth manager with one user, whose rights the test sets."""

    def __init__(self) -> None:
        self.plugins = True
        self.readable: set[str] = {"lakets_tiering", "lakets_retention"}
        self.connections = False

    async def get_user_from_token(self, token: str) -> Any:
        return token

    def is_authorized_view(self, **_: Any) -> bool:
        return self.plugins

    def get_authorized_dag_ids(self, **_: Any) -> set[str]:
        return self.readable

    def is_authorized_connection(self, **_: Any) -> bool:
        return self.connections


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Manager:
    found = Manager()
    monkeypatch.setattr(security, "get_auth_manager", lambda: found)
    monkeypatch.setattr(airflow_security, "get_auth_manager", lambda: found)
    return found


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """The connections that DAGs use, with these."""
    found = {"lakebase_default": {"lakets_tiering", "lakets_retention"}}
    monkeypatch.setattr(connections, "_read_dags", lambda: found)
    monkeypatch.setattr(security, "_uses", connections.Uses())
    monkeypatch.setattr(pages, "last_runs", lambda dag_ids: [])
    return found


@pytest.fixture
def page(manager: Manager, used: dict[str, set[str]]) -> Iterator[TestClient]:
    """The page, mounted as Airflow mounts it, for a user who is logged in."""
    outer = FastAPI(root_path="/prefix")
    outer.mount("/lakets", create_app())
    with TestClient(outer, headers={"Authorization": "Bearer somebody"}) as client:
        yield client


def look(page: TestClient, path: str = "/prefix/lakets/", /, **query: str) -> str:
    """Return a page that may connect: with a password, the state of the endpoint is unknown."""
    answer = page.get(path, params={"look": "now", **query})
    assert answer.status_code == 200, answer.text
    return answer.text


class Strict(HTMLParser):
    """Collect what a browser could execute."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str | None] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "script":
            self.scripts.append(given.get("src"))
        self.handlers += [key for key in given if key.startswith("on") or key == "style"]


def test_overview_shows_the_state_of_every_chunk(page: TestClient, lab: Lab) -> None:
    lab.synced(days=6)
    lab.flush()

    text = look(page)

    assert "public.metrics: " in text
    assert all(f'class="s-{state}"' in text for state in ("hot", "due", "planned"))
    assert "Behind" in text


@pytest.mark.parametrize("engine", ["ours"])
def test_a_chunk_is_deferred_once_a_run_has_left_it_and_the_page_says_why(page: TestClient, lab: Lab) -> None:
    lab.synced(days=6)
    lab.flush(status="SKIPPED")
    lab.conn.execute("UPDATE lakets._policy_registry SET tiered_at = now()")

    text = look(page)

    assert "not streaming (SKIPPED)" in text
    assert "deferred" in text


@pytest.mark.parametrize("engine", ["ours"])
def test_a_run_of_tiering_is_none_of_retention(page: TestClient, lab: Lab) -> None:
    lab.synced(days=6)
    lab.flush()
    lab.hook().tier_candidates(["public.metrics"])

    text = look(page, "/prefix/lakets/table", name="public.metrics")

    assert re.search(r"<dt>Tiering ran</dt><dd>(?!never)", text)
    assert "<dt>Retention ran</dt><dd>never</dd>" in text


@pytest.mark.parametrize("engine", ["ours"])
def test_states_follow_a_chunk_through_its_life(page: TestClient, lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    hook = lab.hook()
    hook.tier(lab.old_chunks()[:5])
    lab.flush()
    hook.tier(lab.old_chunks()[:5])
    hook.retain("public.metrics")
    lab.conn.execute("UPDATE lakets._policy_registry SET tiered_at = NULL, retained_at = NULL")
    assert lab.value("SELECT count(*) FROM lakets._chunk_metadata WHERE status = 'dropped'")
    changed = lab.value("SELECT min(range_start) FROM lakets._chunk_metadata WHERE status = 'tiered'")
    lab.conn.execute("INSERT INTO metrics VALUES (%s, 'late', 1)", [changed])
    lab.conn.execute("UPDATE lakets._chunk_metadata SET status = 'tiered' WHERE range_start = %s", [changed])

    text = look(page, "/prefix/lakets/table", name="public.metrics")

    assert {"dropped", "changed", "hot", "planned"} <= {
        part.partition('"')[0] for part in text.split('<g class="s-')[8:]
    }


@pytest.mark.parametrize("engine", ["ours"])
@pytest.mark.parametrize("table", HOSTILE, ids=["script", "bidi", "63", "quotes", "tab"])
def test_a_name_of_somebody_else_cannot_run_or_turn_the_text(page: TestClient, lab: Lab, table: str) -> None:
    quoted = table.replace('"', '""')
    lab.conn.execute(f'CREATE TABLE "{quoted}" (at timestamptz NOT NULL, v int)')
    lab.conn.execute("SELECT lakets.create_chronotable(%s, 'at')", [table])

    texts = [look(page), look(page, "/prefix/lakets/table", name=f"public.{table}")]

    for text in texts:
        parsed = Strict()
        parsed.feed(text)
        assert parsed.scripts == ["/prefix/lakets/static/lakets.js"]
        assert parsed.handlers == []
        assert "\u202e" not in text


def test_a_character_that_cannot_be_seen_is_written_out() -> None:
    assert name("a\u202eb\x00") == "a\\u{202E}b\\u{0}"
    assert name("größe") == "größe"


@pytest.mark.parametrize("path", ["", "table?name=x", "rollup?name=x"])
def test_whoever_is_not_logged_in_gets_a_page_that_says_so(page: TestClient, path: str) -> None:
    answer = page.get(f"/prefix/lakets/{path}", headers={"Authorization": ""})

    assert answer.status_code == 401
    assert "text/html" in answer.headers["content-type"]
    assert "Log in to Airflow" in answer.text
    assert 'href="/prefix/"' in answer.text


def test_whoever_may_not_see_plugins_gets_nothing(page: TestClient, manager: Manager) -> None:
    manager.plugins = False

    answer = page.get("/prefix/lakets/")

    assert answer.status_code == 403
    assert "lack the right" in answer.text


@pytest.mark.parametrize("engine", ["ours"])
def test_a_connection_is_for_who_may_read_all_of_its_dags(
    page: TestClient, manager: Manager, lab: Lab
) -> None:
    manager.readable = {"lakets_tiering"}

    overview = page.get("/prefix/lakets/")
    asked = page.get("/prefix/lakets/", params={"conn": "lakebase_default"})

    assert "No Lakebase connection to show" in overview.text
    assert asked.status_code == 404


def test_a_connection_that_no_dag_uses_cannot_be_asked_for(page: TestClient) -> None:
    assert page.get("/prefix/lakets/", params={"conn": "postgres_default"}).status_code == 404


@pytest.mark.parametrize("engine", ["ours"])
def test_a_connection_of_another_type_is_not_opened(
    page: TestClient, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(conn_type="postgres"))

    text = look(page)

    assert "of type &#39;postgres&#39;" in text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_but_get_is_answered(page: TestClient, method: str) -> None:
    assert page.request(method, "/prefix/lakets/").status_code == 405


@pytest.mark.parametrize("path", ["", "static/lakets.css", "nowhere"])
def test_every_answer_keeps_foreign_code_out(page: TestClient, path: str) -> None:
    headers = page.get(f"/prefix/lakets/{path}").headers

    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("engine", ["ours"])
def test_a_password_connection_is_not_logged_in_to_unasked(page: TestClient, lab: Lab) -> None:
    text = page.get("/prefix/lakets/").text

    assert "Look now" in text
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'LakeTS page'"
    assert lab.value(sessions) == 0


@pytest.mark.parametrize("engine", ["ours"])
def test_what_was_known_is_shown_with_the_reason_when_lakebase_is_down(
    page: TestClient, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.synced(days=3)
    look(page)
    monkeypatch.setattr("airflow_provider_lakets.plugin.snapshots.FRESH_SECONDS", 0.0)
    look(page)
    monkeypatch.setenv(
        "AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(host="/nowhere", password="very-5ecret")
    )

    monkeypatch.setattr("airflow_provider_lakets.plugin.snapshots._Entry.is_fresh", lambda *_, **__: False)
    text = look(page)

    assert "Lakebase cannot be read" in text
    assert "public.metrics" in text
    assert "very-5ecret" not in text


@pytest.mark.parametrize("engine", ["ours"])
def test_a_fleet_is_shown_page_by_page_and_each_is_small(page: TestClient, lab: Lab) -> None:
    lab.conn.execute(
        "INSERT INTO lakets._chronotable_registry (table_name, time_column)"
        " SELECT 'sensors_' || n, 'at' FROM generate_series(1, 400) AS n"
    )
    lab.conn.execute(
        "INSERT INTO lakets._chunk_metadata (chronotable_id, chunk_name, range_start, range_end, status)"
        " SELECT reg.id, reg.table_name || '_' || n, now() - n * interval '1 hour',"
        " now() - (n - 1) * interval '1 hour', CASE WHEN n % 2 = 0 THEN 'tiered' ELSE 'active' END"
        " FROM lakets._chronotable_registry AS reg, generate_series(1, 100) AS n"
    )

    first = look(page)
    last = look(page, page="8")

    assert ("Page 1 of 8" in first, "Page 8 of 8" in last) == (True, True)
    assert "conn=lakebase_default&amp;page=2" in first
    assert len(first) < 350_000
    assert "400 things need attention" in first
    assert "400 tables: " in first
    assert "and 395 more" in first
    names = [f"name=public.sensors_{number}" for number in (1, 2, 10, 399, 400)]
    attention = first[: first.index('id="space"')]
    assert [attention.index(f'{one}"') for one in names] == sorted(
        attention.index(f'{one}"') for one in names
    )


@pytest.mark.parametrize("engine", ["ours"])
def test_what_is_alike_is_said_once_and_each_name_leads_to_its_page(page: TestClient, lab: Lab) -> None:
    lab.conn.execute(
        "INSERT INTO lakets._chronotable_registry (table_name, time_column)"
        " SELECT 'sensors_' || n, 'at' FROM generate_series(1, 11) AS n"
    )
    lab.table("other")
    lab.conn.execute("INSERT INTO other VALUES ('1999-01-01', 'a', 1)")

    text = look(page)
    attention = text[: text.index('id="space"')]

    assert "12 things need attention" in attention
    assert attention.count("the jobs skip it") == 1
    assert "11 tables: " in attention
    assert "and 6 more; the first of them: the jobs skip it" in attention
    assert "All 11 by name" in attention
    for number in range(1, 12):
        assert f'name=public.sensors_{number}"' in attention
    assert "1 row lies outside all chunks" in attention


@pytest.mark.parametrize("engine", ["ours"])
def test_rollups_are_drawn_each_to_the_right_of_what_it_reads(page: TestClient, lab: Lab) -> None:
    lab.table(days=2)
    lab.rollup("hourly")
    lab.rollup("daily", reads="hourly")

    text = look(page)
    detail = look(page, "/prefix/lakets/rollup", name="daily")

    assert text.count('class="edge"') == 2
    assert text.index(">hourly</text>") < text.index(">daily</text>")
    assert "name=hourly" in detail


@pytest.mark.parametrize("engine", ["ours"])
def test_what_the_jobs_did_and_the_space_they_gave_back_is_shown(page: TestClient, lab: Lab) -> None:
    lab.synced(days=8)
    lab.rollup("hourly")
    lab.flush()
    hook = lab.hook()
    for _ in range(2):
        hook.tier(lab.old_chunks())
        lab.flush()
    hook.retain("public.metrics")
    lab.conn.execute("INSERT INTO metrics VALUES (now(), 'b', 1)")
    hook.refresh()

    overview = look(page)
    table = look(page, "/prefix/lakets/table", name="public.metrics")
    rollup = look(page, "/prefix/lakets/rollup", name="hourly")

    assert re.search(r"<strong>\d+ KiB</strong><span>given back to Lakebase", overview)
    for text, jobs in (
        (overview, {"tier", "retain", "refresh"}),
        (table, {"tier", "retain"}),
        (rollup, {"refresh"}),
    ):
        history = text[text.index("What the jobs did") :]
        assert set(re.findall(r"<tr><td>(\w+)</td>", history)) == jobs
    history = overview[overview.index("What the jobs did") :]
    assert set(re.findall(r'href="[^"]*/(table\?\S*|rollup\?\S*)"', history)) == {
        "table?conn=lakebase_default&amp;name=public.metrics",
        "rollup?conn=lakebase_default&amp;name=hourly",
    }
    assert {"dropped", "tiered", "hot", "planned"} <= set(re.findall(r"<td>([a-z]+)</td>", table))


@pytest.mark.parametrize("engine", ["ours"])
def test_a_rollup_is_late_only_after_it_should_have_been_refreshed(page: TestClient, lab: Lab) -> None:
    lab.table("metrics", days=2)
    lab.rollup("new")
    lab.rollup("forgotten")
    lab.conn.execute(
        "UPDATE lakets._rollup_registry SET created_at = now() - interval '2 hours' WHERE name = 'forgotten'"
    )

    shown = look(page)

    assert "never refreshed; its refresh_lag is" in shown
    assert shown.count("its refresh_lag is") == 1


@pytest.mark.parametrize("engine", ["ours"])
def test_an_unknown_table_or_rollup_is_a_page_that_says_so(page: TestClient, lab: Lab) -> None:
    look(page)

    for path in ("/prefix/lakets/table", "/prefix/lakets/rollup"):
        answer = page.get(path, params={"name": "nope"})
        assert answer.status_code == 404
        assert "has no such" in answer.text


def test_loading_the_plugin_imports_no_fastapi() -> None:
    code = (
        "import sys, airflow.plugins_manager; before = {*sys.modules};"
        "from airflow_provider_lakets.plugin import LakeTSPlugin; LakeTSPlugin.external_views;"
        "sys.exit(bool({'fastapi', 'psycopg'} & ({*sys.modules} - before)))"
    )

    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


def test_connections_are_found_in_plain_and_mapped_tasks() -> None:
    ours = "airflow_provider_lakets.operators.tiering"
    plain = {"task_id": "a", "lakebase_conn_id": "one"}
    mapped = {"task_id": "b", "_task_module": ours, "partial_kwargs": {"lakebase_conn_id": "two"}}
    default = {"task_id": "c", "_task_module": ours, "partial_kwargs": {}}
    templated = {"task_id": "d", "lakebase_conn_id": "{{ params.conn }}"}

    found = [connections.connections_of(task) for task in (plain, mapped, default, templated, {})]

    assert found == [{"one"}, {"two"}, {"lakebase_default"}, set(), set()]


def test_more_tables_than_a_page_holds_are_shown_page_by_page(
    page: TestClient, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "ROWS", 2)
    for one in ("m1", "m2", "m3"):
        lab.table(one)

    first, second = look(page), look(page, page="2")

    assert ("Page 1 of 2" in first, "page=2" in first) == (True, True)
    assert ("Page 2 of 2" in second, "page=1" in second) == (True, True)
    assert [one in first for one in ("public.m1", "public.m2", "public.m3")] == [True, True, False]
    assert [one in second for one in ("public.m1", "public.m2", "public.m3")] == [False, False, True]


def test_more_chunks_than_a_page_holds_are_shown_page_by_page(
    page: TestClient, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "CHUNKS", 2)
    lab.table("metrics")

    first = look(page, "/prefix/lakets/table", name="public.metrics")
    second = look(page, "/prefix/lakets/table", name="public.metrics", page="2")

    assert "Page 1 of " in first
    assert "Page 2 of " in second
    assert "page=3" in second
