"""What the newest run was told to keep current. A person who promotes or rolls back decides against that."""

from dataclasses import dataclass

import orjson

from storage.collection import Collection

LIVE = "live.json"


@dataclass(frozen=True, slots=True)
class Declaration:
    """What the spec of the newest run said."""

    declared: str
    """The generation of the spec's model."""
    live: tuple[str, ...]
    """The generations that it keeps current."""


def declare(collection: Collection, declaration: Declaration) -> None:
    """Keep what the newest run was told, in place of what the one before was."""
    collection.objects.put(collection.key(LIVE), orjson.dumps(declaration))


def declaration(collection: Collection) -> Declaration | None:
    """What the newest run was told; None before the first."""
    record = collection.objects.get_json(collection.key(LIVE))
    return Declaration(record["declared"], tuple(record["live"])) if record else None
