"""The house keeps its rules: rooms small enough to know, one sentence each, every name once, and no import that runs in a circle.

Import-linter holds the direction of the packages; this holds what it has no contract for.
"""

import ast
import importlib
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import EntryPoint
from pathlib import Path

import grimp
import pytest

HOUSE = Path(__file__).parents[1]
PACKAGES = ("pipelines", "storage", "workers", "dashboard", "flows")
MOST_FILES = 10
MOST_LINES = 400
COMMANDS = ["apply", "bridge", "compare", "diff", "drop", "evaluate", "history", "maintain", "report"]
COMMANDS += ["plan", "promote", "rollback", "search", "status"]
FILES = sorted(file for package in PACKAGES for file in (HOUSE / package).rglob("*.py"))
ROOMS = sorted({file.parent for file in FILES})


def named(path: Path) -> str:
    return str(path.relative_to(HOUSE))


def more_than_once(names: Iterable[tuple[str, Path]]) -> dict[str, list[str]]:
    """name -> the files that have it."""
    places = defaultdict(list)
    for name, file in names:
        places[name].append(named(file))
    return {name: files for name, files in places.items() if len(files) > 1}


def circle(imports: Mapping[str, set[str]]) -> list[str]:
    """One way by which a name of the graph reaches itself, if there is any."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """module -> the modules that it imports, at any depth of its code, also for types alone."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=False, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in sorted(graph.modules)}


def test_a_room_is_small_enough_to_know() -> None:
    files = Counter(named(file.parent) for file in FILES if file.name != "__init__.py")
    assert {room: count for room, count in files.items() if count > MOST_FILES} == {}


def test_a_file_is_short_enough_to_read() -> None:
    lines = {named(file): len(file.read_text().splitlines()) for file in FILES}
    assert {file: count for file, count in lines.items() if count > MOST_LINES} == {}


def test_a_room_says_in_a_line_what_it_is() -> None:
    said = {named(room): ast.get_docstring(ast.parse((room / "__init__.py").read_text())) or "" for room in ROOMS}
    assert {room: text for room, text in said.items() if not text.endswith(".") or "\n" in text} == {}


def test_a_file_name_is_used_once() -> None:
    assert more_than_once((file.stem, file) for file in FILES if file.stem not in {"__init__", "__main__"}) == {}


def test_no_module_has_the_name_of_a_package() -> None:
    assert [named(file) for file in FILES if file.stem in PACKAGES] == []


def test_a_public_class_name_is_used_once() -> None:
    statements = ((statement, file) for file in FILES for statement in ast.walk(ast.parse(file.read_text())))
    classes = ((statement.name, file) for statement, file in statements if isinstance(statement, ast.ClassDef))
    assert more_than_once((name, file) for name, file in classes if not name.startswith("_")) == {}


def test_no_module_imports_in_a_circle(imports: dict[str, set[str]]) -> None:
    assert circle(imports) == []


def test_no_room_imports_in_a_circle(imports: dict[str, set[str]]) -> None:
    """A room is a folder of a package, with what divides it; a file that lies in a package itself stands for itself."""

    def room_of(module: str) -> str:
        return ".".join(module.split(".")[:2])

    rooms = defaultdict[str, set[str]](set)
    for module, others in imports.items():
        rooms[room_of(module)] |= {room_of(other) for other in others} - {room_of(module)}
    assert circle(rooms) == []


def test_the_public_names_stay() -> None:
    """Also after a server has imported the flow of a command's name."""
    for name in ("evaluate", "maintain", "report"):
        assert importlib.import_module(f"flows.{name}").__name__ == f"flows.{name}"
    assert all(callable(getattr(importlib.import_module("flows"), name)) for name in COMMANDS)
    assert callable(importlib.import_module("storage").open_published)
    scripts = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["scripts"]
    assert callable(EntryPoint("revector", scripts["revector"], "console_scripts").load())
