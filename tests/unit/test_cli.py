"""The `lakets` command, as a user types it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import types
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from airflow_provider_lakets import __version__
from airflow_provider_lakets.engine import install_script

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    from tests.control_plane import ControlPlane
    from tests.lab import Lab


@pytest.fixture
def engine() -> str:
    return "ours"


@pytest.fixture
def empty(
    lakets: Callable[..., Result], empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run a command against a database without LakeTS."""
    monkeypatch.setenv("AIRFLOW_CONN_LAKEBASE_DEFAULT", as_uri(empty_database))
    return lakets


def as_uri(conninfo: str, password: str = "not-asked-for") -> str:
    where = conninfo_to_dict(conninfo)
    host = quote(str(where["host"]), safe="")
    return f"postgresql://{where['user']}:{password}@{host}/{where['dbname']}?sslmode=disable"


def verdicts(done: Result) -> dict[str, str]:
    """Return what the doctor said of each check."""
    lines = [line.split() for line in done.stdout.splitlines() if not line.startswith(" ")]
    return {line[1]: line[0] for line in lines}


def said(done: Result) -> str:
    """Return what was printed, as if on one line."""
    return " ".join(done.stdout.split())


def run(*command: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a process of its own, with an Airflow home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    env = {**kept, "AIRFLOW_HOME": str(home), **environment}
    return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, check=False)


