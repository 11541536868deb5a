"""A corpus is read whole, in order and in any cut; each bad input costs exactly itself."""

import csv
import gzip
import io
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import lance
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.content.documents import DeadLetter
from pipelines.content.source import Source
from pipelines.errors import SourceError, SpecError
from pipelines.formats.prose.markup import html_text
from pipelines.spec.declared import SourceSpec
from storage.sources.opening import open_source

Document = tuple[str, str]
ROWS = [
    {"id": f"d{n}", "term": f"term {n}\r\nü", "gloss": None if n % 3 == 0 else f'a "gloss", {n}\n語', "pos": "nv"[n % 2]} for n in range(25)
]
EXPECTED = [(row["id"], "\n\n".join(filter(None, (row["term"], row["gloss"])))) for row in ROWS]


def spec(uri: Path | str, **options: Any) -> SourceSpec:
    return SourceSpec(uri=str(uri), **({"id": "id", "text": ("term", "gloss")} | options))


def read(corpus: Source, target_bytes: int = 1 << 20) -> tuple[list[Document], list[DeadLetter], list[Any]]:
    """All documents, dead letters and metadata, as if each shard were read on another machine."""
    documents, dead, metadata = [], [], []
    files = corpus.files()
    kept = corpus.metadata_type(files)
    for shard in corpus.shards(files, target_bytes):
        for batch in pickle.loads(pickle.dumps(corpus)).read(shard, kept):
            assert batch.documents.num_rows <= 8192
            columns = batch.documents.to_pydict()
            documents += zip(columns["doc_id"], columns["text"], strict=True)
            metadata += columns.get("metadata", [])
            dead += batch.dead
    return documents, dead, metadata


def texts(source: SourceSpec, target_bytes: int = 1 << 20) -> list[Document]:
    documents, dead, _ = read(open_source(source), target_bytes)
    assert dead == []
    return documents


def encode(rows: list[dict[str, Any]], suffix: str) -> bytes:
    if suffix == ".parquet":
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=4)
        return sink.getvalue()
    if suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def compress(data: bytes, suffix: str) -> bytes:
    if suffix == ".zst":
        return pa.compress(data, codec="zstd", asbytes=True)
    return gzip.compress(data[:100]) + gzip.compress(data[100:]) if suffix == ".gz" else data


@pytest.mark.parametrize("suffix", [".parquet", *(f + c for f in (".jsonl", ".ndjson", ".json", ".csv") for c in ("", ".gz", ".zst"))])
def test_every_format_holds_the_same_documents(tmp_path: Path, suffix: str) -> None:
    kind, _, compression = suffix[1:].partition(".")
    (tmp_path / f"a{suffix}").write_bytes(compress(encode(ROWS, f".{kind}"), f".{compression}"))
    documents, dead, metadata = read(open_source(spec(tmp_path, metadata=["pos"])))
    assert (documents, dead) == (EXPECTED, [])
    assert [each["pos"] for each in metadata] == [row["pos"] for row in ROWS]


def test_format_goes_before_the_suffix(tmp_path: Path) -> None:
    (tmp_path / "export.dat").write_bytes(encode(ROWS, ".csv"))
    assert texts(spec(tmp_path, format="csv")) == EXPECTED
    assert texts(spec(tmp_path / "*.dat", format="csv")) == EXPECTED
    with pytest.raises(SourceError, match=r"export\.dat.*\.parquet"):
        open_source(spec(tmp_path / "*.dat")).files()


def test_a_lance_table_is_read_by_fragments_at_the_version_it_was_opened(tmp_path: Path) -> None:
    uri = str(tmp_path / "words.lance")
    table = lance.write_dataset(pa.Table.from_pylist(ROWS), uri, max_rows_per_file=10)
    corpus = open_source(spec(uri, metadata=["pos"]))
    before = corpus.files()
    table.delete("id = 'd3'")
    documents, dead, metadata = read(corpus, target_bytes=1)
    assert (documents, dead, len(metadata)) == (EXPECTED, [], 25)
    assert len(list(corpus.shards(before, 1))) == 3
    after = open_source(spec(uri)).files()
    assert [old.etag == new.etag for old, new in zip(before, after, strict=True)] == [False, True, True]
    assert texts(spec(uri)) == [each for each in EXPECTED if each[0] != "d3"]


def test_a_lance_table_that_is_missing_or_lacks_a_column(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.lance"):
        open_source(spec(tmp_path / "none.lance"))
    lance.write_dataset(pa.Table.from_pylist(ROWS), str(tmp_path / "t"))
    documents, dead, _ = read(open_source(spec(tmp_path / "t", format="lance", text=["glos"])))
    assert documents == []
    assert [(letter.stage, "'gloss'" in letter.reason) for letter in dead] == [("file", True)]


LINES = st.lists(
    st.one_of(st.just(b""), st.just(b"  "), st.text(min_size=1, max_size=30).map(lambda text: text.encode(errors="replace"))), max_size=30
)


@settings(max_examples=60, deadline=None)
@given(lines=LINES, ends=st.sampled_from([b"\n", b"\r\n"]), closed=st.booleans(), target=st.integers(1, 2000))
def test_any_cut_of_json_lines_gives_each_document_once_in_order(lines: list[bytes], ends: bytes, closed: bool, target: int) -> None:
    # An id before and after the text: a cut inside a line must not be taken for a line.
    encoded = [orjson.dumps({"id": n, "term": f"-{line.decode()}"}) if line.strip() else line for n, line in enumerate(lines)]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.jsonl").write_bytes(ends.join(encoded) + (ends if closed else b""))
        whole = texts(spec(folder, text="term"))
        assert texts(spec(folder, text="term"), target) == whole
    assert whole == [(str(n), f"-{line.decode()}") for n, line in enumerate(lines) if line.strip()]


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=4), group=st.integers(1, 5), target=st.integers(1, 40_000))
def test_any_cut_of_parquet_files_gives_each_document_once_in_order(sizes: list[int], group: int, target: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        expected = []
        for number, size in enumerate(sizes):
            ids = [f"{number}-{n}" for n in range(size)]
            table = pa.table({"id": pa.array(ids, pa.string()), "term": pa.array([f"text {name}" for name in ids], pa.string())})
            pq.write_table(table, f"{folder}/{number}.parquet", row_group_size=group)
            expected += [(name, f"text {name}") for name in ids]
        assert texts(spec(folder, text="term"), target) == expected


def test_large_files_are_cut_and_small_ones_grouped(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(encode(ROWS * 4000, ".jsonl"))
    for n in range(20):
        (tmp_path / f"b{n:02}.csv").write_bytes(encode(ROWS, ".csv"))
    corpus = open_source(spec(tmp_path))
    target = 1 << 20
    shards = [[piece.file.path for piece in shard.pieces] for shard in corpus.shards(corpus.files(), target)]
    assert shards[:-2] == [["a.jsonl"]] * (len(shards) - 2)
    assert len(shards) - 2 >= (tmp_path / "a.jsonl").stat().st_size // target - 1
    assert sum(path.startswith("b") for path in shards[-2] + shards[-1]) == 20


def write_bad(folder: Path, suffix: str) -> None:
    good = [{"id": "a", "term": "one"}, {"id": "b", "term": "two"}, {"id": "c", "term": "three"}]
    lines = encode(good, suffix).splitlines(keepends=True)
    bad = b'{"id": "x", "term": "\xff secret"}\n{"id": \n[1]\n' if suffix == ".jsonl" else b"x,\xff secret\nx\nx,secret,y\n"
    (folder / f"bad{suffix}").write_bytes(b"".join([*lines[:-1], bad, lines[-1]]))


@pytest.mark.parametrize(("suffix", "places"), [(".jsonl", {"line 3", "line 4", "line 5"}), (".csv", {"x", "row 4", "row 5"})])
def test_a_bad_line_costs_itself(tmp_path: Path, suffix: str, places: set[str]) -> None:
    write_bad(tmp_path, suffix)
    documents, dead, _ = read(open_source(spec(tmp_path, text="term")))
    assert documents == [("a", "one"), ("b", "two"), ("c", "three")]
    assert {letter.id for letter in dead} == places
    assert len(dead) == 3
    assert not any("secret" in letter.reason for letter in dead)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_documents_without_id_or_text_are_dead_letters(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"id": "a", "term": "one"},
        {"id": "", "term": "two"},
        {"id": "c", "term": " \n\t"},
        {"id": None, "term": "x"},
        {"id": "e", "term": "y"},
    ]
    (tmp_path / f"a{suffix}").write_bytes(encode(rows, suffix))
    documents, dead, _ = read(open_source(spec(tmp_path, text="term")))
    assert documents == [("a", "one"), ("e", "y")]
    unit = "line" if suffix == ".jsonl" else "row"
    assert [(letter.stage, letter.id) for letter in dead] == [("document", f"{unit} 2"), ("document", "c"), ("document", f"{unit} 4")]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
@pytest.mark.parametrize("wrong", [{"id": "idd"}, {"text": ("term", "glosss")}, {"metadata": ["poss"]}])
def test_a_file_that_lacks_a_column_is_one_dead_letter(tmp_path: Path, suffix: str, wrong: dict[str, Any]) -> None:
    (tmp_path / f"a{suffix}").write_bytes(encode(ROWS[1:], suffix))
    documents, dead, _ = read(open_source(spec(tmp_path, **wrong)))
    assert documents == []
    assert [(letter.stage, letter.file) for letter in dead] == [("file", f"a{suffix}")]
    assert "id, term, gloss, pos; did you mean" in dead[0].reason


def test_a_key_of_json_lines_may_be_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1, "term": "a"}\n' * 3 + '{"id": 2, "gloss": "b"}\n')
    assert texts(spec(tmp_path), 30) == [("1", "a")] * 3 + [("2", "b")]


def test_broken_files_cost_themselves(tmp_path: Path) -> None:
    table = encode(ROWS, ".parquet")
    lines = gzip.compress(encode(ROWS * 4000, ".jsonl"))
    (tmp_path / "a.parquet").write_bytes(table[:-10])
    (tmp_path / "b.parquet").write_bytes(b"")
    (tmp_path / "c.jsonl.gz").write_bytes(lines[:-100])
    (tmp_path / "d.jsonl.gz").write_bytes(b"no gzip")
    (tmp_path / "e.csv").write_bytes(b"")
    (tmp_path / "f.parquet").write_bytes(table)
    documents, dead, _ = read(open_source(spec(tmp_path)), 100)
    assert [letter.file for letter in dead] == ["a.parquet", "b.parquet", "c.jsonl.gz", "d.jsonl.gz", "e.csv"]
    assert {letter.stage for letter in dead} == {"file"}
    assert "incomplete" in dead[2].reason
    assert documents[-25:] == EXPECTED
    assert documents[:-25] == (EXPECTED * 4000)[: len(documents) - 25]


def test_a_file_that_went_after_the_listing_costs_itself_and_a_failing_store_does_not_hide(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_bytes(encode(ROWS, ".jsonl"))
    corpus = open_source(spec(tmp_path))
    (shard,) = corpus.shards(corpus.files(), 1 << 20)
    (tmp_path / "a.jsonl").unlink()
    batches = list(corpus.read(shard, None))
    assert [(letter.stage, letter.file) for batch in batches for letter in batch.dead] == [("file", "a.jsonl")]
    assert sum(batch.documents.num_rows for batch in batches) == 25
    (tmp_path / "b.jsonl").unlink()
    (tmp_path / "b.jsonl").symlink_to("b.jsonl")
    with pytest.raises(OSError, match="symbolic links"):
        list(corpus.read(shard, None))


def test_invalid_utf8_inside_parquet_costs_its_row(tmp_path: Path) -> None:
    raw = pa.array([b"one", b"\xff\xfe", b"three"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"id": [1, 2, 3], "term": text}), tmp_path / "a.parquet")
    documents, dead, _ = read(open_source(spec(tmp_path, text="term")))
    assert documents == [("1", "one"), ("3", "three")]
    assert [letter.id for letter in dead] == ["2"]


