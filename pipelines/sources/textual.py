"""Reading files that are one document: plain text, Markdown and HTML."""

from functools import cache
from pathlib import PurePosixPath
from typing import BinaryIO

import pyarrow as pa
from markdown_it import MarkdownIt
from selectolax.lexbor import LexborHTMLParser

from pipelines.documents import DocumentBatch, SourceFile
from pipelines.sources.listing import split_suffixes
from pipelines.sources.rows import MAX_DOCUMENT_BYTES, Columns, Layout, Unreadable, assemble, cast_column
from pipelines.spec import Format

TEXTUAL: tuple[Format, ...] = ("text", "markdown", "html")
METADATA = ("path", "name", "suffix", "title")
"""What a file of text can tell about itself."""

UNREAD = ["script", "style", "template", "noscript"]
BLOCKS = (
    "address, article, aside, blockquote, br, caption, dd, details, dialog, div, dl, dt, fieldset, figcaption, figure, footer, form, "
    "h1, h2, h3, h4, h5, h6, header, hr, legend, li, main, nav, ol, option, p, pre, section, summary, table, tr, ul"
)
BREAK = "\u2029"
"""Stands for a new line while the white space of the source, which means nothing in HTML, is collapsed."""


def read_textual(stream: BinaryIO, file: SourceFile, format_: Format, layout: Layout) -> DocumentBatch:
    """The document that a file is; its id is the file's path. Raises Unreadable if it is too long or not UTF-8."""
    text, title = _extract(_decoded(stream), format_)
    facts = {"path": file.path, "name": PurePosixPath(file.path).name, "suffix": split_suffixes(file.path)[0], "title": title}
    problems: dict[int, str] = {}
    values = [
        cast_column(pa.array([facts[each.name]], pa.string()), each.type, f"metadata {each.name!r}", problems)
        for each in layout.metadata or ()
    ]
    columns = Columns(pa.array([file.path]), [pa.array([text])], values, problems)
    return assemble(file, columns, layout, lambda _: file.path)


def _decoded(stream: BinaryIO) -> str:
    data = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise Unreadable(f"expected at most {MAX_DOCUMENT_BYTES} bytes of text, found more")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"expected UTF-8 text, found another byte at {error.start}") from None


def _extract(source: str, format_: Format) -> tuple[str, str | None]:
    """The text of a file and its title."""
    if format_ == "markdown":
        return html_text(_markdown().render(source), title="h1, h2, h3, h4, h5, h6")
    return html_text(source, title="title") if format_ == "html" else (source, None)


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def html_text(html: str, title: str) -> tuple[str, str | None]:
    """What a reader of `html` sees, one line a block, and the text of the first element that the selector `title` finds."""
    tree = LexborHTMLParser(html)
    tree.strip_tags(UNREAD)
    heading = tree.css_first(title)
    name = " ".join(heading.text().split()) if heading else ""
    _mark_lines(tree)
    lines = (" ".join(line.split()) for line in (tree.body.text() if tree.body else "").split(BREAK))
    return "\n".join(filter(None, lines)), name or None


def _mark_lines(tree: LexborHTMLParser) -> None:
    for preformatted in tree.css("pre"):
        for node in list(preformatted.traverse(include_text=True)):
            if node.tag == "-text":
                node.replace_with((node.text() or "").replace("\n", BREAK))
    for block in tree.css(BLOCKS):
        block.insert_before(BREAK)
        block.insert_after(BREAK)
    for cell in tree.css("td, th"):
        cell.insert_after(" ")
