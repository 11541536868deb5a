"""What a spec asks of the files of a source, and whether they can have it."""

from collections.abc import Collection

import pyarrow as pa

from pipelines.errors import SpecError
from pipelines.formats.prose import text
from pipelines.formats.rows import Layout
from pipelines.spec.declared import Format, LimitsSpec, SourceSpec
from pipelines.spec.keys import nearest


def layout_of(spec: SourceSpec, metadata: pa.StructType | None, limits: LimitsSpec) -> Layout:
    """What `spec` asks of a file; files of text need no id."""
    return Layout(spec.id or "", spec.text, metadata, limits)


def check_tabular(format_: Format, spec: SourceSpec) -> None:
    """Raises SpecError unless the spec says which columns hold the id and the text."""
    if spec.id is None:
        raise SpecError(f"source.id: expected the column that names a document, as {format_} files need one, found none")
    if not spec.text:
        raise SpecError(f"source.text: expected the columns to embed, as {format_} files need them, found none")


def check_textual(formats: Collection[Format], spec: SourceSpec) -> None:
    """Raises SpecError for metadata that files of text do not have; those of Markdown may have any, in their front matter."""
    for name in () if "markdown" in formats else spec.metadata:
        if name not in text.METADATA:
            known = ", ".join(text.METADATA)
            raise SpecError(
                f"source.metadata: expected some of {known}, as {min(formats)} files have no other, found "
                f"{name!r}{nearest(name, text.METADATA)}"
            )
