"""Hostile and broken input costs itself: everything beside it is embedded, the run ends, and memory stays bounded."""

import gzip
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows import status
from pipelines.chunking import token_chunker
from pipelines.errors import SpecError
from pipelines.spec.declared import LimitsSpec, SourceSpec
from storage.sources.opening import open_source
from tests.conftest import Workplace
from tests.support.hostile import compressed, empty_rows, encrypted_column, impossible_repetition, nested_bomb, parquet_bomb, plain, words
from workers.observing.telling import Result

ADDRESS_SPACE = 4 << 30
"""Bytes that a run may reserve. An empty corpus takes 2.8 GB of them (threads and arenas, of which 0.2 are ever touched)."""
GOOD = {"good-1": "a plain text", "good-2": "another one"}
BLANK = (b" " * 1023 + b"\n") * 1024


@pytest.fixture
def place(workplace: Workplace) -> Workplace:
    """A corpus with one good file, in which bad ones are put."""
    (workplace.root / "data/z-good.jsonl").write_text(
        "".join(json.dumps({"id": id, "text": text, "note": "n", "tags": ["t"]}) + "\n" for id, text in GOOD.items())
    )
    return workplace


def embed(place: Workplace, limits: str = "", metadata: str = "") -> Result:
    """`apply` of all files in the folder. What it says."""
    source = f'uri = "data", id = "id", text = "text", metadata = [{metadata}]'
    place.spec(source=source, rest=f"gates = {{ max_failed = 1 }}\nlimits = {{ {limits} }}")
    result = place.apply()
    assert result.status in ("published", "partial", "nothing")
    return result


def embed_bounded(place: Workplace, limits: str = "", metadata: str = "") -> dict[str, Any]:
    """The same in a process that cannot have more than ADDRESS_SPACE."""
    source = f'uri = "data", id = "id", text = "text", metadata = [{metadata}]'
    place.spec(source=source, rest=f"gates = {{ max_failed = 1 }}\nlimits = {{ {limits} }}")
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "apply", "--json"],
        cwd=place.root,
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE)),
    )
    assert done.returncode in (0, 4), done.stderr.decode()[-3000:]
    result: dict[str, Any] = orjson.loads(done.stdout)
    assert result["status"] in ("published", "partial")
    return result


def letters(place: Workplace) -> list[dict[str, Any]]:
    found = status("docs", config=place.config)["collections"][0]["letters"]
    return [dict(letter) for letter in found]


def only(place: Workplace) -> dict[str, Any]:
    (letter,) = letters(place)
    return letter


def documents(place: Workplace) -> set[str]:
    return set(place.published()["doc_id"].to_pylist())


def row(id: str, text: str) -> bytes:
    return orjson.dumps({"id": id, "text": text}) + b"\n"


def test_parquet_that_unfolds_three_gigabytes_is_cut_off_with_one_letter(place: Workplace) -> None:
    parquet_bomb(place.root / "data/bomb.parquet", rows=300, value_bytes=10_000_000)
    embed_bounded(place, limits="file_bytes = 30_000_000")
    assert (only(place)["stage"], only(place)["file"]) == ("file", "bomb.parquet")
    assert only(place)["reason"].startswith("limits.file_bytes: expected at most 30,000,000 bytes")
    assert documents(place) >= {*GOOD, "0", "1"}


def test_metadata_that_unfolds_costs_its_rows(place: Workplace) -> None:
    parquet_bomb(place.root / "data/a.parquet", rows=300, value_bytes=10_000_000, columns=("text", "note"))
    table = pa.table({"id": ["x"], "text": ["short"], "note": ["small"]})
    pq.write_table(table, place.root / "data/b.parquet")
    result = embed_bounded(
        place, limits="document_bytes = 1_000_000, file_bytes = 10_000_000_000, expansion = 1_000_000_000", metadata='"note"'
    )
    assert result["dead_letters"] == 300
    assert documents(place) == {*GOOD, "x"}


