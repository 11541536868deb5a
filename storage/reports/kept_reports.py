"""Records of reports: what was said of a version, and the versions of the tables that it stands on. They never change.

_revector/<collection>/reports/<generation>/<version>/<kind>-<identity>.json
"""

from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import orjson

from pipelines.errors import NotFound
from pipelines.measures.gate import Gate
from storage.collection import Collection, own_part
from storage.tables.checksums import commit_of


@dataclass(frozen=True, slots=True)
class KeptReport:
    """What a report said of one version."""

    collection: str
    generation: str
    version: int
    """Of the vectors table."""
    kind: str
    """As the spec calls it, or "rows": what the others stand on."""
    identity: str
    """Of all that decides what it says: the rows of the version, the options, the files that they name, the atlas."""
    atlas: int | None
    """The number of the atlas; None where it needs none."""
    summary: dict[str, Any]
    """Figures, ids and names: no texts."""
    gates: tuple[Gate, ...] = ()
    """What is held against a limit of the spec."""
    tables: dict[str, int] = field(default_factory=dict)
    """Versions of tables that belong to it, by name."""
    commits: dict[str, str] = field(default_factory=dict)
    """Which commit each of these versions is: a table that was lost and made anew may reach the same number. Records from before it was
    kept do not say."""
    options: dict[str, Any] = field(default_factory=dict)
    """As declared."""
    seconds: float = 0.0
    at: str = ""
    who: str = ""
    run_id: str | None = None

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)


_NAMES = tuple(field.name for field in fields(KeptReport))


def keep_report(collection: Collection, report: KeptReport) -> KeptReport:
    """Keep it, unless one of its identity is there already. Gives the one that is kept."""
    key = _key(collection, report)
    if collection.objects.put_if_absent(key, orjson.dumps(asdict(report), option=orjson.OPT_SERIALIZE_NUMPY)):
        return report
    return _report(collection.objects.get_json(key)) or report


def is_whole(collection: Collection, report: KeptReport) -> bool:
    """Whether the tables that it stands on are in the store as they were."""
    try:
        found = {table: commit_of(collection.store.open(table, version)) for table, version in report.tables.items()}
    except NotFound:
        return False
    return all(report.commits.get(table, commit) == commit for table, commit in found.items())


def forget_report(collection: Collection, report: KeptReport) -> None:
    """Remove one record: of a report whose tables are gone, which can then be made again."""
    collection.objects.delete(_key(collection, report))


def find_report(collection: Collection, generation: str, version: int, kind: str, identity: str) -> KeptReport | None:
    return _report(collection.objects.get_json(f"{_folder(collection, generation)}/{version:012d}/{kind}-{identity}.json"))


def kept_reports(collection: Collection, generation: str, kind: str | None = None) -> list[KeptReport]:
    """Of a generation, by version: of one kind, or all."""
    return [report for version in reported_versions(collection, generation) for report in reports_of(collection, generation, version, kind)]


def reports_of(
    collection: Collection, generation: str, version: int, kind: str | None = None, but: Container[tuple[str, str]] = ()
) -> list[KeptReport]:
    """What is kept of one version, without those of the kinds and identities `but`, which are not read."""
    folder = f"{_folder(collection, generation)}/{version:012d}"
    names = [name for name in collection.objects.names(folder) if kind is None or name.startswith(f"{kind}-")]
    names = [name for name in names if tuple(name.removesuffix(".json").split("-", 1)) not in but]
    found = (_report(collection.objects.get_json(f"{folder}/{name}")) for name in names)
    return [report for report in found if report]


def reported_versions(collection: Collection, generation: str) -> list[int]:
    """Of which there are records, ascending."""
    return [int(name) for name in collection.objects.names(_folder(collection, generation))]


def reported_generations(collection: Collection) -> list[str]:
    """The names of generations that there are records or atlases of."""
    parts = {part for kind in ("reports", "atlases") for part in collection.objects.names(collection.key(kind))}
    return [collection.table("vectors", part) for part in sorted(parts)]


def carry_reports(collection: Collection, generation: str, version: int, to: int) -> None:
    """Let what is kept of `version` be kept of version `to`, too, which has the same rows."""
    for report in reports_of(collection, generation, version):
        keep_report(collection, replace(report, version=to))


def anything_of(collection: Collection, generation: str, version: int | None = None) -> bool:
    """Whether there is a record of the version, or without it any record or atlas. Some stores list folders in which nothing is left."""
    folder = _folder(collection, generation)
    if version is not None:
        return any(collection.objects.walk(f"{folder}/{version:012d}").values())
    atlases = collection.key(f"atlases/{own_part(generation)}")
    return any(size for place in (folder, atlases) for size in collection.objects.walk(place).values())


def forget_reports(collection: Collection, generation: str, version: int | None = None) -> None:
    """Remove the records of one version; without it of all, and the atlases with them."""
    folder = _folder(collection, generation)
    if version is not None:
        collection.objects.remove(f"{folder}/{version:012d}")
        return
    collection.objects.remove(folder)
    collection.objects.remove(collection.key(f"atlases/{own_part(generation)}"))


def _key(collection: Collection, report: KeptReport) -> str:
    return f"{_folder(collection, report.generation)}/{report.version:012d}/{report.kind}-{report.identity}.json"


def _folder(collection: Collection, generation: str) -> str:
    return collection.key(f"reports/{own_part(generation)}")


def _report(record: Mapping[str, Any] | None) -> KeptReport | None:
    if record is None:
        return None
    known = {name: record[name] for name in _NAMES if name in record}  # a newer version may have written it
    gates = tuple(Gate(**{**gate, "rows": tuple(gate["rows"])}) for gate in record["gates"])
    return KeptReport(**{**known, "gates": gates})
