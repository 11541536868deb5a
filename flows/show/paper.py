"""Where people read: a console on which a text is only ever a text."""

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from pipelines.redaction import printable


class Paper(Console):
    """Ids, metadata and names of files come from others: what a terminal would obey in them is shown instead.

    Of all that is printed, in tables as well, and after the console's own styles, which stay.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As the console does, each text made printable."""
        return _harmless(super().render(renderable, options))


def _harmless(segments: Iterable[Segment]) -> Iterator[Segment]:
    for segment in segments:
        yield segment if segment.control else Segment(printable(segment.text), segment.style)


def paper(**options: Any) -> Paper:
    """Stdout, on which numbers are not coloured and lines are not broken; `options` as of rich's Console."""
    return Paper(**{"highlight": False, "soft_wrap": True, **options})
