"""What a run finished, published or not, and what it was judged by."""

from dataclasses import asdict, dataclass
from typing import Any

import orjson

from storage.collection import folder
from storage.history.catalog import Publication
from storage.store.lance import Store


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
