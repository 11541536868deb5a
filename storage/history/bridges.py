"""The bridges of a collection: maps between the spaces of its generations, each kept under the two spaces that it joins.

    _revector/<collection>/bridges/<from space>-<to space>.npz     the bridge; whole in itself, all that a reader opens
    _revector/<collection>/bridges/<from space>-<to space>.json    what building it showed, for people

A bridge is there only if it passed its gate. Whoever searches has resolved the space that is published, and so never gets a bridge that
leads elsewhere.
"""

from typing import Any

import orjson

from pipelines.errors import NotFound, StorageError
from pipelines.measures.bridge import Bridge, identity
from storage.collection import Collection


def keep_bridge(collection: Collection, bridge: Bridge, report: dict[str, Any]) -> None:
    """Keep a bridge and the report of it, in place of what was there. Readers get the bridge before or this one, whole."""
    collection.objects.put(_key(collection, bridge.from_space, bridge.to_space, "npz"), bridge.to_bytes())
    _keep_report(collection, bridge.from_space, bridge.to_space, report)


def refuse_bridge(collection: Collection, from_space: str, to_space: str, report: dict[str, Any]) -> None:
    """Keep the report of a bridge that did not pass its gate. One that did before is taken away: it would fail by now, too."""
    collection.objects.delete(_key(collection, from_space, to_space, "npz"))
    _keep_report(collection, from_space, to_space, report)


def read_bridge(collection: Collection, from_space: str, to_space: str) -> Bridge:
    """The bridge between two spaces; the identity if they are one. Raises NotFound, or StorageError if it is not as it was written."""
    if from_space == to_space:
        return identity(to_space)
    key = _key(collection, from_space, to_space, "npz")
    data = collection.objects.get(key)
    build = f"run `revector bridge {collection}`"
    if data is None:
        raise NotFound(f"expected a bridge of {collection} from space {from_space} to {to_space}, which is published, found none: {build}")
    try:
        return Bridge.from_bytes(data)
    except ValueError as error:
        raise StorageError(f"expected a bridge at {collection.store.root}/{key}, found {error}: {build}") from error


def _keep_report(collection: Collection, from_space: str, to_space: str, report: dict[str, Any]) -> None:
    collection.objects.put(_key(collection, from_space, to_space, "json"), orjson.dumps(report, option=orjson.OPT_INDENT_2))


def _key(collection: Collection, from_space: str, to_space: str, suffix: str) -> str:
    return collection.key(f"bridges/{from_space}-{to_space}.{suffix}")
