"""What a run finished, published or not, and what it was judged by."""

from dataclasses import asdict, dataclass, fields
from typing import Any

import orjson

from storage.collection import Collection
from storage.history.catalog import Publication, is_there
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
    """Chunk ids that could not be embedded; the first so many as a run keeps."""
    thresholds: dict[str, Any]
    """The `gates` of the spec that it was held against."""
    lacking: tuple[int, int, int] | None = None
    """The checksum of the rows that have no vector, all of them excused; None if there are none or others, or nobody counted."""
    tries: int = 1
    """Runs, one after another, that left it so: what fails again and again is not tried for ever."""
    lost: tuple[int, int] | None = None
    """Documents that could not be read or embedded, and of how many; None if there are no dead letters, or nobody counted."""
    withheld: tuple[int, int] | None = None
    """The epoch that a rollback went back from, and how many versions that passed it keeps from readers; None without one."""
    best: Publication | None = None
    """The newest of these, where this version failed."""


def keep_built(store: Store, built: Built) -> None:
    """Replace what is kept of the generation. What says nothing is left out: versions before it came up refuse what they do not know."""
    publication, later = built.publication, {field.name: field.default for field in fields(Built)}
    record = {name: value for name, value in asdict(built).items() if value != later[name]}
    store.objects.put(_key(Collection(store, publication.collection), publication.generation), orjson.dumps(record))


def find_built(collection: Collection, generation: str) -> Built | None:
    """What the newest run that finished the generation left; None if there was none."""
    record = collection.objects.get_json(_key(collection, generation))
    if record is None:
        return None
    pairs = {name: tuple(record[name]) if record.get(name) else None for name in ("lacking", "lost", "withheld")}
    rows = {name: Publication(**record[name]) if record.get(name) else None for name in ("publication", "best")}
    said = record | pairs | rows
    return Built(**{field.name: said[field.name] for field in fields(Built) if field.name in said})


def built_there(collection: Collection, generation: str) -> Built | None:
    """As `find_built`; None also if what it left is not in the store any more."""
    built = find_built(collection, generation)
    return built if built is not None and is_there(collection.store, built.publication) else None


def forget_built(collection: Collection, generation: str) -> None:
    """Remove what is kept of a generation that is no more."""
    collection.objects.delete(_key(collection, generation))


def _key(collection: Collection, generation: str) -> str:
    return collection.key(f"built/{generation}.json")
