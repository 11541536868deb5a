"""What the newest run was told to keep current. A person who promotes or rolls back decides against that."""

from dataclasses import dataclass

import orjson

from storage.collection import folder
from storage.store.objects import Objects


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the newest run was told."""

    declared: str
    """The generation of the spec's model."""
    live: tuple[str, ...]
    """The generations that it keeps current."""


def declare(objects: Objects, collection: str, declaration: Declaration) -> None:
    """Replace what `declaration` gives."""
    objects.put(_live_key(collection), orjson.dumps(declaration))


def declaration(objects: Objects, collection: str) -> Declaration | None:
    """What the newest run was told; None before the first."""
    record = objects.get_json(_live_key(collection))
    return Declaration(record["declared"], tuple(record["live"])) if record else None


def _live_key(collection: str) -> str:
    return f"{folder(collection)}/live.json"
