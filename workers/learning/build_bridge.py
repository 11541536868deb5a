"""Builds a bridge: from the model that the spec declares to the vectors that readers have.

Learned from contents that are published: their vectors as they are stored, and what the new model makes of them. Takes no fence and
writes only its own objects, so it runs beside an `apply`, which is when it is of use.
"""

import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.errors import RevectorError
from pipelines.measures.bridge import Bridge, Kind, fit
from pipelines.measures.quality import unit
from storage.history.bridges import keep_bridge, refuse_bridge
from storage.history.catalog import Publication, published_there
from storage.reading.donors import DONOR_SCHEMA, Donors
from storage.reading.neighbours import NOWHERE, exact, sample, vectors_at
from storage.reading.published import space_of
from storage.store.lance import ROW_ADDRESS, take
from storage.who import now, whoami
from workers.embedding.encoding import Encoding
from workers.observing.telling import Progress, Report, silent
from workers.planning.target import Target

KINDS: tuple[Kind, ...] = ("procrustes", "affine")
PAIRS = 4000
"""Contents to learn from and to judge by."""
HELD_OUT = 400
"""Of them to judge by, at most a fifth."""
LEAST_PAIRS = 100
"""With fewer there is nothing to learn, and a search sees most of the table anyway."""
K = 10
COPY = 1 - 1e-5
"""The cosine from which on a chunk is one of the same content."""
BLOCK = 256
"""Texts between two reports of progress."""

Vectors = NDArray[np.float32]
Addresses = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Trial:
    """One kind of bridge, judged."""

    kind: Kind
    recall: float
    """Of the published model's own K nearest chunks, those that the bridged vector finds; mean over the contents held out."""
    cosine: float
    """Of what is mapped to what it should be; mean over the contents held out."""
    seconds: float
    """To fit it."""


@dataclass(frozen=True, slots=True)
class BridgeResult:
    """What building a bridge showed, kept or not."""

    collection: str
    from_space: str
    """Of the model that the spec declares."""
    to_space: str
    """Of what is published."""
    generation: str
    version: int
    """Of the table that it was judged on."""
    status: Literal["built", "refused", "nothing"]
    """`refused`: no kind reached the threshold, none is kept. `nothing`: both spaces are one, no bridge is needed."""
    kind: Kind | None = None
    """The best; what is kept if it was built."""
    threshold: float | None = None
    """The least recall, `gates.min_bridge_recall`."""
    pairs: int = 0
    """Contents that it was learned from."""
    held_out: int = 0
    """Contents that it was judged by."""
    encoded: int = 0
    """Forward passes of the new model that it took."""
    trials: tuple[Trial, ...] = ()
    seconds: float = 0.0
    """From the first sample to the verdict."""
    at: str = field(default_factory=now)
    who: str = field(default_factory=whoami)
    numpy: str = np.__version__
    """Its version: another one may fit a little otherwise."""

    @property
    def exit_code(self) -> int:
        """Of the command line: 3 if no kind of bridge was good enough, else 0."""
        return 3 if self.status == "refused" else 0


