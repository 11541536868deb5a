"""How many documents are in files that could not be read: a lost file weighs as much as what is in it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePath

from pipelines.content.diff import FileRecord
from pipelines.content.documents import DeadLetter, SourceFile
from pipelines.formats.prose.text import TEXTUAL
from pipelines.formats.suffixes import format_of
from pipelines.spec.declared import Format


class Losses:
    """Of one pass over a corpus."""

    def __init__(self, known: Mapping[str, FileRecord], format_: Format | None) -> None:
        """`known`: the file list before the run. `format_`: of all files, where the spec names one."""
        self._known = known
        self._format = format_
        self._failed: dict[str, int] = {}
        """Files that could not be read to their end, and the documents in each, as far as it says so itself."""

    def note(self, letters: Iterable[DeadLetter]) -> None:
        """Keep which files failed, of letters of the stage "file"."""
        for letter in letters:
            self._failed[letter.file] = max(self._failed.get(letter.file, 0), letter.documents)

    def count(self, records: dict[str, FileRecord], stale: Counter[str]) -> None:
        """Set `lost` and `stale` in `records`. `stale`: how many documents of each file are stored as they were."""
        bytes_each = _bytes_each(record for path, record in records.items() if path not in self._failed)
        for path, named in self._failed.items():
            record, before = records[path], self._known.get(path, FileRecord(records[path].file))
            if before.documents or before.lost:  # as many as it had, but for those that were found elsewhere
                lost = stale[path] + before.lost - before.stale
            else:
                lost = (named or self._estimate(record.file, bytes_each)) - record.documents
            records[path] = replace(record, lost=max(1, lost), stale=stale[path])

    def _estimate(self, file: SourceFile, bytes_each: Mapping[str, float]) -> int:
        """By the bytes of a document in other files of the suffix; 1 if there are none."""
        if format_of(file.path, self._format) in TEXTUAL:
            return 1
        return max(1, round(file.size / bytes_each.get(_suffix(file), file.size or 1)))


def _bytes_each(records: Iterable[FileRecord]) -> dict[str, float]:
    """The bytes that a document takes in files of each suffix."""
    size, documents = Counter[str](), Counter[str]()
    for record in records:
        size[_suffix(record.file)] += record.file.size
        documents[_suffix(record.file)] += record.documents
    return {suffix: size[suffix] / count for suffix, count in documents.items() if count}


def _suffix(file: SourceFile) -> str:
    return "".join(PurePath(file.path).suffixes[-2:])
