"""A model's files as what they may be: written by somebody else, broken, or made to do harm. Only JSON is read whole, nothing is run."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import safetensors

from pipelines.errors import ModelError

LARGEST_JSON = 16 << 20
"""Bytes. The longest of known models, an index of 90,000 tensors, has 9 million."""
_BEGINNINGS = {b"PK\x03\x04": "a zip file", b"\x80": "a pickle"}
DEEPEST_JSON = 50
_CODE = {"auto_map", "custom_pipelines"}
_KERNELS = {"attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation"}
"""Keys whose value may name compiled code on the hub, as "owner/name"."""


def read_json(file: Path) -> Any:
    """What a JSON file holds; an empty object if there is no such file. Raises ModelError if it is not JSON, or far too much of it."""
    if not file.exists():
        return {}
    if not file.is_file() or file.stat().st_size > LARGEST_JSON:
        raise ModelError(f"{file}: expected a file of at most {LARGEST_JSON >> 20} MiB, found another kind or size: do not use this model")
    try:
        value = json.loads(file.read_bytes())
    except ValueError as error:
        raise ModelError(f"{file}: expected JSON, found {error}") from None
    except RecursionError:
        value = None
    if value is None or _deeper_than(value, DEEPEST_JSON):
        raise ModelError(f"{file}: expected JSON of at most {DEEPEST_JSON} levels, found null or more of them: do not use this model")
    return value


def _deeper_than(value: Any, levels: int) -> bool:
    level = [value]
    for _ in range(levels):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def read_object(file: Path) -> dict[str, Any]:
    """`read_json` of a file that holds an object."""
    value = read_json(file)
    if not isinstance(value, dict):
        raise ModelError(f"{file}: expected a JSON object, found {type(value).__name__}")
    return value


def check_inside(folder: Path, name: str) -> None:
    """Raise ModelError if `name`, which a file of the model gives, leads out of its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise ModelError(f"{folder}: expected paths inside the model's folder, found {name!r}: do not use it")


def check_links(root: Path) -> None:
    """Raise ModelError for a link that leads out of the model's folder; out of the repository's, in the cache of the hub."""
    home = root.resolve()
    home = home.parents[1] if home.parent.name == "snapshots" else home
    for path in root.rglob("*"):
        if path.is_symlink() and not _leads_into(path, home):
            raise ModelError(f"{path}: expected files inside the model's folder, found a link to {path.readlink()}: copy the file there")


def _leads_into(link: Path, folder: Path) -> bool:
    target = Path(os.path.realpath(link))
    return target.is_relative_to(folder) and not target.is_symlink()  # that it still is one, is a circle


def count_tensors(file: Path) -> int:
    """The tensors in a file of safetensors, which are not read. Raises ModelError unless they are there, whole and side by side."""
    try:
        with safetensors.safe_open(file, framework="numpy") as opened:
            return len(opened.keys())
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(
            f"{file}: expected safetensors, found {_beginning(file) or error}: do not use it, or save the model again"
        ) from None


def _beginning(file: Path) -> str | None:
    with file.open("rb") as stream:
        start = stream.read(4)
    return next((name for magic, name in _BEGINNINGS.items() if start.startswith(magic)), None)


def code_in(folder: Path) -> list[str]:
    """What in the JSON files right under `folder` would make a loader run code that comes with the model, or fetch some."""
    return [f"{key} in {file.name}" for file in sorted(folder.glob("*.json")) if _may_ask(file) for key, _ in _code_items(read_json(file))]


def code_elsewhere(folder: Path) -> list[str]:
    """What the JSON files right under `folder` name as code of another repository: no hash of this folder knows it."""
    values = (value for file in sorted(folder.glob("*.json")) if _may_ask(file) for _, value in _code_items(read_json(file)))
    return [text for value in values for text in _texts(value) if "--" in text or "/" in text]


def _may_ask(file: Path) -> bool:
    """Vocabularies are large, and tell a loader nothing."""
    return file.name not in {"tokenizer.json", "vocab.json"}


def _code_items(value: Any) -> Iterator[tuple[str, Any]]:
    """At any depth: configs hold those of their parts."""
    if isinstance(value, dict):
        yield from ((key, inner) for key, inner in value.items() if key in _CODE or (key in _KERNELS and "/" in str(inner)))
    for inner in _inside(value):
        yield from _code_items(inner)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in _inside(value):
        yield from _texts(inner)
