"""A model is input: whatever is in its folder, no code of it is run, nothing is fetched, and what does not fit is one error."""

import json
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from pipelines.errors import ModelError, SpecError
from pipelines.spaces.known import known_models, model_of
from pipelines.spaces.resolving import resolve_model
from pipelines.spaces.space import Model
from pipelines.spec.declared import ModelSpec
from tests.support.tiny import CONFIG, SENTENCE, save_stack, save_transformer
from workers.encoders.encoder import encode
from workers.encoders.loading import load_encoder

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that works, with a Dense module; to be copied."""
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig

    root = tmp_path_factory.mktemp("models")
    return save_stack(root / "stack", save_transformer(root / "plain", BertConfig(**CONFIG)), Pooling(16, "mean"), Dense(16, 8))


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(sound, tmp_path / "model"))


def resolve(folder: Path, **fields: Any) -> Model:
    return resolve_model(ModelSpec(name=str(folder), **fields))


def load(folder: Path) -> None:
    load_encoder(resolve(folder))


def edit(file: str, **fields: Any) -> Change:
    return lambda root: write(root / file, {**(json.loads((root / file).read_text()) if (root / file).exists() else {}), **fields})


def write(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def put(file: str, content: Any) -> Change:
    return lambda root: write(root / file, content)


def link(file: str, target: str) -> Change:
    def change(root: Path) -> None:
        (root / file).unlink(missing_ok=True)
        (root / file).symlink_to(target)

    return change


class Canary:
    """Its pickle writes a file when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


def zipped(root: Path) -> None:
    with zipfile.ZipFile(root / "model.safetensors", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Canary()))