def build_bridge(target: Target, report: Report = silent) -> BridgeResult:
    """Fit all kinds of bridge from the model of `target` to what is published, keep the best if it reaches the threshold, and tell.

    Raises NotFound if nothing is published, RevectorError if too little is.
    """
    began = time.monotonic()
    publication = published_there(target.collection)
    nothing = BridgeResult(
        target.collection.name, target.model.space.id, publication.space, publication.generation, publication.version, status="nothing"
    )
    if publication.space == target.model.space.id:
        return nothing
    dataset = target.store.open(publication.generation, publication.version)
    pairs = _gather(target, dataset, report)
    fitted = _fit(target, publication, pairs)
    trials = _judge(dataset, pairs, fitted)
    best = max(trials, key=lambda trial: trial.recall)
    threshold = target.spec.gates.min_bridge_recall
    result = replace(
        nothing,
        status="built" if best.recall >= threshold else "refused",
        kind=best.kind,
        threshold=threshold,
        pairs=pairs.learned,
        held_out=len(pairs.new) - pairs.learned,
        encoded=pairs.encoded,
        trials=trials,
        seconds=time.monotonic() - began,
    )
    if result.status == "built":
        keep_bridge(target.collection, fitted[best.kind][0], asdict(result))
    else:
        refuse_bridge(target.collection, result.from_space, result.to_space, asdict(result))
    return result


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Contents in both spaces. The first `learned` are to learn from, the others to judge by."""

    old: Vectors
    """As they are stored, (n, d_old)."""
    new: Vectors
    """As the new model has them, (n, d_new)."""
    learned: int
    encoded: int
    """Forward passes that they took."""


def _gather(target: Target, dataset: Any, report: Report) -> _Pairs:
    """The vectors of a sample of contents in both spaces. Raises RevectorError if too few are published."""
    rows = sample(dataset, PAIRS)
    new, encoded = _new_vectors(target, dataset, rows, report)
    old = vectors_at(dataset, rows[ROW_ADDRESS].to_numpy())
    usable = new.any(axis=1) & old.any(axis=1)  # a text that the model cannot take has zeros
    if usable.sum() < LEAST_PAIRS:
        raise RevectorError(
            f"expected at least {LEAST_PAIRS} contents of {target.collection} to learn a bridge from, found {usable.sum()}: "
            f"embed them anew, `revector apply {target.collection}`"
        )
    learned = usable.sum() - min(HELD_OUT, usable.sum() // 5)
    return _Pairs(old[usable], new[usable], int(learned), encoded)


def _new_vectors(target: Target, dataset: Any, rows: pa.Table, report: Report) -> tuple[Vectors, int]:
    """What the new model makes of contents as queries, (n, d_new), and the forward passes that took.

    Without a prompt that only queries have, it is what its generation already holds of them.
    """
    model = target.model
    vectors = np.zeros((len(rows), model.space.dimension), np.float32)
    missing = np.ones(len(rows), dtype=bool)
    alike = model.query_prompt == model.space.prompt
    if alike:
        _fill_stored(target, rows["content_hash"].combine_chunks(), vectors, missing)
    places = np.flatnonzero(missing)
    texts = take(dataset, rows[ROW_ADDRESS].to_numpy()[places], ["text"])["text"].to_pylist()
    with Encoding(target, target.spec.workers) as encoding:
        for start in range(0, len(texts), BLOCK):
            report(Progress("embed", chunks=start, total=len(texts)))
            vectors[places[start : start + BLOCK]] = encoding.encode(texts[start : start + BLOCK], "document" if alike else "query")
    return vectors, len(texts)


def _fill_stored(target: Target, hashes: pa.Array, vectors: Vectors, missing: NDArray[np.bool_]) -> None:
    """Put in `vectors` what is stored of the contents `hashes` in the new space, and mark them as not `missing`."""
    donors = Donors(target.generation, target.generation.version, target.model.space)
    place = {content: number for number, content in enumerate(hashes.to_pylist())}
    offered: dict[int, tuple[int, int]] = {}
    for offers in donors.rows(hashes):
        for content, *source in zip(*(offers[name].to_pylist() for name in DONOR_SCHEMA.names), strict=True):
            offered.setdefault(place[content], (source[0], source[1]))
    if offered:
        places = np.fromiter(offered, np.intp, len(offered))
        sources, addresses = (np.array(column) for column in zip(*offered.values(), strict=True))
        vectors[places] = donors.vectors(sources, addresses.astype(np.uint64))
        missing[places] = False


def _fit(target: Target, publication: Publication, pairs: _Pairs) -> dict[Kind, tuple[Bridge, float]]:
    """A bridge of each kind, and the seconds that it took to fit."""
    normalize = bool(space_of(target.store, publication)["normalize"])
    fitted: dict[Kind, tuple[Bridge, float]] = {}
    for kind in KINDS:
        began = time.monotonic()
        arrays = fit(kind, pairs.new[: pairs.learned], pairs.old[: pairs.learned])
        fitted[kind] = Bridge(kind, target.model.space.id, publication.space, normalize, arrays), time.monotonic() - began
    return fitted


def _judge(dataset: Any, pairs: _Pairs, fitted: dict[Kind, tuple[Bridge, float]]) -> tuple[Trial, ...]:
    """Search the whole table with the contents held out, as they are stored and over each bridge."""
    old, new = pairs.old[pairs.learned :], pairs.new[pairs.learned :]
    mapped = [bridge.apply(new) for bridge, _ in fitted.values()]
    # K and one more: each of them is in the table itself. One pass for all.
    nearest = exact(dataset, np.concatenate([old, *mapped]), K + 1)
    truth, *bridged = np.split(nearest.addresses, len(mapped) + 1)
    copies = nearest.scores[: len(old)] > COPY
    return tuple(
        Trial(kind, _recall(truth, copies, theirs), float((unit(vectors) * unit(old)).sum(axis=1).mean()), seconds)
        for (kind, (_, seconds)), vectors, theirs in zip(fitted.items(), mapped, bridged, strict=True)
    )


def _recall(truth: Addresses, copies: NDArray[np.bool_], bridged: Addresses) -> float:
    """Share of the K nearest in `truth` that are among the K in `bridged`, (n, K + 1) both. Copies of the content itself do not count:
    every bridge finds them."""
    hits = possible = 0
    for expected, same, given in zip(truth, copies, bridged, strict=True):
        others = expected[~same & (expected != NOWHERE)][:K]
        hits += np.isin(others, given[~np.isin(given, expected[same])][:K]).sum()
        possible += len(others)
    return float(hits / possible) if possible else 0.0
