"""What a loader of models must not pass over: weights that do not fit the architecture."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sentence_transformers.base.modules import Transformer
from transformers.utils.logging import ERROR, get_verbosity, set_verbosity

from pipelines.errors import ModelError

UNUSED = ("pooler.",)
"""Layers whose output no module takes: models are often saved without their weights."""


@contextmanager
def whole_weights(folder: str) -> Iterator[None]:
    """Within it, loading a SentenceTransformer raises ModelError where layers would keep the random numbers that they are made with.

    transformers only warns of them, and tells which they are to who asks while loading, as sentence-transformers does not.
    """
    load = Transformer._load_model

    def checked(*args: Any, **options: Any) -> Any:
        model, report = load(*args, **options, output_loading_info=True)
        missing = sorted(name for name in report["missing_keys"] if not name.startswith(UNUSED))
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise ModelError(f"{folder}: expected weights of every layer, found none of {missing[0]}{more}: they are of another model")
        return model

    verbosity = get_verbosity()
    set_verbosity(ERROR)  # its own report is a table
    Transformer._load_model = checked
    try:
        yield
    finally:
        Transformer._load_model = load
        set_verbosity(verbosity)