def safetensors(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
    """A file with a header of our making."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def tensor(start: int, stop: int, shape: list[int]) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}


def weights(change: Callable[[dict[str, Any]], dict[str, Any]], file: str = "model.safetensors") -> Change:
    return lambda root: save_file(change(load_file(root / file)), root / file, {"format": "pt"})


def vocabulary(words: dict[str, int], unknown: str = "[UNK]") -> Change:
    return lambda root: Tokenizer(WordLevel(words, unk_token=unknown)).save(str(root / "tokenizer.json"))


def unsafe_shard(root: Path) -> None:
    (root / "model.safetensors").rename(root / "shard.bin")
    write(root / "model.safetensors.index.json", {"weight_map": {"a": "shard.bin"}})


CODE = {"AutoModel": "code.Model", "AutoTokenizer": ["code.Tokenizer", None]}
FILES: dict[str, tuple[str, Change]] = {
    "a pickle under another name": ("model.safetensors.*found a pickle", put("model.safetensors", pickle.dumps(Canary()))),
    "a zip under another name": ("model.safetensors.*found a zip file", zipped),
    "a pickle in an index": ("expected safetensors, found shard.bin", unsafe_shard),
    "a pickle of a module": (
        "2_Dense.*pytorch_model.bin",
        lambda root: (root / "2_Dense/model.safetensors").rename(root / "2_Dense/pytorch_model.bin"),
    ),
    "an empty file of weights": ("model.safetensors.*expected safetensors", put("model.safetensors", b"")),
    "a header of 2^60 bytes": ("model.safetensors.*header too large", put("model.safetensors", safetensors({}, size=1 << 60))),
    "a header that is cut off": ("model.safetensors.*invalid header length", put("model.safetensors", safetensors({}, size=1 << 20))),
    "a header that is no JSON": ("model.safetensors.*invalid JSON", put("model.safetensors", safetensors(b"{]"))),
    "a header of many levels": ("model.safetensors.*invalid JSON", put("model.safetensors", safetensors(b'{"a":' + b"[" * 100_000))),
    "tensors beyond the end": (
        "model.safetensors.*incomplete metadata",
        put("model.safetensors", safetensors({"a": tensor(0, 400, [100])}, b"1234")),
    ),
    "tensors upon each other": (
        "model.safetensors.*invalid offset",
        put("model.safetensors", safetensors({"a": tensor(0, 4, [1]), "b": tensor(0, 4, [1])}, b"1234")),
    ),
    "a shape that is not its size": (
        "model.safetensors.*invalid shape",
        put("model.safetensors", safetensors({"a": tensor(0, 4, [9])}, b"1234")),
    ),
    "a shape beyond all numbers": (
        "model.safetensors.*found",
        put("model.safetensors", safetensors({"a": tensor(0, 4, [1 << 62, 1 << 62])}, b"1234")),
    ),
    "code in config.json": ("auto_map in config.json", edit("config.json", auto_map=CODE)),
    "code of a part of it": ("auto_map in config.json", edit("config.json", vision_config={"auto_map": CODE})),
    "code in tokenizer_config.json": ("auto_map in tokenizer_config.json", edit("tokenizer_config.json", auto_map=CODE)),
    "code in another file": ("auto_map in processor_config.json", edit("processor_config.json", auto_map=CODE)),
    "code of a module": ("auto_map in config.json", edit("2_Dense/config.json", auto_map=CODE)),
    "a function of its own": ("found code.Activation", edit("2_Dense/config.json", activation_function="code.Activation")),
    "compiled code of the hub": (
        "attn_implementation in config.json",
        edit("config.json", attn_implementation="somebody/attention"),
    ),
    "a module of its own": ("found code.Module", put("modules.json", [{"idx": 0, "name": "0", "path": "", "type": "code.Module"}])),
    "a module that reads pickles": (
        "expected modules of .* found WordEmbeddings",
        lambda root: write(
            root / "modules.json",
            [*json.loads((root / "modules.json").read_text()), {"path": "3", "type": "sentence_transformers.models.WordEmbeddings"}],
        ),
    ),
    "modules of another kind": ("modules.json.*expected a list", put("modules.json", [1])),
    "a path out of the folder": (
        "expected paths inside",
        put("modules.json", [{"path": "../..", "type": "sentence_transformers.models.Transformer"}]),
    ),
    "a link out of the folder": ("tokenizer.json.*found a link to /etc/hostname", link("tokenizer.json", "/etc/hostname")),
    "a link to a device": ("model.safetensors.*found a link to /dev/zero", link("model.safetensors", "/dev/zero")),
    "a link to itself": ("found a link to config.json", link("config.json", "config.json")),
    "a config of many levels": (
        "config.json.*expected JSON of at most 50 levels",
        put("config.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    ),
    "a config of some levels": ("config.json.*expected JSON of at most 50 levels", put("config.json", b'{"a":' * 60 + b"1" + b"}" * 60)),
    "a config of many bytes": ("config.json.*at most 16 MiB", put("config.json", b'{"a": "' + b"x" * (17 << 20) + b'"}')),
    "a config that is not UTF-8": ("config.json.*expected JSON", put("config.json", b'{"a": "\xff\xfe\xfd"}')),
    "a number of many digits": ("config.json.*expected JSON", put("config.json", b'{"hidden_size": ' + b"9" * 5000 + b"}")),
    "a size that is text": ("expected", edit("config.json", max_position_embeddings="many")),
    "a size beyond all memory": ("expected a vocabulary from 1 to", edit("config.json", vocab_size=10**12)),
    "layers beyond all memory": ("config.json.*expected layers that have weights", edit("config.json", num_hidden_layers=10**8)),
    "a prompt that is a number": ("expected prompts of text", edit("config_sentence_transformers.json", prompts={"query": 3})),
    "a tokenizer that is broken": ("tokenizer.json.*expected a tokenizer", put("tokenizer.json", b'{"version": "1.0"')),
    "a tokenizer of nothing": ("tokenizer.json.*expected a tokenizer", put("tokenizer.json", b"{}")),
    "a tokenizer that is binary": ("tokenizer.json.*expected a tokenizer", put("tokenizer.json", b"\xff\x00")),
    "ids beyond the embeddings": ("tokenizer.json.*expected token ids below", vocabulary({"[UNK]": 0, "tide": 9999})),
    "no token for the unknown": ("tokenizer.json.*expected a tokenizer", vocabulary({"tide": 1}, "[NONE]")),
}


@pytest.mark.parametrize(("reason", "change"), FILES.values(), ids=FILES)
def test_a_folder_that_is_broken_or_made_to_do_harm_is_one_error_before_anything_is_loaded(
    folder: Path, reason: str, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    change(folder)
    with pytest.raises(ModelError, match=reason) as raised:
        resolve(folder)
    assert (str(folder) in str(raised.value), "\n" in str(raised.value)) == (True, False)
    assert not Path("canary").exists()


UNFIT: dict[str, tuple[str, Change]] = {
    "a layer without weights": (
        "expected weights of every layer, found none of encoder.layer.1",
        weights(lambda tensors: {name: value for name, value in tensors.items() if "layer.1." not in name}),
    ),
    "weights under other names": (
        "expected weights of every layer",
        weights(lambda tensors: {f"other.{name}": value for name, value in tensors.items()}),
    ),
    "weights of another size": (
        "expected a model that loads",
        weights(lambda tensors: {name: np.resize(value, [size + 1 for size in value.shape]) for name, value in tensors.items()}),
    ),
    "a module of another size": (
        "expected a model that loads",
        weights(lambda tensors: {name: np.resize(value, [3] * value.ndim) for name, value in tensors.items()}, "2_Dense/model.safetensors"),
    ),
    "another architecture": (
        "expected weights of every layer",
        edit("config.json", model_type="distilbert", architectures=["DistilBertModel"]),
    ),
    "an architecture that there is not": ("expected a model that loads", edit("config.json", model_type="gigabrain")),
}


@pytest.mark.parametrize(("reason", "change"), UNFIT.values(), ids=UNFIT)
def test_weights_that_do_not_fit_are_refused_where_others_go_on_with_random_numbers(folder: Path, reason: str, change: Change) -> None:
    change(folder)
    with pytest.raises(ModelError, match=reason) as raised:
        load(folder)
    assert (str(folder) in str(raised.value), "\n" in str(raised.value)) == (True, False)


def test_a_model_without_weights_of_what_nothing_uses_is_as_good(folder: Path) -> None:
    before = encode(load_encoder(resolve(folder)), [SENTENCE], "document").vectors
    weights(lambda tensors: {name: value for name, value in tensors.items() if "pooler" not in name})(folder)
    assert np.array_equal(encode(load_encoder(resolve(folder)), [SENTENCE], "document").vectors, before)


def test_weights_that_are_not_those_of_the_spec_are_refused_before_they_are_loaded(folder: Path) -> None:
    pinned = resolve(folder).space.weights_sha256
    weights(lambda tensors: {name: value + 1 for name, value in tensors.items()})(folder)
    with pytest.raises(ModelError, match=f"expected weights of SHA-256 {pinned}, found"):
        resolve(folder, sha256=pinned)


def test_the_cache_of_the_hub_may_link_to_its_own_blobs(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b/snapshots/c0ffee"
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    blob = tmp_path / "models--a--b/blobs/1234"
    blob.parent.mkdir()
    (snapshot / "model.safetensors").rename(blob)
    (snapshot / "model.safetensors").symlink_to("../../blobs/1234")
    assert resolve(snapshot).space.dimension == 8


def test_weights_are_hashed_in_a_stream(folder: Path) -> None:
    length = 256 << 20
    with (folder / "2_Dense/model.safetensors").open("wb") as file:  # a hole: no room on the disk
        file.write(safetensors({"a": tensor(0, length, [length // 4])}))
        file.truncate(file.tell() + length)
    tracemalloc.start()
    try:
        resolve(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20


GUARDED = """
import os, sys

def guard(event, arguments):
    # an AF_UNIX socketpair is how event loops wake themselves; what leads out is an address
    if event in {"socket.connect", "socket.getaddrinfo", "socket.bind", "os.system", "subprocess.Popen"}:
        os.write(1, f"{event} {arguments}\\n".encode())
        os._exit(77)

from pipelines.errors import ModelError
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from workers.encoders.encoder import encode
from workers.encoders.loading import load_encoder
import workers.encoders.text.sentence  # libraries may look at the machine while they are imported

sys.addaudithook(guard)
for folder in sys.argv[1:]:
    try:
        print(encode(load_encoder(resolve_model(ModelSpec(name=folder))), ["tide"], "document").vectors.shape)
    except ModelError as error:
        print("refused")
"""


def test_code_is_allowed_by_the_spec_of_who_runs_it_and_never_by_what_the_store_records(folder: Path) -> None:
    edit("config.json", auto_map=CODE)(folder)
    recorded = ModelSpec(name=str(folder), trust_remote_code=True)
    space = resolve_model(recorded).space.id
    with pytest.raises(ModelError, match="auto_map"):
        model_of(space, recorded, known=())
    assert model_of(space, recorded, known_models([recorded])).space.id == space


def test_nothing_is_fetched_and_no_code_is_run_even_while_a_model_is_loaded(folder: Path, tmp_path: Path) -> None:
    """A pickle, code, a generator and a template beside sound weights, and names that a loader might look for on the hub."""
    import shutil

    canary = f"open({str(tmp_path / 'canary')!r}, 'w')"
    write(folder / "pytorch_model.bin", pickle.dumps(Canary()))
    for name in ("code.py", "modeling_bert.py", "__init__.py", "custom_generate/generate.py", "2_Dense/__init__.py"):
        write(folder / name, canary.encode())
    write(folder / "chat_template.jinja", b"{{ cycler.__init__.__globals__.os.system('touch canary') }}")
    edit("config.json", _name_or_path="somebody/else", base_model_name_or_path="somebody/else")(folder)
    unfit = Path(shutil.copytree(folder, tmp_path / "unfit"))
    UNFIT["a layer without weights"][1](unfit)
    refused = Path(shutil.copytree(folder, tmp_path / "refused"))
    edit("config.json", auto_map=CODE)(refused)
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, str(folder), str(unfit), str(refused)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        timeout=240,
    )
    assert (done.stdout, done.returncode) == ("(1, 8)\nrefused\nrefused\n", 0), done.stderr[-2000:]
    assert not list(tmp_path.rglob("canary"))


KEYS = ["hidden_size", "max_position_embeddings", "vocab_size", "pad_token_id", "model_type", "architectures", "text_config", "num_layers"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=4
)
PLACES = st.sampled_from(
    [("config.json", key) for key in KEYS]
    + [("tokenizer_config.json", key) for key in ("model_max_length", "tokenizer_class", "do_lower_case")]
    + [("sentence_bert_config.json", key) for key in ("max_seq_length", "tokenizer_name_or_path")]
    + [("config_sentence_transformers.json", key) for key in ("prompts", "model_type", "truncate_dim")]
    + [("1_Pooling/config.json", key) for key in ("pooling_mode", "embedding_dimension", "word_embedding_dimension")]
    + [("2_Dense/config.json", key) for key in ("out_features", "activation_function")]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=PLACES, value=VALUES)
def test_any_value_in_a_config_is_a_model_or_one_error(folder: Path, place: tuple[str, str], value: Any) -> None:
    file, key = place
    before = (folder / file).read_bytes() if (folder / file).exists() else b"{}"
    write(folder / file, {**json.loads(before), key: value})
    try:
        assert resolve(folder).space.dimension > 0
    except (ModelError, SpecError) as error:
        assert "\n" not in str(error)
    finally:
        write(folder / file, before)
