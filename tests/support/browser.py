"""A real browser, where the machine has one: what it makes of a page, and what it complains of."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
_ALWAYS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=3000")


@dataclass(frozen=True)
class Seen:
    """A page after its script has run."""

    dom: str
    complaints: list[str]
    """What its console says, but for what the driver says of taking pictures."""


def browse(page: Path, scratch: Path, *flags: str, webgl: bool = True) -> Seen:
    """Open a file. Skips the test where there is no browser."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    graphics = "--enable-unsafe-swiftshader" if webgl else "--disable-3d-apis"
    command = [found, *_ALWAYS, graphics, f"--user-data-dir={scratch / 'profile'}", *flags, "--dump-dom", page.as_uri()]
    environment = os.environ | {"TMPDIR": "/tmp"}  # its socket lies there, whose path must be shorter than a test's folder
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    said = [line for line in done.stderr.splitlines() if ":CONSOLE:" in line and "GL Driver Message" not in line]
    return Seen(done.stdout, said)
