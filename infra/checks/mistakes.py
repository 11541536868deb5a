"""Mistakes that people make (mistakes.toml), and whether the check that must find one does."""

import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

from infra.checks.checking import Check


@dataclass(frozen=True, slots=True)
class Mistake:
    """One wrong place in one file."""

    what: str
    """In words."""
    check: str
    """The name of the check that must find it."""
    file: str
    """Below infra/."""
    right: str
    """What stands there; its first occurrence is replaced."""
    wrong: str
    """What is put in its place."""
    says: str
    """A part of what the check then says."""


MISTAKES = tuple(
    Mistake(what, check, **places)
    for check, planted in tomllib.loads((Path(__file__).parent / "mistakes.toml").read_text()).items()
    for what, places in planted.items()
)


def of(check: Check) -> list[Mistake]:
    """Those that it must find."""
    return [mistake for mistake in MISTAKES if mistake.check == check.name]


def missed(check: Check, infra: Path, folder: Path) -> list[str]:
    """Plants all mistakes of a check in one copy of `infra` below `folder`: those that it does not find. Raises NotRun."""
    copy = folder / "infra"
    shutil.copytree(infra, copy, ignore=shutil.ignore_patterns("checks", "secrets", "models", "__pycache__"))
    planted = of(check)
    lost = [
        f"{mistake.what}: expected {mistake.right!r} in {mistake.file}: plant it elsewhere"
        for mistake in planted
        if not _plant(mistake, copy)
    ]
    said = check.findings(copy)
    unseen = [mistake for mistake in planted if not any(mistake.says in line for line in said)]
    return lost + [f"{mistake.what}: expected {mistake.says!r}, found {said or 'nothing'}" for mistake in unseen]


def _plant(mistake: Mistake, copy: Path) -> bool:
    text = (copy / mistake.file).read_text()
    (copy / mistake.file).write_text(text.replace(mistake.right, mistake.wrong, 1))
    return mistake.right in text
