"""Documents in files: Parquet, JSON lines, CSV, plain text, Markdown and HTML."""

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from pipelines.content.documents import DeadLetter, DocumentBatch, Piece, SourceFile, SourceShard
from pipelines.content.source import Listing, ignored
from pipelines.errors import SourceError, SourceMissing
from pipelines.formats import csv, jsonl, parquet, rows, suffixes
from pipelines.formats.apart import decoded_apart
from pipelines.formats.casts import metadata_struct
from pipelines.formats.limits import Budget, Unreadable
from pipelines.formats.prose import text
from pipelines.formats.rows import Layout
from pipelines.spec.declared import Format, LimitsSpec, SourceSpec
from storage.sources import listing
from storage.sources.layouts import check_tabular, check_textual, layout_of
from storage.sources.listing import FileSystem


@dataclass(frozen=True, slots=True)
class FileSource:
    """A `Source` of files, tabular and textual ones mixed as they come."""

    filesystem: FileSystem
    base: str
    """The folder that the files' paths are relative to."""
    pattern: str
    """A glob or a name below `base`; "" for all files of known suffixes."""
    spec: SourceSpec
    limits: LimitsSpec

    @classmethod
    def at(cls, filesystem: FileSystem, path: str, spec: SourceSpec, limits: LimitsSpec) -> "FileSource":
        """The documents in a file, folder or glob of `filesystem`."""
        return cls(filesystem, *listing.locate(filesystem, path), spec, limits)

    @property
    def place(self) -> str:
        return self.spec.uri

    def files(self) -> list[SourceFile]:
        """Those of `listing` that are read."""
        return self.listing().files

    def listing(self) -> Listing:
        """All files. Raises SourceMissing if there is no such place, SpecError if the source does not fit the files."""
        try:
            files = listing.list_files(self.filesystem, self.base, self.pattern)
        except FileNotFoundError as error:
            raise SourceMissing(f"expected documents at {self.spec.uri}, found none: check source.uri") from error
        except OSError as error:
            raise SourceError(f"expected documents at {self.spec.uri}, found {type(error).__name__}: check source.uri") from error
        if self.spec.format is None and self.pattern:
            listing.check_suffixes(files)
        known = [file for file in files if suffixes.format_of(file.path, self.spec.format)]
        self._check_spec(known)
        others = (file.path for file in files if not suffixes.format_of(file.path, self.spec.format))
        return Listing(known, ignored("".join(suffixes.split_suffixes(path)) for path in others))

    def metadata_type(self, files: Sequence[SourceFile]) -> pa.StructType | None:
        """As declared; what is not, read off the first file that can be read and has the columns, strings if none does."""
        declared = self.spec.metadata
        if not declared:
            return None
        undeclared = {name for name, kind in declared.items() if kind == "auto"}
        for file in files if undeclared else ():
            try:
                with _reading():
                    types = self._types(file)
            except Unreadable:
                continue
            if types.keys() >= undeclared:
                return metadata_struct(declared, types)
        return metadata_struct(declared, {})

    def shards(self, files: Sequence[SourceFile], target_bytes: int) -> Iterator[SourceShard]:
        """Parquet is cut at row groups and uncompressed JSON lines at bytes; other files stay whole."""
        return listing.pack((piece for file in files for piece in self._pieces(file, target_bytes)), target_bytes)

    def read(self, shard: SourceShard, metadata: pa.StructType | None) -> Iterator[DocumentBatch]:
        """Stream the documents of a shard, at most 8192 and about 16 MB at a time. Raises OSError if the store as a whole fails."""
        layout = layout_of(self.spec, metadata, self.limits)
        for piece in shard.pieces:
            try:
                with _reading():
                    yield from self._read(piece, layout)
            except Unreadable as error:
                letter = DeadLetter("file", piece.file.path, "", str(error), documents=self._rows_in(piece.file))
                yield rows.only_letters(piece.file, layout, [letter])

    def _rows_in(self, file: SourceFile) -> int:
        """The rows that the footer of a Parquet file names, a byte each at most: it may err. 0 where nothing says that."""
        if self._format(file) != "parquet":
            return 0
        try:
            with _reading(), self.filesystem.open(self._path(file), "rb") as raw:
                (rows_there,) = decoded_apart(parquet.row_count, raw)
        except Unreadable:
            return 0
        return min(rows_there, file.size)

    def _path(self, file: SourceFile) -> str:
        return f"{self.base}/{file.path}"

    def _format(self, file: SourceFile) -> Format:
        format_ = suffixes.format_of(file.path, self.spec.format)
        if format_ is None:
            raise SourceError(f"{file.path}: expected a file of this corpus, found a name of no known format")
        return format_

    def _check_spec(self, files: Iterable[SourceFile]) -> None:
        formats = sorted({self._format(file) for file in files})
        for format_ in formats:
            if format_ not in text.TEXTUAL:
                check_tabular(format_, self.spec)
        if textual := [format_ for format_ in formats if format_ in text.TEXTUAL]:
            check_textual(textual, self.spec)

    def _types(self, file: SourceFile) -> dict[str, pa.DataType]:
        """The columns of a file and their types."""
        format_ = self._format(file)
        if format_ in text.TEXTUAL:
            named = self.spec.metadata if format_ == "markdown" else ()
            return dict.fromkeys([*text.METADATA, *named], pa.string())
        if format_ == "parquet":
            with self.filesystem.open(self._path(file), "rb") as raw:
                (types,) = decoded_apart(parquet.parquet_types, raw)
                return types
        with self._open(file) as stream:
            if format_ == "jsonl":
                return jsonl.json_types(stream, self.limits.document_bytes)
            return dict.fromkeys(csv.csv_header(csv.CsvStream(stream, self.spec.encoding), self.spec.delimiter), pa.string())

    def _open(self, file: SourceFile) -> io.BufferedReader:
        return listing.open_stream(self.filesystem, self._path(file), Budget(self.limits, file.size))

    def _pieces(self, file: SourceFile, target_bytes: int) -> Iterator[tuple[Piece, int]]:
        format_ = self._format(file)
        if file.size > target_bytes and format_ == "parquet":
            yield from self._row_group_pieces(file, target_bytes)
        elif file.size > target_bytes and format_ == "jsonl" and not suffixes.compression(file.path):
            yield from listing.byte_pieces(file, target_bytes)
        else:
            yield Piece(file), file.size

    def _row_group_pieces(self, file: SourceFile, target_bytes: int) -> Iterator[tuple[Piece, int]]:
        try:
            with _reading(), self.filesystem.open(self._path(file), "rb") as raw:
                pieces = list(decoded_apart(parquet.row_group_pieces, raw, file, target_bytes))
        except Unreadable:
            # Whoever reads the piece reports it.
            pieces = [(Piece(file), file.size)]
        yield from pieces

    def _read(self, piece: Piece, layout: Layout) -> Iterator[DocumentBatch]:
        file, format_ = piece.file, self._format(piece.file)
        if format_ == "parquet":
            with self.filesystem.open(self._path(file), "rb") as raw:
                yield from decoded_apart(parquet.read_parquet, raw, piece, layout)
        elif format_ == "jsonl":
            yield from jsonl.read_jsonl(lambda: self._open(file), piece, layout)
        else:
            with self._open(file) as stream:
                if format_ == "csv":
                    text_stream = csv.CsvStream(stream, self.spec.encoding)
                    yield from csv.read_csv(text_stream, piece, layout, self._block_bytes(file), self.spec.delimiter)
                else:
                    yield text.read_textual(stream, file, format_, layout)

    def _block_bytes(self, file: SourceFile) -> int:
        """Bytes in which a record of a CSV file must lie whole: the limit of a document; no more than a file that is not compressed has,
        in UTF-8.
        """
        most = self.limits.document_bytes
        return most if suffixes.compression(file.path) else min(4 * file.size + 1, most)


@contextmanager
def _reading() -> Iterator[None]:
    """Raises Unreadable for what is wrong with one file. What is wrong with the store passes."""
    try:
        yield
    except FileNotFoundError:
        raise Unreadable("expected the file that was listed, found none") from None
    except PermissionError:
        raise Unreadable("expected a file that may be read, found permission denied") from None
    except (pa.ArrowException, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise Unreadable(f"incomplete: expected a whole and valid file, found it broken ({type(error).__name__})") from None
    except OSError as error:
        # Arrow's decoders raise a bare OSError; those of disks and networks have a number or a class of their own.
        if type(error) is not OSError or error.errno is not None:
            raise
        raise Unreadable("incomplete: expected a whole and valid file, found it broken or cut off") from None
