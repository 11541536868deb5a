"""Opens the source that a spec names. The extension point for kinds of sources is OPENERS."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipelines.content.source import Source
from pipelines.errors import SpecError
from pipelines.spec.declared import LimitsSpec, SourceSpec
from pipelines.spec.parsing import absolute
from storage.sources import listing
from storage.sources.file_source import FileSource
from storage.sources.lance_source import LanceSource
from storage.store.s3 import S3FileSystem

SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
DEFAULT_LIMITS = LimitsSpec()

Opener = Callable[[str, SourceSpec, LimitsSpec], Source | None]
"""Opens what is at a uri, without a slash at its end, a path absolute; None: it is not of the kind that this one opens."""


def open_source(spec: SourceSpec, limits: LimitsSpec = DEFAULT_LIMITS) -> Source:
    """The documents at `spec.uri`, of which nothing is read beyond `limits`.

    S3 is reached as the AWS variables say, `AWS_ENDPOINT_URL` among them.
    Raises SpecError for a uri that is neither a path nor `s3://`, SourceMissing for a Lance table that is not there.
    """
    uri = _checked(spec.uri)
    return next(source for opener in OPENERS if (source := opener(uri, spec, limits)) is not None)


def _lance(uri: str, spec: SourceSpec, limits: LimitsSpec) -> Source | None:
    named = spec.format == "lance" or uri.endswith(".lance")
    return LanceSource.latest(spec.model_copy(update={"uri": uri}), limits) if named else None


def _s3(uri: str, spec: SourceSpec, limits: LimitsSpec) -> Source | None:
    return FileSource.at(S3FileSystem(), uri.removeprefix("s3://"), spec, limits) if uri.startswith("s3://") else None


def _disk(uri: str, spec: SourceSpec, limits: LimitsSpec) -> Source:
    return FileSource.at(StrictLocalFileSystem(), uri, spec, limits)


OPENERS: tuple[Opener, ...] = (_lance, _s3, _disk)
"""In the order in which they are asked. The last one takes every path."""


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
