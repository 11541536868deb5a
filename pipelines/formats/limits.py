"""What one file may cost: a stream and a row count that stop at the limits of the spec."""

import io
from dataclasses import dataclass
from typing import Any

from pipelines.spec.declared import LimitsSpec

EXPANSION_FLOOR = 128 << 20
"""Bytes that any file may unfold to: small files of much repetition are common, and cost little."""


class Unreadable(Exception):
    """A file that cannot be read, or not to its end. The message is the reason of its dead letter."""


def beyond(limit: str, most: int, unit: str) -> str:
    """The reason of a dead letter that a limit made."""
    return f"limits.{limit}: expected at most {most:,} {unit}, found more: raise it if they are meant"


@dataclass(slots=True)
class Budget:
    """What may still be read of a file, or of a piece of it."""

    limits: LimitsSpec
    stored: int
    """Bytes of what is read, as it is stored."""
    bytes: int = 0
    """Decompressed and decoded so far."""
    rows: int = 0

    def spend(self, bytes: int, rows: int = 0) -> None:
        """Count what was read. Raises Unreadable beyond a limit."""
        self.bytes += bytes
        self.rows += rows
        limits = self.limits
        if self.rows > limits.file_rows:
            raise Unreadable(beyond("file_rows", limits.file_rows, "rows of a file"))
        if self.bytes > limits.file_bytes:
            raise Unreadable(beyond("file_bytes", limits.file_bytes, "bytes of a file, decompressed and decoded"))
        if self.bytes > max(EXPANSION_FLOOR, limits.expansion * self.stored):
            raise Unreadable(beyond("expansion", limits.expansion, f"bytes for each of the {self.stored:,} stored"))


class Metered(io.RawIOBase):
    """A stream of bytes that are counted as they are read."""

    def __init__(self, stream: Any, budget: Budget) -> None:
        """`stream`: has `readinto` and `seek`."""
        self._stream = stream
        self._budget = budget

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._stream.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def readinto(self, buffer: Any) -> int:
        """Raises Unreadable beyond a limit."""
        count = int(self._stream.readinto(buffer))
        self._budget.spend(count)
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()
