"""A chunk is what its model reads whole: it is counted by the tokenizer of the loaded model; what is not read is told."""

import json
import subprocess
import sys
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest

from flows import plan, status
from flows.show import terminal
from pipelines.chunking.tokens import ModelTokenizer
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from storage import open_published
from storage.collection import Collection
from storage.store.lance import Store
from tests.conftest import Workplace
from tests.support.tiny import CONFIG, reference, save_stack, save_transformer
from workers.planning import counting

WINDOW = 48
LETTERS = "abcdefghijklmnopqrstuvwxyz"
NAMES = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
PIECES = [*NAMES.values(), "[", "]", *LETTERS, *LETTERS.upper(), *(f"##{letter}" for letter in LETTERS), "ALPHA", "BETA", "GAMMA"]
TEXT = " ".join(["ALPHA BETA GAMMA [MASK]"] * 60)


def save_model(folder: Path, lower_case: bool = False, **tokenizer: Any) -> Path:
    """A model whose tokenizer.json has words in capitals whole, and small ones letter by letter."""
    from sentence_transformers.sentence_transformer.modules import Pooling
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, PreTrainedTokenizerFast

    words = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer(lowercase=False)
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    plain = save_transformer(folder.parent / "plain", BertConfig(**CONFIG | {"vocab_size": len(PIECES)}))
    PreTrainedTokenizerFast(tokenizer_object=words, **NAMES).save_pretrained(plain)
    save_stack(folder, plain, Pooling(16))
    for file, fields in (("tokenizer_config.json", tokenizer), ("sentence_bert_config.json", {"do_lower_case": lower_case})):
        written = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(written | fields))
    return folder


CHANGED: dict[str, dict[str, Any]] = {
    "lower-cased by sentence-transformers": {"lower_case": True},
    "rebuilt by transformers": {"tokenizer_class": "BertTokenizer", "do_lower_case": True},
    "splitting special tokens": {"split_special_tokens": True},
}


@pytest.fixture
def place(workplace: Workplace, tmp_path: Path) -> Callable[..., Path]:
    def prepare(by: str, **fields: Any) -> Path:
        folder = save_model(tmp_path / "model", **fields)
        size = f", size = {WINDOW}" if by != "document" else ""
        gates = "gates = { min_cosine = -1 }"
        workplace.spec(f'name = "{folder}"', rest=f'chunking = {{ by = "{by}"{size} }}\n{gates}')
        workplace.write("a.parquet", {"d1": TEXT})
        return folder

    return prepare


def lengths(workplace: Workplace, folder: Path) -> list[int]:
    tokenizer = reference(folder).tokenizer
    rows = open_published(workplace.store, "docs").table.to_arrow()["text"].to_pylist()
    return [len(tokenizer(text.rstrip(), truncation=False)["input_ids"]) for text in rows]


@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.parametrize("by", ["tokens", "stable"])
def test_no_chunk_is_longer_than_the_loaded_model_reads(workplace: Workplace, place: Callable[..., Path], by: str, change: str) -> None:
    folder = place(by, **CHANGED[change])
    planned, done = workplace.plan(), workplace.apply()
    counted = lengths(workplace, folder)
    assert (max(counted) <= WINDOW, len(counted) > 4) == (True, True)
    assert planned.unread == done.unread == {"contents": 0, "tokens": 0}


def test_a_store_that_was_counted_by_the_file_is_cut_anew_and_one_that_counts_alike_is_not(
    workplace: Workplace, place: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(counting.Counting, "tokenizer", lambda _, model: counting.tokenizer_of(model))
        folder = place("tokens", lower_case=True)
        done = workplace.apply()
        assert done.unread["tokens"] > 0
    assert max(lengths(workplace, folder)) > WINDOW
    assert workplace.plan().change == "chunking"
    assert (workplace.apply().change, max(lengths(workplace, folder)) <= WINDOW) == ("chunking", True)
    with monkeypatch.context() as before:
        before.setattr(counting.Counting, "tokenizer", lambda _, model: counting.tokenizer_of(model))
        save_model(folder)
        workplace.apply()
    assert workplace.plan().change == "none"


def test_a_run_with_nothing_to_do_need_not_load_the_tokenizer_again(workplace: Workplace, place: Callable[..., Path]) -> None:
    place("tokens", lower_case=True)
    workplace.apply()
    code = "import sys; from flows import apply; print(apply().status, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=workplace.root, capture_output=True, text=True, timeout=240)
    assert done.stdout == "nothing False\n", done.stderr


def test_what_of_whole_documents_is_not_read_is_told(
    workplace: Workplace, place: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = place("document")
    workplace.write("b.parquet", {"short": "ALPHA", "long": "BETA " * 50 + "\n \n", "full": "GAMMA " * (WINDOW - 2)})
    planned, done = workplace.plan(), workplace.apply()
    assert planned.unread is None
    assert planned.notes == [f"what of a text is beyond the {WINDOW} tokens that {folder} reads is counted when it is embedded"]
    beyond = {"contents": 2, "tokens": sum(max(0, length - WINDOW) for length in lengths(workplace, folder))}
    assert done.unread == done.generations[0].unread == beyond
    assert status("docs", workplace.config)["collections"][0]["last_run"]["unread"] == beyond
    terminal.result(done)
    terminal.status(status("docs", workplace.config))
    said = f"{beyond['tokens']} tokens of 2 texts are beyond what the model reads"
    assert capsys.readouterr().out.count(said) == 2
    assert workplace.plan().unread == {"contents": 0, "tokens": 0}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_default_model_is_counted_as_ever(tmp_path: Path) -> None:
    """Its chunks, and what is known of it without loading it."""
    from workers.encoders.text.loaded_tokenizer import tokenizer_as_loaded

    model = resolve_model(ModelSpec(name="sentence-transformers/all-MiniLM-L6-v2"))
    lying = ModelTokenizer.at(str(model.tokenizer_file))
    counted = counting.Counting(Collection(Store(str(tmp_path)), "docs"))
    assert counted.tokenizer(model).identity == blake2b(lying.content, digest_size=16).hexdigest()
    assert not counted._looks
    assert tokenizer_as_loaded(model, lying.content) == lying.content


def test_prompts_that_are_not_used_are_told(workplace: Workplace, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    settings = folder / "config_sentence_transformers.json"
    prompts = {"query": "ask: ", "passage": "read: ", "other": "x", "document": ""}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"prompts": prompts}))
    workplace.write("a.parquet", {"d1": "ALPHA"})
    workplace.spec(f'name = "{folder}"', rest="chunking = { by = 'tokens', size = 48 }")
    (note,) = plan(config=workplace.config).notes
    assert note.startswith(f"{folder} declares a prompt 'passage' for documents that is not used")
    workplace.spec(f'name = "{folder}", prompt = "read: "', rest="chunking = { by = 'tokens', size = 48 }")
    assert plan(config=workplace.config).notes == []
