"""Versions of a generation by name: what readers have, and what runs have finished."""

from storage.history.built import find_built
from storage.history.catalog import Publication, publications
from storage.store.lance import Store

PUBLISHED = "published"
"""Names what readers have."""


def finished_versions(store: Store, collection: str, generation: str) -> list[Publication]:
    """The versions of a generation that were published, oldest first, and then the one that a run finished last."""
    built = find_built(store, collection, generation)
    rows = [row for row in publications(store, collection) if row.generation == generation]
    return [*rows, built.publication] if built else rows
