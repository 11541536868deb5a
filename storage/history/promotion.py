"""What a run finished, published or not, and a person's decision for one generation over another.

_revector/<collection>/built/<generation>.json
"""

from collections.abc import Sequence
from dataclasses import replace

from pipelines.errors import Conflict, GateFailed, NotFound
from storage.collection import Collection
from storage.history.built import Built, find_built
from storage.history.catalog import Publication, current, declared_generation, publications, publish, repoint
from storage.history.declaration import declaration
from storage.tables.generations import generations, named
from storage.who import now, whoami


def promote(collection: Collection, name: str, why: str = "", force: bool = False) -> Publication:
    """Publish the newest finished state of generation `name` (or a beginning of the last part of its name): one move of the pointer.

    Raises NotFound if no run has finished it; GateFailed if it did not pass its gates, or is behind what readers have, unless `force`.
    """
    here, history = current(collection), publications(collection)
    known = {row.generation for row in history} | {generation.name for generation in generations(collection)}
    generation = named(collection, known, name)
    built = find_built(collection, generation)
    earlier = [row for row in history if row.generation == generation and not row.removed]
    if not force:
        _check_current(collection, generation, built, here)
    if here and earlier and (built is None or earlier[-1].version >= built.publication.version):
        return repoint(collection.store, here, earlier[-1], "promote", why)
    if built is None:
        raise NotFound(f"expected a finished generation, found none of {generation}: run `revector apply {collection}`")
    if not force:
        _check_passed(built)
    against = declared_generation(collection)
    epoch = here.epoch + 1 if here else 1
    new = replace(built.publication, epoch=epoch, action="promote", at=now(), who=whoami(), why=why, against=against)

    def check() -> None:
        if find_built(collection, generation) != built:
            raise Conflict(f"expected {generation} as it was finished, found that it was dropped or made anew meanwhile: run again")

    return publish(collection.store, new, check=check)


def _check_passed(built: Built) -> None:
    if not built.passed:
        failed = "; ".join(f"{gate['name']}: {gate['detail']}" for gate in built.gates if not gate["passed"])
        generation = built.publication.generation
        raise GateFailed(f"expected a generation that passed its gates, found {generation} with {failed}: --force publishes it")


def _check_current(collection: Collection, generation: str, built: Built | None, here: Publication | None) -> None:
    """A switch of the model must not take readers back in time, unless they ask for that: it is what `rollback` is for."""
    newest = declaration(collection)
    left = newest is not None and generation not in newest.live
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
