"""What was loaded is what was hashed: no vector is made, kept or searched for by a model that came later under the same name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flows import apply, search
from pipelines.errors import ModelError, NotFound
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from pipelines.spec.running import WorkersSpec
from storage import open_published
from tests.conftest import Workplace
from tests.support.tiny import CONFIG, SENTENCE, save_stack, save_transformer
from workers import search as searching
from workers.embedding import actor, encoding
from workers.encoders.encoder import Encoder, encode
from workers.encoders.loading import load_encoder
from workers.encoders.machine import Machine
from workers.encoders.text import stack

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig

    root = tmp_path_factory.mktemp("models")
    return save_stack(root / "stack", save_transformer(root / "plain", BertConfig(**CONFIG)), Pooling(16, "mean"))


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def replace(file: Path, content: bytes) -> None:
    """As a copy does it that is moved into place: the file is another one."""
    (file.parent / ".new").write_bytes(content)
    (file.parent / ".new").replace(file)


def edit(name: str, **fields: Any) -> Change:
    def change(root: Path) -> None:
        replace(root / name, json.dumps(json.loads((root / name).read_text()) | fields).encode())

    return change


def weights(root: Path) -> None:
    """Other numbers, in a file of the same size."""
    tensors = {name: value[::-1].copy() for name, value in load_file(root / "model.safetensors").items()}
    save_file(tensors, root / ".new", metadata={"format": "pt"})
    (root / ".new").replace(root / "model.safetensors")


def words(root: Path) -> None:
    content = json.loads((root / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["tide"], vocabulary["salt"] = vocabulary["salt"], vocabulary["tide"]
    replace(root / "tokenizer.json", json.dumps(content).encode())


CHANGES: dict[str, Change] = {
    "model.safetensors": weights,
    "tokenizer.json": words,
    "config.json": edit("config.json", hidden_act="relu"),
    "1_Pooling/config.json": edit("1_Pooling/config.json", pooling_mode="cls"),
    "config_sentence_transformers.json": edit("config_sentence_transformers.json", prompts={"query": "ask ", "document": ""}),
}


def before(call: Callable[..., Any], change: Change, folder: Path) -> Callable[..., Any]:
    """`call`, an instant before which somebody replaces a file of the model, once."""
    changes = [change]

    def changed(*args: Any, **options: Any) -> Any:
        if changes:
            changes.pop()(folder)
        return call(*args, **options)

    return changed


def vectors(encoder: Encoder) -> Any:
    return encode(encoder, [SENTENCE, "tide"], "document").vectors


def corpus(workplace: Workplace, folder: Path) -> None:
    workplace.spec(model=f'name = "{folder}"', rest="chunking = { size = 32, overlap = 0 }")
    workplace.write("a.parquet", {"a": "tide", "b": "bread and salt"})


@pytest.mark.parametrize("file", CHANGES)
def test_nothing_is_published_of_a_model_that_was_replaced_after_it_was_hashed(
    workplace: Workplace, folder: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    corpus(workplace, folder)
    monkeypatch.setattr(encoding, "load_encoder", before(load_encoder, CHANGES[file], folder))
    with pytest.raises(ModelError, match="expected it as it was when it was hashed") as raised:
        apply(config=workplace.config)
    assert str(raised.value).startswith(str(folder / file))
    assert "\n" not in str(raised.value)
    with pytest.raises(NotFound):
        open_published(workplace.store, "docs")
    assert apply(config=workplace.config).status == "published"


@pytest.mark.parametrize("file", CHANGES)
def test_a_model_that_is_replaced_while_it_is_loaded_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    model = resolve_model(ModelSpec(name=str(folder)))
    monkeypatch.setattr(stack, "SentenceTransformer", before(stack.SentenceTransformer, CHANGES[file], folder))
    with pytest.raises(ModelError, match="expected it as it was when it was hashed"):
        load_encoder(model)


def test_an_actor_refuses_what_was_replaced_between_its_own_look_and_loading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = resolve_model(ModelSpec(name=str(folder)))
    monkeypatch.setattr(actor, "load_encoder", before(load_encoder, weights, folder))
    monkeypatch.setattr(actor.EmbedActor, "_machine", lambda _: Machine(threads=1))
    with pytest.raises(ModelError, match="expected it as it was when it was hashed"):
        actor.EmbedActor(model.spec, model.space.id, WorkersSpec(), 1).load()


def test_a_query_is_not_encoded_by_another_model_than_that_of_the_vectors(
    workplace: Workplace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus(workplace, folder)
    apply(config=workplace.config)
    monkeypatch.setattr(searching, "load_encoder", before(load_encoder, weights, folder))
    with pytest.raises(ModelError, match="expected it as it was when it was hashed"):
        search("docs", "tide", workplace.config)


def touch(folder: Path) -> None:
    """The same bytes in other files, and a file that decides nothing."""
    for file in list(folder.glob("*.*")):
        replace(file, file.read_bytes())
    (folder / "README.md").write_text("again")


@pytest.mark.parametrize("place", ["before loading", "while loading"])
def test_the_same_files_written_again_are_the_same_model(folder: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    model = resolve_model(ModelSpec(name=str(folder)))
    expected = vectors(load_encoder(model))
    if place == "before loading":
        touch(folder)
    else:
        monkeypatch.setattr(stack, "SentenceTransformer", before(stack.SentenceTransformer, touch, folder))
    assert np.array_equal(vectors(load_encoder(model)), expected)


def test_files_that_never_stand_still_are_one_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = stack.SentenceTransformer

    def restless(*args: Any, **options: Any) -> Any:
        touch(folder)
        return load(*args, **options)

    monkeypatch.setattr(stack, "SentenceTransformer", restless)
    with pytest.raises(ModelError, match="expected files that stay as they are while they are loaded"):
        load_encoder(resolve_model(ModelSpec(name=str(folder))))


def test_weights_that_are_overwritten_in_place_do_not_reach_a_model_that_runs(folder: Path) -> None:
    encoder = load_encoder(resolve_model(ModelSpec(name=str(folder))), Machine(threads=1, precision="float32"))
    expected = vectors(encoder)
    file = folder / "model.safetensors"
    with file.open("r+b") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
        stream.seek(start)
        stream.write(b"\0" * (file.stat().st_size - start))
    assert np.array_equal(vectors(encoder), expected)


def test_a_link_that_is_turned_elsewhere_leaves_what_was_hashed(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(folder)
    model = resolve_model(ModelSpec(name=str(link)))
    expected = vectors(load_encoder(model))
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    weights(other)
    (tmp_path / "next").symlink_to(other)
    (tmp_path / "next").replace(link)
    assert np.array_equal(vectors(load_encoder(model)), expected)


@pytest.mark.parametrize("reference", ["some/where--code.Model", ["code.Model", "some/where--code.Model"]])
def test_code_that_lies_elsewhere_is_refused_even_if_code_is_trusted(folder: Path, reference: Any) -> None:
    edit("config.json", auto_map={"AutoModel": reference})(folder)
    with pytest.raises(ModelError, match="expected the code of the model in its folder, found some/where"):
        resolve_model(ModelSpec(name=str(folder), trust_remote_code=True))
