"""What is in the wheel, and that its engine is its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.package.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = "airflow_provider_lakets"
ASK = f"import {PACKAGE}.engine as engine; print(engine.__file__); print(engine.sql_dir())"


def ask(site: Path) -> subprocess.CompletedProcess[str]:
    """Ask a package where its engine is, from a folder where no checkout is."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, "-c", ASK], cwd=site.parent, env=environment, capture_output=True, text=True
    )


def add_another_package_called_sql(site: Path) -> None:
    shutil.copytree(ROOT / "sql", site / "sql")


def test_holds_every_file_of_the_package_and_of_the_engine_and_nothing_else(wheel: Path) -> None:
    here = {path.relative_to(ROOT).as_posix() for path in (ROOT / PACKAGE).rglob("*") if path.is_file()}
    here |= {f"{PACKAGE}/{path.relative_to(ROOT)}" for path in (ROOT / "sql").rglob("*.sql")}

    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert inside == {name for name in here if "__pycache__" not in name}
    assert {f"{PACKAGE}/py.typed", f"{PACKAGE}/sql/00_schema.sql"} <= inside


def test_engine_of_a_wheel_is_its_own_beside_another_package_called_sql(site: Path) -> None:
    add_another_package_called_sql(site)

    module, engine = ask(site).stdout.splitlines()

    assert module == str(site / PACKAGE / "engine.py")
    assert engine == str(site / PACKAGE / "sql")


def test_broken_wheel_says_so_and_takes_no_engine_of_another_package(site: Path) -> None:
    shutil.rmtree(site / PACKAGE / "sql")
    add_another_package_called_sql(site)

    answer = ask(site)

    assert answer.returncode != 0
    assert "The LakeTS SQL modules are missing" in answer.stderr
    assert "Reinstall airflow-provider-lakets" in answer.stderr


@pytest.mark.parametrize("tool", [["pip", "check"], ["twine", "check", "--strict"]], ids=["pip", "twine"])
def test_tools_of_the_index_find_nothing_wrong(dist: Path, tool: list[str]) -> None:
    files = sorted(str(path) for path in dist.iterdir()) if "twine" in tool else []

    checked = subprocess.run([sys.executable, "-m", *tool, *files], capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout + checked.stderr
