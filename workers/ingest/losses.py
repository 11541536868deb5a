"""How many documents are in files that could not be read: a lost file weighs as much as what is in it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePath

from pipelines.content.diff import FileRecord
from pipelines.content.documents import DeadLetter, SourceFile
from pipelines.formats.prose.text import TEXTUAL
from pipelines.formats.rows import NO_TEXT
from pipelines.formats.suffixes import format_of
from pipelines.spec.declared import Format


class Losses:
    """Of one pass over a corpus."""

    def __init__(self, known: Mapping[str, FileRecord], earlier: Mapping[str, FileRecord], format_: Format | None) -> None:
        """`known`: the file list before the run. `earlier`: that of another table of the corpus, for one that is new. `format_`: of all
        files, where the spec names one.
        """
        self._known = known
        self._earlier = earlier
        self._format = format_
        self._failed: dict[str, int] = {}
        """Files that could not be read to their end, and the documents in each, as far as it says so itself."""

    def note(self, letters: Iterable[DeadLetter]) -> None:
        """Keep which files failed, of letters of the stage "file"."""
        for letter in letters:
            self._failed[letter.file] = max(self._failed.get(letter.file, 0), letter.documents)

    def emptied(self, record: FileRecord) -> bool:
        """Whether no row of a file that had documents can be used any more: it was written over by something else, an error page maybe.

        A row that has no text by now is a row: whoever empties a document says something.
        """
        before = self._known.get(record.file.path) or self._earlier.get(record.file.path)
        reasons = {letter.reason for letter in record.dead if letter.stage == "document"}
        unusable = not record.documents and reasons and NO_TEXT not in reasons
        return bool(unusable) and before is not None and before.documents + before.stale > 0

    def count(self, records: dict[str, FileRecord], stale: Counter[str]) -> None:
        """Set `lost` and `stale` in `records`. `stale`: how many documents of each file are stored as they were."""
        bytes_each = _bytes_each(record for path, record in records.items() if path not in self._failed)
        for path, named in self._failed.items():
            record, own = records[path], self._known.get(path)
            if own and (own.documents or own.lost):  # as many as it had, but for those that were found elsewhere
                lost = stale[path] + own.lost - own.stale
            else:
                earlier = self._earlier.get(path, FileRecord(record.file))
                lost = (earlier.documents + earlier.lost or named or self._estimate(record.file, bytes_each)) - record.documents
            records[path] = replace(record, lost=max(1, lost, stale[path]), stale=stale[path])

    def _estimate(self, file: SourceFile, bytes_each: Mapping[str, float]) -> int:
        """By the bytes of a document in other files, of the suffix if there are any; 1 if there are none at all."""
        if format_of(file.path, self._format) in TEXTUAL:
            return 1
        return max(1, round(file.size / (bytes_each.get(_suffix(file)) or bytes_each.get("") or file.size or 1)))


def _bytes_each(records: Iterable[FileRecord]) -> dict[str, float]:
    """The bytes that a document takes in files of each suffix, and under "" in all."""
    size, documents = Counter[str](), Counter[str]()
    for record in records:
        for suffix in {_suffix(record.file), ""}:
            size[suffix] += record.file.size
            documents[suffix] += record.documents
    return {suffix: size[suffix] / count for suffix, count in documents.items() if count}


def _suffix(file: SourceFile) -> str:
    return "".join(PurePath(file.path).suffixes[-2:])
