"""The tokenizer that a model has once it is loaded. It need not be its `tokenizer.json`.

transformers builds some classes of tokenizers anew, from the vocabulary in that file and the settings beside it, and sentence-transformers
may put lower-casing before it. So it is asked, by loading all of the model but the weights of its transformer.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sentence_transformers.base.modules import Transformer
from tokenizers import Tokenizer
from torch import nn

from pipelines.spaces.space import Model
from workers.encoders.text.stack import copied_tokenizer, load_modules


def tokenizer_as_loaded(model: Model, lying: bytes) -> bytes:
    """A `tokenizer.json` that counts as the loaded `model` does: `lying`, the one in its folder, if that does.

    Raises ModelError if the model cannot be loaded.
    """
    with _weightless():
        loaded = copied_tokenizer(model, load_modules(model, "cpu"))
    written = _written(loaded)
    if loaded.encode_special_tokens:  # it takes no text for a special token
        written["added_tokens"] = [token for token in written["added_tokens"] if not token["special"]]
    elif _what_counts(written) == _what_counts(_written(Tokenizer.from_str(lying.decode()))):
        return lying
    return json.dumps(written, ensure_ascii=False).encode()


class _Stub(nn.Module):
    """Stands for a transformer that is asked for nothing but its config."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        raise NotImplementedError


@contextmanager
def _weightless() -> Iterator[None]:
    """Within it, loading a SentenceTransformer reads no weights of a transformer."""
    load = Transformer._load_model
    Transformer._load_model = lambda _self, _name, _task, config, *_, **__: (_Stub(config), {"missing_keys": []})
    try:
        yield
    finally:
        Transformer._load_model = load


def _written(tokenizer: Tokenizer) -> dict[str, Any]:
    """As a `tokenizer.json` has it."""
    written: dict[str, Any] = json.loads(tokenizer.to_str())
    return written | {"truncation": None, "padding": None}


def _what_counts(written: dict[str, Any]) -> list[Any]:
    """What decides how many tokens a text has that names no special one. What only names, places or decodes them may differ."""
    model = {name: value for name, value in written["model"].items() if value not in (None, "")}
    if "unk_token" not in model:
        model.pop("fuse_unk", None)
    added = {token["content"] for token in written["added_tokens"] if not token["special"]}
    around = Tokenizer.from_str(json.dumps(written)).num_special_tokens_to_add(is_pair=False)
    return [written["normalizer"], written["pre_tokenizer"], model, added, around]
