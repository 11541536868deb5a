"""Hashes that give things their identity.

A fingerprint is the hash of the canonical JSON of literals that bear identity. Paths, devices and batch sizes never enter one.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

DIGEST_BYTES = 16
"""128 bits: a collision among 10^12 contents has a chance of 10^-15."""


def digest(*parts: bytes) -> bytes:
    """BLAKE2b-128 of `parts`, each preceded by its length, so that no two different lists have the same input."""
    h = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        h.update(len(part).to_bytes(8, "little"))
        h.update(part)
    return h.digest()


def content_hash(text: str) -> bytes:
    """The identity of a content: BLAKE2b-128 of its UTF-8 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


def content_hashes(texts: Iterable[str]) -> list[bytes]:
    """`content_hash` of each text."""
    return [content_hash(text) for text in texts]


def fingerprint(identity: dict[str, Any]) -> str:
    """32 hexadecimal digits of the canonical JSON of `identity`.

    Raises TypeError on anything but JSON literals: a repr that changes between runs must not become an identity.
    """
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=DIGEST_BYTES).hexdigest()
