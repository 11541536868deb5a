"""The extension point of reports: what is read off the vectors of a version, for people."""

from collections.abc import Iterable
from typing import Protocol

from pipelines.measures.gate import Gate
from storage.tables.version import Version


class Analysis(Protocol):
    """A function of one version. Nothing depends on what it says: each of its measures is a Gate of the kind "information"."""

    def __call__(self, version: Version, /) -> Iterable[Gate]: ...
