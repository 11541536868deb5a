"""What versions were judged by, kept: ids and numbers, never a text, so that erasing a document needs no look in here.

_revector/<collection>/evaluations/<id>.json
_revector/<collection>/queries/<space>.npz        vectors of the labelled queries, by the hash of prompt and query
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pipelines.fingerprint import DIGEST_BYTES
from pipelines.measures.gate import Gate
from storage.collection import folder
from storage.store.lance import Store
from storage.who import new_run_id, now, whoami


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One version of a generation, judged."""

    id: str
    collection: str
    generation: str
    version: int
    """Of the vectors table."""
    chunk_version: int
    space: str
    """The space's id."""
    gates: tuple[Gate, ...]
    run_id: str | None
    """The run that judged what it had built, or the id under which it was submitted; None: a person asked."""
    at: str
    who: str

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


def keep_evaluation(
    store: Store, generation: str, version: int, chunk_version: int, space: str, gates: Sequence[Gate], run_id: str | None = None
) -> Evaluation:
    """Keep what `gates` found of a version."""
    collection = generation.partition(".")[0]
    made = Evaluation(new_run_id(), collection, generation, version, chunk_version, space, tuple(gates), run_id, now(), whoami())
    store.objects.put(f"{folder(collection)}/evaluations/{made.id}.json", orjson.dumps(asdict(made), option=orjson.OPT_SERIALIZE_NUMPY))
    return made


def evaluations(store: Store, collection: str) -> list[Evaluation]:
    """All that are kept of a collection, oldest first."""
    place = f"{folder(collection)}/evaluations"
    records = (store.objects.get_json(f"{place}/{name}") for name in store.objects.names(place))
    return sorted((_evaluation(record) for record in records if record), key=lambda made: (made.at, made.id))


def _evaluation(record: dict[str, Any]) -> Evaluation:
    gates = tuple(Gate(**gate | {"rows": tuple(gate["rows"])}) for gate in record["gates"])
    return Evaluation(**record | {"gates": gates})


def kept_queries(store: Store, collection: str, space: str) -> dict[bytes, NDArray[np.float32]]:
    """The vectors of queries in a space, (d,) each, by the hash of prompt and query."""
    data = store.objects.get(_queries_key(collection, space))
    if data is None:
        return {}
    with np.load(io.BytesIO(data)) as kept:
        return dict(zip((row.tobytes() for row in kept["hashes"]), kept["vectors"], strict=True))


def keep_queries(store: Store, collection: str, space: str, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
    """Replace what `kept_queries` gives."""
    hashes = np.frombuffer(b"".join(vectors), np.uint8).reshape(-1, DIGEST_BYTES)
    out = io.BytesIO()
    np.savez(out, hashes=hashes, vectors=np.stack([*vectors.values()]))
    store.objects.put(_queries_key(collection, space), out.getvalue())


def _queries_key(collection: str, space: str) -> str:
    return f"{folder(collection)}/queries/{space}.npz"
