"""The files of a server are private to its owner, and other folders stay unchanged."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from airflow_provider_lakets.local.lakebase import LocalLakebase
from airflow_provider_lakets.local.pg.account import AccountError
from airflow_provider_lakets.local.pg.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


@pytest.fixture
def closed() -> Iterator[Path]:
    """Yield a folder below two that only their owner may enter."""
    with tempfile.TemporaryDirectory(prefix="l-") as folder:
        inner = Path(folder) / "priv"
        inner.mkdir(mode=0o700)
        yield inner


def others_may(path: Path) -> bool:
    return bool(stat.S_IMODE(path.lstat().st_mode) & 0o077)


def test_folders_above_stay_closed(closed: Path, postgres_version: int) -> None:
    before = [path.stat().st_mode for path in closed.parents]

    with EmbeddedPostgres(closed / "in/pg", version=postgres_version) as server:
        psycopg.connect(server.conninfo()).close()

    assert [path.stat().st_mode for path in closed.parents] == before
    assert not others_may(closed)


def test_nothing_in_an_open_folder_is_for_others(closed: Path, postgres_version: int) -> None:
    folder = closed / "lake"
    folder.mkdir(mode=0o755)
    with LocalLakebase(folder, version=postgres_version, feed_interval=60) as lake:
        with psycopg.connect(lake.conninfo(), autocommit=True) as conn:
            conn.execute("CREATE SCHEMA lakets_cdf; CREATE TABLE lakets_cdf._shadow_m (v int)")
            conn.execute("ALTER TABLE lakets_cdf._shadow_m REPLICA IDENTITY FULL")
            conn.execute("INSERT INTO lakets_cdf._shadow_m VALUES (1)")
        lake.wait_flushed()
        data = list((folder / "delta").rglob("*.parquet"))

        assert data
        assert [path.name for path in folder.iterdir() if others_may(path)] == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_new_folder_is_closed_to_others(closed: Path, postgres_version: int) -> None:
    with LocalLakebase(closed / "lake", version=postgres_version, feed_interval=60):
        assert not others_may(closed / "lake")


@pytest.mark.parametrize("name", ["a" * 120, "a b", "it's $HOME `id`", 'quo"te,comma', "ümlaut"])
def test_any_folder_will_do_and_its_socket_is_private(closed: Path, name: str, postgres_version: int) -> None:
    with EmbeddedPostgres(closed / name / "pg", version=postgres_version) as server:
        with psycopg.connect(server.conninfo()) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
        socket_dir = Path(server.socket_dir)
        assert not others_may(socket_dir)
        assert not others_may(socket_dir / ".s.PGSQL.5432")

    assert not (socket_dir / ".s.PGSQL.5432").exists()


def test_a_socket_folder_of_somebody_else_is_not_used(closed: Path, postgres_version: int) -> None:
    if os.geteuid():
        pytest.skip("Only root can make a folder that is somebody else's")
    data_dir = closed / ("a" * 120) / "pg"
    with EmbeddedPostgres(data_dir, version=postgres_version) as server:
        socket_dir = Path(server.socket_dir)
    socket_dir.mkdir()
    os.chown(socket_dir, NOBODY, NOBODY)
    try:
        with pytest.raises(AccountError, match="is not a folder of"):
            EmbeddedPostgres(data_dir, version=postgres_version).start()
    finally:
        socket_dir.rmdir()


def test_the_server_asks_who_connects_even_where_the_socket_can_be_reached(
    closed: Path, postgres_version: int
) -> None:
    if os.geteuid():
        pytest.skip("Only root can become another user")
    with EmbeddedPostgres(closed / "pg", version=postgres_version) as server:
        for path in (*closed.parents, closed, closed / "pg", closed / "pg/.s.PGSQL.5432"):
            if path.is_relative_to(closed.parent):
                path.chmod(0o777)
        with as_nobody(), pytest.raises(psycopg.OperationalError, match="Peer authentication failed"):
            psycopg.connect(server.conninfo())


def test_a_user_id_without_a_name_is_one_clear_error(closed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_234_567)

    with pytest.raises(AccountError, match="user id 1234567 has none"):
        EmbeddedPostgres(closed / "pg").start()


def test_a_standby_is_made_wherever_the_folder_is(closed: Path, postgres_version: int) -> None:
    # The server of root has no right to read root's files here, as it has where a folder is closed.
    for folder in (closed, closed.parent):
        folder.chmod(0o755)
    before = os.umask(0o077)
    try:
        with (
            EmbeddedPostgres(closed / "pg", version=postgres_version) as primary,
            EmbeddedPostgres(closed / "standby", version=postgres_version, follows=primary) as standby,
            psycopg.connect(standby.conninfo()) as conn,
        ):
            assert conn.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
    finally:
        os.umask(before)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Become another user for the block."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
