"""The source distribution carries what its own tests need; `make test-sdist` runs them there."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

from tests.package.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

FOLDERS = [
    *("airflow_provider_lakets", "sql", "tests", "benchmarks"),
    *("dags", "docker", "docs", "examples", ".ci"),
]


def test_holds_every_file_of_the_folders_that_tests_are_in_or_read(sdist: Path) -> None:
    here = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}

    names = {path.relative_to(ROOT).as_posix() for path in here if "__pycache__" not in path.parts}
    assert names - inside == set()
    assert "tests/sql/test_rules.py" in names


def test_holds_nothing_that_a_run_has_left(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    assert [name for name in names if not (ROOT / name).exists()] == ["PKG-INFO"]
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []
