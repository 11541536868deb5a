"""What a person decides of what readers have: promote, roll back, resume.

A rollback pins: what a person went back to stays with readers until a person releases it, and runs go on building and judging meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pipelines.errors import Conflict, GateFailed, NotFound
from storage.collection import Collection
from storage.history.built import Built, find_built
from storage.history.catalog import Action, Publication, current, kept_publications, publications, publish, published
from storage.history.declaration import declaration
from storage.store.lance import Store
from storage.tables.generations import generations, named
from storage.who import now, whoami


@dataclass(frozen=True, slots=True)
class Pin:
    """What readers stay on."""

    generation: str
    version: int
    """Of the vectors table."""
    who: str
    since: str
    """ISO 8601."""
    why: str
    behind: int
    """Versions of the generation that readers could have instead: published and rolled back from, or finished since then."""

    @property
    def summary(self) -> str:
        """In one sentence."""
        versions = f"{self.behind:,} version{'' if self.behind == 1 else 's'}"
        return f"pinned at version {self.version} by {self.who} since {self.since[:16].replace('T', ' ')}, readers are {versions} behind"


def find_pin(collection: Collection, history: Sequence[Publication] | None = None) -> Pin | None:
    """What readers of the collection are pinned to; None if they get what runs publish. `history`: its publications, if at hand."""
    rows = publications(collection) if history is None else history
    chosen = pinning(rows)
    if chosen is None:
        return None
    built = find_built(collection, chosen.generation)
    left = {row.tables for row in rows if chosen.origin < row.epoch < chosen.epoch and row.generation == chosen.generation}
    behind = len(left - {rows[-1].tables}) + (built.withheld if built else 0)
    return Pin(chosen.generation, rows[-1].version, chosen.who, chosen.at, chosen.why, behind)


def pinning(history: Sequence[Publication]) -> Publication | None:
    """The rollback that holds, of the publications of one collection, oldest first. Upkeep, which changes no row, releases nothing."""
    newest = next((row for row in reversed(history) if not row.by_upkeep), None)
    return newest if newest is not None and newest.action == "rollback" else None


def promote(collection: Collection, name: str, why: str = "", force: bool = False) -> Publication:
    """Publish the newest finished state of generation `name` (or a beginning of the last part of its name): one move of the pointer.

    Raises NotFound if no run has finished it; GateFailed if it did not pass its gates, or is behind what readers have, unless `force`.
    """
    here, history = current(collection), publications(collection)
    known = {row.generation for row in history} | {generation.name for generation in generations(collection)}
    generation = named(collection, known, name)
    built = find_built(collection, generation)
    earlier = [row for row in kept_publications(collection) if row.generation == generation]
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
    return publish(collection.store, new, check=_still(collection, generation, built))


def _still(collection: Collection, generation: str, built: Built | None) -> Callable[[], None]:
    """Raises Conflict once `built` is not what is kept of the generation."""

    def check() -> None:
        if find_built(collection, generation) != built:
            raise Conflict(f"expected {generation} as it was finished, found that it was dropped or made anew meanwhile: run again")

    return check


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


def rollback(collection: Collection, why: str = "", to: int | None = None) -> Publication:
    """Point back to what readers had before the current state was published or promoted. Nothing is rewritten. It pins.

    Again and again it goes further back; what was rolled back before the current state was published is not met again.
    `to`: a published version of the vectors, instead. Raises NotFound if there is nothing before, or no such version.
    """
    here, history = published(collection), publications(collection)
    if to is not None:
        return repoint(collection.store, here, _of_version(here, history, to), "rollback", why)
    before = [row for row in history if row.epoch < here.origin]
    if not before:
        raise NotFound(
            f"expected a publication of {collection} before version {here.version}, found none: `revector history {collection}` lists "
            "what there was; a corpus that is right again, `revector apply` brings to readers"
        )
    kept = [row for row in kept_publications(collection) if row.epoch < here.origin]
    return repoint(collection.store, here, (kept or before)[-1], "rollback", why)


def _of_version(here: Publication, history: Sequence[Publication], version: int) -> Publication:
    """The newest publication of a version: of the generation that readers have, else of the only one that has it."""
    rows = [row for row in history if row.version == version]
    own = [row for row in rows if row.generation == here.generation] or rows
    kept = [row for row in own if not row.removed] or own
    if not kept:
        known = ", ".join(map(str, sorted({row.version for row in history if not row.removed})))
        raise NotFound(f"expected one of the published versions {known}, found {version}: `revector history {here.collection}` lists them")
    if len(names := {row.generation for row in kept}) > 1:
        raise NotFound(f"expected a version of one generation, found {version} in {', '.join(sorted(names))}: `revector promote` takes one")
    return kept[-1]


def resume(collection: Collection, why: str = "") -> Publication:
    """Release what a rollback pinned: readers get the newest version of the generation that passed its gates, and what runs publish next.

    Raises NotFound if nothing is pinned.
    """
    here, history = published(collection), publications(collection)
    if pinning(history) is None:
        raise NotFound(f"expected a rollback of {collection} to release, found none: readers get what runs publish already")
    built = find_built(collection, here.generation)
    newest = built.publication if built is not None and built.passed else replace(here, restores=here.origin)
    new = replace(newest, epoch=here.epoch + 1, action="resume", at=now(), who=whoami(), why=why)
    return publish(collection.store, new, here, _still(collection, here.generation, built))


def repoint(store: Store, here: Publication, target: Publication, action: Action, why: str) -> Publication:
    """Publish the tables of an earlier publication again, under the epoch that follows `here`. Raises Conflict if `here` is not current."""
    new = replace(
        target,
        epoch=here.epoch + 1,
        action=action,
        restores=target.origin if action == "rollback" else 0,
        at=now(),
        who=whoami(),
        why=why,
        against=declared_generation(Collection(store, here.collection)),
    )
    return publish(store, new, target)


def declared_generation(collection: Collection) -> str:
    """What the spec declared at the newest run; "" before the first."""
    newest = declaration(collection)
    return newest.declared if newest else ""


def decided_against(history: Sequence[Publication], generation: str) -> Publication | None:
    """A person's choice of what readers have, while the spec declared `generation` already: then only a person publishes that.

    `history`: of its collection.
    """
    choice = next((row for row in reversed(history) if row.action not in {"update", "maintenance"}), None)
    chosen = choice is not None and choice.action in {"promote", "rollback"} and choice.generation != generation
    return choice if choice is not None and chosen and choice.against == generation else None
