"""Reading files that are one document: plain text, Markdown and HTML."""

from pathlib import PurePosixPath
from typing import BinaryIO

import pyarrow as pa

from pipelines.content.documents import DocumentBatch, SourceFile
from pipelines.formats.casts import cast_column
from pipelines.formats.limits import Unreadable, beyond
from pipelines.formats.prose.decoding import decoded
from pipelines.formats.prose.markup import Extract, MarkupError, read_markup
from pipelines.formats.rows import Columns, Layout, assemble
from pipelines.formats.suffixes import split_suffixes
from pipelines.spec.declared import Format

TEXTUAL: tuple[Format, ...] = ("text", "markdown", "html")
METADATA = ("path", "name", "suffix", "title")
"""What a file of text can tell about itself. One of Markdown has the fields of its front matter, too."""


def read_textual(stream: BinaryIO, file: SourceFile, format_: Format, layout: Layout) -> DocumentBatch:
    """The document that a file is; its id is the file's path. Raises Unreadable if it exceeds a limit or is not UTF-8."""
    source = decoded(_whole(stream, layout.limits.document_bytes), is_page=format_ == "html")
    page = Extract(source, None, {})
    if format_ != "text":
        seconds = layout.limits.markup_seconds
        try:
            page = read_markup(source, format_, seconds)
        except MarkupError as error:
            raise Unreadable(f"limits.markup_seconds: expected {format_} that is read in {seconds} s, found {error}") from None
    own = {"path": file.path, "name": PurePosixPath(file.path).name, "suffix": split_suffixes(file.path)[0], "title": page.title}
    facts = {**layout.partition, **page.fields, **own}
    odd: dict[int, str] = {}
    values = [
        cast_column(pa.array([facts.get(kept.name)], pa.string()), kept.type, f"metadata {kept.name!r}", odd)
        for kept in layout.metadata or ()
    ]
    columns = Columns(pa.array([file.path]), [pa.array([page.text])], values, odd=odd)
    return assemble(file, columns, layout, lambda _: file.path)


def _whole(stream: BinaryIO, most: int) -> bytes:
    data = stream.read(most + 1)
    if len(data) > most:
        raise Unreadable(beyond("document_bytes", most, "bytes of text"))
    return data
