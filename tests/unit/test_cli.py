"""The `lakets` command, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from airflow_provider_lakets import __version__
from airflow_provider_lakets.engine import install_script
from tests.lab import as_uri

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typer.testing import Result

    from tests.lab import Lab


@pytest.fixture
def engine() -> str:
    return "ours"


def run(*command: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a separate process with a separate Airflow home."""
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

    assert done.stdout.strip() in ("[]", "['rich.table']")  # typer prints its help with rich


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


def test_a_machine_without_airflow_is_left_without_it_and_told_what_is_missing(tmp_path: Path) -> None:
    home = tmp_path / "airflow"

    done = run("-m", "airflow_provider_lakets", "status", home=home, TMPDIR=str(tmp_path))

    assert (done.returncode, "'lakebase_default' is not defined" in done.stderr) == (1, True)
    assert "LAKETS_LAKEBASE_ENDPOINT" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert list(tmp_path.iterdir()) == []


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


def store(home: Path, connection: str) -> str:
    """Store a connection in the database of an Airflow home, and return the key of its password."""
    from airflow.configuration import conf
    from airflow.models import Connection

    engine = create_engine(f"sqlite:///{home}/airflow.db")
    table: Any = Connection.__table__
    table.create(engine)
    with Session(engine) as session, session.begin():
        session.add(Connection.from_json(connection, conn_id="stored"))
    engine.dispose()
    return str(conf.get("core", "fernet_key"))


def test_finds_a_connection_that_airflow_stores(tmp_path: Path, lab: Lab) -> None:
    key = store(tmp_path, lab.connection())

    done = run(
        "-m",
        "airflow_provider_lakets",
        "status",
        "--conn-id",
        "stored",
        home=tmp_path,
        AIRFLOW__CORE__FERNET_KEY=key,
    )

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
