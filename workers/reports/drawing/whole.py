"""Files that people asked for: whole or not there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import SpecError


@contextmanager
def whole_file(out: Path, replace: bool = False) -> Iterator[Path]:
    """A path beside `out` to write a file or a folder to, which becomes `out` when all went well, and is gone when not.

    Raises SpecError if `out` is there and is not to be replaced, or its folder is not there.
    """
    if not replace:
        _refuse_existing(out)
    if not out.parent.is_dir():
        raise SpecError(f"expected a folder to write to, found no {out.parent}: make it first")
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        yield part
        if not replace:
            _refuse_existing(out)
        part.replace(out)
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        part.unlink(missing_ok=True)


def _refuse_existing(out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise SpecError(f"expected a new path, found {out}: name another, or remove it")
