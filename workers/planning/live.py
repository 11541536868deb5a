"""Which generations of a collection are kept current: the spec's own, its candidates, and whatever readers have."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines.content.chunks import metadata_type
from pipelines.errors import ModelError, RevectorError
from pipelines.spaces.known import model_of
from pipelines.spec.declared import ModelSpec, SourceSpec
from storage.history.catalog import Publication
from storage.history.decisions import decided_against, pinning
from storage.sources.opening import open_source
from storage.store.lance import table_meta
from workers.observing.telling import Role
from workers.planning.counting import tokenizer_of
from workers.planning.target import Target, restored_chunker


@dataclass(frozen=True)
class Live:
    """The generations that one run brings up to date."""

    subject: Target
    """What the run publishes: what the spec declares, unless a person chose otherwise."""
    predecessor: Target | None
    """What readers have, where it is another generation: it goes on being served and updated until the subject takes its place."""
    candidates: tuple[Target, ...]
    """Built, judged, and not published."""
    notes: tuple[str, ...] = ()
    """For a person: what is not as the spec alone would have it."""

    @property
    def targets(self) -> list[Target]:
        """All of them, in the order in which they are judged: what readers have first."""
        return [*([self.predecessor] if self.predecessor else []), self.subject, *self.candidates]

    @property
    def wider(self) -> list[Target]:
        """Candidates that the subject can be cut from. They are filled before it."""
        space = self.subject.model.space
        others = (target for target in self.candidates if target.model.space.id != space.id)
        wider = [target for target in others if space.derives_from(target.model.space.to_dict())]
        return sorted(wider, key=lambda target: -target.model.space.dimension)

    @property
    def filled(self) -> list[Target]:
        """All of them, in the order in which they are filled."""
        wider = self.wider
        return [*wider, *(target for target in self.targets if target not in wider)]

    def role(self, target: Target) -> Role:
        """What the run does with `target`, one of `targets`: see Role."""
        return "candidate" if target in self.candidates else "served" if target == self.predecessor else "main"


def live_generations(target: Target, history: Sequence[Publication]) -> Live:
    """The generations to keep current, for the one that a spec declares. `history`: the publications of the collection."""
    others = [replace(target, model=model, candidates=()) for model in target.candidates]
    here = history[-1] if history else None
    if here is None or here.generation == target.generation.name:
        return Live(target, None, _distinct(others, target))
    pinned = pinning(history)
    choice = pinned or decided_against(history, target.generation.name)
    if choice is not None:
        try:
            served = _served(target, here)
        except RevectorError as error:  # nothing else may take its place
            if pinned:
                note = f"what readers are pinned to is served as it is, and not updated: {error}"
                return Live(target, None, _distinct(others, target), (note,))
            remedy = f"{choice.who} chose {here.generation}: `revector promote` another one if that cannot come back"
            raise ModelError(f"{error} ({remedy})") from None
        note = f"{here.generation} stays published, as {choice.who} chose; `revector promote` publishes {target.generation.name}"
        return Live(served, None, _distinct([target, *others], served), (note,))
    try:
        served = _served(target, here)
    except RevectorError as error:
        note = f"what readers have is served as it is, and not updated, until {target.generation.name} takes its place: {error}"
        return Live(target, None, _distinct(others, target), (note,))
    return Live(target, served, _distinct(others, target, served))


def _distinct(targets: list[Target], *taken: Target) -> tuple[Target, ...]:
    """Those whose generation is not taken, each once."""
    by_name = {target.generation.name: target for target in reversed(targets)}
    names = {target.generation.name for target in taken}
    return tuple(target for name, target in reversed(by_name.items()) if name not in names)


def _served(target: Target, here: Publication) -> Target:
    """The published generation, resolved. Raises ModelError if its model or its way to cut cannot be had any more."""
    model = model_of(here.space, ModelSpec(**here.model_spec()), (target.model, *target.candidates))
    if here.chunk_table == target.chunk_table.name:
        return replace(target, model=model, candidates=())
    dataset = target.store.open(here.chunk_table)
    meta = table_meta(dataset)
    chunker = restored_chunker(target.collection, meta["chunker"], tokenizer_of(model))
    # Tables from before types were declared do not record them.
    metadata = meta.get("metadata", [field.name for field in metadata_type(dataset.schema) or ()])
    source = SourceSpec.model_validate({**target.spec.source.model_dump(), "metadata": metadata})
    spec = target.spec.model_copy(update={"source": source})
    corpus = open_source(source, spec.limits)
    served = replace(target, spec=spec, model=model, chunker=chunker, corpus=corpus, candidates=()) if chunker else None
    if served is None or served.chunk_table.name != here.chunk_table:
        raise ModelError(f"expected the way in which {here.chunk_table} was cut, found another")
    return served
