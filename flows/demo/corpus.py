"""The demo's corpus: definitions from WordNet 3.0 (LICENSE.wordnet), and what a story does to the files that hold them."""

from collections.abc import Callable, Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SHIPPED = Path(__file__).with_name("glosses.parquet")
REVISED_EACH = 100
"""One document in so many is revised: 1 %."""

Key = Callable[[pa.Table], pa.ChunkedArray]
"""The name of the file that each row belongs to."""


def read_glosses(documents: int | None = None) -> pa.Table:
    """`id, term, gloss, pos`, all strings: the whole corpus, or so many rows evenly spread over it."""
    glosses = pq.read_table(SHIPPED)
    return glosses if documents is None else glosses.take(np.linspace(0, len(glosses) - 1, documents, dtype=np.int64))


def by_part_of_speech(glosses: pa.Table) -> pa.ChunkedArray:
    """`noun`, `verb`, `adj`, `adv`."""
    return glosses["pos"]


def by_letter(glosses: pa.Table) -> pa.ChunkedArray:
    """The first letter of the term; `0` where it begins with none."""
    first = pc.utf8_lower(pc.utf8_slice_codeunits(glosses["term"], 0, 1))
    return pc.replace_substring_regex(first, "[^a-z]", "0")


def lay_out(glosses: pa.Table, folder: Path, key: Key) -> int:
    """Make `folder` hold exactly `glosses`, one Parquet file a key. Gives how many had to be written."""
    folder.mkdir(exist_ok=True)
    keys = key(glosses)
    wanted = {folder / f"{name}.parquet": glosses.filter(pc.equal(keys, name)) for name in keys.unique().to_pylist()}
    for path in set(folder.iterdir()) - wanted.keys():
        path.unlink()
    changed = {path: rows for path, rows in wanted.items() if not path.exists() or not pq.read_table(path).equals(rows)}
    for path, rows in changed.items():
        pq.write_table(rows, path)
    return len(changed)


def revised(glosses: pa.Table) -> pa.Table:
    """With a remark added to the gloss of every hundredth document, the first among them."""
    chosen = pa.array(np.arange(len(glosses)) % REVISED_EACH == 0)
    edited = pc.binary_join_element_wise(glosses["gloss"], "as the second edition has it", "; ")
    return glosses.set_column(glosses.schema.get_field_index("gloss"), "gloss", pc.if_else(chosen, edited, glosses["gloss"]))


def without(glosses: pa.Table, ids: Collection[str]) -> pa.Table:
    """`glosses` but for the documents of these ids."""
    return glosses.filter(pc.invert(pc.is_in(glosses["id"], value_set=pa.array(ids, pa.string()))))
