"""What a person decides of what readers have: promote, roll back, resume.

A rollback pins: what a person went back to stays with readers until a person releases it, and runs go on building and judging meanwhile.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipelines.errors import Conflict, GateFailed, NotFound
from storage.collection import Collection
from storage.history.built import Built, find_built
from storage.history.catalog import Action, Publication, current, is_there, publications, publish, published
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
    here = rows[-1]
    built = find_built(collection, here.generation)
    published = {row.tables for row in rows if row.generation == here.generation and _newer(row, here)}
    withheld = built.withheld[1] if built and built.withheld and _holds(built, rows) else 0
    return Pin(here.generation, here.version, chosen.who, chosen.at, chosen.why, len(published) + withheld)


def _holds(built: Built, history: Sequence[Publication]) -> bool:
    """Whether the rollback that `withheld` and `best` are of still holds."""
    return pinning(history) is not None and built.withheld is not None and built.withheld[0] == pinned_from(history).epoch


def kept_back(built: Built, history: Sequence[Publication]) -> Publication | None:
    """The newest version that passed, where a later one failed, and a rollback that holds keeps it from readers."""
    return built.best if _holds(built, history) else None


def _newer(row: Publication, here: Publication) -> bool:
    """Whether a version is a later one of the same generation. Upkeep writes the same rows anew, under a higher number."""
    return row.version > here.version and row.action not in {"rollback", "maintenance"} and not row.by_upkeep and not row.removed


def pinned_from(history: Sequence[Publication]) -> Publication:
    """What readers had before the rollbacks that hold: the newest publication that is none."""
    return next((row for row in reversed(history) if row.action != "rollback" and not row.by_upkeep), history[0])


def pinning(history: Sequence[Publication]) -> Publication | None:
    """The rollback that holds, of the publications of one collection, oldest first. Upkeep, which changes no row, releases nothing."""
    newest = next((row for row in reversed(history) if not row.by_upkeep), None)
    return newest if newest is not None and newest.action == "rollback" else None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person is about to decide: what readers have, and what they would get. Nothing is written before it is carried out."""

    store: Store
    here: Publication | None
    """What readers have; None before the first publication."""
    new: Publication
    """What they would get; the time, the person and the reason are still open."""
    again: Publication | None = None
    """The earlier publication whose tables these are, if it is one."""
    check: Callable[[], None] = lambda: None
    """Raises if it must no longer be published."""

    def carry_out(self, why: str = "") -> Publication:
        """One move of the pointer. Raises Conflict if readers have something else than `here` by now."""
        return publish(self.store, replace(self.new, at=now(), who=whoami(), why=why), self.again, self.check)


def promote(collection: Collection, name: str, why: str = "", force: bool = False) -> Publication:
    """Publish the newest finished state of generation `name` (or a beginning of the last part of its name): one move of the pointer.

    Raises NotFound if no run has finished it; GateFailed if it did not pass its gates, or is behind what readers have, unless `force`.
    """
    return promotion(collection, name, force).carry_out(why)


def promotion(collection: Collection, name: str, force: bool = False) -> Decision:
    """What `promote` would do. Raises as that."""
    here, history = current(collection), publications(collection)
    known = {row.generation for row in history} | {generation.name for generation in generations(collection)}
    generation = named(collection, known, name)
    built = find_built(collection, generation)
    earlier = _newest_there(collection, [row for row in history if row.generation == generation])
    if not force:
        _check_current(collection, generation, built, here)
    if here and earlier and (built is None or earlier.version >= built.publication.version):
        return _repointed(collection, here, earlier, "promote")
    if built is None:
        raise NotFound(f"expected a finished generation, found none of {generation}: run `revector apply {collection}`")
    if not force:
        _check_passed(built)
    epoch = here.epoch + 1 if here else 1
    new = replace(built.publication, epoch=epoch, action="promote", against=declared_generation(collection))
    return Decision(collection.store, here, new, check=_still(collection, generation, built))


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
    return going_back(collection, to).carry_out(why)