def test_column_types_that_cannot_be_ids_or_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1.5], "term": ["a"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": ["x"], "term": [["a"]]}), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text('{"id": 1.5, "term": "a"}\n{"id": "y", "term": true}\n{"id": 7, "term": 8}\n')
    documents, dead, _ = read(open_source(spec(tmp_path, text="term")))
    assert documents == [("7", "8")]
    assert [f"{letter.stage} {letter.file}" for letter in dead] == ["file a.parquet", "file b.parquet", *["document c.jsonl"] * 2]


def listed(source: SourceSpec) -> list[str]:
    return [file.path for file in open_source(source).files()]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("b.txt", "a/c.MD", "a/d/e.html.gz", "a/[x].txt", ".hidden.txt", "_SUCCESS.txt", "_tmp/f.txt", "a/.git/g.txt", "image.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    return root


def test_listing(tree: Path) -> None:
    assert listed(spec(tree)) == ["a/[x].txt", "a/c.MD", "a/d/e.html.gz", "b.txt"]
    assert listed(spec(f"{tree}/")) == listed(spec(tree))
    assert listed(spec(tree / "*.txt")) == ["b.txt"]
    assert listed(spec(tree / "*/*.txt")) == ["a/[x].txt"]
    assert listed(spec(tree / "**/*.txt")) == ["a/[x].txt", "b.txt"]
    assert listed(spec(tree / "a/**/?.html.gz")) == ["d/e.html.gz"]
    assert listed(spec(tree / "_tmp/*.txt")) == ["f.txt"]
    assert listed(spec(tree / "a/[x].txt")) == ["[x].txt"]
    assert listed(spec(tree / ".hidden.txt")) == [".hidden.txt"]
    with pytest.raises(SourceError, match=r"image\.png"):
        listed(spec(tree / "*"))


def test_an_empty_place_is_empty_and_a_missing_one_an_error(tmp_path: Path) -> None:
    assert listed(spec(tmp_path)) == listed(spec(tmp_path / "*.csv")) == listed(spec(tmp_path / "**/*.csv")) == []
    for missing in ("none", "none/*.csv", "none.csv", "none/**"):
        with pytest.raises(SourceError, match=missing.replace("*", r"\*")):
            listed(spec(tmp_path / missing))


def test_a_folder_that_cannot_be_listed_is_an_error_and_not_an_empty_one(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("/d"):
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(SourceError, match="PermissionError"):
        listed(spec(tree))


def test_links_are_followed_inside_the_corpus_only(tree: Path) -> None:
    (tree.parent / "secret.txt").write_text("secret")
    (tree / "out.txt").symlink_to(tree.parent / "secret.txt")
    (tree / "in.txt").symlink_to(tree / "b.txt")
    (tree / "gone.txt").symlink_to(tree / "nothing.txt")
    (tree / "loop").symlink_to(tree)
    (tree / "self.txt").symlink_to("self.txt")
    assert listed(spec(tree / "*.txt")) == ["b.txt", "in.txt"]
    assert listed(spec(tree)) == ["a/[x].txt", "a/c.MD", "a/d/e.html.gz", "b.txt", "in.txt"]


def test_an_etag_follows_the_content(tree: Path) -> None:
    before = open_source(spec(tree)).files()
    assert open_source(spec(tree)).files() == before
    (tree / "b.txt").write_text("y")
    os.utime(tree / "b.txt", ns=(1, 1_000_000_000))
    after = open_source(spec(tree)).files()
    assert [old.path for old, new in zip(before, after, strict=True) if old.etag != new.etag] == ["b.txt"]


@pytest.mark.parametrize("uri", ["file:///etc", "http://x/y.csv", "simplecache::s3://b/k", "s3://b/../c", "s3://", "s3://*/x", "a\0b"])
def test_places_that_are_refused(uri: str) -> None:
    with pytest.raises(SpecError, match=r"source\.uri"):
        open_source(spec(uri))


def test_specs_that_do_not_fit_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(encode(ROWS, ".csv"))
    (tmp_path / "b.txt").write_text("x")
    for wrong, key in (({"id": None}, "source.id"), ({"text": ()}, "source.text")):
        with pytest.raises(SpecError, match=key):
            open_source(spec(tmp_path / "a.csv", **wrong)).files()
    with pytest.raises(SpecError, match=r"found 'titel'; did you mean 'title'"):
        open_source(spec(tmp_path / "b.txt", metadata=["titel"])).files()


def kept_types(source: SourceSpec) -> dict[str, pa.DataType]:
    corpus = open_source(source)
    return {each.name: each.type for each in corpus.metadata_type(corpus.files())}


def test_metadata_types(tmp_path: Path) -> None:
    utc = pa.timestamp("ns", "UTC")
    columns = {
        "i": pa.array([1], pa.int8()),
        "f": pa.array([1], pa.float32()),
        "b": pa.array([True]),
        "t": pa.array([1001], utc),
        "d": pa.array([1], pa.date32()),
        "s": pa.array(["x"]).dictionary_encode(),
        "n": pa.array([{"k": [1]}]),
    }
    pq.write_table(pa.table({"id": ["a"], "term": ["x"]} | columns), tmp_path / "b.parquet")
    (tmp_path / "a.parquet").write_bytes(b"broken")
    source = spec(tmp_path, text="term", metadata=list("ifbtdsn"))
    assert kept_types(source) == {
        "i": pa.int64(),
        "f": pa.float64(),
        "b": pa.bool_(),
        "t": pa.timestamp("us", "UTC"),
        "d": pa.date32(),
        "s": pa.string(),
        "n": pa.string(),
    }
    _, _, (values,) = read(open_source(source))
    assert (values["i"], values["s"], values["n"], values["t"].microsecond) == (1, "x", '{"k":[1]}', 1)


def test_metadata_types_of_json_lines(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "term": "x", "b": True, "i": 1, "f": 1, "s": 1, "n": None},
        {"id": 2, "term": "x", "b": None, "i": 2, "f": 0.5, "s": "x", "n": None},
    ]
    (tmp_path / "a.jsonl").write_bytes(encode(rows, ".jsonl"))
    source = spec(tmp_path, text="term", metadata=list("bifsn"))
    assert kept_types(source) == {"b": pa.bool_(), "i": pa.int64(), "f": pa.float64(), "s": pa.string(), "n": pa.string()}
    assert read(open_source(source))[2] == [
        {"b": True, "i": 1, "f": 1.0, "s": "1", "n": None},
        {"b": None, "i": 2, "f": 0.5, "s": "x", "n": None},
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_a_value_that_does_not_fit_the_type_of_the_first_file_costs_itself(tmp_path: Path, suffix: str) -> None:
    pq.write_table(pa.table({"id": ["a"], "term": ["x"], "year": [1990]}), tmp_path / "a.parquet")
    rows = [{"id": "b", "term": "x", "year": "1991"}, {"id": "c", "term": "x", "year": "secret"}, {"id": "d", "term": "x", "year": "1992"}]
    (tmp_path / f"b{suffix}").write_bytes(encode(rows, suffix))
    documents, dead, metadata = read(open_source(spec(tmp_path, text="term", metadata=["year"])))
    assert [name for name, _ in documents] == ["a", "b", "c", "d"]
    assert [each["year"] for each in metadata] == [1990, 1991, None, 1992]
    assert [(letter.stage, letter.id) for letter in dead] == [("value", "c")]
    assert "'year'" in dead[0].reason
    assert "int64" in dead[0].reason
    assert "secret" not in dead[0].reason


def test_files_of_text_are_documents(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        "<title>A &amp; B</title><style>p {}</style><h1>Head</h1><p>one <b>two</b><br>three &eacute;<script>no()</script>"
    )
    (tmp_path / "b.md").write_text("Intro\n\n## The *title*\n\n- [link](http://x)\n- `code`\n\n| h | i |\n|---|---|\n| 1 | 2 |\n")
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbfas it\n\n  is")
    (tmp_path / "d.txt").write_text(" \n")
    (tmp_path / "e.txt").write_bytes(b"bad \xff")
    (tmp_path / "f.txt.gz").write_bytes(gzip.compress("é".encode()))
    source = SourceSpec(uri=str(tmp_path), metadata=["title", "suffix", "name", "path"])
    documents, dead, metadata = read(open_source(source))
    assert documents == [
        ("a.html", "Head\none two\nthree é"),
        ("b.md", "Intro\nThe title\nlink\ncode\nh i\n1 2"),
        ("c.txt", "as it\n\n  is"),
        ("f.txt.gz", "é"),
    ]
    assert [(letter.stage, letter.file) for letter in dead] == [("document", "d.txt"), ("file", "e.txt")]
    assert [each["title"] for each in metadata] == ["A & B", "The title", None, None]
    assert metadata[3] == {"title": None, "suffix": ".txt", "name": "f.txt.gz", "path": "f.txt.gz"}


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<div><p>a</p>\n\n\n<p> b\n c </p></div>d", "a\nb c\nd"),
        ("<pre>x = 1\ny = 2</pre>", "x = 1\ny = 2"),
        ("a<template>t</template><noscript>n</noscript>b", "ab"),
        ("<ul><li>a<ul><li>b</ul></ul>", "a\nb"),
        ("<p>&lt;b&gt; &#x41; &nbsp;c", "<b> A c"),
        ("<frameset></frameset>", ""),
        ("", ""),
    ],
)
def test_html_reads_as_a_person_sees_it(html: str, text: str) -> None:
    assert html_text(html, "title")[0] == text
