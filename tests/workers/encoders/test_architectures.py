"""Whatever the architecture, a text has the vector that `encode` gives it: alone, in any batch, packed or padded, tokenised elsewhere."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.errors import ModelError
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from pipelines.spec.running import Precision
from tests.support.tiny import CONFIG, VOCABULARY, WORDS, reference, save_stack, save_transformer
from workers.encoders.encoder import Encoded, Encoder, encode
from workers.encoders.loading import load_encoder
from workers.encoders.machine import Machine
from workers.encoders.text import packing
from workers.encoders.text.stack import TOLERANCE

PARTS = [" ".join(WORDS[start : start + count]) for start in (0, 3) for count in (2, 5, 9, 17)]
TEXTS = ["", "tide", "under seven", "tide", *PARTS, " ".join(WORDS * 4)]


def config(architecture: str) -> Any:
    import transformers

    several = {"num_key_value_heads": 1, "head_dim": 8}
    match architecture:
        case "Bert":
            return transformers.BertConfig(**CONFIG)
        case "Roberta" | "XLMRoberta" | "MPNet" | "Electra":
            return getattr(transformers, f"{architecture}Config")(**CONFIG)
        case "ConvBert":
            return transformers.ConvBertConfig(**CONFIG, embedding_size=16, head_ratio=2, conv_kernel_size=3)
        case "DistilBert":
            sizes = {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2}
            return transformers.DistilBertConfig(vocab_size=CONFIG["vocab_size"], **sizes, initializer_range=0.5)
        case "ModernBert":
            return transformers.ModernBertConfig(**CONFIG, local_attention=8, global_attn_every_n_layers=2)
        case "Qwen3" | "Llama":
            return getattr(transformers, f"{architecture}Config")(**CONFIG, **several)
        case "Mistral":
            return transformers.MistralConfig(**CONFIG, **several, sliding_window=6)
        case "Gemma3Text":
            return transformers.Gemma3TextConfig(**CONFIG, **several, sliding_window=6, use_bidirectional_attention=True)
        case "T5":
            sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
            return transformers.T5Config(vocab_size=CONFIG["vocab_size"], **sizes)
        case _:
            raise AssertionError(architecture)


Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Writes a tiny model of an architecture, with a pooling or other modules `above` it, and returns its folder."""

    def write(architecture: str, pooling: Any = "mean", above: Sequence[Any] = (), **fields: Any) -> Path:
        from sentence_transformers.sentence_transformer.modules import Pooling

        stack = {name: fields.pop(name) for name in ("prompts",) if name in fields}
        modules = above or [Pooling(16, pooling)]
        return save_stack(tmp_path / "model", save_transformer(tmp_path / "plain", config(architecture), **fields), *modules, **stack)

    return write


def load(folder: Path, precision: Precision = "float32", device: str = "cpu") -> Encoder:
    return load_encoder(resolve_model(ModelSpec(name=str(folder))), Machine(device, 1, precision, batch_tokens=64))


def documents(encoder: Encoder, texts: Sequence[str]) -> Encoded:
    return encode(encoder, texts, "document")


def assert_same(encoder: Encoder, expected: np.ndarray) -> None:
    """Batched as encode, and as alone."""
    encoded = documents(encoder, TEXTS)
    assert not encoded.failed
    assert np.allclose(encoded.vectors, expected, atol=1e-5, rtol=1e-4)
    assert np.allclose([documents(encoder, [text]).vectors[0] for text in TEXTS], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "pooling", "how"),
    [
        ("Bert", "mean", "packed"),
        ("Roberta", "mean", "packed"),
        ("XLMRoberta", "cls", "packed"),
        ("DistilBert", "mean", "packed"),
        ("Electra", "mean", "packed"),
        ("ModernBert", "cls", "packed"),
        ("Qwen3", "lasttoken", "packed"),
        ("Llama", "weightedmean", "packed"),
        ("Mistral", "lasttoken", "packed"),
        ("Gemma3Text", "mean", "packed"),
        ("MPNet", "mean", "padded"),
        ("T5", "mean", "padded"),
    ],
)
def test_batched_is_single_is_encode(make: Make, architecture: str, pooling: str, how: str) -> None:
    folder = make(architecture, pooling)
    encoder = load(folder)
    assert encoder.how == f"{how}, float32"
    assert_same(encoder, reference(folder).encode(TEXTS))


@pytest.mark.parametrize("architecture", ["Roberta", "XLMRoberta", "Bert", "MPNet"])
def test_special_tokens_that_a_text_names_move_no_other(make: Make, architecture: str) -> None:
    folder = make(architecture)
    texts = ["[PAD] tide rises", "bread [PAD] and [SEP] salt [PAD]", "under [CLS][MASK] seven", "tide rises"]
    encoder = load(folder)
    assert encoder.how.startswith("padded" if architecture == "MPNet" else "packed")
    assert np.allclose(documents(encoder, texts).vectors, reference(folder).encode(texts, batch_size=1), atol=1e-5, rtol=1e-4)


