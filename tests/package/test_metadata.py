"""What the index shows of the package, and what pip decides by."""

from __future__ import annotations

import re
import zipfile
from email import message_from_string
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.package.conftest import ROOT

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

# The Pythons that .ci/run runs the tests on, and those between.
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
PAGE = "https://github.com/airflow-provider-lakets/airflow-provider-lakets"


@pytest.fixture
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode())


def pins(file: str) -> dict[str, list[str]]:
    """Return the versions that a constraints file has for each package."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / file).read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            version = str(requirement.specifier).removeprefix("==")
            found.setdefault(requirement.name, []).append(version)
    return found


def test_pythons_promised_are_those_that_are_run(metadata: Message) -> None:
    classified = re.findall(r":: Python :: (\d\.\d+)\n", "\n".join(metadata.get_all("Classifier", [])) + "\n")
    allowed = SpecifierSet(metadata["Requires-Python"])
    run = (ROOT / ".ci" / "run").read_text()

    assert classified == PYTHONS
    assert [minor for minor in range(9, 16) if f"3.{minor}.0" in allowed] == [10, 11, 12, 13]
    # Beside the usual one the highest, and the lowest with the lowest packages.
    assert f"{{PYTHONS:-{PYTHONS[-1]}}}" in run
    assert "step test-lowest" in run
    assert f"find-python {PYTHONS[0]})" in (ROOT / "Makefile").read_text()


def test_every_lower_bound_is_one_that_the_lowest_tests_run_on(metadata: Message) -> None:
    lowest = pins("constraints-lowest.txt")
    required = [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]
    # Not of the tests: dbos needs SQLAlchemy 2, and `dev` adds tools that check the code but do not
    # run it.
    run = [one for one in required if not re.search(r"extra == .(dbos|dev)", str(one.marker))]
    bounds = {one.name: str(one.specifier) for one in run if one.name != "airflow-provider-lakets"}

    wrong = {
        name: (bound, lowest[name])
        for name, bound in bounds.items()
        if [Version(bound.removeprefix(">="))] != [Version(version) for version in lowest[name]]
    }

    assert len(bounds) > 20
    assert wrong == {}


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-lowest.txt"])
def test_constraints_name_no_index(file: str) -> None:
    text = (ROOT / file).read_text()

    assert "//" not in text
    assert "--" not in text


def test_links_of_the_page_are_absolute_and_lead_to_files(metadata: Message) -> None:
    page = metadata.get_payload()
    assert isinstance(page, str)
    links = re.findall(r"\]\(([^)]+)\)", page)

    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    # A picture is shown from where the file itself is, not from the page about it.
    ours = [re.sub(f"{PAGE}/(blob|raw)/main/", "", link) for link in links if link.startswith(PAGE)]
    assert [path for path in ours if not (ROOT / path.partition("#")[0]).exists()] == []


def test_project_urls_lead_airflows_provider_page_to_ours(metadata: Message) -> None:
    urls = dict(one.split(", ", 1) for one in metadata.get_all("Project-URL", []))

    assert {"Homepage", "Documentation", "Repository", "Changelog", "Issues"} == {*urls}
    assert all(url.startswith(PAGE) for url in urls.values())
