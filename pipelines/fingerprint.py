"""Hashes that give things their identity.

A fingerprint is the hash of the canonical JSON of literals that bear identity. Paths, devices and batch sizes never enter one.
"""

import hashlib
import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

DIGEST_BYTES = 16
"""128 bits: a collision among 10^12 contents has a chance of 10^-15."""


def digests(*columns: pa.Array | pa.ChunkedArray) -> pa.Array:
    """BLAKE2b-128 of each row of `columns` (string or binary, no nulls): fixed_size_binary(16).

    A row's values are joined with the lengths of all but the last before them, so no two different rows have the same input.
    """
    parts = [whole(column).cast(pa.binary()) for column in columns]
    if len(parts) > 1:
        lengths = [pc.binary_length(part).cast(pa.string()).cast(pa.binary()) for part in parts[:-1]]
        parts = [pc.binary_join_element_wise(*lengths, *parts, b":")]
    blake2b = hashlib.blake2b
    return pa.array([blake2b(row, digest_size=DIGEST_BYTES).digest() for row in parts[0].to_pylist()], pa.binary(DIGEST_BYTES))


def whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def fingerprint(identity: dict[str, Any]) -> str:
    """32 hexadecimal digits of the canonical JSON of `identity`.

    Raises TypeError on anything but JSON literals: a repr that changes between runs must not become an identity.
    """
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=DIGEST_BYTES).hexdigest()
