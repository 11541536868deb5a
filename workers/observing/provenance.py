"""What made a version, for the record: versions of everything that decides a vector or a file, the commit, the image, the machine."""

import os
import platform
import re
import socket
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "revector",
    "ray",
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "numpy",
    "pyarrow",
    "pylance",
    "lancedb",
)
COMMIT = "REVECTOR_COMMIT"
"""Set where an image is built: the git commit that it was built from."""
IMAGE = "REVECTOR_IMAGE"
"""Set where a container is started: the image, with its digest."""
ROOT = Path(__file__).parents[2]
DRIVER = Path("/proc/driver/nvidia/version")
GIT_SECONDS = 5.0


def environment() -> dict[str, Any]:
    """For a run's record, in JSON literals. None where something is not known."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": _versions(),
        "nvidia_driver": nvidia_driver(),
        "commit": os.environ.get(COMMIT) or _commit(ROOT),
        "image": os.environ.get(IMAGE),
        "host": socket.gethostname(),
    }


@cache
def _versions() -> dict[str, str | None]:
    return {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def nvidia_driver() -> str | None:
    """The version of this machine's, if it has one."""
    try:
        found = re.search(r"Kernel Module\D*([\d.]+)", DRIVER.read_text())
    except OSError:
        return None
    return found[1] if found else None


@cache
def _commit(root: Path) -> str | None:
    """Of the working copy at `root`, with "-dirty" behind it if files differ from it; None if it is none, or git is not there."""
    if not (root / ".git").exists():  # else git would find one around it: a project that has its environment inside
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None
