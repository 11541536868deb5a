"""Checks by trying, not by asking: what `apply` relies on, before it does."""

import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from pipelines.errors import RevectorError
from pipelines.spec import load_spec
from storage.tables import Store
from workers.target import Target, resolve_target

WRITERS = 8
ROUNDS = 10
LITTLE_SPACE = 5 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried."""

    name: str
    ok: bool
    detail: str


def examine(name: str | None, config: str | PathLike[str] | None, store: str | None) -> list[Check]:
    """All checks. Raises SpecError only: what else is wrong is in the answer."""
    spec = load_spec(config, store)
    names = [spec.collection(name)[0]] if name else list(spec.collections)
    where = Store(spec.store)
    checks = [_try("store writes", lambda: _race(where)), _try("free space", lambda: _space(where))]
    for each in names:
        checks.append(_try(f"model of {each}", lambda each=each: _model(resolve_target(spec, each))))  # type: ignore[misc]
        checks.append(_try(f"corpus of {each}", lambda each=each: _corpus(resolve_target(spec, each))))  # type: ignore[misc]
    return [*checks, _try("ray", _ray)]


def _try(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except (RevectorError, OSError) as error:
        return Check(name, False, str(error))


def _race(store: Store) -> str:
    """Of writers that put one object only if it is absent, exactly one must win: commits rest on it."""
    objects = store.objects
    with ThreadPoolExecutor(WRITERS) as threads:
        for _ in range(ROUNDS):
            key = f"_revector/_doctor/{uuid.uuid4().hex}"
            won = list(threads.map(lambda writer, key=key: objects.put_if_absent(key, b"%d" % writer), range(WRITERS)))
            kept = objects.get(key)
            objects.delete(key)
            if sum(won) != 1 or kept != b"%d" % won.index(True):
                raise RevectorError(f"expected one of {WRITERS} racing writers to win, found {sum(won)}: this store would lose commits")
    return f"conditional writes hold: {ROUNDS} races of {WRITERS} writers in {store.root}"


def _space(store: Store) -> str:
    if store.objects.remote:
        return "an object store: not limited by this machine"
    folder = Path(store.root)
    free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
    if free < LITTLE_SPACE:
        raise RevectorError(f"expected at least {LITTLE_SPACE >> 30} GiB free, found {free / (1 << 30):.1f}")
    return f"{free / (1 << 30):.0f} GiB"


def _model(target: Target) -> str:
    space = target.model.space
    return f"{target.model.spec.name}: space {space.id}, {space.dimension} dimensions, at most {space.max_tokens} tokens"


def _corpus(target: Target) -> str:
    files = target.corpus.files()
    return f"{len(files):,} files, {sum(file.size for file in files) / (1 << 20):,.1f} MiB"


def _ray() -> str:
    from workers.cluster import start_ray

    with ExitStack() as closing:
        resources = start_ray(closing).cluster_resources()
        return f"{resources.get('CPU', 0):g} CPU, {resources.get('GPU', 0):g} GPU"
