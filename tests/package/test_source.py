"""The source distribution carries what its own tests need."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

from tests.package.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = [
    *("airflow_provider_lakets", "sql", "tests", "benchmarks"),
    *("dags", "docker", "docs", "examples", ".ci"),
]


def run_pytest(source: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=source,
        env={**environment, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )


def test_holds_every_file_of_the_folders_that_tests_are_in_or_read(sdist: Path) -> None:
    here = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}

    names = {path.relative_to(ROOT).as_posix() for path in here if "__pycache__" not in path.parts}
    assert names - inside == set()
    assert "tests/sql/test_rules.py" in names


def test_tests_that_read_files_of_the_repository_pass(source: Path) -> None:
    # All the unit tests: `make test-sdist`.
    tests = (ROOT / "tests" / "unit").glob("*.py")
    readers = [f"tests/unit/{path.name}" for path in tests if "parents[2]" in path.read_text()]

    ended = run_pytest(source, *readers)

    assert "tests/unit/test_readme.py" in readers
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr


def test_holds_nothing_that_a_run_has_left(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert [name for name in names if not (ROOT / name).exists()] == ["PKG-INFO"]
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []
