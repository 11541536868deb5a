"""`revector demo`: a corpus of its own, and the whole story told with it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import SpecError

if TYPE_CHECKING:
    from rich.console import Console


def tell(keep: Path | None, console: "Console", documents: int | None = None) -> dict[str, Any]:
    """Tell the story on `console`, in the new or empty folder `keep` (None: a temporary one), with so many documents (None: all).

    Gives `{"seconds", "steps": [{"name", "command", "seconds", "documents", "embed", "reuse", "status", ...}]}`. Raises SpecError if
    `keep` holds something, and whatever the commands raise.
    """
    from flows.demo.corpus import read_glosses
    from flows.demo.story import Story

    with _place(keep) as folder:
        return Story(folder, console, read_glosses(documents), kept=keep is not None).tell()


@contextmanager
def _place(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="revector-demo-") as folder:
            yield Path(folder)
        return
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise SpecError(f"expected a new or empty folder at {keep}, found something there: name another with --keep")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep.resolve()
