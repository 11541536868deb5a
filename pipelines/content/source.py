"""What a source is: where the documents of a corpus come from.

A new one is a class with these members, and an opener in `storage.sources.opening.OPENERS`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import pyarrow as pa

from pipelines.content.documents import DocumentBatch, SourceFile, SourceShard

SUFFIXES_NAMED = 20


@dataclass(frozen=True, slots=True)
class Listing:
    """What there is at the place of a source."""

    files: list[SourceFile]
    """Those that are read, sorted by path."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """How many are not, as no format is known for them, by suffix: most first, the rarest together as "others", "" those without one."""

    @property
    def newest(self) -> datetime | None:
        """When the file that was changed last was; None where the listing does not say that."""
        times = [file.modified for file in self.files if file.modified is not None]
        return datetime.fromtimestamp(max(times), UTC) if times else None

    @property
    def left_out(self) -> str:
        """For a person: `80 .rst, 3 .pdf`, or nothing."""
        return ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in self.ignored.items())


def ignored(suffixes: Iterable[str]) -> dict[str, int]:
    """As Listing has it, of the suffix of each file."""
    counts = Counter(suffixes)
    named = dict(counts.most_common(SUFFIXES_NAMED))
    others = counts.total() - sum(named.values())
    return {**named, "others": others} if others else named


class Source(Protocol):
    """A corpus that can be read. Can be pickled: shards are read on other machines than they were listed on."""

    @property
    def place(self) -> str:
        """What is listed: sources of one place list the same files, however they read them."""
        ...

    def listing(self) -> Listing:
        """All files. Raises SourceError if there is no such place."""
        ...

    def files(self) -> list[SourceFile]:
        """Those of `listing` that are read."""
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
