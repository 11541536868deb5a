"""Inputs that are meant to hurt, of any size: the tests feed small ones, `benchmarks.hostile` large ones."""

import base64
import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

BLOCK = 1 << 20
GROUP_ROWS = 1 << 20


def parquet_bomb(path: Path, rows: int, value_bytes: int, columns: tuple[str, ...] = ("text",)) -> None:
    """Rows that share one value, which is stored once: `rows` x `value_bytes` of text in about as many bytes as one value compressed."""
    value = pa.array([("boom " * (value_bytes // 5 + 1))[:value_bytes]])
    limit = 2 * value_bytes + BLOCK
    schema = pa.schema({"id": pa.int64(), **dict.fromkeys(columns, pa.dictionary(pa.int32(), pa.string()))})
    with pq.ParquetWriter(path, schema, compression="zstd", store_schema=False, dictionary_pagesize_limit=limit) as file:
        for first in range(0, rows, GROUP_ROWS):
            ids = np.arange(first, min(first + GROUP_ROWS, rows))
            same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(ids), dtype=np.int32)), value)
            file.write_table(pa.table([pa.array(ids), *([same] * len(columns))], schema=schema))


def nested_bomb(path: Path, rows: int, items: int, value_bytes: int) -> None:
    """Rows with lists of one value, again and again, in the column `tags`."""
    same = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows * items, dtype=np.int32)), pa.array(["y" * value_bytes]))
    tags = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * items), same)
    table = pa.table({"id": np.arange(rows), "text": [f"text {n}" for n in range(rows)], "tags": tags})
    pq.write_table(table, path, compression="zstd", store_schema=False, dictionary_pagesize_limit=2 * value_bytes + BLOCK)


def encrypted_column(path: Path) -> None:
    """A footer that anybody can read, and `text` encrypted (Parquet modular encryption) under a key that is kept elsewhere."""

    class Keys(pe.KmsClient):  # type: ignore[misc]
        def wrap_key(self, key: bytes, master: str) -> str:
            return base64.b64encode(key).decode()

    wanted = pe.EncryptionConfiguration(footer_key="footer", column_keys={"column": ["text"]}, plaintext_footer=True)
    properties = pe.CryptoFactory(lambda _: Keys()).file_encryption_properties(pe.KmsConnectionConfig(), wanted)
    table = pa.table({"id": ["1", "2"], "text": ["one", "two"], "note": ["n", "n"]})
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as file:
        file.write_table(table)


def impossible_repetition(path: Path) -> None:
    """A footer with one byte changed: the repetition of `id` is none that there is."""
    pq.write_table(pa.table({"id": ["1", "2"], "text": ["one", "two"], "note": ["n", "n"]}), path)
    optional, none = b"\x25\x02\x18\x02id", b"\x25\x37\x18\x02id"
    assert path.read_bytes().count(optional) == 1
    path.write_bytes(path.read_bytes().replace(optional, none))


def empty_rows(path: Path, rows: int) -> None:
    """Rows with an id and no text."""
    with pq.ParquetWriter(path, pa.schema({"id": pa.int64(), "text": pa.string()})) as file:
        for first in range(0, rows, GROUP_ROWS):
            ids = np.arange(first, min(first + GROUP_ROWS, rows))
            file.write_table(pa.table({"id": ids, "text": pa.repeat(pa.scalar(""), len(ids))}))


def compressed(path: Path, head: bytes, block: bytes, times: int) -> None:
    """`head`, then `block` again and again, as the suffix of `path` says; in blocks, for a large file."""
    if path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            write_blocks(file.write, head, block, times)
    else:
        with gzip.open(path, "wb", compresslevel=zlib.Z_BEST_COMPRESSION) as file:
            write_blocks(file.write, head, block, times)


def plain(path: Path, head: bytes, block: bytes, times: int, tail: bytes = b"") -> None:
    """The same uncompressed, and `tail` behind it."""
    with path.open("wb") as file:
        write_blocks(file.write, head, block, times)
        file.write(tail)


def write_blocks(write: Callable[[bytes], object], head: bytes, block: bytes, times: int) -> None:
    write(head)
    for _ in range(times):
        write(block)


def words(size: int) -> Iterator[bytes]:
    """Prose of `size` bytes, of which no two parts are alike."""
    written = number = 0
    while written < size:
        part = "".join(f"Sentence {n} tells of {n * 7919 % 10_007} things. " for n in range(number, number + 1000)).encode()[
            : size - written
        ]
        yield part
        written, number = written + len(part), number + 1000
