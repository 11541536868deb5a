"""What a chunker is: the way from a text to the places where it is cut."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pipelines.chunking.tokens import Offsets

Span = tuple[int, int]
"""Start and end in code points."""
Cut = Callable[[str, Offsets], list[Span]]


class Chunker(Protocol):
    """Cuts texts into chunks. Can be pickled."""

    @property
    def identity(self) -> dict[str, Any]:
        """The JSON literals that decide the spans."""
        ...

    def spans(self, texts: Sequence[str]) -> list[list[Span]]:
        """The chunks of each text, in order. A text's spans do not depend on the others."""
        ...
