"""A model change: generations side by side, one read of the source, and nobody's choice is overridden."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows import history, promote, rollback, search, status
from pipelines.content.documents import SourceFile
from pipelines.errors import GateFailed, ModelError, NotFound, SourceError, SpecError
from storage import open_published
from storage.reading.filters import Condition
from storage.sources.file_source import FileSource
from tests.conftest import Workplace
from tests.support.tiny import CONFIG, save_stack, save_transformer

OTHER = 'name = "hash", dimensions = 24, prompt = "other: "'


def documents(count: int, start: int = 0, word: str = "text") -> dict[str, str]:
    return {f"d{number}": f"{word} of document {number}" for number in range(start, start + count)}


def actions(workplace: Workplace) -> list[tuple[str, str]]:
    """What was published in which way, oldest first."""
    return [(row["action"], row["generation"]) for row in history("docs", workplace.config)["published"]]


def names(workplace: Workplace) -> dict[int, str]:
    """The generations by their dimension."""
    (found,) = status("docs", workplace.config)["collections"]
    return {each["dimension"]: each["name"] for each in found["generations"]}


def test_a_new_model_is_built_from_what_is_stored_when_the_source_is_gone(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(40))
    workplace.update()
    shutil.rmtree(workplace.root / "data")
    with pytest.raises(SourceError, match="found none"):
        workplace.apply()  # nothing to build: a source that is not there is an error
    workplace.spec(model=OTHER)
    done = workplace.update()
    assert (done.status, done.change, done.embed["contents"]) == ("published", "model", 40)
    assert "not there any more" in " ".join(done.notes)
    assert workplace.texts() == {f"{id}#0": text for id, text in documents(40).items()}
    with pytest.raises(SourceError, match="found none"):
        workplace.apply()


def test_candidates_are_built_with_one_read_and_published_by_a_person_only(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[SourceFile] = []
    read = FileSource.read

    def counted(self: FileSource, shard: Any, metadata: Any) -> Any:
        opened.extend(piece.file for piece in shard.pieces)
        return read(self, shard, metadata)

    monkeypatch.setattr(FileSource, "read", counted)
    workplace.spec(rest=f"candidates = [{{ {OTHER} }}]")
    workplace.write("a.parquet", documents(30))
    done = workplace.apply()
    assert [file.path for file in opened] == ["a.parquet"]
    assert [(each.role, each.status, each.embed["contents"]) for each in done.generations] == [
        ("main", "published", 30),
        ("candidate", "built", 30),
    ]
    assert open_published(workplace.store, "docs").space["dimension"] == 16
    assert workplace.update().status == "nothing"

    workplace.write("a.parquet", documents(31))
    done = workplace.update()
    assert [each.embed["contents"] for each in done.generations] == [1, 1]

    promote("docs", names(workplace)[24], workplace.config, why="better")
    published = open_published(workplace.store, "docs")
    assert (published.space["dimension"], published.table.count_rows()) == (24, 31)
    assert (published.publication.action, published.publication.why) == ("promote", "better")


def test_what_a_person_chose_stays_published_and_current(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(20))
    first = workplace.update().generation
    workplace.spec(model=OTHER)
    second = workplace.update().generation
    before = workplace.published()
    promote("docs", first, workplace.config, why="better after all")
    assert workplace.update().status in {"nothing", "published"}
    workplace.write("a.parquet", documents(25))
    done = workplace.update()
    assert (done.status, done.generation, done.change) == ("published", first, "data")
    assert any("stays published" in note for note in done.notes)
    assert len(workplace.texts()) == 25
    promote("docs", second, workplace.config)  # was kept current meanwhile
    assert len(workplace.texts()) == 25
    assert before.num_rows == 20
    assert [action for action, _ in actions(workplace)] == ["publish", "publish", "promote", "update", "promote"]
    workplace.write("a.parquet", documents(26))
    assert workplace.update().generation == second
    assert len(workplace.texts()) == 26


def test_readers_get_new_documents_before_the_new_model_is_done(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    workplace.write("a.parquet", documents(20))
    first = workplace.update().generation
    workplace.spec(model=OTHER)
    workplace.write("a.parquet", documents(25))

    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("workers.runs.apply.publish", stopped)
        with pytest.raises(KeyboardInterrupt):
            workplace.apply()
    done = workplace.update()
    assert actions(workplace) == [("publish", first), ("update", first), ("publish", done.generation)]
    rollback("docs", workplace.config)
    assert len(workplace.texts()) == 25  # the old model's, with the new documents


def test_a_rollback_gives_byte_identical_results(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(50))
    workplace.update()
    queries = [f"text of document {number}" for number in range(10)]

    def answers() -> bytes:
        return json.dumps([search("docs", query, workplace.config, k=5) for query in queries]).encode()

    before, rows = answers(), workplace.published()
    workplace.spec(model=OTHER)
    workplace.update()
    assert answers() != before
    rollback("docs", workplace.config)
    assert answers() == before
    assert workplace.published().equals(rows)


def test_a_smaller_dimension_is_cut_from_the_stored_vectors(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(30))
    workplace.spec(model='name = "hash", dimensions = 32')
    workplace.update()
    whole = np.stack(workplace.published()["vector"].to_numpy(zero_copy_only=False)).astype(np.float32)
    workplace.spec(model='name = "hash", dimensions = 8')
    done = workplace.update()
    assert (done.change, done.embed["contents"], done.reuse["chunks"]) == ("model", 0, 30)
    cut = np.stack(workplace.published()["vector"].to_numpy(zero_copy_only=False)).astype(np.float32)
    expected = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    assert np.abs(cut - expected).max() < 1e-3
    workplace.spec(model='name = "hash", dimensions = 64')  # more than is stored: that takes the model
    assert workplace.update().embed["contents"] == 30


def test_another_way_to_cut_reuses_every_content_that_is_the_same(workplace: Workplace) -> None:
    long = " ".join(f"word{number}" for number in range(100))
    workplace.write("a.parquet", documents(20) | {"long": long})
    workplace.update()
    workplace.spec(rest="chunking = { size = 50 }")
    done = workplace.update()
    assert (done.change, done.reuse["chunks"]) == ("chunking", 20)
    assert done.embed["contents"] == 2
    assert done.identity["size"] == [256, 50]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models of one architecture: `a`, a copy of it, and `b` with other weights and another tokenizer."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig

    folder = tmp_path_factory.mktemp("models")
    for name, swap in (("a", False), ("b", True)):
        transformer = save_transformer(folder / f"{name}-transformer", BertConfig(**CONFIG))
        if swap:
            weights = folder / "b-transformer/model.safetensors"
            from safetensors.torch import load_file, save_file

            save_file({key: torch.flip(value, [0]).contiguous() for key, value in load_file(weights).items()}, weights, {"format": "pt"})
        save_stack(folder / name, transformer, Pooling(CONFIG["hidden_size"], "mean"))
    shutil.copytree(folder / "a", folder / "copy")
    return folder


def test_the_bytes_of_a_model_decide_and_not_its_path_or_the_workers(workplace: Workplace, models: Path) -> None:
    workplace.write("a.parquet", {"x": "a tide rises", "y": "seven slow lanterns"})
    place = workplace.root / "model"
    shutil.copytree(models / "a", place)
    whole = 'chunking = { by = "document" }'
    workplace.spec(model=f'name = "{place}"', rest=whole)
    workplace.update()
    workplace.spec(model=f'name = "{models / "copy"}"', rest=f"{whole}\nworkers = {{ actors = 1, batch_tokens = 64 }}")
    assert (workplace.plan().change, workplace.plan().pending) == ("none", False)
    shutil.rmtree(place)
    shutil.copytree(models / "b", place)  # the same name and dimension
    workplace.spec(model=f'name = "{place}"', rest=whole)
    planned = workplace.plan()
    assert (planned.change, list(planned.identity)) == ("model", ["weights_sha256"])
    assert (workplace.apply().status, len(names(workplace))) == ("published", 1)  # two generations of one dimension
    assert len({row["space"] for row in history("docs", workplace.config)["published"]}) == 2


def test_chunks_keep_their_borders_when_the_tokenizer_changes(workplace: Workplace, models: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(models / "b", other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["lanterns!"] = vocabulary.pop("lanterns")
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    workplace.write("a.parquet", {"x": " ".join(["a tide rises where the old harbour keeps its bread"] * 12)})
    chunked = 'chunking = { by = "stable", size = 24 }'
    workplace.spec(model=f'name = "{models / "a"}"', rest=chunked)
    workplace.update()
    before = workplace.texts()
    assert len(before) > 3
    shutil.rmtree(workplace.root / "data")
    workplace.spec(model=f'name = "{other}"', rest=chunked)
    done = workplace.update()
    assert (done.change, done.status) == ("model", "published")
    assert {"weights_sha256", "tokenizer_sha256"} <= done.identity.keys()
    assert workplace.texts() == before


def test_a_candidate_that_cannot_read_the_chunks_is_refused(workplace: Workplace, models: Path) -> None:
    workplace.write("a.parquet", {"x": "a tide"})
    workplace.spec(
        model=f'name = "{models / "a"}"',
        rest=f'chunking = {{ size = 40 }}\ncandidates = [{{ name = "{models / "b"}", max_tokens = 16 }}]',
    )
    with pytest.raises(SpecError, match=r"found .+b with a window of 16"):
        workplace.plan()


def test_only_what_passed_its_gates_is_promoted_unless_forced(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(10))
    workplace.update()
    workplace.spec(model=OTHER, rest="gates = { max_failed = 0 }")
    (workplace.root / "data/bad.parquet").write_bytes(b"this is not Parquet")
    done = workplace.apply()
    assert (done.status, done.exit_code) == ("built", 3)
    assert open_published(workplace.store, "docs").space["dimension"] == 16
    name = done.generation.rpartition(".")[2]
    with pytest.raises(GateFailed, match="dead letters"):
        promote("docs", name[:6], workplace.config)
    with pytest.raises(NotFound, match="found 0 for 'nowhere'"):
        promote("docs", "nowhere", workplace.config)
    moved = promote("docs", name[:6], workplace.config, why="it will do", force=True)
    assert (moved.generation, moved.action) == (done.generation, "promote")


def test_a_query_prompt_is_published_without_a_forward_pass(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(10))
    workplace.update()
    workplace.spec(model='name = "hash", dimensions = 16, query_prompt = "find: "')
    done = workplace.update()
    assert (done.change, done.status, done.embed["contents"]) == ("metadata", "published", 0)
    assert open_published(workplace.store, "docs").publication.model_spec()["query_prompt"] == "find: "
    assert workplace.update().status == "nothing"


def test_a_choice_stands_while_the_spec_declares_what_it_was_made_against(workplace: Workplace) -> None:
    candidates = f'candidates = [{{ {OTHER} }}, {{ name = "hash", dimensions = 40, prompt = "third: " }}]'
    workplace.spec(rest=candidates)
    workplace.write("a.parquet", documents(10))
    main = workplace.apply().generation
    chosen = names(workplace)[40]
    promote("docs", chosen, workplace.config)
    for count in (11, 12):
        workplace.write("a.parquet", documents(count))
        assert workplace.update().generation == chosen
    assert open_published(workplace.store, "docs").table.count_rows() == 12
    workplace.spec(model=OTHER)  # another model in the spec is another decision
    assert workplace.update().generation not in {main, chosen}


def test_a_chosen_model_that_is_gone_is_an_error_and_nothing_takes_its_place(workplace: Workplace, models: Path) -> None:
    place = workplace.root / "model"
    shutil.copytree(models / "b", place)
    whole = 'chunking = { by = "document" }'
    workplace.write("a.parquet", {"x": "a tide rises"})
    workplace.spec(model=f'name = "{models / "a"}"', rest=f'{whole}\ncandidates = [{{ name = "{place}" }}]')
    workplace.apply()
    candidate = next(each for each in names_of(workplace) if each != open_published(workplace.store, "docs").publication.generation)
    promote("docs", candidate, workplace.config)
    shutil.rmtree(place)
    workplace.spec(model=f'name = "{models / "a"}"', rest=whole)
    with pytest.raises(ModelError, match="promote"):
        workplace.apply()
    assert open_published(workplace.store, "docs").publication.generation == candidate


def names_of(workplace: Workplace) -> list[str]:
    (found,) = status("docs", workplace.config)["collections"]
    return [each["name"] for each in found["generations"]]


def test_a_promotion_takes_nobody_back_in_time_unless_forced(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(10))
    old = workplace.update().generation
    workplace.spec(model=OTHER)
    workplace.update()
    workplace.write("a.parquet", documents(20))
    workplace.update()
    with pytest.raises(GateFailed, match="lacks what came since"):
        promote("docs", old, workplace.config)
    assert promote("docs", old, workplace.config, force=True).chunks == 10


def test_a_candidate_is_judged_again_when_thresholds_or_the_query_prompt_change(workplace: Workplace) -> None:
    (workplace.root / "queries.jsonl").write_text('{"query": "text of document 3", "relevant": ["d3"]}\n')
    candidate = 'name = "hash", dimensions = 24, query_prompt = "'
    strict = f'candidates = [{{ {candidate}find: " }}]\ngates = {{ queries = "queries.jsonl", max_ndcg_drop = 0 }}'
    workplace.write("a.parquet", documents(30))
    workplace.spec(rest=strict)
    done = workplace.apply()
    assert [each.objection[:7] for each in done.generations] == ["", "ndcg@10"]  # held against what the same run has published
    with pytest.raises(GateFailed, match="ndcg"):
        promote("docs", names(workplace)[24], workplace.config)
    workplace.spec(rest=strict.replace("max_ndcg_drop = 0", "max_ndcg_drop = 1"))
    assert workplace.update().change == "metadata"
    workplace.spec(rest=strict.replace("find: ", ""))
    assert workplace.update().embed["contents"] == 0
    assert promote("docs", names(workplace)[24], workplace.config).model_spec()["query_prompt"] == ""


def test_a_wider_candidate_goes_before_the_model_that_is_cut_from_it(workplace: Workplace) -> None:
    workplace.write("a.parquet", documents(10))
    workplace.spec(rest='candidates = [{ name = "hash", dimensions = 32 }]')
    assert workplace.update().embed["contents"] == 10
    workplace.write("a.parquet", documents(11))
    assert workplace.update().embed["contents"] == 1


def test_a_rollback_from_a_candidate_that_became_the_declared_model_stands(workplace: Workplace) -> None:
    workplace.spec(rest=f"candidates = [{{ {OTHER} }}]")
    workplace.write("a.parquet", documents(10))
    main = workplace.apply().generation
    promote("docs", names(workplace)[24], workplace.config)
    workplace.spec(model=OTHER)
    assert workplace.update().status == "nothing"
    rollback("docs", workplace.config)
    workplace.write("a.parquet", documents(11))
    assert workplace.update().generation == main


def test_declaring_a_type_costs_no_pass_and_filters_compare_numbers(workplace: Workplace) -> None:
    (workplace.root / "data").mkdir(exist_ok=True)
    (workplace.root / "data/a.csv").write_text("id,text,price\na,cheap,9\nb,dear,10.5\nc,unknown,\n")
    source = 'uri = "data", id = "id", text = "text", metadata = '
    workplace.spec(source=source + '["price"]')
    workplace.apply()
    workplace.spec(source=source + '{ price = "float" }')
    planned, done = workplace.plan(), workplace.apply()
    assert (planned.change, planned.identity) == ("metadata", {"types": [["string"], ["double"]]})
    assert (done.status, done.embed["contents"], done.reuse["chunks"]) == ("published", 0, 3)
    found = search("docs", "x", where=[Condition("price", 9, ">")], config=workplace.config)
    assert [(row["doc_id"], row["metadata"]) for row in found] == [("b", {"price": 10.5})]
    assert workplace.plan().change == "none"
