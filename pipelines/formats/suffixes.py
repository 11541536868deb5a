"""What a file's path says of it: format, compression, and the partition that it is in."""

from collections.abc import Mapping
from urllib.parse import unquote

from pipelines.spec.declared import Format

SUFFIXES: Mapping[str, Format] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".txt": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
}
CODECS: Mapping[str, str] = {".gz": "gzip", ".zst": "zstd"}


def split_suffixes(path: str) -> tuple[str, str]:
    """The suffix that tells the format and the one that tells the compression, in lower case: `a.csv.gz` has `.csv`, `.gz`."""
    name, last = _split_suffix(path.rpartition("/")[2].lower())
    return (_split_suffix(name)[1], last) if last in CODECS else (last, "")


def _split_suffix(name: str) -> tuple[str, str]:
    stem, dot, last = name.rpartition(".")
    return (stem, dot + last) if dot else (name, "")


def format_of(path: str, declared: Format | None = None) -> Format | None:
    """`declared`, else what the suffixes say, else None. Parquet compresses its own pages: `.parquet.gz` is nothing known."""
    suffix, compression = split_suffixes(path)
    format_ = SUFFIXES.get(suffix)
    return declared or (None if format_ == "parquet" and compression else format_)


def compression(path: str) -> str | None:
    """The codec that a file's suffix names."""
    return CODECS.get(split_suffixes(path)[1])


NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
"""Stands for null in the path of a table that is partitioned as Hive does it."""


def partition(path: str) -> dict[str, str | None]:
    """The columns that folders are named by: `lang=de/part-0.parquet` has `de` as its `lang`."""
    columns: dict[str, str | None] = {}
    for folder in path.split("/")[:-1]:
        name, equals, value = folder.partition("=")
        if name and equals:
            columns[unquote(name)] = None if value == NO_PARTITION else unquote(value)
    return columns
