"""Queries that people have labelled with the documents that answer them, as a file has them."""

from dataclasses import dataclass
from pathlib import PurePosixPath

import orjson

from pipelines.errors import SpecError
from pipelines.spec.reports import ReportKind, ReportOptions
from storage.store.objects import Objects


@dataclass(frozen=True, slots=True)
class Labelled:
    """A query of `gates.queries`, and what answers it: one line of the file."""

    query: str
    relevant: frozenset[str]
    """Ids of the documents that answer it."""


def load_labelled(uri: str) -> list[Labelled]:
    """The queries in a file of JSON lines. Raises SpecError that names the file and the line."""
    lines = [(number, line) for number, line in enumerate(declared_file("gates.queries", uri).splitlines(), 1) if line.strip()]
    if not lines:
        raise SpecError(f"gates.queries: expected queries in {uri}, found none")
    return [_labelled(line, f"{uri}:{number}") for number, line in lines]


def declared_file(key: str, uri: str) -> bytes:
    """What is in the file, local or on S3, that the spec names under `key`. Raises SpecError if there is none."""
    path = PurePosixPath(uri.removeprefix("s3://"))
    scheme = "s3://" if uri.startswith("s3://") else ""
    content = Objects(f"{scheme}{path.parent}").get(path.name)
    if content is None:
        raise SpecError(f"{key}: expected a file at {uri}, found none")
    return content


def option_files(kind: ReportKind, options: ReportOptions) -> dict[str, bytes]:
    """What is in the files that the options of a report name, by key. Raises SpecError for one that is not there."""
    return {key: declared_file(f"reports.{kind}.{key}", uri) for key in options.files if (uri := getattr(options, key))}


def _labelled(line: bytes, place: str) -> Labelled:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise SpecError(f"gates.queries: {place}: expected a JSON object, found {error.msg}") from None
    fields = record if isinstance(record, dict) else {}
    query, relevant = fields.get("query"), fields.get("relevant")
    if not isinstance(query, str) or not query.strip():
        raise SpecError(f'gates.queries: {place}: expected a text under "query", found {_found(query)}')
    if not isinstance(relevant, list) or not relevant or not all(isinstance(doc_id, str | int) for doc_id in relevant):
        raise SpecError(f'gates.queries: {place}: expected a list of document ids under "relevant", found {_found(relevant)}')
    return Labelled(query, frozenset(map(str, relevant)))


def _found(value: object) -> str:
    return "none" if value is None else orjson.dumps(value).decode()[:80]
