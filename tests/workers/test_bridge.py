"""Queries of a new model search the vectors that readers have: maps between spaces, their gate, and who gets them."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import apply, bridge, search
from pipelines.errors import ModelError, NotFound, RevectorError
from pipelines.measures.bridge import Bridge, Kind, fit, identity
from pipelines.measures.quality import unit
from storage import open_published
from storage.collection import Collection
from storage.history.bridges import keep_bridge, read_bridge
from storage.store.lance import Store
from tests.conftest import Workplace

OLD = 'name = "hash", dimensions = 16'
WIDER = 'name = "hash", dimensions = 24'
"""The stand-in's first 16 numbers are those of OLD: a map from here to there exists."""
UNRELATED = 'name = "hash", dimensions = 24, prompt = "other", query_prompt = "other"'
ONLY_QUERIES = 'name = "hash", dimensions = 24, prompt = "other"'
"""Its documents have nothing to do with OLD's, its queries have."""
KINDS: tuple[Kind, ...] = ("procrustes", "affine")


def directions(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32))


def turn(rows: int, columns: int, seed: int) -> np.ndarray:
    """Random, with orthonormal rows."""
    square = np.linalg.qr(np.random.default_rng(seed).normal(size=(columns, columns)))[0]
    return square[:rows].astype(np.float32)


def fitted(kind: Kind, new: np.ndarray, old: np.ndarray, normalize: bool = True) -> Bridge:
    return Bridge(kind, "new", "old", normalize, fit(kind, new, old))


