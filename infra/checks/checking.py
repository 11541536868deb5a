"""What a check is, and how the tools of others are run."""

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class NotRun(Exception):
    """A check needs something that is not on this machine; the message says what, and where to get it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One validator over one kind of files."""

    name: str
    """What is looked at, and by what."""
    findings: Callable[[Path], list[str]]
    """From the folder of the infrastructure, what is wrong with it, one line each. Raises NotRun."""


def tool(name: str, *, get: str) -> str:
    """The path of a program: of this Python's environment, else of the PATH. Raises NotRun, which says how to get it."""
    found = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if not found:
        raise NotRun(f"needs {name}: {get}")
    return found


def complaints(command: Sequence[str | Path], folder: Path) -> list[str]:
    """Runs a validator in `folder`: nothing where it exits with 0, else what it said, line by line."""
    ran = subprocess.run([str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode == 0:
        return []
    said = ESCAPES.sub("", ran.stdout + ran.stderr)
    return [line.rstrip() for line in said.splitlines() if line.strip()] or [f"{command[0]} exited with {ran.returncode} and said nothing"]
