"""The layers: which module imports which, read from the code, with imports inside functions."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import airflow_provider_lakets
from airflow_provider_lakets import engine

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(airflow_provider_lakets.__file__).parent
NAME = PACKAGE.name

# From the bottom: a layer may be imported from the same layer and from those above.
FLOORS = [
    ["", "exceptions", "engine", "older"],
    ["login"],
    ["driver"],
    ["hooks"],
    ["compat", "assets", "lineage", "deferral", "retries", "links", "monitoring"],
    ["triggers"],
    ["operators", "sensors"],
    ["dbos"],
    ["jobs"],
    ["plugin"],
    ["get_provider_info"],
]
LOCAL_FLOORS = [
    ["environment", "processes"],
    ["pg"],
    ["feed"],
    ["api"],
    ["door"],
    ["branches", "client", "lakebase", "server", "state", "world"],
    ["demo"],
]
# The command line is outside of the layers, and is the only one that imports `local`.
BESIDE = ["__main__", "cli", "commands", "local"]

MOST_FILES = 14

# As ruff's max-doc-length, which does not read SQL.
LONGEST_COMMENT = 100


def modules() -> dict[str, Path]:
    """Return each module, named from the package on ('' is the package), with its file."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Yield the modules of this package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            candidates = [(name, node.module) for name in names]
        elif isinstance(node, ast.Import):
            candidates = [(alias.name, alias.name) for alias in node.names]
        else:
            continue
        for name, module in candidates:
            for one in (name, module):
                inside = one.removeprefix(NAME).removeprefix(".")
                if one.split(".")[0] == NAME and inside in MODULES:
                    yield inside
                    break


GRAPH = {module: set(imports(path)) - {module} for module, path in MODULES.items()}


def room(module: str) -> str:
    """Return the package or the single module right below the top that a module belongs to."""
    return module.split(".")[0]


def wing(module: str) -> str | None:
    """Return the same within `local`; None outside of it, and for its empty __init__."""
    parts = module.split(".")
    return parts[1] if parts[0] == "local" and len(parts) > 1 else None


def storeys(floors: list[list[str]]) -> dict[str, int]:
    return {name: number for number, names in enumerate(floors) for name in names}


def test_the_graph_sees_imports_inside_functions_and_of_packages() -> None:
    assert "local.demo" in GRAPH["cli"]
    assert "hooks.lakets" in GRAPH["operators.base"]
    assert "" in GRAPH["engine"]


def test_no_circle_of_imports() -> None:
    TopologicalSorter(GRAPH).prepare()


def test_every_room_has_a_floor() -> None:
    known = {*storeys(FLOORS), *BESIDE}

    assert {room(module) for module in MODULES} == known
    assert {found for module in MODULES if (found := wing(module))} == set(storeys(LOCAL_FLOORS))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_nothing_from_above(module: str) -> None:
    floors, local_floors = storeys(FLOORS), storeys(LOCAL_FLOORS)
    upward = []
    for other in GRAPH[module]:
        if room(module) in floors and (room(other) in BESIDE or floors[room(other)] > floors[room(module)]):
            upward.append(other)
        here, there = wing(module), wing(other)
        if here and there and local_floors[there] > local_floors[here]:
            upward.append(other)

    assert upward == []


def test_only_the_command_line_imports_the_local_lakebase() -> None:
    users = {room(module) for module in MODULES if any(room(other) == "local" for other in GRAPH[module])}

    assert users == {"cli", "commands", "local"}


def test_rooms_make_no_circle_either() -> None:
    rooms: dict[str, set[str]] = {}
    wings: dict[str, set[str]] = {}
    for module, others in GRAPH.items():
        rooms.setdefault(room(module), set()).update({room(other) for other in others} - {room(module)})
        if here := wing(module):
            found = {there for other in others if (there := wing(other))} - {here}
            wings.setdefault(here, set()).update(found)

    TopologicalSorter(rooms).prepare()
    TopologicalSorter(wings).prepare()


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES.values()}), ids=str)
def test_few_files_stand_side_by_side(folder: Path) -> None:
    files = [path for path in folder.iterdir() if path.is_file() and path.name != "__init__.py"]

    assert len(files) <= MOST_FILES


def is_of_text(call: ast.Call) -> bool:
    """Return whether a call reads or writes text, which needs an encoding."""
    if getattr(call.func, "attr", "") in ("read_text", "write_text"):
        return True
    return any(keyword.arg == "text" and ast.unparse(keyword.value) == "True" for keyword in call.keywords)


@pytest.mark.parametrize("path", MODULES.values(), ids=str)
def test_texts_are_read_and_written_as_utf_8_whatever_the_locale(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    named = [(call, {keyword.arg for keyword in call.keywords}) for call in calls if is_of_text(call)]

    assert [call.lineno for call, keywords in named if "encoding" not in keywords] == []


@pytest.mark.parametrize("module", engine.modules(), ids=lambda module: module.name)
def test_comments_of_sql_modules_wrap_like_those_of_python(module: Path) -> None:
    comments = [line for line in module.read_text().splitlines() if line.lstrip().startswith("--")]

    assert [line for line in comments if len(line) > LONGEST_COMMENT] == []