def test_lists_that_unfold_cost_their_rows(place: Workplace) -> None:
    nested_bomb(place.root / "data/a.parquet", rows=40, items=100, value_bytes=1_000_000)
    result = embed_bounded(place, limits="expansion = 1_000_000_000", metadata='"tags"')
    assert result["dead_letters"] == 40
    assert documents(place) == set(GOOD)


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst", ".csv.gz"])
def test_compressed_files_that_unfold_are_cut_off(place: Workplace, suffix: str) -> None:
    head = row("first", "before the bomb") if "jsonl" in suffix else b"id,text\nfirst,before the bomb\n"
    block = BLANK if "jsonl" in suffix else b"x,yy\n" * (1 << 18)
    compressed(place.root / f"data/a{suffix}", head, block, times=3000 if suffix.endswith(".zst") else 100)
    embed_bounded(place, limits="file_bytes = 50_000_000, file_rows = 10_000")
    reasons = [letter["reason"] for letter in letters(place) if letter["stage"] == "file"]
    assert [reason.partition(":")[0] for reason in reasons] in (["limits.file_bytes"], ["limits.file_rows"])
    assert documents(place) >= set(GOOD)


def test_an_expansion_is_judged_above_a_floor_only(place: Workplace) -> None:
    compressed(place.root / "data/a.jsonl.zst", row("first", "before"), BLANK, times=20)
    compressed(place.root / "data/b.jsonl.zst", row("second", "before"), BLANK, times=200)
    embed(place)
    assert only(place)["file"] == "b.jsonl.zst"
    assert only(place)["reason"].startswith("limits.expansion: expected at most 200 bytes for each of the")
    assert documents(place) == {*GOOD, "first", "second"}


def test_a_zstd_frame_with_a_window_of_gigabytes_is_a_broken_file(place: Workplace) -> None:
    frame = bytes.fromhex("28b52ffd") + bytes([0x00, 0xA8]) + bytes([0x29, 0, 0]) + b"hello"  # RFC 8878: window descriptor, 2 TB
    (place.root / "data/a.jsonl.zst").write_bytes(frame)
    embed_bounded(place)
    assert "broken" in only(place)["reason"]
    assert documents(place) == set(GOOD)


def test_a_line_above_the_limit_costs_itself_and_the_lines_around_it_stay(place: Workplace) -> None:
    plain(
        place.root / "data/a.jsonl",
        row("before", "one") + b'{"id": "long", "text": "',
        b"x" * (1 << 20),
        70,
        b'"}\n' + row("after", "two"),
    )
    embed_bounded(place)
    assert only(place)["reason"].startswith("limits.document_bytes: expected at most 67,108,864 bytes on a line")
    assert documents(place) == {*GOOD, "before", "after"}


@pytest.mark.parametrize("by", ["stable", "tokens"])
def test_a_long_document_is_embedded_whole_section_by_section(place: Workplace, by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_chunker, "BATCH_CHARACTERS", 10_000)
    text = " " * 12_000 + b"".join(words(50_000)).decode() + "\n" * 12_000
    (place.root / "data/a.jsonl").write_bytes(row("long", text))
    place.spec(source='uri = "data", id = "id", text = "text"', rest=f'chunking = {{ by = "{by}", size = 64 }}')
    assert place.apply().status == "published"
    rows = place.published()
    of_long = rows.filter(pa.compute.equal(rows["doc_id"], "long")).sort_by("ordinal")
    assert "".join(of_long["text"].to_pylist()) == text
    assert all(piece.strip() for piece in of_long["text"].to_pylist())


def test_letters_are_counted_exactly_and_kept_few(place: Workplace) -> None:
    empty_rows(place.root / "data/a.parquet", 200_000)
    result = embed(place)
    assert result.dead_letters == 200_000
    kept = letters(place)
    assert len(kept) == 101
    assert sum(letter["count"] for letter in kept) == 200_000
    assert documents(place) == set(GOOD)


