"""Whether a model's files are as they were when they were hashed, told by what the file system says of each: gigabytes are hashed once.

A file that is replaced, renamed, edited or overwritten gets another inode, or other times. What nobody sees is an overwriting by as many
bytes within the grain of the file system's clock (some milliseconds; two seconds on FAT), right after the files were looked at.
"""

import os
from collections.abc import Mapping
from pathlib import Path

Seal = Mapping[str, tuple[int, ...]]
"""By path, relative to the folder: device, inode, kind, size in bytes, and the nanoseconds of the last change of content and of all."""


def seal_of(folder: Path) -> Seal:
    """Of `folder` and everything in it, at this moment. Reads no content."""
    return {path.relative_to(folder).as_posix(): _facts(path) for path in (folder, *sorted(folder.rglob("*")))}


def touched(before: Seal, now: Seal) -> list[str]:
    """The files that differ, came or went; of what is neither, the folders."""
    differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    inner = {str(Path(name).parent) for name in differing if name != "."}
    return [name for name in differing if name not in inner] or differing


def _facts(path: Path) -> tuple[int, ...]:
    """Of what `path` leads to, and of the link if it is one; the number of the error where it cannot be asked."""
    try:
        target = _identity(path.stat()) if path.is_dir() else _opened(path)
        return _identity(path.lstat()) + target if path.is_symlink() else target
    except OSError as error:
        return (error.errno or 0,)


def _opened(file: Path) -> tuple[int, ...]:
    """A network file system answers from memory, for up to a minute, until a file is opened."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return _identity(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _identity(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_dev, stat.st_ino, stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
