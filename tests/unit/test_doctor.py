"""The checks of `lakets doctor`: their findings and advice."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

    from tests.control_plane import ControlPlane
    from tests.lab import Lab


@pytest.fixture
def engine() -> str:
    return "ours"


def verdicts(done: Result) -> dict[str, str]:
    """Return what the doctor said of each check."""
    lines = [line.split() for line in done.stdout.splitlines() if not line.startswith(" ")]
    return {line[1]: line[0] for line in lines}


def said(done: Result) -> str:
    """Return what was printed, as if on one line."""
    return " ".join(done.stdout.split())


def test_the_doctor_finds_nothing_wrong(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.synced(days=3)
    lab.flush()

    done = in_lab("doctor")

    assert done.exit_code == 0
    assert verdicts(done) == {
        "identity": "ok",
        "endpoint": "ok",
        "credential": "ok",
        "login": "warn",  # a superuser
        "TLS": "ok",
        "clock": "ok",
        "LakeTS": "ok",
        "rights": "ok",
        "feed": "ok",
        "repairs": "ok",
        "chunks": "ok",
        "policies": "ok",
        "RollUps": "ok",
        "jobs": "ok",
    }


def test_the_documents_name_the_checks_that_only_the_doctor_makes(in_lab: Callable[..., Result]) -> None:
    text = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    (listed,) = re.findall(r"only the doctor checks \(([^)]*)\)", text)

    made = [*verdicts(in_lab("doctor"))]

    assert re.split(r",\s+", listed) == made[: made.index("feed")], "change the list in docs/monitoring.md"


def test_the_doctor_misses_lakets_and_leaves_out_what_needs_it(empty: Callable[..., Result]) -> None:
    done = empty("doctor")

    assert done.exit_code == 1
    found = verdicts(done)
    assert (found["LakeTS"], found["rights"], found["feed"]) == ("fail", "skip", "skip")
    assert "Run `lakets install`" in done.stdout


def test_the_doctor_stops_at_a_connection_that_is_not_defined(lakets: Callable[..., Result]) -> None:
    done = lakets("doctor")

    found = verdicts(done)
    assert found.pop("identity") == "fail"
    assert set(found.values()) == {"skip"}


def test_the_doctor_warns_of_an_older_lakets(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.conn.execute("INSERT INTO lakets._version (version, installed_at) VALUES ('0.1.9', now() + '1 day')")

    done = in_lab("doctor")

    assert verdicts(done)["LakeTS"] == "warn"
    assert "0.1.9" in done.stdout


def test_the_doctor_fails_for_a_table_that_no_feed_streams(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.synced(days=3)

    done = in_lab("doctor")

    assert (done.exit_code, verdicts(done)["feed"]) == (1, "fail")
    assert "table public.metrics: the change feed is not streaming (NONE): no feed reads" in said(done)
    assert "Start a change data feed for schema lakets_cdf." in said(done)
    assert "lakets doctor" not in said(done)


def test_the_doctor_names_an_empty_table_as_one_that_will_stream(
    in_lab: Callable[..., Result], lab: Lab
) -> None:
    lab.table("metrics")
    lab.conn.execute("SELECT lakets.enable_sync('metrics')")

    done = in_lab("doctor")

    assert verdicts(done)["feed"] == "ok"
    assert "table public.metrics: no rows so far; the feed streams from the first row on" in said(done)


def test_the_doctor_warns_of_a_feed_that_stands_still(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.synced(days=3)
    lab.flush()
    lab.conn.execute("INSERT INTO metrics SELECT now(), 'b', n FROM generate_series(1, 2000) AS n")
    lab.conn.execute("INSERT INTO metrics SELECT now(), 'b', n FROM generate_series(1, 2000) AS n")

    done = in_lab("doctor", "--wait", "0")

    assert verdicts(done)["feed"] == "warn"
    # The lag depends on other writes on the server.
    assert re.search(r"\d [KMG]iB behind, and not moved", said(done))
    assert "Until it moves, nothing new is tiered or dropped" in said(done)


def test_the_doctor_waits_for_a_feed_that_moves(
    in_lab: Callable[..., Result], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.synced(days=3)
    lab.flush()
    for _ in range(2):
        lab.conn.execute("INSERT INTO metrics SELECT now(), 'b', n FROM generate_series(1, 2000) AS n")
    monkeypatch.setattr(time, "sleep", lambda _: lab.flush())

    assert verdicts(in_lab("doctor", "--wait", "60"))["feed"] == "ok"


def test_the_doctor_names_a_replication_slot_that_nobody_reads(
    in_lab: Callable[..., Result], lab: Lab
) -> None:
    lab.synced(days=3)
    lab.flush()
    lab.conn.execute("SELECT pg_create_logical_replication_slot('left_over', 'pgoutput')")
    for _ in range(2):
        lab.conn.execute("INSERT INTO metrics SELECT now(), 'b', n FROM generate_series(1, 2000) AS n")

    done = in_lab("doctor", "--wait", "0")
    lab.conn.execute("SELECT pg_drop_replication_slot('left_over')")

    assert "replication slot left_over: nobody reads it" in said(done)


def test_the_doctor_of_a_fleet_fits_a_screen_and_its_json_has_all(
    in_lab: Callable[..., Result], lab: Lab
) -> None:
    for number in range(12):
        lab.synced(f"metrics_of_a_long_name_{number:02}", days=3)

    done = in_lab("doctor", "--wait", "0")
    found = {one["check"]: one for one in json.loads(in_lab("doctor", "--wait", "0", "--json").stdout)}

    assert "12 tables: public.metrics_of_a_long_name_00," in said(done)
    assert "and 7 more" in said(done)
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert len(found["feed"]["details"]) == 12
    assert found["feed"]["details"][-1].startswith("public.metrics_of_a_long_name_11: the change feed is")


@pytest.mark.parametrize("engine", ["0.1"])
def test_the_doctor_sums_up_what_many_tables_need_after_an_upgrade(
    in_lab: Callable[..., Result], lab: Lab
) -> None:
    for number in range(12):
        lab.synced(f"metrics_{number:02}", days=3)
        lab.flush(f"metrics_{number:02}")
    in_lab("install")

    done = in_lab("doctor", "--wait", "0")
    (repairs,) = (
        one
        for one in json.loads(in_lab("doctor", "--wait", "0", "--json").stdout)
        if one["check"] == "repairs"
    )

    assert "12 tables: public.metrics_00," in said(done)
    assert "SELECT lakets.enable_sync('metrics_09', 'public');" in done.stdout
    assert "-- and 2 more: lakets doctor --json" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert len(repairs["statements"]) == len(repairs["details"]) == 12


def test_a_table_that_is_locked_is_busy_and_the_others_are_shown(
    in_lab: Callable[..., Result], lab: Lab
) -> None:
    for name in ("metrics", "other"):
        lab.synced(name, days=8)
        lab.flush(name)
    lab.hook().tier(lab.old_chunks("metrics"))
    with psycopg.connect(lab.conninfo) as holder:
        holder.execute("LOCK TABLE metrics IN ACCESS EXCLUSIVE MODE")

        printed = in_lab("status", "--json").stdout
        table = in_lab("status").stdout
        doctor = in_lab("doctor", "--wait", "0")

    status = json.loads(printed)
    assert status["busy"] == ["public.metrics"]
    assert [feed["table"] for feed in status["feeds"]] == ["public.other"]
    assert {one["chronotable"] for one in status["health"]} == {"public.metrics", "public.other"}
    assert "busy: locked" in table
    assert verdicts(doctor)["feed"] == "ok"  # which looks at no table
    assert doctor.exit_code == 0


@pytest.mark.parametrize("engine", ["0.1"])
def test_after_an_upgrade_install_and_doctor_name_what_is_left_to_do(
    in_lab: Callable[..., Result], lab: Lab
) -> None:
    lab.synced(days=3)
    lab.flush()

    installed = in_lab("install")
    told = in_lab("doctor", "--wait", "0")
    lab.conn.execute("SELECT lakets.enable_sync('metrics')")
    mended = in_lab("doctor", "--wait", "0")

    assert "LakeTS 0.1.x is replaced by" in installed.stdout
    for output in (said(installed), said(told)):
        assert "are not yet compared with their mirror" in output
        assert "SELECT lakets.enable_sync('metrics', 'public');" in output
    assert (verdicts(told)["repairs"], verdicts(mended)["repairs"]) == ("warn", "ok")


def test_what_the_doctor_prescribes_cures(
    lakets: Callable[..., Result], lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.table("metrics")
    lab.conn.execute("SELECT lakets.add_retention_policy('metrics', '9 days', p_trim_shadow => true)")
    role = f"patient_{lab.value('SELECT oid FROM pg_database WHERE datname = current_database()')}"
    for statement in (
        f"CREATE ROLE {role} LOGIN",
        f"CREATE ROLE {role}_owner",
        f"ALTER TABLE metrics OWNER TO {role}_owner",
        f"GRANT USAGE ON SCHEMA lakets TO {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA lakets TO {role}",
    ):
        lab.conn.execute(statement)
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(login=role))

    before = lakets("doctor")
    for line in before.stdout.splitlines():
        if line.strip().startswith("GRANT"):
            lab.conn.execute(line.encode())
    after = lakets("doctor")

    assert (before.exit_code, verdicts(before)["rights"]) == (1, "fail")
    assert f"membership in {role}_owner, the owner of metrics" in said(before) or "more" in said(before)
    assert (after.exit_code, verdicts(after)["rights"]) == (0, "ok")
    for name in (role, f"{role}_owner"):
        lab.conn.execute(f"DROP OWNED BY {name} CASCADE")
        lab.conn.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize("is_trimming", [True, False])
def test_the_doctor_asks_for_the_log_of_trims_where_a_policy_trims(
    lakets: Callable[..., Result], lab: Lab, monkeypatch: pytest.MonkeyPatch, is_trimming: bool
) -> None:
    lab.table("metrics")
    lab.conn.execute(
        "SELECT lakets.add_retention_policy('metrics', '9 days', p_trim_shadow => %s)", [is_trimming]
    )
    role = f"patient_{lab.value('SELECT oid FROM pg_database WHERE datname = current_database()')}"
    for statement in (
        f"CREATE ROLE {role} LOGIN",
        f"ALTER TABLE metrics OWNER TO {role}",
        f"GRANT USAGE, CREATE ON SCHEMA public, lakets, lakets_cdf TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA lakets TO {role}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA lakets TO {role}",
    ):
        lab.conn.execute(statement)
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", lab.connection(login=role))

    done = lakets("doctor")

    assert verdicts(done)["rights"] == ("fail" if is_trimming else "ok")
    lacks = "no SELECT on table lakets_cdf._trim_log; no INSERT on table lakets_cdf._trim_log"
    assert (lacks in said(done)) == is_trimming
    lab.conn.execute(f"DROP OWNED BY {role} CASCADE")
    lab.conn.execute(f"DROP ROLE {role}")


def test_the_doctor_follows_the_way_in_by_oauth(
    lakets: Callable[..., Result], principal: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", "projects/weather")
    monkeypatch.setenv(
        "AIRFLOW_CONN_LAKEBASE_DEFAULT",
        '{"conn_type": "lakebase", "schema": "postgres", "extra": {"sslmode": "disable"}}',
    )

    done = lakets("doctor")

    found = verdicts(done)
    assert {name: found[name] for name in ("identity", "endpoint", "credential", "login")} == {
        "identity": "ok",
        "endpoint": "ok",
        "credential": "ok",
        "login": "ok",
    }
    assert "projects/weather/branches/production/endpoints/primary" in done.stdout
    assert principal.client_secret not in done.output


def test_the_doctor_says_which_projects_there_are(
    lakets: Callable[..., Result], principal: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", "projects/whether")

    done = lakets("doctor")

    found = verdicts(done)
    assert (found["identity"], found["endpoint"], found["credential"]) == ("ok", "fail", "skip")
    assert "projects/weather" in done.stdout
