"""Landmarks as TensorBoard's Embedding Projector reads them: a folder that `tensorboard --logdir` is given, made without TensorBoard."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.reports.drawing.chart import short_text
from workers.reports.drawing.whole import whole_file

CELL = 200
"""Letters of a text or a value: the projector shows them beside a point."""
_CONFIG = """embeddings {{
  tensor_name: "{name}"
  tensor_path: "tensors.bytes"
  tensor_shape: {points}
  tensor_shape: {dimension}
  metadata_path: "metadata.tsv"
}}
"""


def write_projector(out: Path, name: str, vectors: NDArray[np.floating[Any]], columns: Mapping[str, Sequence[Any]]) -> None:
    """Make the folder `out` of (n, d) `vectors` and their `columns`, each of n values.

    `tensors.bytes` is float32, little-endian, row after row; `metadata.tsv` has the columns, `projector_config.pbtxt` says what is where.

    `columns` has at least two: of one the projector expects no header. Raises SpecError if `out` is there, ValueError for other columns.
    """
    if len(columns) < 2 or any(len(values) != len(vectors) for values in columns.values()):
        raise ValueError(f"expected two columns or more of {len(vectors):,} values, found {[len(values) for values in columns.values()]}")
    with whole_file(out) as part:
        part.mkdir()
        (part / "tensors.bytes").write_bytes(np.ascontiguousarray(vectors, "<f4").tobytes())
        with (part / "metadata.tsv").open("w", encoding="utf-8", newline="\n") as lines:
            lines.write("\t".join(map(_cell, columns)) + "\n")
            for row in zip(*columns.values(), strict=True):
                lines.write("\t".join(map(_cell, row)) + "\n")
        quoted = short_text(name).replace("\\", "\\\\").replace('"', '\\"')
        config = _CONFIG.format(name=quoted, points=len(vectors), dimension=vectors.shape[1])
        (part / "projector_config.pbtxt").write_text(config, encoding="utf-8")


def _cell(value: Any) -> str:
    """In one line, without tabs. Nothing but one of them divides a file of values."""
    return "" if value is None else short_text(value, CELL)
