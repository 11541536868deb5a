"""Search by text: the query is encoded by the model of what is published, whatever the spec says today."""

from collections.abc import Sequence
from typing import Any

from pipelines.errors import ModelError
from pipelines.models import resolve_model
from pipelines.spec import ModelSpec
from storage.catalog import published
from storage.published import Condition, search_vectors
from storage.tables import Store
from workers.encoders import load_encoder


def search(store: Store, collection: str, query: str, k: int = 10, where: Sequence[Condition] = ()) -> list[dict[str, Any]]:
    """The `k` published chunks nearest in meaning to `query`, best first: `chunk_id, doc_id, score, text, metadata`.

    Raises NotFound if nothing is published, ModelError if the model at hand is not the one that made the vectors.
    """
    publication = published(store, collection)
    model = resolve_model(ModelSpec(**publication.model_spec()))
    if model.space.id != publication.space:
        raise ModelError(
            f"expected the model of space {publication.space} ({model.spec.name}), found one of {model.space.id}: were its files replaced?"
        )
    return search_vectors(store, publication, load_encoder(model).encode_query(query), k, where)
