"""What kind of change a run would bring: what differs from what readers have, by name."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipelines.content.chunks import metadata_type
from pipelines.formats.casts import metadata_struct
from storage.history.catalog import Publication
from storage.store.lance import table_meta
from workers.observing.telling import Change
from workers.planning.state import State, same_queries
from workers.planning.target import Target

Identity = dict[str, list[Any]]
"""What differs: its name, then before and after."""


@dataclass(frozen=True, slots=True)
class ChangeFound:
    """What a run would change of what readers have."""

    kind: Change
    reason: str
    """For a person."""
    identity: Identity


def classify_change(state: State, changed: bool) -> ChangeFound:
    """Hold the subject against what is published. `changed`: there is something to do."""
    published = state.current
    if not changed:
        return ChangeFound("none", "everything is current" if published else "the corpus is empty", {})
    if published is None:
        return ChangeFound("data", "nothing is published yet", {})
    if not state.there:
        return ChangeFound("data", "what readers have is gone from the store, and is built anew", {})
    if published.generation == state.live.subject.generation.name:
        return _in_place(state, published)
    return _of_generation(state.live.subject, published)


def _in_place(state: State, published: Publication) -> ChangeFound:
    target = state.live.subject
    if not same_queries(published, target):
        prompts = [published.model_spec().get("query_prompt"), target.model.spec.query_prompt]
        return _change("metadata", "queries are encoded in another way", {"query_prompt": prompts})
    open_ones = [candidate for candidate in state.live.candidates if not state.at_rest(candidate)]
    quiet = all(table.files.empty for table in state.tables.values()) and state.at_rest(target)
    if quiet and open_ones:
        names = ", ".join(candidate.model.spec.name for candidate in open_ones)
        if all(state.finished(candidate) for candidate in open_ones):
            return ChangeFound("metadata", f"candidates to judge by other thresholds: {names}", {})
        return ChangeFound("model", f"candidates to build: {names}", {})
    return ChangeFound("data", "the corpus or the backlog", {})


def _of_generation(target: Target, published: Publication) -> ChangeFound:
    """Everything that differs between two generations; the kind is that of the deepest: model before chunking before metadata."""
    meta, own = table_meta(target.store.open(published.generation)), target.generation_meta()
    before = metadata_type(target.store.open(published.chunk_table).schema) or []
    declared = metadata_struct(target.spec.source.metadata, {field.name: field.type for field in before})
    names = [[field.name for field in before], [field.name for field in declared]]
    space = _differences(meta["space"], own["space"], target.model.space.to_dict())
    chunking = _differences(meta["chunker"], own["chunker"], sorted(own["chunker"].keys() | meta["chunker"].keys()))
    types = [[str(field.type) for field in fields] for fields in (before, declared)]
    fields = {"fields": names} if names[0] != names[1] else {"types": types} if types[0] != types[1] else {}
    if space:
        named = _differences(meta["model"], own["model"], ("name", "revision"))
        return _change("model", "another space", space | named | chunking | fields)
    if chunking:
        return _change("chunking", "another way to cut", chunking | fields)
    return _change("metadata", "other metadata fields", fields)


def _change(kind: Change, reason: str, identity: Identity) -> ChangeFound:
    return ChangeFound(kind, f"{reason}: {', '.join(identity)}", identity)


def _differences(before: dict[str, Any], after: dict[str, Any], names: Iterable[str]) -> Identity:
    return {name: [before.get(name), after.get(name)] for name in names if before.get(name) != after.get(name)}