def test_the_gate_counts_what_the_letters_stand_for(place: Workplace) -> None:
    empty_rows(place.root / "data/a.parquet", 500)
    place.spec(source='uri = "data", id = "id", text = "text"', rest="gates = { max_failed = 0.9 }")
    assert place.apply().status == "built"


def test_duplicates_by_the_thousand_are_counted(place: Workplace) -> None:
    for name in "ab":
        place.write(f"{name}.parquet", {f"d{n}": f"text {n}" for n in range(5000)})
    result = embed(place)
    assert result.dead_letters == 5000
    assert len(letters(place)) == 101
    assert documents(place) == {*GOOD, *(f"d{n}" for n in range(5000))}
    (place.root / "data/a.parquet").unlink()
    embed(place)
    assert letters(place) == []


def test_who_raises_a_limit_gets_the_documents_that_it_kept_out(place: Workplace) -> None:
    (place.root / "data/a.jsonl").write_bytes(row("i" * 5000, "long id") + row("b", "w " * 600))
    embed(place, limits="document_bytes = 1000")
    assert documents(place) == set(GOOD)
    embed(place, limits="id_bytes = 10_000")
    assert documents(place) == {*GOOD, "i" * 5000, "b"}
    assert letters(place) == []


def test_a_file_above_a_limit_is_not_read_again_until_the_limit_changes(place: Workplace) -> None:
    (place.root / "data/a.csv").write_bytes(b"id,text\n" + b"".join(b"%d,text %d\n" % (n, n) for n in range(50)))
    first = embed(place, limits="file_rows = 10")
    assert only(place)["reason"].startswith("limits.file_rows")
    assert place.plan().documents["unchanged"] == first.documents["added"]
    assert not place.plan().pending
    embed(place, limits="file_rows = 100")
    assert documents(place) == {*GOOD, *map(str, range(50))}


def test_a_long_id_is_a_letter_that_names_its_place(place: Workplace) -> None:
    (place.root / "data/a.jsonl").write_bytes(row("i" * 10_000, "text") + row("b", "text b"))
    embed(place)
    assert only(place)["id"] == "line 1"
    assert only(place)["reason"].startswith("limits.id_bytes: expected at most 4,096")
    assert documents(place) == {*GOOD, "b"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.html", b"<div>" * 200_000 + b"x"),
        ("a.html", b"<p " + b" ".join(b"a%d=1" % n for n in range(200_000)) + b">x"),
        ("a.html", b"<p>" + b"".join(b"<b a%d>" % n for n in range(3000)) + b"</p>" + b"<p>x" * 20_000),
    ],
    ids=["nested", "attributes", "formatting"],
)
def test_markup_that_takes_its_parser_too_long_or_too_much_costs_itself(place: Workplace, name: str, content: bytes) -> None:
    (place.root / f"data/{name}").write_bytes(content)
    (place.root / "data/b.html").write_text("<h1>Head</h1><p>body")
    embed(place, limits="markup_seconds = 1")
    assert (only(place)["file"], only(place)["reason"].partition(":")[0]) == ("a.html", "limits.markup_seconds")
    assert documents(place) == {*GOOD, "b.html"}


@pytest.mark.parametrize("mark", [">", "> ", "[", "- ", "*a "])
def test_deep_markdown_is_read(place: Workplace, mark: str) -> None:
    (place.root / "data/a.md").write_text(mark * 20_000 + "x")
    embed(place)
    assert documents(place) >= set(GOOD)


