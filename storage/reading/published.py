"""What readers get: one generation, one version and its space, resolved together, so that models never mix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceDataset

from pipelines.content.chunks import metadata_type
from pipelines.errors import NotFound
from pipelines.measures.bridge import Bridge
from storage.collection import Collection
from storage.history.bridges import read_bridge
from storage.history.catalog import Publication, is_there, published_there
from storage.reading.filters import Where, filter_of
from storage.reading.neighbours import NOWHERE, nearest, vectors_at
from storage.store.lance import ROW_ADDRESS, Store, scan_table, table_meta, take

SHOWN = ["chunk_id", "doc_id", "text", "metadata"]


@dataclass(frozen=True, slots=True)
class Published:
    """A published version, open."""

    table: Any
    """The lancedb table, checked out at the version: searching, filtering and reading work as ever; writing does not.

    LanceDB looks into a fixed number of the index's partitions, also where few rows meet a condition: with `where` ask it to
    `.bypass_vector_index()`, or call `search` of this class, which finds them.
    """
    space: dict[str, Any]
    """What made the vectors: weights, pooling, prompt, dimension ... and `id`."""
    publication: Publication
    store: Store

    def search(self, vector: np.ndarray, k: int = 10, where: Where = ()) -> list[dict[str, Any]]:
        """The `k` chunks nearest to `vector` (float32, shape (d,)) that meet `where`, as `revector search` gives them.

        Best first: `chunk_id, doc_id, score, text, metadata`. Raises SpecError for a condition that the table cannot be asked.
        """
        return search_vectors(self.store, self.publication, vector, k, where)

    def bridge(self, space: str) -> Bridge:
        """What maps vectors of another space (its id) into that of the table: for queries of a new model, until its own are published.

        From then on the same code gets the identity, so a service may use the new model before, during and after the switch:

            docs = open_published("store", "docs")
            bridge = docs.bridge(new_space)                      # built by `revector bridge docs`
            queries = bridge.apply(model.encode(texts))          # float32 (n, dimension of the table)
            docs.table.search(queries[0]).limit(10).to_list()

        Raises NotFound if there is none.
        """
        return read_bridge(Collection(self.store, self.publication.collection), space, self.publication.space)


def open_published(root: str, name: str) -> Published:
    """The published version of collection `name` in the store at `root`. Raises NotFound."""
    import lancedb  # takes seconds: only who opens a table pays for it

    store = Store(root)
    publication = published_there(Collection(store, name))
    table = lancedb.connect(store.root, storage_options=store.options).open_table(publication.generation)
    table.checkout(publication.version)
    return Published(table, space_of(store, publication), publication, store)


def space_of(store: Store, publication: Publication) -> dict[str, Any]:
    """The space of a publication, as its table records it."""
    return dict(table_meta(store.open(publication.generation))["space"])


def search_vectors(store: Store, publication: Publication, query: np.ndarray, k: int, where: Where = ()) -> list[dict[str, Any]]:
    """The `k` chunks nearest to `query` (float32, shape (d,)) by cosine, best first: `chunk_id, doc_id, score, text, metadata`."""
    return search_table(store.open(publication.generation, publication.version), query, k, where)


def search_table(dataset: LanceDataset, query: np.ndarray, k: int, where: Where = ()) -> list[dict[str, Any]]:
    """As `search_vectors`, in a vectors table that is open."""
    best = nearest(dataset, query.astype(np.float32), k, filter_of(where, metadata_type(dataset.schema)))
    there = best.addresses[0] != NOWHERE
    rows = take(dataset, best.addresses[0][there], [name for name in SHOWN if name in dataset.schema.names])
    return [_hit(row, score) for row, score in zip(rows.to_pylist(), best.scores[0][there].tolist(), strict=True)]


def more_like(dataset: LanceDataset, chunk_id: str, k: int, where: Where = ()) -> list[dict[str, Any]]:
    """The `k` chunks nearest to one that is in the table, by its stored vector, as `search_table` gives them. Raises NotFound."""
    places = dataset.scanner(columns=[], filter=pc.field("chunk_id") == chunk_id, with_row_address=True).to_table()[ROW_ADDRESS]
    if not len(places):
        raise NotFound(f"expected a chunk with a vector, found none called {chunk_id[:100]!r} in this version")
    vector = vectors_at(dataset, places.to_numpy()[:1])[0]
    return [hit for hit in search_table(dataset, vector, k + 1, where) if hit["chunk_id"] != chunk_id][:k]


def _hit(row: dict[str, Any], score: float) -> dict[str, Any]:
    return {
        "chunk_id": row["chunk_id"],
        "doc_id": row["doc_id"],
        "score": round(score, 6),
        "text": row["text"],
        "metadata": row.get("metadata") or {},
    }


def compare_versions(store: Store, publications: Sequence[Publication], a: int, b: int) -> dict[str, Any]:
    """What changed from version `a` to `b` of the vectors: documents and chunks added, removed and changed. Raises NotFound."""
    before, after = (_rows(store, publications, version) for version in (a, b))
    names = {name: _changes(before, after, name) for name in ("doc_id", "chunk_id")}
    return {"documents": names["doc_id"], "chunks": names["chunk_id"]}


def _rows(store: Store, publications: Sequence[Publication], version: int) -> pa.Table:
    kept = [row for row in publications if not row.removed and is_there(store, row)]
    matching = [row for row in kept if row.version == version]
    if not matching:
        known = sorted({row.version for row in kept})
        once = ", which is no longer in the store" if any(row.version == version for row in publications) else ""
        raise NotFound(f"expected one of the published versions {', '.join(map(str, known)) or '(none)'}, found {version}{once}")
    return scan_table(store.open(matching[-1].generation, version), ("chunk_id", "doc_id", "row_hash"))


def _changes(before: pa.Table, after: pa.Table, key: str) -> dict[str, Any]:
    """Ids that came, went, and stayed with other content."""
    old, new = pc.unique(before[key]), pc.unique(after[key])
    added = new.filter(pc.invert(pc.is_in(new, value_set=old)))
    removed = old.filter(pc.invert(pc.is_in(old, value_set=new)))
    touched = pc.unique(pa.chunked_array([_without(after, before)[key].combine_chunks(), _without(before, after)[key].combine_chunks()]))
    changed = touched.filter(pc.and_(pc.is_in(touched, value_set=old), pc.is_in(touched, value_set=new)))
    return {
        "added": len(added),
        "removed": len(removed),
        "changed": len(changed),
        "examples": {name: ids.slice(0, 10).to_pylist() for name, ids in (("added", added), ("removed", removed), ("changed", changed))},
    }


def _without(rows: pa.Table, others: pa.Table) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows["row_hash"], value_set=others["row_hash"].combine_chunks())))
