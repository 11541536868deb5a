"""Search by text: the query is encoded by the model of what is published, whatever the spec says today; or by the spec's, over a bridge."""

from collections.abc import Sequence
from typing import Any

from pipelines.spaces.known import known_models, model_of
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from pipelines.spec.parsing import check_text
from storage.collection import Collection
from storage.history.bridges import read_bridge
from storage.history.catalog import published_there
from storage.reading.filters import Where
from storage.reading.published import search_vectors
from workers.encoders.encoder import encode
from workers.encoders.loading import load_encoder
from workers.encoders.machine import PROCESSOR, Machine


def search(
    collection: Collection,
    query: str,
    k: int = 10,
    where: Where = (),
    models: Sequence[ModelSpec] = (),
    bridge: bool = False,
    machine: Machine = PROCESSOR,
) -> list[dict[str, Any]]:
    """The `k` published chunks nearest in meaning to `query`, best first: `chunk_id, doc_id, score, text, metadata`.

    `models` are those of the spec, the main one first: one of them serves if the published model is no longer where it was. With
    `bridge` the main one encodes the query, which is then mapped into the published space.
    It is encoded here, on `machine`.

    Raises NotFound if nothing is published, or no bridge is there; ModelError if no model at hand is the one that made the vectors.
    """
    check_text("a query", query)
    publication = published_there(collection)
    model = resolve_model(models[0]) if bridge else None
    if model is None or model.space.id == publication.space:
        model = model_of(publication.space, ModelSpec(**publication.model_spec()), known_models(models))
    way = read_bridge(collection, model.space.id, publication.space)
    vector = way.apply(encode(load_encoder(model, machine), [query], "query").vectors)[0]
    return search_vectors(collection.store, publication, vector, k, where)
