"""A table of a page as CSV or JSON, for who works on with it."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import Response

_RISKY = ("=", "+", "-", "@", "\t", "\r")
"""With which a spreadsheet takes a cell for a formula."""
AS = ("csv", "json")


def as_file(rows: Sequence[Mapping[str, Any]], kind: str, name: str) -> Response:
    """The rows, whose keys are the columns, as a download called `name`. `kind`: one of `AS`."""
    headers = {"content-disposition": f'attachment; filename="{name}.{kind}"'}
    if kind == "json":
        return Response(orjson.dumps(list(rows), option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json", headers=headers)
    out = io.StringIO()
    writer = csv.writer(out)
    columns = list(rows[0]) if rows else []
    writer.writerow(columns)
    writer.writerows([_cell(row[column]) for column in columns] for row in rows)
    return Response(out.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _cell(value: Any) -> Any:
    """Documents name ids and files, and may mean harm by it. Numbers are numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_RISKY) else value