def test_help_is_quick_because_it_imports_no_airflow() -> None:
    program = (
        "import sys; from typer.testing import CliRunner; from airflow_provider_lakets.cli import app;"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0;"
        "print([name for name in ('airflow', 'psycopg', 'rich.table') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() in ("[]", "['rich.table']")  # typer draws its help with rich


def test_version_is_the_providers(lakets: Callable[..., Result]) -> None:
    assert lakets("--version").stdout.strip() == __version__


def test_install_print_writes_the_script_and_nothing_else(
    lakets: Callable[..., Result], empty_database: str
) -> None:
    done = lakets("install", "--print")

    assert done.stdout == install_script()
    with psycopg.connect(empty_database, autocommit=True) as conn:
        conn.execute(done.stdout.encode())
        assert conn.execute("SELECT version FROM lakets._version").fetchall() == [(__version__,)]


def test_install_says_which_version_was_there(empty: Callable[..., Result]) -> None:
    first, second = empty("install"), empty("install")

    assert first.stdout.splitlines()[-1] == f"LakeTS {__version__} is installed (before: none)."
    assert second.stdout.splitlines()[-1] == f"LakeTS {__version__} is installed (before: {__version__})."


def test_a_connection_string_does_without_a_connection(
    lakets: Callable[..., Result], empty_database: str
) -> None:
    done = lakets("install", "--uri", as_uri(empty_database))

    assert done.exit_code == 0


def test_status_without_lakets_says_what_to_do(empty: Callable[..., Result]) -> None:
    done = empty("status")

    assert done.exit_code == 1
    assert "Run `lakets install`" in done.stderr
    assert "Traceback" not in done.output


def test_the_program_of_the_jobs_does_not_start_without_what_it_needs(empty: Callable[..., Result]) -> None:
    needs = "There is no LakeTS" if find_spec("dbos") else "pip install 'airflow-provider-lakets[dbos]'"

    done = empty("run", "--with", "dbos")

    assert (done.exit_code, needs in done.stderr) == (1, True)


def test_run_without_a_job_shows_what_there_is(lakets: Callable[..., Result]) -> None:
    done = lakets("run")

    assert (done.exit_code, "partitions" in done.stdout) == (2, True)


def test_status_shows_tables_chunks_feed_and_rollups(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.synced(days=8)
    lab.flush()
    lab.rollup("hourly")
    lab.rollup("daily", reads="hourly")

    lines = in_lab("status").stdout.splitlines()

    (metrics,) = (line for line in lines if "tiered_retention" in line)
    assert "public.metrics" in metrics
    assert "STREAMING" in metrics
    (daily,) = (line for line in lines if line.startswith("│ daily"))
    assert [cell.strip() for cell in daily.strip("│").split("│")][:3] == ["daily", "hourly", "1 day"]


def test_status_is_json_for_programs(in_lab: Callable[..., Result], lab: Lab) -> None:
    lab.table("metrics")

    status = json.loads(in_lab("status", "--json").stdout)

    assert status["version"] == __version__
    assert status["health"][0]["chronotable"] == "public.metrics"


def test_status_of_an_empty_lakets_says_how_to_begin(in_lab: Callable[..., Result]) -> None:
    assert "lakets.create_chronotable" in in_lab("status").stdout


def test_a_connection_that_is_not_defined_is_named(lakets: Callable[..., Result]) -> None:
    done = lakets("status", "--conn-id", "nowhere")

    assert done.exit_code == 1
    assert "'nowhere' is not defined" in done.stderr


def demo(monkeypatch: pytest.MonkeyPatch, run_demo: Callable[..., int]) -> None:
    """Put something quick in the place of the demo."""
    module = types.ModuleType("airflow_provider_lakets.local.demo")
    module.run_demo = run_demo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_the_demo_names_the_extra_it_needs(
    lakets: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_extra(**options: bool) -> int:
        raise ModuleNotFoundError("No module named 'deltalake'", name="deltalake")

    demo(monkeypatch, without_extra)

    done = lakets("demo")

    assert done.exit_code == 1
    assert "needs deltalake: pip install 'airflow-provider-lakets[local]'" in done.stderr


def test_the_demo_ends_with_its_own_exit_code(
    lakets: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    demo(monkeypatch, lambda **options: 3)

    assert lakets("demo").exit_code == 3


@pytest.mark.parametrize(("options", "keep"), [((), False), (("--keep",), True)], ids=["ended", "kept"])
def test_the_demo_is_kept_running_only_when_asked(
    lakets: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], keep: bool
) -> None:
    demo(monkeypatch, lambda **given: 0 if given == {"keep": keep} else 4)

    assert lakets("demo", *options).exit_code == 0


# The doctor


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
    # How far depends on what else is written on the server meanwhile.
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


# Outside Airflow


def test_works_without_an_airflow_database(tmp_path: Path, lab: Lab) -> None:
    done = run(
        "-m",
        "airflow_provider_lakets",
        "status",
        "--json",
        home=tmp_path,
        AIRFLOW_CONN_LAKEBASE_DEFAULT=lab.connection(),
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == __version__
    assert [*tmp_path.rglob("*.db")] == []


def test_says_what_is_missing_without_an_airflow_database(tmp_path: Path) -> None:
    done = run("-m", "airflow_provider_lakets", "status", home=tmp_path)

    assert done.returncode == 1
    assert "LAKETS_LAKEBASE_ENDPOINT" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


STORE = """
import sys
from airflow.models import Connection
from airflow.utils.db import initdb
from airflow.utils.session import create_session
initdb()
with create_session() as session:
    session.add(Connection.from_json(sys.argv[1], conn_id="stored"))
"""


def test_finds_a_connection_that_airflow_stores(tmp_path: Path, lab: Lab) -> None:
    stored = run("-c", STORE, lab.connection(), home=tmp_path)
    assert stored.returncode == 0, stored.stderr

    done = run("-m", "airflow_provider_lakets", "status", "--conn-id", "stored", home=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "LakeTS" in done.stdout


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "'postgresql://user:hunter2@h/db'",
        "'postgresql://user:hunter2/x@h/db'",
        "postgresql://user:hunter2/x@h/db",
        "postgresql://user:hunter2@h:x/db",
        "host=h user=u password=hunter2 dbname=db",
    ],
)
@pytest.mark.parametrize("command", ["doctor", "status", "install"])
def test_connection_string_that_is_none_is_one_clear_error_without_the_password(
    lakets: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, command: str, uri: str
) -> None:
    monkeypatch.setenv("LAKETS_LAKEBASE_ENDPOINT", "projects/elsewhere")

    done = lakets(command, "--uri", uri)

    assert done.exit_code == 1
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert done.stdout == ""
    assert done.stderr.startswith("--uri ")
    assert "postgresql://<role>@<host>/<database>" in done.stderr
    assert "hunter2" not in done.stderr
