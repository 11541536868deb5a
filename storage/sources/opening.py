"""Opens the corpora that a spec names: files on disk or S3, and Lance tables."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipelines.content.documents import Corpus
from pipelines.errors import SpecError
from pipelines.spec.declared import LimitsSpec, SourceSpec
from pipelines.spec.parsing import absolute
from storage.sources import listing
from storage.sources.file_corpus import FileCorpus
from storage.sources.lance_corpus import LanceCorpus
from storage.store.s3 import S3FileSystem

SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


DEFAULT_LIMITS = LimitsSpec()


def open_corpus(source: SourceSpec, limits: LimitsSpec = DEFAULT_LIMITS) -> Corpus:
    """The corpus at `source.uri`, of which nothing is read beyond `limits`.

    S3 is reached as the AWS variables say, `AWS_ENDPOINT_URL` among them.
    Raises SpecError for a uri that is neither a path nor `s3://`, SourceMissing for a Lance table that is not there.
    """
    uri = _checked(source.uri)
    if source.format == "lance" or uri.endswith(".lance"):
        return LanceCorpus.latest(source.model_copy(update={"uri": uri}), limits)
    if uri.startswith("s3://"):
        return FileCorpus.at(S3FileSystem(), uri.removeprefix("s3://"), source, limits)
    return FileCorpus.at(StrictLocalFileSystem(), uri, source, limits)


def _checked(uri: str) -> str:
    """`uri` without a trailing slash; a path absolute."""
    scheme = SCHEME.match(uri)
    if "::" in uri or "\0" in uri or (scheme and scheme[1] != "s3"):
        raise SpecError(f"source.uri: expected a path or s3://bucket/prefix, found {uri!r}")
    if not scheme:
        return absolute(uri, Path.cwd())
    bucket, *key = uri.removeprefix("s3://").rstrip("/").split("/")
    if not bucket or listing.WILDCARD.search(bucket) or ".." in key:
        raise SpecError(f"source.uri: expected s3://bucket/prefix without '..', found {uri!r}")
    return uri.rstrip("/")


class StrictLocalFileSystem(LocalFileSystem):  # type: ignore[misc]
    """The local disk. A folder that cannot be listed is an error; fsspec would leave it out, as if its documents were gone."""

    def walk(self, path: str, maxdepth: int | None = None, **options: Any) -> Iterator[Any]:
        """As fsspec's, but raises OSError."""
        yield from super().walk(path, maxdepth, **{**options, "on_error": "raise"})
