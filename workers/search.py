"""Search by text: the query is encoded by the model of what is published, whatever the spec says today; or by the spec's, over a bridge."""

from collections.abc import Sequence
from typing import Any

from pipelines.errors import ModelError, SpecError
from pipelines.models import Model, resolve_model
from pipelines.spec import ModelSpec
from storage.bridges import read_bridge
from storage.catalog import Publication, published
from storage.published import Condition, search_vectors
from storage.tables import Store
from workers.encoders import load_encoder


def search(
    store: Store,
    collection: str,
    query: str,
    k: int = 10,
    where: Sequence[Condition] = (),
    models: Sequence[ModelSpec] = (),
    bridge: bool = False,
) -> list[dict[str, Any]]:
    """The `k` published chunks nearest in meaning to `query`, best first: `chunk_id, doc_id, score, text, metadata`.

    `models` are those of the spec, the main one first: one of them serves if the published model is no longer where it was. With
    `bridge` the main one encodes the query, which is then mapped into the published space.
    Raises NotFound if nothing is published, or no bridge is there; ModelError if no model at hand is the one that made the vectors.
    """
    publication = published(store, collection)
    model = resolve_model(models[0]) if bridge else None
    if model is None or model.space.id == publication.space:
        model = _model_of(publication, models)
    way = read_bridge(store, collection, model.space.id, publication.space)
    vector = way.apply(load_encoder(model).encode_query(query)[None])[0]
    return search_vectors(store, publication, vector, k, where)


def _model_of(publication: Publication, models: Sequence[ModelSpec]) -> Model:
    """The model of what is published: where it was, or else a model of the spec that makes the same space."""
    recorded = ModelSpec(**publication.model_spec())
    try:
        model = resolve_model(recorded)
        if model.space.id == publication.space:
            return model
        problem = ModelError(
            f"expected the model of space {publication.space} ({model.spec.name}), found one of {model.space.id}: were its files replaced?"
        )
    except ModelError as error:
        problem = error
    for other in models:
        try:
            model = resolve_model(other.model_copy(update={"query_prompt": recorded.query_prompt}))
        except (ModelError, SpecError):
            continue  # not this one, then
        if model.space.id == publication.space:
            return model
    raise problem
