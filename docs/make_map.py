"""Writes the map of the house into docs/architecture.md: each room with the sentence of its `__init__.py`, and its files.

    python docs/make_map.py              # or: make reference

A test fails when the committed map is not what this makes.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).with_name("architecture.md")
ROOT = PAGE.parents[1]
PACKAGES = ("pipelines", "storage", "workers", "dashboard", "flows")
BETWEEN = re.compile(r"(?<=<!-- map -->\n).*?(?=<!-- end of the map -->)", re.DOTALL)


def page() -> str:
    """The whole of architecture.md, with the map as the house is."""
    return BETWEEN.sub(lambda _: "\n".join(_map()), PAGE.read_text(encoding="utf-8"))


def rooms(package: str) -> list[Path]:
    """The folders of a package that have modules, the package itself first."""
    return [ROOT / package, *sorted(file.parent for file in (ROOT / package).rglob("*/__init__.py"))]


def _map() -> Iterator[str]:
    for package in PACKAGES:
        yield f"### {package}/\n"
        yield f"{_sentence(ROOT / package)}\n"
        yield "| room | what is in it | files |"
        yield "|---|---|---|"
        for room in rooms(package):
            files = ", ".join(f"`{file.stem}`" for file in sorted(room.glob("*.py")) if file.stem != "__init__")
            name = "" if room.name == package else f"[{room.relative_to(ROOT / package)}](../{room.relative_to(ROOT)})"
            yield f"| {name} | {'of the package itself' if room.name == package else _sentence(room)} | {files} |"
        yield ""


def _sentence(room: Path) -> str:
    """The first paragraph of its docstring, on a line."""
    told = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    return " ".join(told.partition("\n\n")[0].split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
