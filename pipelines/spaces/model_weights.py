"""The weights of a model as files: which there are, and their hash. Safetensors only: a pickle can run code when it is read."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pipelines.errors import ModelError
from pipelines.spaces.model_files import check_inside, read_object

_PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}


def weight_files(transformer: Path, modules: Iterable[Path]) -> list[Path]:
    """The files that a loader reads from the folders of a stack. Raises ModelError where it would fall back on a pickle."""
    return [*_transformer_weights(transformer), *(file for folder in modules for file in _module_weights(folder))]


def _transformer_weights(folder: Path) -> list[Path]:
    if (single := folder / "model.safetensors").is_file():
        return [single]
    shards = sorted(set(read_object(folder / "model.safetensors.index.json").get("weight_map", {}).values()))
    for shard in shards:
        check_inside(folder, shard)
        if not shard.endswith(".safetensors"):
            raise _no_safetensors(folder, shard)
        if not (folder / shard).is_file():
            raise ModelError(f"{folder}: expected {shard}, which model.safetensors.index.json names, found none: the model is not whole")
    if not shards:
        raise _no_safetensors(folder)
    return [folder / shard for shard in shards]


def _module_weights(folder: Path) -> list[Path]:
    if (single := folder / "model.safetensors").is_file():
        return [single]
    if _pickles(folder):
        raise _no_safetensors(folder)
    return []


def _pickles(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*") if file.suffix in _PICKLES)


def _no_safetensors(folder: Path, weights: str = "") -> ModelError:
    weights = weights or ", ".join(_pickles(folder)) or "no weights"
    return ModelError(f"{folder}: expected safetensors, found {weights}: convert the weights (save_pretrained writes safetensors)")


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_files(root: Path, files: Iterable[Path]) -> str:
    """The SHA-256 of a file; of several, of the sorted lines "name sha256", with names relative to `root`."""
    hashes = {file.relative_to(root).as_posix(): sha256_of(file) for file in files}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return hashlib.sha256("".join(f"{name} {sha}\n" for name, sha in sorted(hashes.items())).encode()).hexdigest()
