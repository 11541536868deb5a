"""What a run finished, published or not, and a person's decision for one generation over another.

_revector/<collection>/built/<generation>.json
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from pipelines.errors import Conflict, GateFailed, NotFound
from storage.catalog import Publication, current, declared_generation, publications, publish, repoint
from storage.ledger import declaration, folder, now, whoami
from storage.tables import Store
from storage.vectors import generations, named


@dataclass(frozen=True, slots=True)
class Built:
    """The newest state of a generation that a run brought to its end."""

    publication: Publication
    """As it would be published; the epoch, the action and the person are still open."""
    gates: list[dict[str, Any]]
    """What it was judged by."""
    passed: bool
    failed: list[str]
    """Chunk ids that have no vector; the first so many as a run keeps."""
    thresholds: dict[str, Any]
    """The `gates` of the spec that it was held against."""


def keep_built(store: Store, built: Built) -> None:
    """Replace what is kept of the generation."""
    publication = built.publication
    store.objects.put(_key(publication.collection, publication.generation), orjson.dumps(asdict(built)))


def find_built(store: Store, collection: str, generation: str) -> Built | None:
    """What the newest run that finished the generation left; None if there was none."""
    record = store.objects.get_json(_key(collection, generation))
    return Built(**record | {"publication": Publication(**record["publication"])}) if record else None


def forget_built(store: Store, collection: str, generation: str) -> None:
    """Remove what is kept of a generation that is no more."""
    store.objects.delete(_key(collection, generation))


def _key(collection: str, generation: str) -> str:
    return f"{folder(collection)}/built/{generation}.json"


def promote(store: Store, collection: str, name: str, why: str = "", force: bool = False) -> Publication:
    """Publish the newest finished state of generation `name` (or a beginning of the last part of its name): one move of the pointer.

    Raises NotFound if no run has finished it; GateFailed if it did not pass its gates, or is behind what readers have, unless `force`.
    """
    here, history = current(store, collection), publications(store, collection)
    known = {row.generation for row in history} | {generation.name for generation in generations(store, collection)}
    generation = named(collection, known, name)
    built = find_built(store, collection, generation)
    earlier = [row for row in history if row.generation == generation and not row.removed]
    if not force:
        _check_current(store, collection, generation, built, here)
    if here and earlier and (built is None or earlier[-1].version >= built.publication.version):
        return repoint(store, here, earlier[-1], "promote", why)
    if built is None:
        raise NotFound(f"expected a finished generation, found none of {generation}: run `revector apply {collection}`")
    if not force:
        _check_passed(built)
    against = declared_generation(store, collection)
    epoch = here.epoch + 1 if here else 1
    new = replace(built.publication, epoch=epoch, action="promote", at=now(), who=whoami(), why=why, against=against)

    def check() -> None:
        if find_built(store, collection, generation) != built:
            raise Conflict(f"expected {generation} as it was finished, found that it was dropped or made anew meanwhile: run again")

    return publish(store, new, check=check)


def _check_passed(built: Built) -> None:
    if not built.passed:
        failed = "; ".join(f"{gate['name']}: {gate['detail']}" for gate in built.gates if not gate["passed"])
        generation = built.publication.generation
        raise GateFailed(f"expected a generation that passed its gates, found {generation} with {failed}: --force publishes it")


def _check_current(store: Store, collection: str, generation: str, built: Built | None, here: Publication | None) -> None:
    """A switch of the model must not take readers back in time, unless they ask for that: it is what `rollback` is for."""
    told = declaration(store.objects, collection)
    left = told is not None and generation not in told.live
    row = built.publication if built else None
    behind = row is not None and here is not None and here.chunk_table == row.chunk_table and here.chunk_version > row.chunk_version
    if left or behind:
        raise GateFailed(
            f"expected a generation that is kept current, found {generation}, which lacks what came since: name its model in the spec, "
            f"as `model` or in `candidates`, and run `revector apply {collection}`; or --force"
        )


def decided_against(history: Sequence[Publication], generation: str) -> Publication | None:
    """A person's choice of what readers have, while the spec declared `generation` already: then only a person publishes that.

    `history`: of its collection.
    """
    choice = next((row for row in reversed(history) if row.action != "update"), None)
    chosen = choice is not None and choice.action in {"promote", "rollback"} and choice.generation != generation
    return choice if choice is not None and chosen and choice.against == generation else None
