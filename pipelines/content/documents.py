"""What travels from a corpus to the chunker: files, shards, documents, and the letters that could not be delivered."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import pyarrow as pa

LETTERS_KEPT = 100
"""Dead letters of a file that are kept one by one."""
Stage = Literal["file", "document", "value", "chunk"]
_NUMBERS = re.compile(r"\d+")
MISFIT = "source."
"""What the reason begins with where a file lacks what the spec says of all files."""


@dataclass(frozen=True, slots=True, order=True)
class SourceFile:
    """One file of a corpus as a listing shows it. Files are ordered by `path`."""

    path: str
    """Relative to the corpus, with forward slashes."""
    size: int
    """Bytes."""
    etag: str
    """Changes whenever the content may have changed: the store's etag, or the modification time."""
    modified: float | None = field(default=None, compare=False)
    """When it was last changed, in seconds since 1970, where the listing says that."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file that can be read by itself: row groups, or bytes, from `start` up to `stop` (None: the end)."""

    file: SourceFile
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class SourceShard:
    """What one task reads: consecutive pieces in file order."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An input that could not be used. Never holds the text of a document."""

    stage: Stage
    """What it cost: with "value" only that of a metadata field, which is null; the document is kept."""
    file: str
    id: str
    """The document's or chunk's id where there is one, else the place in the file ("line 17", "row 4")."""
    reason: str
    count: int = 1
    """Inputs that it stands for."""
    documents: int = 0
    """That the file says to hold, of one that cannot be read; 0 where it does not say."""

    @property
    def capped(self) -> bool:
        """Whether a limit of the spec stopped it: to read it again under the same limit would not help."""
        return self.reason.startswith("limits.")

    @property
    def misfit(self) -> bool:
        """Whether the file does not have the columns that the spec names, or has others under their names."""
        return self.reason.startswith(MISFIT)


def gathered(letters: Iterable[DeadLetter]) -> tuple[DeadLetter, ...]:
    """Letters of one file: what was said of the file, each once; the first of its rows; and one a stage that counts all others."""
    of_file: dict[DeadLetter, None] = {}
    of_documents: list[DeadLetter] = []
    others: dict[Stage, DeadLetter] = {}
    for letter in letters:
        if letter.stage == "file":
            of_file[letter] = None
        elif len(of_documents) < LETTERS_KEPT and letter.count == 1:
            of_documents.append(letter)
        else:
            counted = others[letter.stage].count if letter.stage in others else 0
            others[letter.stage] = DeadLetter(letter.stage, letter.file, "", "others of this file", letter.count + counted)
    return (*of_file, *of_documents, *others.values())


def most_frequent(letters: Iterable[DeadLetter], count: int) -> list[DeadLetter]:
    """The `count` most frequent reasons: the first letter of each, that stands for all of them."""
    firsts: dict[str, DeadLetter] = {}
    counts = Counter[str]()
    for letter in letters:
        kind = _NUMBERS.sub("", letter.reason)  # a reason may name the place within its text
        firsts.setdefault(kind, letter)
        counts[kind] += letter.count
    return [replace(firsts[reason], count=number) for reason, number in counts.most_common(count)]


def count_inputs(letters: Iterable[DeadLetter]) -> int:
    """How many inputs they stand for."""
    return sum(letter.count for letter in letters)


@dataclass(frozen=True, slots=True)
class DocumentBatch:
    """Some documents of one file, in file order."""

    file: SourceFile
    documents: pa.RecordBatch
    """`doc_id` string, `text` string, and, where the source has metadata, `metadata` struct. No nulls in the first two."""
    dead: list[DeadLetter] = field(default_factory=list)
