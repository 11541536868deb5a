"""What marts say of documents by name, which an erasure takes out of them."""

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from storage.collection import Collection
from storage.marts import columns
from storage.marts.columns import MARTS, Mart
from storage.marts.mart_files import read_mart
from storage.reports.kept_reports import reported_generations

MESSAGES = (("runs", "error"), ("collections", "last_error"))
"""Columns of messages, by mart. What stands before the colon says of which kind one is, and stays."""


def named_marts(collection: Collection) -> Iterator[tuple[Mart, pa.Table]]:
    """Marts that have ids, names of files or messages of an earlier state, each with the rows that it has without them.

    Dead letters are those of the newest run that read the corpus, as `leave_marts` left them: that is of the corpus as it is.
    """
    for mart, without in _BARE:
        rows = read_mart(collection, mart)
        bare = without(collection, rows)
        if bare != rows:
            yield mart, bare


def _without_messages(column: str) -> Callable[[Collection, pa.Table], pa.Table]:
    def without(_: Collection, rows: pa.Table) -> pa.Table:
        kinds = pc.replace_substring_regex(rows[column], ":(?s).*", "")
        return rows.set_column(rows.schema.get_field_index(column), rows.schema.field(column), kinds)

    return without


def _of_reports_that_are_there(collection: Collection, rows: pa.Table) -> pa.Table:
    """An erasure takes all reports; what they said goes with them."""
    return rows.filter(pc.is_in(rows["generation"], value_set=pa.array(reported_generations(collection), pa.string())))


_BARE: tuple[tuple[Mart, Callable[[Collection, pa.Table], pa.Table]], ...] = (
    *((MARTS[mart], _without_messages(column)) for mart, column in MESSAGES),
    (columns.REPORTS, _of_reports_that_are_there),
)
