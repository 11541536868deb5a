"""A file of text is read as its reader sees it: names of elements, code, front matter and encodings."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import SpecError
from pipelines.spec.declared import SourceSpec
from storage.sources.opening import open_source


def read(folder: Path, *metadata: str) -> tuple[dict[str, str], list[Any], dict[str, str]]:
    """The texts by file, their metadata, and the reasons of those that could not be read."""
    corpus = open_source(SourceSpec(uri=str(folder), metadata=metadata))
    files = corpus.files()
    batches = [batch for shard in corpus.shards(files, 1 << 20) for batch in corpus.read(shard, corpus.metadata_type(files))]
    rows = [row for batch in batches for row in batch.documents.to_pylist()]
    reasons = {letter.file: letter.reason for batch in batches for letter in batch.dead}
    return {row["doc_id"]: row["text"] for row in rows}, [row.get("metadata") for row in rows], reasons


def text_of(folder: Path, name: str, content: str) -> str:
    (folder / name).write_text(content)
    return read(folder)[0][name]


@pytest.mark.parametrize("name", ["script", "style", "template", "title", "textarea", "noscript", "iframe", "frameset", "plaintext", "div"])
@pytest.mark.parametrize("written", ["Put a <{}> element there.", "<{}> is an element.", "<{}>", "- <{}> is one", "<{} is one"])
def test_the_name_of_an_element_swallows_nothing(tmp_path: Path, name: str, written: str) -> None:
    text = text_of(tmp_path, "a.md", f"# Notes\n\n{written.format(name)}\n\nThis *matters*.\n\n## Next\n\nSo does this.\n")
    assert text.startswith("Notes\n")
    assert text.endswith("This matters.\nNext\nSo does this.")
    assert name == "div" or name in text


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("A List<String>, a Map<K, List<T extends Foo>>", "A List<String>, a Map<K, List<T extends Foo>>"),
        ("<b>bold</b>, <kbd>Ctrl</kbd>, a<br>b <span class='x'>c <!-- no --> d", "bold, Ctrl, a\nb c d"),
        ("<div align='center'>\n\n# Head\n\n</div>\n\n<style>\na {}\n\nb {}\n</style>\n\n<script>no()</script>\n\nend", "Head\nend"),
        ("<details>\n<summary>More</summary>\n\ntext\n\n</details>\n\n<!-- never closed\n\nend", "More\ntext\n<!-- never closed\nend"),
        ('<p align="center\n\nend', '<p align="center\nend'),
    ],
)
def test_markdown_tells_markup_from_what_is_written(tmp_path: Path, markdown: str, text: str) -> None:
    assert text_of(tmp_path, "a.md", markdown) == text


CODE = "def f(x):\n\tif x:\n        return  1\n\n\n    return List<int>"


def test_code_keeps_its_indentation(tmp_path: Path) -> None:
    indented = "".join(f"    {line}\n" for line in CODE.split("\n"))
    written = CODE.replace("<", "&lt;")
    assert text_of(tmp_path, "a.md", f"Look:\n\n```python\n{CODE}\n```\n\n```\n  next\n```\nend") == f"Look:\n{CODE}\n  next\nend"
    assert text_of(tmp_path, "b.md", f"Look:\n\n{indented}\nend") == f"Look:\n{CODE}\nend"
    assert text_of(tmp_path, "c.html", f"<p>a   b<pre><code>{written}\n\n</code></pre>  end") == f"a b\n{CODE}\nend"


def test_front_matter_is_metadata_and_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        '---\ntitle: "On  tomatoes"\ndate: 2024-05-01\ntags: [a, b]\nversion: 1.10\n# no head\n---\n\n# Head\n\nx\n'
    )
    (tmp_path / "b.md").write_text('+++\ntitle = "T"\ndate = 2024-05-01\ntags = ["a"]\n+++\nx\n')
    (tmp_path / "c.md").write_text("---\r\ndate: ~\r\n...\r\n# Head\r\n\r\nx")
    (tmp_path / "d.html").write_text("<title>Page</title>x")
    texts, metadata, reasons = read(tmp_path, "title", "date", "tags", "version", "name")
    assert (texts, reasons) == ({"a.md": "Head\nx", "b.md": "x", "c.md": "Head\nx", "d.html": "x"}, {})
    assert [list(row.values()) for row in metadata] == [
        ["On tomatoes", "2024-05-01", '["a","b"]', "1.10", "a.md"],
        ["T", "2024-05-01", '["a"]', None, "b.md"],
        ["Head", None, None, None, "c.md"],
        ["Page", None, None, None, "d.html"],
    ]
    for markdown in tmp_path.glob("*.md"):
        markdown.unlink()
    with pytest.raises(SpecError, match="as html files have no other, found 'date'"):
        read(tmp_path, "date")


@pytest.mark.parametrize(
    ("front", "kept"),
    [
        ("---\nlayout: [post\ntitle: x\n# none\n---\n", "layout: [post\ntitle: x\n# none\n"),
        ("+++\ntitle = T\n+++\n", "title = T\n"),
        ("---\na: &a [*a]\n---\n", "a: &a [*a]\n"),
        ("---\n\nJust text\n\n---\n", "Just text\n"),
        ("---\nlayout: post\n\n", "layout: post\n"),
        ("---\n---\n", ""),
    ],
)
def test_broken_front_matter_costs_no_text_and_is_no_title(tmp_path: Path, front: str, kept: str) -> None:
    (tmp_path / "a.md").write_text(front + "# Head\n\nx\n")
    texts, metadata, reasons = read(tmp_path, "title")
    assert (texts, metadata, reasons) == ({"a.md": kept + "Head\nx"}, [{"title": "Head"}], {})


JAPANESE = "これは日本語の文章です。\nとても長い。abc\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(JAPANESE, name) for name in ("iso2022_jp", "utf-7", "utf-16-le", "utf-16-be", "utf-16", "utf-32", "utf-8-sig")]
    + [
        ("这是中文。\nabc 中文", "hz"),
        ("한국어 문장입니다", "iso2022_kr"),
        ("plain\ntext", "utf-16-le"),
        ("Grüße, Köln, über, Füße, Äpfel", "utf-7"),
    ],
)
def test_an_encoding_that_is_sure_is_read(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert read(tmp_path)[0] == {"a.txt": text}


def test_an_encoding_that_is_not_sure_is_not_embedded_and_ordinary_text_is_taken_for_none(tmp_path: Path) -> None:
    ordinary = ["\x1b[31mred\x1b(B\x1b[m", "C++ +1-555 a+bcd-e ~{x} Figure~{1} ~} x+foo-bar +baz-", "a\0b and more text", "héllo ~{ +AOk-"]
    for number, text in enumerate(ordinary):
        (tmp_path / f"{number}.txt").write_text(text)
    (tmp_path / "a.html").write_bytes(b"<meta charset=utf-7><p>" + "Grüße".encode("utf-7"))
    (tmp_path / "b.html").write_bytes(b"<meta charset='hz-gb-2312'><p>~{ no")
    (tmp_path / "c.txt").write_bytes(b"x \x1b$B!")
    (tmp_path / "d.txt").write_bytes(b"\0\1" * 20)
    (tmp_path / "e.md").write_text('`<meta charset="utf-7">` and 1 +2')
    texts, _, reasons = read(tmp_path)
    assert [texts[f"{number}.txt"] for number in range(len(ordinary))] == ordinary
    assert (texts["a.html"], texts["e.md"]) == ("Grüße", '<meta charset="utf-7"> and 1 +2')
    assert {name: reason.partition(" that cannot")[0] for name, reason in reasons.items()} == {
        "b.html": "expected UTF-8 text, found a page that says it is hz-gb-2312, and",
        "c.txt": "expected UTF-8 text, found escapes of ISO-2022",
        "d.txt": "expected UTF-8 text, found NUL bytes as in UTF-16-BE",
    }
