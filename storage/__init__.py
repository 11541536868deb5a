"""Where it is kept: Lance tables, commits, catalog, ledger, index, object-store access."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from storage.reading.published import Published, open_published

__all__ = ["Published", "open_published"]


def __getattr__(name: str) -> Any:
    """Lance takes long to import: only who opens a table pays for it."""
    if name in __all__:
        from storage.reading import published

        return getattr(published, name)
    raise AttributeError(name)
