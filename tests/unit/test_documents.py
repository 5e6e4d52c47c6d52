"""Everything that the documents name exists."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()) if "://" not in link]

    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_promise_is_held_by_tests_that_are_there() -> None:
    held = dict(re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", ARCHITECTURE, re.MULTILINE))
    named = {number: re.findall(r"`(tests/[^:`]+)::(\w+)`", tests) for number, tests in held.items()}

    assert list(named) == [str(number) for number in range(1, 21)]
    assert [number for number, tests in named.items() if not tests] == []
    missing = [
        f"{file}::{test}"
        for tests in named.values()
        for file, test in tests
        if f"def {test}(" not in (ROOT / file).read_text()
    ]
    assert missing == []


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_every_path_named_exists(name: str) -> None:
    package = ROOT / "airflow_provider_lakets"
    named = set(re.findall(r"`((?!build/)(?:\w+/)+[\w.]*)`", (ROOT / name).read_text()))  # build/ is made

    assert named
    missing = {path for path in named if not ((ROOT / path).exists() or (package / path).exists())}
    assert missing <= {"build/site"}  # created by `make docs`


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z0-9-]+)", (ROOT / "CONTRIBUTING.md").read_text()))

    assert {"test", "lint"} <= named
    assert named <= targets | {"e2e", "e2e-short"}


def test_the_page_of_errors_has_the_messages_of_the_engine_and_of_the_provider() -> None:
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / ".ci" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    site = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(site)

    engine, provider = dict(site.engine_messages()), dict(site.provider_messages())

    raised = sum(module.read_text().count("RAISE EXCEPTION '") for module in (ROOT / "sql").glob("*.sql"))
    assert len(list(site.engine_messages())) == raised
    assert engine["RollUp … already exists."].startswith("Drop it first with lakets.drop_rollup")
    assert "`LakeTSArgumentError`" in provider.values()


def test_a_code_block_has_a_language_that_a_test_reads() -> None:
    fences = [line.strip() for path in DOCUMENTS for line in path.read_text().splitlines() if "```" in line]
    opening = {fence.removeprefix("```") for fence in fences[::2]}

    # text is for drawings and figures, yaml for the one block below.
    assert opening == {"python", "sh", "sql", "text", "yaml"}
    assert {*fences[1::2]} == {"```"}


def test_the_quoted_compose_override_changes_services_that_are_there() -> None:
    (override,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "docker.md").read_text(), re.DOTALL)
    named = set(re.findall(r"^  ([\w-]+):", override, re.MULTILINE))
    there = set(re.findall(r"^  ([\w-]+):", (ROOT / "docker-compose.yaml").read_text(), re.MULTILINE))

    assert named
    assert named <= there