@given(st.integers(4, 24), st.integers(0, 8), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_a_turn_is_recovered_also_from_a_space_of_more_dimensions(dimension: int, more: int, seed: int) -> None:
    old, rotation = directions(400, dimension, seed), turn(dimension, dimension + more, seed + 1)
    made = fitted("procrustes", old[:300] @ rotation, old[:300])
    assert np.allclose(made.apply(old[300:] @ rotation), old[300:], atol=1e-4)


@pytest.mark.parametrize("rank", [3, 12])
def test_a_linear_map_of_low_rank_with_a_shift_is_recovered(rank: int) -> None:
    random = np.random.default_rng(1)
    down, up, shift = (random.normal(size=size).astype(np.float32) for size in ((20, rank), (rank, 12), 12))
    new = random.normal(size=(900, 20)).astype(np.float32) + 1
    old = new @ down @ up + shift
    mapped = fitted("affine", new[:600], old[:600], normalize=False).apply(new[600:])
    assert np.linalg.norm(mapped - old[600:]) < 0.01 * np.linalg.norm(old[600:] - shift)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_keep_a_bridge_as_it_is(kind: Kind) -> None:
    new, old = directions(300, 12), directions(300, 8, 1)
    made = fitted(kind, new, old)
    back = Bridge.from_bytes(made.to_bytes())
    assert np.array_equal(back.apply(new), made.apply(new))
    assert made.apply(new).dtype == np.float32
    assert (back.kind, back.from_space, back.to_space) == (kind, "new", "old")
    assert np.array_equal(fitted(kind, new, old).apply(new), made.apply(new))  # and two fits make the same one


def test_bytes_of_anything_else_are_refused() -> None:
    objects = io.BytesIO()
    np.savez(objects, _kind=np.array([print], dtype=object))
    whole = fitted("procrustes", directions(50, 8), directions(50, 8)).to_bytes()
    for data in (b"", b"no npz", whole[: len(whole) // 2], objects.getvalue()):
        with pytest.raises(ValueError):
            Bridge.from_bytes(data)


@pytest.fixture
def published(workplace: Workplace) -> Workplace:
    """300 documents, published in the space of OLD."""
    workplace.spec(model=OLD)
    workplace.write("a.parquet", {f"d{number}": f"the text of document {number}" for number in range(300)})
    workplace.apply()
    return workplace


def test_a_bridge_lets_the_new_models_queries_find_what_the_old_ones_do(published: Workplace) -> None:
    texts = [f"the text of document {number}" for number in range(0, 300, 30)]
    own = [search("docs", text, published.config, k=1)[0] for text in texts]
    published.spec(model=WIDER)
    with pytest.raises(NotFound, match="run `revector bridge docs`"):
        search("docs", texts[0], published.config, bridge=True)
    built = bridge("docs", published.config)
    assert (built.status, built.exit_code, built.encoded, built.pairs + built.held_out) == ("built", 0, 300, 300)
    assert max(trial.recall for trial in built.trials) == next(trial.recall for trial in built.trials if trial.kind == built.kind) > 0.8
    over = [search("docs", text, published.config, k=1, bridge=True)[0] for text in texts]
    assert [hit["doc_id"] for hit in over] == [hit["doc_id"] for hit in own]
    assert [search("docs", text, published.config, k=1)[0] for text in texts] == own  # without it nothing is changed


def test_open_published_has_the_bridge_and_after_the_switch_the_identity(published: Workplace) -> None:
    published.spec(model=WIDER)
    space = bridge("docs", published.config).from_space
    before = open_published(published.store, "docs")
    assert before.bridge(space).apply(directions(5, 24)).shape == (5, 16)
    apply(config=published.config)
    after = open_published(published.store, "docs")
    assert after.bridge(space).apply(directions(5, 24)).shape == (5, 24)
    text = "the text of document 7"
    assert search("docs", text, published.config, bridge=True) == search("docs", text, published.config)
    again = bridge("docs", published.config)
    assert (again.status, again.exit_code, again.trials) == ("nothing", 0, ())


def test_what_the_new_generation_holds_needs_no_forward_pass(published: Workplace) -> None:
    published.spec(model=OLD, rest=f"candidates = [{{ {WIDER} }}]")
    apply(config=published.config)
    published.spec(model=WIDER)
    built = bridge("docs", published.config)
    assert (built.status, built.encoded) == ("built", 0)


def test_a_bridge_is_learned_from_what_the_new_model_makes_of_queries(published: Workplace) -> None:
    published.spec(model=ONLY_QUERIES)
    assert bridge("docs", published.config).status == "built"


def test_a_bridge_between_spaces_that_are_not_related_is_refused_and_never_served(published: Workplace) -> None:
    published.spec(model=UNRELATED)
    refused = bridge("docs", published.config)
    assert (refused.status, refused.exit_code, len(refused.trials)) == ("refused", 3, 2)
    assert max(trial.recall for trial in refused.trials) < 0.3
    assert Store(published.store).objects.get_json(f"_revector/docs/bridges/{refused.from_space}-{refused.to_space}.json")["trials"]
    with pytest.raises(NotFound, match="run `revector bridge docs`"):
        search("docs", "anything", published.config, bridge=True)


def test_a_bridge_that_was_good_once_is_taken_away_when_it_fails(published: Workplace) -> None:
    published.spec(model=WIDER)
    built = bridge("docs", published.config)
    published.spec(model=WIDER, rest="gates = { min_bridge_recall = 1.0 }")
    assert bridge("docs", published.config).status == "refused"
    with pytest.raises(NotFound):
        open_published(published.store, "docs").bridge(built.from_space)


def test_a_bridge_of_too_few_contents_is_not_tried(workplace: Workplace) -> None:
    workplace.write("a.parquet", {"a": "one", "b": "two"})
    workplace.apply()
    workplace.spec(model=WIDER)
    with pytest.raises(RevectorError, match="at least 100 contents"):
        bridge("docs", workplace.config)


def test_a_reader_gets_a_bridge_whole_or_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    made = fitted("procrustes", directions(50, 8), directions(50, 8))
    keep_bridge(Collection(store, "docs"), made, {})
    assert np.array_equal(read_bridge(Collection(store, "docs"), "new", "old").apply(directions(3, 8)), made.apply(directions(3, 8)))
    assert read_bridge(Collection(store, "docs"), "old", "old") == identity("old")
    store.objects.put("_revector/docs/bridges/new-old.npz", made.to_bytes()[:100])
    with pytest.raises(RevectorError, match="run `revector bridge docs`"):
        read_bridge(Collection(store, "docs"), "new", "old")


@pytest.mark.parametrize("kind", ["mlp", "of next year"])
def test_a_bridge_of_a_kind_that_this_version_does_not_know_is_an_error_that_says_what_to_do(tmp_path: Path, kind: str) -> None:
    """Once some were of kind "mlp"."""
    docs = Collection(Store(str(tmp_path)), "docs")
    keep_bridge(docs, replace(fitted("procrustes", directions(50, 8), directions(50, 8)), kind=kind), {})
    with pytest.raises(RevectorError, match=f"found one of kind '{kind}', which this version does not know: run `revector bridge docs`"):
        read_bridge(docs, "new", "old")


@pytest.mark.parametrize("place", ["model", "candidates"])
def test_a_moved_model_folder_does_not_break_searching(workplace: Workplace, tmp_path: Path, place: str) -> None:
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import BertConfig

    from tests.support.tiny import CONFIG, SENTENCE, save_stack, save_transformer

    folder = save_stack(tmp_path / "old", save_transformer(tmp_path / "bert", BertConfig(**CONFIG)), Pooling(16), Normalize())
    workplace.spec(model=f'name = "{folder}"', rest="chunking = { size = 40 }")
    workplace.write("a.parquet", {"a": SENTENCE, "b": "bread and salt"})
    workplace.apply()
    before = search("docs", "bread", workplace.config)
    moved = f'name = "{folder.rename(tmp_path / "new")}"'
    workplace.spec(model=OLD)
    with pytest.raises(ModelError, match="old"):
        search("docs", "bread", workplace.config)
    workplace.spec(**({"model": moved} if place == "model" else {"model": OLD, "rest": f"candidates = [{{ {moved} }}]"}))
    assert search("docs", "bread", workplace.config) == before
