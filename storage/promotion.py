"""What a run finished, published or not, and a person's decision for one generation over another.

_revector/<collection>/built/<generation>.json
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from pipelines.errors import Conflict, GateFailed, NotFound
from storage.catalog import Publication, current, publications, publish, repoint
from storage.ledger import folder, now, whoami
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
    if here and earlier and (built is None or earlier[-1].version >= built.publication.version):
        return repoint(store, here, earlier[-1], "promote", why)
    if built is None:
        raise NotFound(f"expected a finished generation, found none of {generation}: run `revector apply {collection}`")
    if not force:
        _check(built, here)
    epoch = here.epoch + 1 if here else 1
    new = replace(built.publication, epoch=epoch, action="promote", at=now(), who=whoami(), why=why)

    def check() -> None:
        if find_built(store, collection, generation) != built:
            raise Conflict(f"expected {generation} as it was finished, found that it was dropped or made anew meanwhile: run again")

    return publish(store, new, check=check)


def _check(built: Built, here: Publication | None) -> None:
    publication = built.publication
    if not built.passed:
        failed = "; ".join(f"{gate['name']}: {gate['detail']}" for gate in built.gates if not gate["passed"])
        raise GateFailed(f"expected a generation that passed its gates, found {publication.generation} with {failed}: --force publishes it")
    if here and here.chunk_table == publication.chunk_table and here.chunk_version > publication.chunk_version:
        raise GateFailed(
            f"expected a generation as new as what readers have (chunks {here.chunk_version}), found {publication.generation} "
            f"of chunks {publication.chunk_version}: run `revector apply {publication.collection}` first, or --force"
        )


def decided_against(history: Sequence[Publication], generation: str, built: Built | None) -> bool:
    """Whether a person chose what readers have, when they could have had `generation`: then only a person publishes that one again.

    `history`: of its collection. `built`: what is kept of `generation`.
    """
    choice = next((row for row in reversed(history) if row.action != "update"), None)
    if choice is None or choice.action == "publish" or choice.generation == generation:
        return False
    existed = built is not None and built.publication.at < choice.at
    return existed or any(row.generation == generation for row in history if row.epoch < choice.epoch)
