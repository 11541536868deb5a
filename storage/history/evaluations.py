"""What versions were judged by, kept: ids and numbers, never a text, so that erasing a document needs no look in here.

_revector/<collection>/evaluations/<id>.json
_revector/<collection>/queries/<space>.npz        vectors of the labelled queries, by the hash of prompt and query
"""

import io
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pipelines.fingerprint import DIGEST_BYTES
from pipelines.measures.gate import Gate
from storage.collection import Collection
from storage.tables.version import Version
from storage.who import check_run_id, new_run_id, now, whoami


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The gates that one version of a generation was held against, and by whom."""

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


def keep_evaluation(version: Version, gates: Sequence[Gate], run_id: str | None = None) -> Evaluation:
    """Keep what `gates` found of a version. `run_id`: of the run that made it, or under which the judgement was submitted."""
    collection, space = version.collection, str(version.space["id"])
    made = Evaluation(
        id=new_run_id(),
        collection=collection.name,
        generation=version.generation,
        version=version.number,
        chunk_version=version.chunk_version,
        space=space,
        gates=tuple(gates),
        run_id=run_id,
        at=now(),
        who=whoami(),
    )
    collection.objects.put(collection.key(f"evaluations/{made.id}.json"), orjson.dumps(asdict(made), option=orjson.OPT_SERIALIZE_NUMPY))
    return made


def evaluations(collection: Collection, but: Container[str] = ()) -> list[Evaluation]:
    """The evaluations that are kept of a collection, oldest first, without those of the ids `but`, which are not read."""
    place = collection.key("evaluations")
    names = (name for name in collection.objects.names(place) if name.removesuffix(".json") not in but)
    records = (collection.objects.get_json(f"{place}/{name}") for name in names)
    return sorted((_evaluation(record) for record in records if record), key=lambda made: (made.at, made.id))


def find_evaluation(collection: Collection, id_: str) -> Evaluation | None:
    """One that is kept; None if there is none of that id."""
    record = collection.objects.get_json(collection.key(f"evaluations/{check_run_id(id_)}.json"))
    return _evaluation(record) if record else None


def _evaluation(record: dict[str, Any]) -> Evaluation:
    gates = tuple(Gate(**gate | {"rows": tuple(gate["rows"])}) for gate in record["gates"])
    return Evaluation(**record | {"gates": gates})


def kept_queries(collection: Collection, space: str) -> dict[bytes, NDArray[np.float32]]:
    """The vectors of queries in a space, (d,) each, by the hash of prompt and query."""
    data = collection.objects.get(_queries_key(collection, space))
    if data is None:
        return {}
    with np.load(io.BytesIO(data)) as kept:
        return dict(zip((row.tobytes() for row in kept["hashes"]), kept["vectors"], strict=True))


def keep_queries(collection: Collection, space: str, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
    """Keep the vectors of queries, (d,) each, by the hash of prompt and query, in place of those that were kept of this space."""
    hashes = np.frombuffer(b"".join(vectors), np.uint8).reshape(-1, DIGEST_BYTES)
    out = io.BytesIO()
    np.savez(out, hashes=hashes, vectors=np.stack([*vectors.values()]))
    collection.objects.put(_queries_key(collection, space), out.getvalue())


def _queries_key(collection: Collection, space: str) -> str:
    return collection.key(f"queries/{space}.npz")