BAD_LINES = {
    "deep": b'{"id": "x", "text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "long number": b'{"id": "x", "text": ' + b"9" * 1_000_000 + b"}",
    "surrogate": b'{"id": "x", "text": "\\ud800"}',
    "other encoding": '{"id": "x", "text": "café"}'.encode("latin-1"),
    "utf-16": '{"id": "x", "text": "text"}'.encode("utf-16-le"),
    "deep metadata": b'{"id": "x", "text": "t", "note": ' + b"[" * 900 + b"]" * 900 + b"}",
}


@pytest.mark.parametrize("bad", BAD_LINES)
def test_a_line_that_is_no_sound_json_costs_itself(place: Workplace, bad: str) -> None:
    (place.root / "data/a.jsonl").write_bytes(b'{"id": "a", "text": "one", "note": "n"}\n' + BAD_LINES[bad] + b"\n" + row("b", "two"))
    embed(place, metadata='"note"')
    kept = bad == "deep metadata"  # of which only the field is unsound
    assert only(place)["stage"] == ("value" if kept else "document")
    assert documents(place) == {*GOOD, "a", "b", *(["x"] if kept else [])}


def test_a_row_whose_texts_are_all_empty_costs_itself(place: Workplace) -> None:
    (place.root / "data/both.jsonl").write_text('{"id": "whole", "text": "t", "more": "m"}\n{"id": "none", "text": null, "more": ""}\n')
    place.spec(source='uri = "data/both.jsonl", id = "id", text = ["text", "more"]', rest="gates = { max_failed = 1 }")
    assert place.apply().status == "partial"
    assert (only(place)["id"], only(place)["reason"]) == ("none", "no text")
    assert place.texts() == {"whole#0": "t\n\nm"}


def test_nul_is_text(place: Workplace) -> None:
    (place.root / "data/a.jsonl").write_bytes(row("n\0ul", "a\0b"))
    (place.root / "data/b.csv").write_bytes(b"id,text\nc\0,x\0y\n")
    embed(place)
    assert documents(place) == {*GOOD, "n\0ul", "c\0"}


def test_surrogates_in_arrow_strings_cost_their_row_or_field(place: Workplace) -> None:
    raw = pa.array([b"one", b"\xed\xa0\x80", b"three"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    notes = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), pa.Array.from_buffers(pa.string(), 3, raw.buffers()))
    pq.write_table(pa.table({"id": ["a", "b", "c"], "text": text, "note": ["n"] * 3}), place.root / "data/a.parquet")
    pq.write_table(pa.table({"id": ["d", "e", "f"], "text": ["x", "y", "z"], "note": notes}), place.root / "data/b.parquet")
    embed(place, metadata='"note"')
    assert [letter["id"] for letter in letters(place)] == ["b", "e"]
    assert documents(place) == {*GOOD, "a", "c", "d", "e", "f"}


def test_a_quote_that_is_never_closed_costs_the_rest_of_its_file(place: Workplace) -> None:
    tail = b"".join(b"%d,text\n" % n for n in range(200_000))
    (place.root / "data/a.csv").write_bytes(b'id,text\na,one\nb,"two\n' + tail)
    embed(place, limits="document_bytes = 1_000_000")
    assert "a quote is never closed" in letters(place)[-1]["reason"]
    assert documents(place) >= set(GOOD)


def test_names_that_are_no_utf8_cost_themselves(place: Workplace) -> None:
    Path(os.fsdecode(os.fsencode(place.root) + b"/data/caf\xe9.txt")).write_text("text")
    (place.root / "data/b.txt").write_text("text b")
    embed(place)
    assert only(place)["file"] == r"caf\xe9.txt"
    assert documents(place) == {*GOOD, "b.txt"}


def broken_parquet(change: Callable[[bytes], bytes]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": [str(n) for n in range(1000)], "text": [f"text {n}" for n in range(1000)]}), sink, row_group_size=100)
    return change(sink.getvalue())


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-8] + (1 << 31).to_bytes(4, "little") + b"PAR1",
        lambda data: data[:-8] + b"\xff\xff\xff\x7f" + b"PAR1",
        lambda data: data.replace(b"\x15\xc8\x01", b"\x15\xfe\xff\xff\xff\x0f"),  # 100 values of a page, and sizes, become 2^31 - 1
        lambda data: data[:4] + b"\x00" * 2000 + data[2004:],
        lambda data: data[: len(data) // 2] + data[-2000:],
    ],
)
def test_parquet_with_a_footer_or_pages_that_lie_costs_itself(place: Workplace, change: Callable[[bytes], bytes]) -> None:
    (place.root / "data/a.parquet").write_bytes(broken_parquet(change))
    embed(place)
    assert {letter["file"] for letter in letters(place)} == {"a.parquet"}
    assert documents(place) >= set(GOOD)


