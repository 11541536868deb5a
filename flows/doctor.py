"""Checks by trying, not by asking: what `apply` relies on, before it does."""

import platform
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from os import PathLike
from typing import Any

from flows.request import Request
from pipelines.errors import WorkerError
from pipelines.spec.declared import Spec
from storage.marts.postgres import address_of, try_out
from storage.store.examination import LARGEST_SKEW, Check, attempt, examine_store
from workers.cluster.nodes import PACKAGES, Node, survey
from workers.planning.target import resolve_target


def examine(name: str | None, config: str | PathLike[str] | None, store: str | None) -> list[Check]:
    """All checks. Raises SpecError only: what else is wrong is in the answer."""
    request = Request(name, config, store)
    spec = request.spec
    names = [spec.collection(name)[0]] if name else list(spec.collections)
    checks = examine_store(request.opened)
    for one in names:
        checks += [attempt(f"model of {one}", partial(_model, spec, one)), attempt(f"corpus of {one}", partial(_corpus, spec, one))]
        if postgres := spec.collections[one].marts.postgres:
            checks.append(attempt(f"marts of {one}", partial(_marts, postgres)))
    with ExitStack() as closing:
        return [*checks, *_cluster(closing)]


def _model(spec: Spec, name: str) -> str:
    model = resolve_target(spec, name).model
    space = model.space
    found = f"{model.spec.name}: space {space.id}, {space.dimension} dimensions, at most {space.max_tokens} tokens"
    return "; ".join([found, *model.notes])


def _corpus(spec: Spec, name: str) -> str:
    listing = resolve_target(spec, name).corpus.listing()
    ignored = f"; ignored: {listing.left_out}" if listing.ignored else ""
    return f"{len(listing.files):,} files, {sum(file.size for file in listing.files) / (1 << 20):,.1f} MiB{ignored}"


def _marts(named: str) -> str:
    return try_out(address_of(named))


def _cluster(closing: ExitStack) -> Iterator[Check]:
    nodes: list[Node] = []
    yield attempt("ray", partial(_ray, closing, nodes))
    if nodes:
        yield attempt("versions", partial(_versions, nodes))
        yield attempt("clocks", partial(_clocks, nodes))


def _ray(closing: ExitStack, nodes: list[Node]) -> str:
    """Start or join it, and fill `nodes`."""
    from workers.cluster.connection import start_ray

    ray: Any = start_ray(closing)
    nodes += survey(ray)
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}, {cpus:g} CPU, {gpus:g} GPU"


def _versions(nodes: list[Node]) -> str:
    """The same on every node as on this machine, or else what is exchanged may not be understood, and vectors may differ."""
    ours = {"python": platform.python_version()} | {package: version(package) for package in PACKAGES}
    for node in nodes:
        for package, theirs in node.versions.items():
            if theirs != ours[package]:
                raise WorkerError(
                    f"expected {package} {ours[package]} on every node, as here, found {theirs} on {node.host}: install it there"
                )
    return ", ".join(f"{package} {number}" for package, number in ours.items())


def _clocks(nodes: list[Node]) -> str:
    worst = max(nodes, key=lambda node: abs(node.clock))
    if abs(worst.clock) > LARGEST_SKEW.total_seconds():
        far = f"{worst.clock:+.0f} s from this machine's"
        raise WorkerError(f"expected clocks within {LARGEST_SKEW.seconds} s, found that of {worst.host} {far}: set it by NTP")
    return f"within {abs(worst.clock):.1f} s of this machine's"
