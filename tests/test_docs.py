"""What the pages say holds: generated ones are current; files, links, commands and specs that they name are there."""

import re
import tomllib
from pathlib import Path

import pytest

from docs import make_map, make_marts, make_reference
from infra.checks.texts import commands, unknown
from pipelines.errors import RevectorError
from pipelines.spec.parsing import parse_spec

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "infra").rglob("*.md"))]
PACKAGES = [ROOT / package for package in make_map.PACKAGES]
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"`((?:benchmarks|docs|flows|infra|pipelines|storage|tests|workers)/[\w./-]+)`")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """What a link may name behind #, as GitHub makes it of headings."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    headings = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", line) for line in re.findall(r"^#+ +(.*)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(page: Path, language: str) -> list[str]:
    return [body for name, body in FENCED.findall(page.read_text(encoding="utf-8")) if name == language]


@pytest.mark.parametrize("made", [make_reference, make_map, make_marts], ids=["reference", "map", "marts"])
def test_a_generated_page_is_current(made: object) -> None:
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run `make reference`"  # type: ignore[attr-defined]


def test_every_key_of_the_spec_is_explained() -> None:
    for heading, table in make_reference.tables():
        assert table.model_fields.keys() == make_reference.meanings(table).keys(), heading


def test_every_variable_of_ours_is_explained() -> None:
    used = {name for package in PACKAGES for file in package.rglob("*.py") for name in re.findall(r"\bREVECTOR_[A-Z_]+", file.read_text())}
    assert used == {name for name in make_reference.VARIABLES if name.startswith("REVECTOR_")}


def test_every_exit_code_of_an_error_is_explained() -> None:
    kinds = [RevectorError, *RevectorError.__subclasses__()]
    assert {kind.exit_code for kind in kinds} <= make_reference.EXIT_CODES.keys()


def test_the_readme_is_short_and_names_every_room() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    for package in PACKAGES:
        row = next(line for line in lines if line.startswith(f"| `{package.name}/` |"))
        rooms = {room.name for room in make_map.rooms(package.name) if room.parent == package}
        assert set(row.strip(" |").rpartition(" | ")[2].split(", ")) == rooms


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    missing = [name for name in NAMED.findall(page.read_text(encoding="utf-8")) if not (ROOT / name).exists()]
    assert missing == []


@each_page
def test_commands_exist_with_their_options(page: Path) -> None:
    findings = [unknown(command.split()) for command in commands(page.read_text(encoding="utf-8"))]
    assert [finding for finding in findings if finding] == []


@each_page
def test_specs_are_taken(page: Path) -> None:
    for block in blocks(page, "toml"):
        parse_spec(tomllib.loads(block), ROOT)