@pytest.mark.parametrize("write", [encrypted_column, impossible_repetition])
def test_parquet_that_ends_its_reader_costs_itself(place: Workplace, write: Callable[[Path], None]) -> None:
    """Also where its footer is asked how it may be cut, which a plan does, too."""
    write(place.root / "data/a.parquet")
    pq.write_table(pa.table({"id": ["b"], "text": ["read afterwards"], "note": ["n"]}), place.root / "data/b.parquet")
    embed(place, metadata='"note"')
    assert (only(place)["file"], "SIGABRT" in only(place)["reason"]) == ("a.parquet", True)
    assert documents(place) == {*GOOD, "b"}
    corpus = open_source(SourceSpec(uri=f"{place.root}/data", id="id", text=("text",)))
    assert [piece.file.path for shard in corpus.shards(corpus.files(), 1) for piece in shard.pieces][:2] == ["a.parquet", "b.parquet"]


def test_nothing_outside_the_folder_is_read(place: Workplace) -> None:
    (place.root / "secret.jsonl").write_bytes(row("secret", "secret"))
    (place.root / "data/link.jsonl").symlink_to("../secret.jsonl")
    (place.root / "data/folder").symlink_to("..")
    embed(place)
    assert documents(place) == set(GOOD)


@pytest.mark.parametrize(
    "uri",
    [
        *("http://127.0.0.1/x.csv", "http://169.254.169.254/latest/meta-data", "https://x/y", "ftp://x/y", "file:///etc/passwd"),
        *("simplecache::s3://b/k", "zip://a.csv::http://127.0.0.1/x.zip", "s3://b/../c", "s3://b/a/../../c", "FILE:///etc", "memory://x"),
        *("s3://b/%2e%2e::file://x", "s3://", "a\0b"),
    ],
)
def test_places_that_are_no_folder_and_no_bucket_are_refused(uri: str) -> None:
    with pytest.raises(SpecError, match=r"source\.uri"):
        open_source(SourceSpec(uri=uri, id="id", text=("text",)))


SUFFIXES = [".parquet", ".jsonl", ".csv", ".txt", ".md", ".html", ".jsonl.gz", ".csv.zst"]
SEEDS = [b"", b"PAR1", b"id,text\n", b'{"id": 1, "text": "', gzip.compress(b'{"id": "g"}'), broken_parquet(lambda data: data)]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(SUFFIXES), st.sampled_from(SEEDS), st.binary(max_size=300), st.integers(0, 20_000), st.integers(0, 50))
def test_arbitrary_bytes_cost_at_most_their_file(suffix: str, seed: bytes, noise: bytes, at: int, skipped: int) -> None:
    at = min(at, len(seed))
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder))
        (place.root / "data").mkdir()
        (place.root / "data" / f"a{suffix}").write_bytes(seed[:at] + noise + seed[at + skipped :])
        (place.root / "data/z-good.jsonl").write_bytes(b"".join(row(id, text) for id, text in GOOD.items()))
        corpus = open_source(SourceSpec(uri=f"{folder}/data", id="id", text=("text",)), LimitsSpec(markup_seconds=5))
        files = corpus.files()
        found = [batch for shard in corpus.shards(files, 1 << 12) for batch in corpus.read(shard, corpus.metadata_type(files))]
        ids = [id for batch in found if batch.file.path == "z-good.jsonl" for id in batch.documents["doc_id"].to_pylist()]
        assert ids == list(GOOD)
        for batch in found:
            batch.documents.validate(full=True)