def test_a_tokenizer_that_takes_no_text_for_a_special_token_does_so_here(make: Make) -> None:
    texts = ["[PAD] tide rises", "bread [SEP] and salt", "tide"]
    folder = make("Bert", split_special_tokens=True)
    assert json.loads((folder / "tokenizer_config.json").read_text())["split_special_tokens"]
    assert np.allclose(documents(load(folder), texts).vectors, reference(folder).encode(texts), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pooling", ["max", "lasttoken", "mean_sqrt_len_tokens", "weightedmean", ("cls", "mean")], ids=str)
@pytest.mark.parametrize("architecture", ["Bert", "MPNet"])
def test_every_pooling_is_that_of_the_library(make: Make, architecture: str, pooling: Any) -> None:
    folder = make(architecture, pooling)
    assert_same(load(folder), reference(folder).encode(TEXTS))


@pytest.mark.parametrize("architecture", ["ModernBert", "MPNet"])
def test_prompts_are_left_out_of_pooling_and_dense_modules_follow(make: Make, architecture: str) -> None:
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling

    above = [Pooling(16, "mean", include_prompt=False), Dense(16, 6), Normalize()]
    folder = make(architecture, above=above, prompts={"document": "ask salt: "})
    assert_same(load(folder), reference(folder).encode_document(TEXTS))


def test_a_decoder_that_is_padded_on_the_left_is_encoded_alike(make: Make) -> None:
    folder = make("Qwen3", "lasttoken", padding_side="left")
    assert_same(load(folder), reference(folder).encode(TEXTS))


def test_a_module_that_weighs_words_is_padded(make: Make) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling, WordWeights

    folder = make("Bert", above=[WordWeights(list(VOCABULARY), dict.fromkeys(WORDS, 3.0)), Pooling(16, "mean")])
    encoder = load(folder)
    assert encoder.how == "padded, float32"
    assert_same(encoder, reference(folder).encode(TEXTS))


def test_a_packing_that_would_mix_texts_is_found_out(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_run(lengths: Any, device: Any) -> packing.Packing:
        return dataclasses.replace(pack(lengths, device), runs=[(1, int(lengths.sum()))])

    pack = packing.pack
    folder = make("Bert")
    monkeypatch.setattr("workers.encoders.text.stack.pack", one_run)
    encoder = load(folder)
    assert encoder.how == "padded, float32"
    assert_same(encoder, reference(folder).encode(TEXTS))


def test_what_comes_right_through_the_library_alone_goes_there_and_says_so(make: Make) -> None:
    folder = make("Bert", type_id=1, model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    with pytest.warns(UserWarning, match=r"through SentenceTransformer\.encode alone"):
        encoder = load(folder)
    assert encoder.how == "SentenceTransformer.encode, float32"
    assert_same(encoder, reference(folder).encode(TEXTS))
    assert documents(encoder, ["tide"]).units == 3


@pytest.mark.filterwarnings("ignore:.*through SentenceTransformer")
def test_a_model_that_looks_at_padding_gets_none(make: Make) -> None:
    folder = make("ConvBert")
    encoder = load(folder)
    assert encoder.how == "SentenceTransformer.encode, float32"
    assert_same(encoder, reference(folder).encode(TEXTS, batch_size=1))


def test_a_model_that_fails_on_words_says_what_it_said(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("expected scalar type Half\n but found Float")

    folder = make("Bert")
    monkeypatch.setattr(transformers.BertModel, "forward", broken)
    with pytest.raises(ModelError, match=r"found RuntimeError: expected scalar type Half but found Float$"):
        load(folder)


@pytest.mark.parametrize("architecture", ["Bert", "ModernBert", "Qwen3", "MPNet", "T5"])
def test_bfloat16_stays_within_tolerance(make: Make, architecture: str) -> None:
    folder = make(architecture, "mean")
    encoder, expected = load(folder, "bfloat16"), reference(folder).encode(TEXTS)
    assert encoder.how.endswith("bfloat16")
    vectors = documents(encoder, TEXTS).vectors
    cosines = (vectors * expected).sum(axis=1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(expected, axis=1)
    assert 0.99 <= cosines.min() < 1 - 1e-7  # weights this large and random magnify rounding


def test_bfloat16_that_leads_too_far_away_is_not_used(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make("Bert")
    monkeypatch.setitem(TOLERANCE, torch.bfloat16, 1e-6)
    assert load(folder, "bfloat16").how == "packed, float32"


def test_a_processor_is_asked_for_bfloat16_only_where_it_has_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make("Bert")
    for amx, avx, expected in [(False, False, "float32"), (True, False, "bfloat16"), (False, True, "bfloat16")]:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda found=amx: found)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda found=avx: found)
        assert load(folder, "auto").how == f"packed, {expected}"
        assert load(folder, "float32").how == "packed, float32"


@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA GPU: varlen attention and copies from pinned memory run there alone"
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["Bert", "ModernBert", "Qwen3", "MPNet"])
def test_a_gpu_gives_what_a_processor_gives(make: Make, architecture: str, precision: Precision) -> None:
    folder = make(architecture)
    encoder = load(folder, precision, device="cuda")
    assert encoder.how == f"{'padded' if architecture == 'MPNet' else 'packed'}, {precision}"
    vectors, expected = documents(encoder, TEXTS).vectors, documents(load(folder), TEXTS).vectors
    distances = np.linalg.norm(vectors - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert distances.max() <= {"float32": 1e-3, "bfloat16": 0.15}[precision]


def test_texts_may_be_tokenised_in_another_thread(make: Make) -> None:
    encoder = load(make("Bert"))
    shards = [TEXTS[place:] for place in range(8)]
    with ThreadPoolExecutor(4) as threads:
        prepared = list(threads.map(lambda shard: encoder.prepare(shard, "document"), shards))
    found = [encoder.forward(shard).vectors for shard in prepared]
    for shard, vectors in zip(shards, found, strict=True):
        assert np.array_equal(vectors, documents(encoder, shard).vectors)
