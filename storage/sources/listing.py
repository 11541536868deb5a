"""Which files belong to a corpus, what is in them, how they are opened and how they are cut."""

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from pipelines.content.documents import Piece, SourceFile, SourceShard
from pipelines.errors import SourceError
from pipelines.formats.limits import Budget, Metered
from pipelines.formats.suffixes import SUFFIXES, compression, format_of

BUFFER_BYTES = 1 << 20
OPENING_BYTES = 16 << 10
"""Opening a file costs about as much as reading this many bytes, so a shard does not get a million tiny ones."""

WILDCARD = re.compile(r"[*?]")
VISIBLE = r"(?![._])"

Entry = Mapping[str, Any]


class FileSystem(Protocol):
    """The part of an fsspec filesystem that a corpus uses.

    `ls` and `find` must raise on a folder that they cannot list: leaving it out would look as if its documents were gone.
    """

    def exists(self, path: str) -> bool: ...
    def isfile(self, path: str) -> bool: ...
    def info(self, path: str) -> dict[str, Any]: ...
    def ls(self, path: str, detail: bool) -> list[dict[str, Any]]: ...
    def find(self, path: str, *, detail: bool) -> dict[str, dict[str, Any]]: ...
    def open(self, path: str, mode: str) -> Any: ...


def open_stream(filesystem: FileSystem, path: str, budget: Budget) -> io.BufferedReader:
    """Open a file for reading, decompressed as its suffix says. Raises OSError; to read beyond `budget` raises Unreadable."""
    raw = filesystem.open(path, "rb")
    codec = compression(path)
    stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), codec) if codec else raw
    return io.BufferedReader(Metered(stream, budget), BUFFER_BYTES)


def locate(filesystem: FileSystem, path: str) -> tuple[str, str]:
    """Split `path` into the folder that the corpus' paths are relative to, and the name or glob below it ("": all of the folder)."""
    segments = path.split("/")
    for depth, segment in enumerate(segments):
        if WILDCARD.search(segment):
            return "/".join(segments[:depth]), "/".join(filter(None, segments[depth:]))
    if filesystem.isfile(path):
        folder, _, name = path.rpartition("/")
        return folder, name
    return path, ""


def list_files(filesystem: FileSystem, base: str, pattern: str) -> list[SourceFile]:
    """The files under `base` that `pattern` (see `locate`) matches, sorted by path.

    `*` and `?` stay within a name, `**` spans any number of folders, and none of them matches a name that begins with `.` or `_`.
    Links are followed to files inside `base` only. Raises FileNotFoundError if there is no such place, and other OSErrors.
    """
    if pattern and not WILDCARD.search(pattern):
        return [_source_file(pattern, filesystem.info(f"{base}/{pattern}"))]
    if not filesystem.exists(base or "/"):
        raise FileNotFoundError(base)
    segments = (pattern or "**").split("/")
    depth = None if "**" in segments else len(segments)
    matches = glob_regex(segments).fullmatch
    files = []
    for entry in _entries(filesystem, base or "/", depth):
        path = entry["name"].removeprefix(f"{base}/")
        if matches(path) and (file := _resolved(path, entry, base)):
            files.append(file)
    return sorted(files)


def glob_regex(segments: Sequence[str]) -> re.Pattern[str]:
    """The regular expression of a glob that is already split at its slashes."""
    *folders, name = segments
    any_folders = f"(?:{VISIBLE}[^/]+/)*"
    parts = [any_folders if folder == "**" else f"{_segment_regex(folder)}/" for folder in folders]
    return re.compile("".join(parts) + (any_folders if name == "**" else "") + _segment_regex(name))


def _segment_regex(segment: str) -> str:
    body = "".join({"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char) for char in segment)
    return (VISIBLE if WILDCARD.match(segment) else "") + body


def _entries(filesystem: FileSystem, folder: str, depth: int | None) -> Iterator[Entry]:
    """All files at most `depth` levels below `folder`. Without a limit one flat listing, which an object store answers fastest."""
    if depth is None:
        yield from filesystem.find(folder, detail=True).values()
        return
    for entry in filesystem.ls(folder, detail=True):
        name = entry["name"].rstrip("/")
        if entry["type"] != "directory":
            yield entry
        elif depth > 1 and name != folder:
            yield from _entries(filesystem, name, depth - 1)


def _resolved(path: str, entry: Entry, base: str) -> SourceFile | None:
    """The file of a listing's entry; None for what is no file, and for a link that is broken or leads out of `base`."""
    if not entry.get("islink"):
        return _source_file(path, entry) if entry["type"] == "file" else None
    target = Path(os.path.realpath(entry["name"]))  # of a circle: itself, where Path.resolve raises until Python 3.13
    if not target.is_relative_to(Path(base).resolve()) or not target.is_file():
        return None
    status = target.stat()
    return _source_file(path, {"size": status.st_size, "mtime": status.st_mtime, "created": status.st_ctime, "ino": status.st_ino})


def _source_file(path: str, entry: Entry) -> SourceFile:
    """A name that is not UTF-8 is spelled with escapes: no such file can be opened, and it becomes a dead letter.

    On a disk a file is known by its inode and by when that last changed as well: an archive that is unpacked over a corpus, or a snapshot
    that is mounted in its place, may have other files of the same size and time of modification.
    """
    path = os.fsencode(path).decode(errors="backslashreplace")
    etag = entry["ETag"].strip('"') if "ETag" in entry else f"{entry['mtime'] * 1e9:.0f}-{entry['created'] * 1e9:.0f}-{entry['ino']}"
    modified = entry["LastModified"].timestamp() if "LastModified" in entry else entry.get("mtime")
    return SourceFile(path, int(entry["size"]), etag, modified)


def byte_pieces(file: SourceFile, target_bytes: int) -> Iterator[tuple[Piece, int]]:
    """Cut a file of lines into equal byte ranges of at most `target_bytes`. A piece owns the lines that begin in it."""
    count = max(1, -(-file.size // target_bytes))
    borders = [file.size * n // count for n in range(count)]
    for start, stop in zip(borders, [*borders[1:], None], strict=True):
        yield Piece(file, start, stop), (stop or file.size) - start


def pack(pieces: Iterable[tuple[Piece, int]], target_bytes: int) -> Iterator[SourceShard]:
    """Group consecutive pieces, each with its bytes, into shards of about `target_bytes`."""
    group: list[Piece] = []
    weight = 0
    for piece, size in pieces:
        cost = max(size, OPENING_BYTES)
        if group and weight + cost > target_bytes:
            yield SourceShard(tuple(group))
            group, weight = [], 0
        group.append(piece)
        weight += cost
    if group:
        yield SourceShard(tuple(group))


def check_suffixes(files: Sequence[SourceFile]) -> None:
    """Raises SourceError for the first file whose suffix does not tell a format."""
    for file in files:
        if format_of(file.path) is None:
            known = ", ".join(SUFFIXES)
            raise SourceError(
                f"{file.path}: expected a name that ends in one of {known} (.gz and .zst after it), found another: "
                "set source.format or narrow source.uri"
            )
