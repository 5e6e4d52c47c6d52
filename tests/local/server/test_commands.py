"""`lakets local`, as a user types it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from airflow_provider_lakets.cli import app
from airflow_provider_lakets.local.client import LocalServer

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result


def lakets_local(*arguments: str | Path) -> Result:
    """Run the command; a traceback always fails the test."""
    done = CliRunner().invoke(app, ["local", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.output
    return done


def as_a_process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a separate process, which leaves the server running."""
    command = [sys.executable, "-m", "airflow_provider_lakets", "local", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def link(server: LocalServer, tmp_path: Path) -> Path:
    """Return another way to the folder of the running server."""
    link = tmp_path / "link"
    link.symlink_to(server.folder)
    return link


def test_a_running_lakebase_is_found_whichever_way_its_folder_is_named(
    server: LocalServer, link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(server.folder.parent)
    ways: list[str | Path] = [
        server.folder.name,
        f"../{server.folder.parent.name}/{server.folder.name}",
        f"{link.parent}/../{link.parent.name}/{link.name}",
        link,
    ]

    for way in ways:
        assert f"process {server.state.pid}" in lakets_local("status", "--folder", way).stdout
    started = lakets_local("up", "--folder", link)

    assert started.exit_code == 0
    assert str(server.state.port) in started.stdout


def test_hints_name_the_folder_unless_it_is_the_usual_one(
    server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "my lake"

    nowhere = lakets_local("status", "--folder", elsewhere)
    usual = lakets_local("status")
    fault = lakets_local("fault", "--clear", "--folder", elsewhere)
    running = lakets_local("up", "--folder", server.folder)

    assert f"`lakets local up --folder '{elsewhere}'`" in nowhere.stdout
    assert "`lakets local up`" in usual.stdout
    assert f"`lakets local up --folder '{elsewhere}'`" in fault.stderr
    assert f'eval "$(lakets local up --env --folder {server.folder})"' in running.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--postgres-version", "15"], "Postgres 15 was requested; available are 16, 17, 18"),
        (["--folder", "/proc/nope"], "/proc/nope cannot be created"),
        (["--folder", "{file}"], "already exists"),
        (["--folder", "{file}/below"], "{file}/below"),
        (["--folder", "{damaged}"], "Remove it and start"),
        (["--feed-interval=-1"], "-1 is not between"),
        (["--feed-interval=0"], "0 is not between"),
        (["--feed-interval=nan"], "nan is not between"),
        (["--port", "0"], "equal to 1"),
        (["--port", "65536"], "equal to 65535"),
        (["--api-port", "-1"], "equal to 1"),
    ],
)
def test_what_cannot_be_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"file": tmp_path / "file", "damaged": tmp_path / "damaged"}
    places["file"].touch()
    places["damaged"].mkdir()
    (places["damaged"] / "lakebase.json").write_text('{"owner": 1')
    given = [argument.format(**places) for argument in arguments]

    done = lakets_local("up", *given)

    assert done.exit_code != 0
    assert message.format(**places) in done.stderr


def test_a_folder_that_nobody_lets_us_into_is_one_clear_error(tmp_path: Path) -> None:
    closed = tmp_path / "loop"
    closed.symlink_to(closed)

    done = lakets_local("status", "--folder", closed)

    assert done.exit_code == 1


def test_ports_are_those_asked_for_and_the_environment_leads_nowhere_else(
    tmp_path: Path, postgres_version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "intranet")
    monkeypatch.setenv("PGSERVICE", "nowhere")
    folder = tmp_path / "lake"
    port, api_port = free_port(), free_port()
    options = ("--folder", folder, "--postgres-version", str(postgres_version))
    try:
        started = as_a_process("up", *options, "--port", str(port), "--api-port", str(api_port))
        again = lakets_local("up", *options, "--port", str(port))
        other = lakets_local("up", *options, "--port", str(free_port()))
        shown = lakets_local("up", *options, "--env")
        fault = lakets_local("fault", "--clear", "--folder", folder)
        state = LocalServer(folder).state
    finally:
        lakets_local("down", "--folder", folder)

    assert started.returncode == again.exit_code == fault.exit_code == 0
    assert "export no_proxy=intranet,127.0.0.1" in shown.stdout.splitlines()
    assert (state.port, state.api_port) == (port, api_port)
    assert other.exit_code == 1
    assert f"on port {port} instead of --port" in other.stderr


def test_a_port_that_is_taken_is_one_clear_error(tmp_path: Path, postgres_version: int) -> None:
    folder = tmp_path / "lake"
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        port = somebody.getsockname()[1]

        messages = [
            lakets_local(
                "up", "--folder", folder, "--postgres-version", str(postgres_version), option, str(port)
            ).stderr
            for option in ("--port", "--api-port")
        ]

    for option, message in zip(("--port", "--api-port"), messages, strict=True):
        assert message.count("\n") == 1
        assert message.startswith(f"Port {port} of 127.0.0.1")
        assert f"Set another port with {option}" in message
    assert not LocalServer(folder).is_running
    assert os.listdir(folder)


def test_the_folder_of_another_version_is_one_clear_error(server: LocalServer, tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    (folder / "pg").mkdir(parents=True)
    (folder / "pg/PG_VERSION").write_text("15\n")

    done = lakets_local("up", "--folder", folder)

    assert done.exit_code == 1
    assert "Version mismatch" in done.stderr
    assert done.stderr.count("\n") == 1
