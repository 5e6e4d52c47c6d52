"""What the page, `lakets doctor` and `lakets status` report for each fault, for the documents."""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from typer.testing import CliRunner

from airflow_provider_lakets.cli import app
from airflow_provider_lakets.commands import doctor as of_doctor
from airflow_provider_lakets.engine import install_script
from airflow_provider_lakets.local.api.faults import FaultName
from airflow_provider_lakets.local.feed import control
from airflow_provider_lakets.login import rest
from tests.local.server.conftest import wait_until
from tests.page_client import open_page
from tests.superuser import superuser

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_lakets.local.client import LocalServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

DOCUMENT = Path(__file__).parents[3] / "docs/troubleshooting.md"
BEGIN, END = "<!-- told -->\n", "<!-- end -->"
LONGEST = 240  # characters of a cell

OF_FEED = {fault for fault in FaultName if fault.value.startswith("feed-")} | {FaultName.DISK_FULL}
VARIES = [
    (r"[\d.,]+ (bytes|B|[KMG]i?B|kB) behind", "… behind"),
    (r"(took|within) \d+ s", r"\1 … s"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:…"),
    (r"port \d+", "port …"),
    (r"[0-9a-f]{8}-[0-9a-f-]{27}", "…"),
]

TABLE = """
CREATE TABLE told (ts timestamptz NOT NULL, value float8);
INSERT INTO told VALUES ('2020-01-01', 1);
SELECT lakets.create_chronotable('told', 'ts', '1 day');
SELECT lakets.enable_sync('told');
SELECT lakets.add_tiering_policy('told', '30 days');
"""


@pytest.fixture(scope="module")
def lake(running_server: LocalServer) -> Iterator[LocalServer]:
    """Yield the Lakebase with a synced ChronoTable that has one cold chunk."""
    with running_server.connect() as conn:
        conn.execute(install_script().encode())
        conn.execute(TABLE)
    yield running_server
    with psycopg.connect(superuser(running_server), autocommit=True) as admin:
        admin.execute("SELECT lakets.drop_chronotable('told')")


@pytest.fixture
def met(
    request: pytest.FixtureRequest,
    lake: LocalServer,
    server: LocalServer,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> FaultName:
    """Cause a fault for users of lakebase_default, and let retries not wait."""
    for name, value in lake.airflow_env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rest, "LONGEST_WAIT", 0.0)
    monkeypatch.setattr(of_doctor, "SLOW_SECONDS", 0.5)
    fault: FaultName = request.param
    with psycopg.connect(superuser(lake), autocommit=True) as admin:
        _cause(fault, server, admin)
    return fault


def _cause(fault: FaultName, server: LocalServer, admin: psycopg.Connection[Any]) -> None:
    """Cause a fault; for faults of the feed, write to a chunk that a run has then left."""
    control.wait_flushed(superuser(server), 30)
    server.fault(fault, seconds=600 if fault is FaultName.FEED_LAGGING else 1)
    admin.execute("UPDATE lakets._policy_registry SET tiered_at = NULL")
    if fault not in OF_FEED:
        return
    if fault is FaultName.FEED_LAGGING:
        control.wait_flushed(superuser(server), 30)  # it has just been started again
    if fault is FaultName.FEED_SKIPPED:
        skipped = "SELECT FROM wal2delta.tables WHERE status = 'SKIPPED'"
        wait_until(lambda: admin.execute(skipped).fetchone() is not None, "the feed skips the table")
    admin.execute("UPDATE told SET value = value + 1")
    admin.execute("UPDATE lakets._policy_registry SET tiered_at = now()")


@pytest.mark.parametrize("met", FaultName, indirect=True, ids=lambda fault: fault.value)
def test_what_is_said_of_a_fault_is_what_the_documents_say(met: FaultName) -> None:
    row = f"| `{met.value}` | {_cell(page())} | {_cell(doctor())} | {_cell(status())} |"

    if "LAKETS_WRITE_DOCS" in os.environ:
        _write(met, row)
    assert row in DOCUMENT.read_text().splitlines(), "LAKETS_WRITE_DOCS=1 writes it into the document"


def test_each_fault_has_one_row() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", _parts()[1], re.MULTILINE)

    assert rows == [fault.value for fault in FaultName]


def page() -> str:
    """Return the first message of the page."""
    with open_page("lakebase_default") as client:
        text = client.get("/").text
    main = text[text.index("<main") :]
    for first in (r'<section class="notice.*?</section>', r'<ul class="attention">.*?</li>', r"<h1.*?</h1>"):
        if found := re.search(first, main, re.DOTALL):
            said = re.sub("</h2>|</span>(?=<span>)", ":", found.group().partition('<p class="next">')[0])
            return html.unescape(re.sub("<[^>]*>", " ", said))
    raise AssertionError(f"The page says nothing: {text}")


def doctor() -> str:
    """Return the first check that is not fine, with the first sentence of what to do."""
    done = CliRunner().invoke(app, ["doctor", "--wait", "0", "--json"])
    wrong = [one for one in _json(done.stdout, "[") if one["verdict"] in ("fail", "warn")]
    if not wrong:
        return "Each check is ok."
    first = wrong[0]
    said = first["details"][0] if first["details"] else first["said"]
    return f"{first['verdict']} {first['check']}: {said.rstrip('.')}. {first['advice'].partition('. ')[0]}"


def status() -> str:
    """Return the error, or what needs attention first."""
    done = CliRunner().invoke(app, ["status", "--json"])
    if done.exit_code:
        return done.stderr
    attention = _json(done.stdout, "{")["attention"]
    if not attention:
        return "Nothing needs attention."
    return "{severity} {subject}: {said}. {advice}".format(**attention[0])


def _json(text: str, begin: str) -> Any:
    """Return the JSON in an output: only here, in the process of the tests, commands also log."""
    found = re.search(rf"^\{begin}$", text, re.MULTILINE)
    assert found, text
    return json.loads(text[found.start() :])


def _cell(text: str) -> str:
    """Return a text without the parts that vary between runs, and shortened in the middle."""
    assert "eyJ" not in text  # tokens are JWTs: all of them begin so
    for pattern, instead in VARIES:
        text = re.sub(pattern, instead, text)
    words = re.sub(r"\s+([.:,]?)(?=\s|$)|\s+", r"\1 ", text).replace("|", "\\|").split()
    shown = " ".join(words)
    if len(shown) <= LONGEST:
        return shown
    start, end = shown[: LONGEST // 3].rpartition(" ")[0], shown[-LONGEST * 2 // 3 :].partition(" ")[2]
    return f"{start} … {end}"


def _parts() -> tuple[str, str, str]:
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    rows, _, after = rest.partition(END)
    return before, rows, after


def _write(fault: FaultName, row: str) -> None:
    """Write a row into the document, in place of that of the fault."""
    before, rows, after = _parts()
    kept = {line.split("`")[1]: line for line in rows.splitlines() if "`" in line} | {fault.value: row}
    lines = ["| fault | the page | `lakets doctor` | `lakets status` |", "|---|---|---|---|"]
    lines += [kept[one.value] for one in FaultName if one.value in kept]
    DOCUMENT.write_text(before + BEGIN + "".join(f"{line}\n" for line in lines) + END + after)
