"""What a source is: where the documents of a corpus come from.

A new one is a class with these members, and an opener in `storage.sources.opening.OPENERS`.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from pipelines.content.documents import DocumentBatch, SourceFile, SourceShard


class Source(Protocol):
    """A corpus that can be read. Can be pickled: shards are read on other machines than they were listed on."""

    @property
    def place(self) -> str:
        """What is listed: sources of one place list the same files, however they read them."""
        ...

    def files(self) -> list[SourceFile]:
        """All files, sorted by path. Raises SourceError if there is no such place."""
        ...

    def metadata_type(self, files: Sequence[SourceFile]) -> pa.StructType | None:
        """The Arrow type of the metadata, read off the first readable file; None if the source declares none."""
        ...

    def shards(self, files: Sequence[SourceFile], target_bytes: int) -> Iterator[SourceShard]:
        """Cut `files` into shards of about `target_bytes`: large files are split, small ones grouped."""
        ...

    def read(self, shard: SourceShard, metadata: pa.StructType | None) -> Iterator[DocumentBatch]:
        """Stream the documents of a shard. What cannot be read becomes dead letters; nothing else is lost."""
        ...
