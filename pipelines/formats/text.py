"""Reading files that are one document: plain text, Markdown and HTML."""

from pathlib import PurePosixPath
from typing import BinaryIO

import pyarrow as pa

from pipelines.content.documents import DocumentBatch, SourceFile
from pipelines.formats.casts import cast_column
from pipelines.formats.limits import Unreadable, beyond
from pipelines.formats.markup import MarkupError, read_markup
from pipelines.formats.rows import Columns, Layout, assemble
from pipelines.formats.suffixes import split_suffixes
from pipelines.spec.declared import Format

TEXTUAL: tuple[Format, ...] = ("text", "markdown", "html")
METADATA = ("path", "name", "suffix", "title")
"""What a file of text can tell about itself."""


def read_textual(stream: BinaryIO, file: SourceFile, format_: Format, layout: Layout) -> DocumentBatch:
    """The document that a file is; its id is the file's path. Raises Unreadable if it exceeds a limit or is not UTF-8."""
    source, title = _decoded(stream, layout.limits.document_bytes), None
    text = source
    if format_ != "text":
        seconds = layout.limits.markup_seconds
        try:
            text, title = read_markup(source, format_, seconds)
        except MarkupError as error:
            raise Unreadable(f"limits.markup_seconds: expected {format_} that is read in {seconds} s, found {error}") from None
    facts = {
        **layout.partition,
        "path": file.path,
        "name": PurePosixPath(file.path).name,
        "suffix": split_suffixes(file.path)[0],
        "title": title,
    }
    problems: dict[int, str] = {}
    values = [
        cast_column(pa.array([facts[kept.name]], pa.string()), kept.type, f"metadata {kept.name!r}", problems)
        for kept in layout.metadata or ()
    ]
    columns = Columns(pa.array([file.path]), [pa.array([text])], values, problems)
    return assemble(file, columns, layout, lambda _: file.path)


def _decoded(stream: BinaryIO, most: int) -> str:
    data = stream.read(most + 1)
    if len(data) > most:
        raise Unreadable(beyond("document_bytes", most, "bytes of text"))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"expected UTF-8 text, found another byte at {error.start}") from None
