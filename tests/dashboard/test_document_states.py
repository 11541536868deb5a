"""What became of a document from version to version, by a look at what changed alone, is what a look at all would find."""

import dataclasses
from random import Random
from typing import Any

import pyarrow.compute as pc
import pytest

from flows import apply, maintain
from storage.collection import Collection
from storage.history.catalog import publications
from storage.reading.one_document import MOST_CHUNKS, document_states, list_documents, read_document, same_contents
from storage.reading.versions import choose_version, version_name
from storage.store.lance import Store
from tests.conftest import Workplace
from tests.support.viewer import Viewer
from tests.support.window import serving
from workers.encoders.hashing import HashEncoder
from workers.runs import filling


def collection_of(workplace: Workplace) -> Collection:
    return Collection(Store(workplace.store), "docs")


def test_states_are_those_of_a_look_at_every_row(workplace: Workplace) -> None:
    random = Random(7)
    for state in range(6):
        for file in range(3):
            there = {f"d{file}-{number}": f"text {number} edition {random.randint(0, 2)}" for number in range(12) if random.random() < 0.7}
            workplace.write(f"{file}.parquet", {"always": str(state), **there} if file == 0 else there)
        workplace.apply()
        if state == 3:
            maintain("docs", config=workplace.config)
    collection = collection_of(workplace)
    rows = publications(collection)
    for doc_id in ["always", *(f"d{file}-{number}" for file in range(3) for number in range(12)), "never"]:
        for state in document_states(collection.store, rows, doc_id):
            chunks = collection.store.open(state.publication.chunk_table, state.publication.chunk_version).to_table()
            mine = chunks.filter(pc.equal(chunks["doc_id"], doc_id))
            assert state.there
            assert state.chunks == len(mine)
            assert state.doc_hash == (mine["doc_hash"][0].as_py() if len(mine) else None)


def test_a_version_that_was_given_up_says_nothing(workplace: Workplace) -> None:
    workplace.spec(rest="retention = { publications = 1, days = 0 }")
    for state in range(3):
        workplace.write("a.parquet", {"d": f"text {state}"})
        workplace.apply()
    maintain("docs", config=workplace.config)
    collection = collection_of(workplace)
    states = document_states(collection.store, publications(collection), "d")
    assert not states[0].there
    assert states[-1].doc_hash is not None
    first = states[0].publication
    with serving(workplace.store) as address:
        viewer = Viewer(address)
        assert "the version is no longer in the store" in viewer.get("/c/docs/documents/known", id="d").said
        assert viewer.get("/c/docs/documents", id="d", v=version_name(first.generation, first.version)).status == 404


def test_a_chunk_without_a_vector_says_why(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = HashEncoder.forward

    def refuse(self: HashEncoder, texts: Any) -> Any:
        encoded = forward(self, texts)
        return dataclasses.replace(encoded, failed={place: "refused" for place, text in enumerate(texts.texts) if "never" in text})

    monkeypatch.setattr(HashEncoder, "forward", refuse)
    monkeypatch.setattr(filling, "on_cluster", lambda: False)
    workplace.spec(rest='gates = { max_failed = 0.5 }\nchunking = { by = "tokens", size = 8 }')
    workplace.write("a.parquet", {"d": "one two three four five six seven " + "never " * 7 + "nine ten", "e": "fine"})
    workplace.apply()
    version = choose_version(collection_of(workplace), publications(collection_of(workplace)))
    document = read_document(version, "d")
    assert document is not None
    bare = [chunk for chunk in document.chunks if not chunk.embedded]
    assert bare and document.embedded == document.total - len(bare)
    assert all("never" in chunk.text for chunk in bare)
    with serving(workplace.store) as address:
        page = Viewer(address).get("/c/docs/documents", id="d")
    assert f"{bare[0].chunk_id} has no vector: refused" in page.said
    assert page.said.count("none") >= len(bare)


def test_a_long_document_is_read_in_parts(workplace: Workplace) -> None:
    words = " ".join(f"word{number}" for number in range(2_000))
    workplace.spec(rest='chunking = { by = "tokens", size = 8 }')
    workplace.write("a.parquet", {"long": words, "short": "a"})
    workplace.apply()
    version = choose_version(collection_of(workplace), publications(collection_of(workplace)))
    whole = read_document(version, "long")
    assert whole is not None and whole.total > MOST_CHUNKS == len(whole.chunks)
    later = read_document(version, "long", MOST_CHUNKS)
    assert later is not None
    assert [chunk.ordinal for chunk in later.chunks] == list(range(MOST_CHUNKS, min(whole.total, 2 * MOST_CHUNKS)))
    assert whole.total == later.total
    with serving(workplace.store) as address:
        page = Viewer(address).get("/c/docs/documents", id="long", chunk=MOST_CHUNKS + 3)
    assert f'id="chunk-{MOST_CHUNKS + 3}"' in page.text
    assert 'rel="prev"' in page.text


def test_contents_that_are_there_twice_are_found_and_ids_of_any_kind(workplace: Workplace) -> None:
    odd = ["a", "a#0", "a'b", 'a"b', "a%b", "ü/ÿ", "\U0010ffff", "a" * 500]
    workplace.write("a.parquet", {id: "the same" if number % 2 else f"text {number}" for number, id in enumerate(odd)})
    workplace.apply()
    version = choose_version(collection_of(workplace), publications(collection_of(workplace)))
    assert sorted(id for id, _ in list_documents(version)) == sorted(odd)
    for id in odd:
        document = read_document(version, id)
        assert document is not None and document.doc_id == id and document.total == 1
        assert id in [found for found, _ in list_documents(version, id)]
    same = {chunk.content_hash for id in odd[1::2] for chunk in read_document(version, id).chunks}  # type: ignore[union-attr]
    (found,) = same_contents(version, same, 10).values()
    assert sorted(found) == sorted(f"{id}#0" for id in odd[1::2])
    assert len(same_contents(version, same, 2)[same.pop()]) == 2
    assert read_document(version, "b") is None
    assert list_documents(version, "b") == []


def test_pages_that_ask_are_the_same_on_a_bucket(workplace: Workplace, bucket: str) -> None:
    for texts in ({"a": "a harbour", "b": "a garden", "c": "a star"}, {"a": "a harbour", "b": "an orchard", "d": "a star"}):
        workplace.write("a.parquet", texts)
        apply(config=workplace.config, store=bucket)
    with serving(bucket) as address:
        viewer = Viewer(address)
        found = viewer.get("/c/docs/search", ("as", "json"), id="a#0").rows
        assert {row["chunk_id"] for row in found} == {"b#0", "d#0"}
        first = publications(Collection(Store(bucket), "docs"))[0]
        older = version_name(first.generation, first.version)
        assert {row["chunk_id"] for row in viewer.get("/c/docs/compare", ("as", "json"), id="a#0", b=older).rows} == {"b#0", "c#0", "d#0"}
        assert "left" in viewer.get("/c/docs/documents/known", id="c").said
        assert "changed" in viewer.get("/c/docs/documents/known", id="b").said
        assert viewer.get("/c/docs/compare/changed", b=older).status == 200
