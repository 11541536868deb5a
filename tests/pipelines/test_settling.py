"""What holds once a corpus was read is what a reader of all files, one after the other, would keep: each document once, in one form."""

from collections import Counter
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

import numpy as np
import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.content.chunks import HASH
from pipelines.content.settling import Fate, Settled, Standing, settle
from pipelines.fingerprint import DIGEST_BYTES

CHUNKS = {"empty": "", "p": "p", "pq": "pq", "rq": "rq", "p and a blank": "p"}
"""The chunks, a letter each, of each content that a document may have: two differ, and are cut alike."""
Document = tuple[int, int, str]
"""Its file, its id, its content."""


def key(*parts: object) -> bytes:
    return blake2b(repr(parts).encode(), digest_size=DIGEST_BYTES).digest()


def hashes(values: list[bytes]) -> pa.ChunkedArray:
    """In two chunks, as rows of two batches are."""
    middle = len(values) // 2
    return pa.chunked_array([pa.array(values[:middle], HASH), pa.array(values[middle:], HASH)], HASH)


def row_hashes(id: int, content: str) -> list[bytes]:
    return [key("row", id, ordinal, chunk) for ordinal, chunk in enumerate(CHUNKS[content])]


@dataclass(frozen=True)
class Corpus:
    """What a run knows when all is read."""

    standing: list[Standing]
    old: list[Document]
    """Whose rows were there before: in a file that no run has settled, in several forms, or twice."""
    seen: list[Document]
    new: list[Document]
    """Whose rows this run has added."""


files = st.lists(st.sampled_from(Standing), min_size=1, max_size=4)
stored = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([content for content, chunks in CHUNKS.items() if chunks])), max_size=4)
sighted = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(list(CHUNKS)), st.booleans()), max_size=4)


@st.composite
def corpora(draw: st.DrawFn) -> Corpus:
    made = Corpus(draw(files), [], [], [])
    kept: set[int] = set()
    for file, standing in enumerate(made.standing):
        held = draw(stored)
        if standing == Standing.KEPT:  # settled by an earlier run
            held = [(id, content) for id, content in dict(held).items() if id not in kept]
            kept |= {id for id, _ in held}
        made.old.extend((file, *document) for document in held)
        for *document, missed in draw(sighted) if standing in (Standing.READ, Standing.FAILED) else []:
            made.seen.append((file, *document))
            if missed or tuple(document) not in held:
                made.new.append((file, *document))
    return made


@dataclass(frozen=True)
class Row:
    hash: bytes
    document: Document
    new: bool


def rows_of(corpus: Corpus) -> list[Row]:
    both = [(document, new) for documents, new in ((corpus.old, False), (corpus.new, True)) for document in documents]
    return [Row(hash, document, new) for document, new in both for hash in row_hashes(*document[1:])]


def settled(corpus: Corpus, rows: list[Row], keep_last: bool) -> Settled:
    def columns(documents: list[Document]) -> dict[str, object]:
        return {
            "doc_key": hashes([key("id", id) for _, id, _ in documents]),
            "doc_hash": hashes([key("document", id, content) for _, id, content in documents]),
            "file": pa.array([file for file, _, _ in documents], pa.int32()),
        }

    table = pa.table({**columns([row.document for row in rows]), "row_hash": hashes([row.hash for row in rows])})
    seen = pa.table({**columns(corpus.seen), "doc_id": pa.array([str(id) for _, id, _ in corpus.seen], pa.string())})
    return settle(table, np.array([row.new for row in rows], dtype=bool), seen, np.array(corpus.standing, dtype=np.int8), keep_last)


@dataclass(frozen=True)
class Held:
    """The document of an id that holds."""

    file: int
    contents: set[str]
    """Its content; of a file that could not be read, any that was stored of it."""
    claims: list[int]
    """The files of all documents of the id that are known to be there."""


def holders(corpus: Corpus, keep_last: bool) -> dict[int, Held]:
    pick = max if keep_last else min
    found = {}
    for id in range(4):
        stored = [(file, content) for file, other, content in corpus.old if other == id]
        claims = [(file, place, content) for place, (file, other, content) in enumerate(corpus.seen) if other == id]
        claims += [(file, 0, content) for file, content in stored if corpus.standing[file] == Standing.KEPT]
        failed = [file for file, _ in stored if corpus.standing[file] == Standing.FAILED]
        if claims:
            file, _, content = pick(claims)
            found[id] = Held(file, {content}, [file for file, _, _ in claims])
        elif failed:
            found[id] = Held(pick(failed), {content for file, content in stored if file == pick(failed)}, [])
    return found


@settings(max_examples=500, deadline=None)
@given(corpora(), st.booleans(), st.randoms(use_true_random=False))
# Rows that were inserted twice before a crash, and then the document moved.
@example(Corpus([Standing.READ, Standing.READ], [(0, 0, "p")] * 2, [(1, 0, "p")], [(1, 0, "p")]), False, Random(0))
def test_each_document_holds_in_one_file_in_one_form_once(corpus: Corpus, keep_last: bool, random: Random) -> None:
    rows = rows_of(corpus)
    random.shuffle(rows)
    result = settled(corpus, rows, keep_last)
    expected = holders(corpus, keep_last)

    held: dict[int, list[Row]] = {id: [] for id in expected}
    for row, holds in zip(rows, result.hold, strict=True):
        if holds:
            held[row.document[1]].append(row)
    for id, holder in expected.items():
        forms = [sorted((hash, (holder.file, id, content)) for hash in row_hashes(id, content)) for content in holder.contents]
        assert sorted((row.hash, row.document) for row in held[id]) in forms

    had = {id: {content for _, other, content in corpus.old if other == id} for id in {id for _, id, _ in corpus.old}}
    states = Counter(
        Fate.ADDED if id not in had else Fate.STALE if not holder.claims else Fate.UNCHANGED if holder.contents & had[id] else Fate.CHANGED
        for id, holder in expected.items()
        if corpus.standing[holder.file] != Standing.KEPT
    )
    assert result.fates.tolist() == [states[state] for state in Fate]
    assert sorted(result.stale.tolist()) == sorted(holder.file for holder in expected.values() if not holder.claims)
    assert result.removed == len(had.keys() - expected.keys())

    losers = Counter((str(id), file, holder.file) for id, holder in expected.items() for file in holder.claims)
    losers -= Counter((str(id), holder.file, holder.file) for id, holder in expected.items())
    assert Counter(zip(*(result.losers[name].to_pylist() for name in ("doc_id", "file", "holder")), strict=True)) == losers

    back = {row.hash for rows in held.values() for row in rows if row.new}
    assert result.again == len(back & {row.hash for row, holds in zip(rows, result.hold, strict=True) if not holds and not row.new})