def going_back(collection: Collection, to: int | None = None, epoch: int | None = None) -> Decision:
    """What `rollback` would do. Raises as that. `epoch`: to that publication, instead: two generations may have versions of one number."""
    here, history = published(collection), publications(collection)
    if epoch is not None:
        return _repointed(collection, here, _of_epoch(here, history, epoch), "rollback")
    if to is not None:
        return _repointed(collection, here, _of_version(here, history, to), "rollback")
    before = [row for row in history if row.epoch < here.origin]
    if not before:
        raise NotFound(
            f"expected a publication of {collection} before version {here.version}, found none: `revector history {collection}` lists "
            "what there was; a corpus that is right again, `revector apply` brings to readers"
        )
    return _repointed(collection, here, _newest_there(collection, before) or before[-1], "rollback")


def _newest_there(collection: Collection, rows: Sequence[Publication]) -> Publication | None:
    """Of publications, oldest first, the newest whose tables are in the store. To ask that of all of them would take long."""
    return next((row for row in reversed(rows) if not row.removed and is_there(collection.store, row)), None)


def _of_epoch(here: Publication, history: Sequence[Publication], epoch: int) -> Publication:
    found = next((row for row in history if row.epoch == epoch and row.tables != here.tables), None)
    if found is None:
        raise NotFound(
            f"expected an earlier epoch of {here.collection}, with other rows than readers have, found none of the number {epoch}"
        )
    return found


def _of_version(here: Publication, history: Sequence[Publication], version: int) -> Publication:
    """The newest publication of a version: of the generation that readers have, else of the only one that has it."""
    every = [row for row in history if row.version == version]
    rows = [row for row in every if row.tables != here.tables] or every  # of nothing but what readers have: they are held there
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
    names = dict.fromkeys((pinned_from(history).generation, here.generation))
    built = {name: find_built(collection, name) for name in names}
    passed = {name: one.publication if one.passed else kept_back(one, history) for name, one in built.items() if one}
    there = (row for row in passed.values() if row and is_there(collection.store, row))
    newest = next(there, None)
    row = newest or _released_to(collection, history, here)
    new = replace(
        row,
        epoch=here.epoch + 1,
        action="resume",
        at=now(),
        who=whoami(),
        why=why,
        restores=0 if newest else row.origin,
        against=declared_generation(collection),
    )
    return publish(collection.store, new, check=_still(collection, row.generation, built.get(row.generation)))


def _released_to(collection: Collection, history: Sequence[Publication], here: Publication) -> Publication:
    """Where no finished version is: what readers had before the rollbacks, if it is there, else what they have."""
    before = pinned_from(history)
    return before if not before.removed and is_there(collection.store, before) else here


def _repointed(collection: Collection, here: Publication, target: Publication, action: Action) -> Decision:
    """The tables of an earlier publication again, under the epoch that follows `here`."""
    restores = target.origin if action == "rollback" else 0
    new = replace(target, epoch=here.epoch + 1, action=action, restores=restores, against=declared_generation(collection))
    return Decision(collection.store, here, new, target)


def declared_generation(collection: Collection) -> str:
    """What the spec declared at the newest run; "" before the first."""
    newest = declaration(collection)
    return newest.declared if newest else ""


def decided_against(history: Sequence[Publication], generation: str) -> Publication | None:
    """A person's choice of what readers have, while the spec declared `generation` already: then only a person publishes that.

    `history`: of its collection.
    """
    choice = next(_decisions(history), None)
    chosen = choice is not None and choice.action in {"promote", "rollback"} and choice.generation != generation
    return choice if choice is not None and chosen and choice.against == generation else None


def _decisions(history: Sequence[Publication]) -> Iterator[Publication]:
    """The publications that decided what is published, newest first. With a `resume` the rollbacks that it released go, too."""
    released = False
    for row in reversed(history):
        if row.action in {"update", "maintenance"}:
            continue
        if row.action == "resume":
            released = True
        elif not (released and row.action == "rollback"):
            released = False
            yield row
