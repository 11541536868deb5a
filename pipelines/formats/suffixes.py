"""What a file's name says of it: format and compression."""

from collections.abc import Mapping

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
