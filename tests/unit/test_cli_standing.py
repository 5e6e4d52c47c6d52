"""`lakets doctor` on chunks, policies, RollUps, jobs and the clock; passwords among arguments."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict
from typer.testing import CliRunner

from airflow_provider_lakets.cli import app
from airflow_provider_lakets.commands.standing import CODES

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

    from tests.control_plane import ControlPlane
    from tests.lab import Lab

PRIMARY = "projects/weather/branches/production/endpoints/primary"


@pytest.fixture
def engine() -> str:
    return "ours"


def checks(done: Result) -> dict[str, dict[str, Any]]:
    return {one["check"]: one for one in json.loads(done.stdout)}


def uri(lab: Lab, password: str) -> str:
    where = conninfo_to_dict(lab.conninfo)
    host = quote(str(where["host"]), safe="")
    return f"postgresql://{where['user']}:{password}@{host}/{where['dbname']}?sslmode=disable"


def test_the_doctor_says_of_a_fleet_what_contradicts_itself_and_what_is_outside(
    in_lab: Callable[..., Result], lab: Lab
) -> None:
    for name in ("a", "b"):
        lab.table(name)
        lab.conn.execute("SELECT lakets.add_tiering_policy(%s, '7 days')", [name])
    lab.conn.execute("INSERT INTO a VALUES ('1999-01-01', 'x', 1)")

    done = in_lab("doctor", "--wait", "0", "--json")

    found = checks(done)
    assert (found["policies"]["verdict"], found["chunks"]["verdict"]) == ("warn", "warn")
    assert found["policies"]["said"].startswith("2 tables: public.a, public.b")
    assert len(found["policies"]["details"]) == 2
    assert "1 row lies outside all chunks" in found["chunks"]["said"]
    assert done.exit_code == 0


def broken(lab: Lab) -> None:
    """Cause failures and warnings of many kinds, and create tables without problems."""
    for name in ("skipped", "silent"):
        lab.synced(name, days=3)
    lab.flush("skipped", status="SKIPPED")
    for name in ("empty", "empty_skipped"):
        lab.table(name)
        lab.conn.execute("SELECT lakets.enable_sync(%s)", [name])
    lab.flush("empty_skipped", status="SKIPPED")
    lab.table("metrics", days=2)
    lab.rollup("refused")
    lab.conn.execute("UPDATE lakets._rollup_registry SET definition = NULL")
    lab.conn.execute("INSERT INTO metrics VALUES ('1999-01-01', 'x', 1)")
    lab.conn.execute("INSERT INTO lakets._version (version, installed_at) VALUES ('0.1.9', now() + '1 day')")


def starting(lab: Lab) -> None:
    """Create a state without problems: the feed of one table has begun; another is empty."""
    lab.synced("metrics", days=1, tier="9 days", drop="12 days")
    lab.flush("metrics", status="SNAPSHOTTING")
    lab.table("empty")
    lab.conn.execute("SELECT lakets.enable_sync('empty')")


CHECKS = {code: check for check, codes in CODES.items() for code in codes}
CHECKS |= {"engine-older": "LakeTS", "feed-not-streaming": "feed", "feed-starting": "feed"}


@pytest.mark.parametrize(("cause", "severities"), [(broken, {"fail", "warn"}), (starting, {"info"})])
def test_status_doctor_and_metrics_rate_each_thing_alike(
    in_lab: Callable[..., Result], lab: Lab, cause: Callable[[Lab], None], severities: set[str]
) -> None:
    cause(lab)

    doctor = in_lab("doctor", "--wait", "0", "--json")
    attention = json.loads(in_lab("status", "--json").stdout)["attention"]
    metrics = in_lab("metrics").stdout

    assert {one["severity"] for one in attention} == severities
    by_check: dict[str, set[str]] = {check: {"ok"} for check in CHECKS.values()}
    for one in attention:
        by_check[CHECKS[one["code"]]].add("ok" if one["severity"] == "info" else one["severity"])
    verdicts = {check: found["verdict"] for check, found in checks(doctor).items() if check in by_check}
    assert verdicts == {
        check: min(found, key=["fail", "warn", "ok"].index) for check, found in by_check.items()
    }
    assert doctor.exit_code == ("fail" in severities)
    counts = re.findall(r'lakets_attention{code="(.*)",severity="(.*)"} ([1-9]\d*)', metrics)
    seen = Counter((one["code"], one["severity"]) for one in attention)
    assert {(code, severity): int(count) for code, severity, count in counts} == seen


def test_strict_makes_a_warning_an_exit_code(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.table()

    assert in_lab("doctor", "--strict", "--json").exit_code == 3  # a superuser


def test_a_job_that_failed_fails_the_doctor_and_the_later_checks_are_made(
    in_lab: Callable[..., Result], lab: Lab
) -> None:
    lab.table(days=2)
    lab.rollup("hourly")
    lab.hook().partition()
    lab.break_rollup("hourly")
    lab.hook().refresh()
    lab.conn.execute(
        "UPDATE lakets._rollup_registry SET last_refreshed_at = now() - interval '2 days',"
        " refresh_lag = '1 h'"
    )

    done = in_lab("doctor", "--json")

    found = checks(done)
    assert (found["RollUps"]["verdict"], found["jobs"]["verdict"]) == ("warn", "fail")
    assert "job refresh failed" in found["jobs"]["said"]
    assert done.exit_code == 1


def test_a_clock_that_is_off_is_said(
    in_lab: Callable[..., Result], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_lakets.commands import doctor

    ask = doctor.Checks._row

    def ahead(self: doctor.Checks, query: str) -> dict[str, Any]:
        return ask(self, query.replace("clock_timestamp()", "clock_timestamp() + interval '1 minute'"))

    monkeypatch.setattr(doctor.Checks, "_row", ahead)

    found = checks(in_lab("doctor", "--json"))["clock"]

    assert (found["verdict"], "s ahead of this machine" in found["said"]) == ("warn", True)


def test_a_session_that_can_change_nothing_is_said(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.synced(days=3)
    lab.conn.execute(f'ALTER DATABASE "{lab.conn.info.dbname}" SET default_transaction_read_only = on')

    found = checks(in_lab("doctor", "--json"))["rights"]
    done = in_lab("run", "tier")

    assert (found["verdict"], found["said"]) == ("fail", "the session is read-only, so no job can work")
    assert done.exit_code == 75
    assert "Log in to the read-write endpoint of the branch" in done.output


@pytest.fixture
def by_oauth(principal: ControlPlane, define: Callable[..., None], lab: Lab) -> ControlPlane:
    """Make lakebase_default log in with OAuth; return its workspace."""
    define(extra={"project": "weather"})
    return principal


@pytest.mark.parametrize(("state", "asleep"), [("IDLE", True), ("SUSPENDED", True), ("ACTIVE", False)])
def test_the_doctor_says_when_its_login_wakes_the_endpoint(
    lakets: Callable[..., Result], by_oauth: ControlPlane, state: str, asleep: bool
) -> None:
    by_oauth.resources[PRIMARY]["status"]["current_state"] = state

    found = checks(lakets("doctor", "--json"))["endpoint"]

    assert (found["verdict"], "suspended: the login resumes it" in found["said"]) == ("ok", asleep)


def test_minting_that_takes_long_is_warned_of(
    lakets: Callable[..., Result], by_oauth: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_lakets.commands import doctor

    assert checks(lakets("doctor", "--json"))["credential"]["verdict"] == "ok"
    monkeypatch.setattr(doctor, "SLOW_SECONDS", 0.0)

    found = checks(lakets("doctor", "--json"))["credential"]

    assert (found["verdict"], "each login mints one, and waits" in found["said"]) == ("warn", True)


def test_a_password_among_the_arguments_is_warned_of_and_not_shown(
    lakets: Callable[..., Result], lab: Lab
) -> None:
    done = lakets("status", "--uri", uri(lab, "hunter2"))

    assert done.exit_code == 0
    assert "LAKETS_URI" in done.stderr
    assert "hunter2" not in done.output


def test_a_password_is_asked_for_where_the_string_has_a_colon_and_none(
    in_lab: Callable[..., Result], lab: Lab
) -> None:
    asked = CliRunner().invoke(app, ["doctor", "--uri", uri(lab, ""), "--json"], input="hunter2\n")

    assert asked.stderr.startswith("Password of ")
    assert "native Postgres password" in checks(asked)["identity"]["said"]
    assert checks(asked)["login"]["verdict"] == "warn"  # logged in, as a superuser
    assert "hunter2" not in asked.output


def test_a_connection_string_in_the_environment_is_taken_without_a_word(
    lakets: Callable[..., Result], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKETS_URI", uri(lab, "hunter2"))
    monkeypatch.delenv("AIRFLOW_CONN_LAKEBASE_DEFAULT")

    done = lakets("status")

    assert (done.exit_code, done.stderr) == (0, "")


def test_a_connection_that_is_typed_wins_over_the_environment(
    lakets: Callable[..., Result], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKETS_URI", "postgresql://u@nowhere.invalid/db")

    assert lakets("status", "--conn-id", "lakebase_default").exit_code == 0


def test_the_string_of_the_environment_is_named_where_it_is_wrong(
    lakets: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKETS_URI", "hunter2")

    done = lakets("status")

    assert (done.exit_code, done.stderr.startswith("LAKETS_URI ")) == (1, True)
    assert "hunter2" not in done.output
