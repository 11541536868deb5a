"""Small objects beside the tables: run records, tokens, file lists. Local disk and S3 behave alike."""

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import orjson

from storage.store.s3 import S3FileSystem


@dataclass(frozen=True)
class Objects:
    """A folder of objects, local or `s3://`. Picklable; opens its connection at first use."""

    root: str

    @cached_property
    def _fs(self) -> Any:
        return S3FileSystem() if self.remote else fsspec.filesystem("file", auto_mkdir=True)

    @property
    def remote(self) -> bool:
        return "://" in self.root

    def path(self, key: str) -> str:
        """The full path of `key`, as the file system takes it: of S3 it begins with the bucket."""
        return f"{self.root.removeprefix('s3://')}/{key}"

    def put(self, key: str, data: bytes) -> None:
        """Write whole or not at all; replaces."""
        if self.remote:
            self._fs.pipe_file(self.path(key), data)
        else:
            self._temporary(key, data).replace(self.path(key))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write unless there is one already. True for exactly one of any number of writers.

        After any failure look what is there: s3fs has no error of its own for a condition that did not hold, and when a reply
        was lost the retry finds an object that is ours. It is if it holds our bytes.
        """
        try:
            if self.remote:
                self._fs.pipe_file(self.path(key), data, mode="create")
            else:
                self._link(key, data)
        except OSError:
            stored = self.get(key)
            if stored is None:
                raise
            return stored == data
        return True

    def get(self, key: str) -> bytes | None:
        """The object's bytes, or None if there is none."""
        try:
            # One at a time: else s3fs asks for the size before.
            return bytes(self._fs.cat_file(self.path(key), **({"max_concurrency": 1} if self.remote else {})))
        except FileNotFoundError:
            return None

    def get_json(self, key: str) -> Any:
        """The object as JSON, or None if there is none."""
        data = self.get(key)
        return None if data is None else orjson.loads(data)

    def exists(self, key: str) -> bool:
        return self.size(key) is not None

    def size(self, key: str) -> int | None:
        """Bytes of the object, or None if there is none."""
        try:
            if self.remote:  # s3fs' own question goes on to ask for a folder of that name
                bucket, _, name = self.path(key).partition("/")
                return int(self._fs.call_s3("head_object", Bucket=bucket, Key=name)["ContentLength"])
            return int(self._fs.info(self.path(key))["size"])
        except FileNotFoundError:
            return None

    def modified(self, key: str) -> datetime:
        """When the object was written, by the clock of the store. Raises FileNotFoundError."""
        written: datetime = self._fs.modified(self.path(key))
        return written

    def names(self, folder: str) -> list[str]:
        """The names right under `folder`, sorted; empty if there is no such folder."""
        try:
            listed = self._fs.ls(self.path(folder), detail=False)
        except FileNotFoundError:
            return []
        # Some object stores list a folder that was emptied, or that their console made, as an object in itself.
        inside = (str(name).rstrip("/") for name in listed)
        names = {name.rpartition("/")[2] for name in inside if name != self.path(folder).rstrip("/")}
        return sorted(name for name in names if name and not name.startswith("."))

    def stamps(self, folder: str) -> dict[str, str]:
        """The objects right under `folder`, each with what is another one once it was written anew. Empty if there is no such folder."""
        try:
            listed = self._fs.ls(self.path(folder), detail=True)
        except FileNotFoundError:
            return {}
        objects = {str(entry["name"]).rpartition("/")[2]: entry for entry in listed if entry["type"] == "file"}
        return {name: _stamp(entry) for name, entry in objects.items() if name and not name.startswith(".")}

    def walk(self, folder: str) -> dict[str, int]:
        """All objects under `folder`, at any depth: keys and bytes. Empty if there is no such folder."""
        place = self.path(folder) if self.remote else str(Path(self.path(folder)).absolute())
        objects = self._fs.find(place, detail=True)
        return {f"{folder}{str(path).removeprefix(place)}": int(info["size"]) for path, info in objects.items()}

    def remove(self, folder: str) -> None:
        """Delete all objects under `folder`; on a disk the folder itself, too."""
        for key in self.walk(folder):
            self.delete(key)
        if not self.remote and self._fs.exists(self.path(folder)):
            self._fs.rm(self.path(folder), recursive=True)

    def delete(self, key: str) -> None:
        """Remove the object; no error if there is none."""
        try:
            self._fs.rm_file(self.path(key))
        except FileNotFoundError:
            return

    def _temporary(self, key: str, data: bytes) -> Path:
        target = Path(self.path(key))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{uuid.uuid4().hex}"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return temporary

    def _link(self, key: str, data: bytes) -> None:
        """A hard link fails if the name is taken, and its target is complete: unlike O_EXCL, never half-written."""
        temporary = self._temporary(key, data)
        try:
            os.link(temporary, self.path(key))
        finally:
            temporary.unlink()


def _stamp(entry: Mapping[str, Any]) -> str:
    """Of an entry of a listing. On a disk each write makes a new file."""
    return str(entry["ETag"]) if "ETag" in entry else f"{entry['ino']}-{entry['mtime']}-{entry['size']}"
