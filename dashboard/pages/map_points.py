"""The map: a version as points in the plane, coloured, compared with another version, and what a viewer chooses on it as a table."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from numpy.typing import NDArray

from dashboard.desk import AtDesk, Desk
from dashboard.wording.packed import as_bytes, packed
from dashboard.wording.tabular import AS, as_file
from pipelines.errors import NotFound, SpecError
from storage.collection import Collection, own_part
from storage.reading.neighbours import NOWHERE as NO_ROW
from storage.reading.neighbours import nearest, vectors_at
from storage.reading.versions import version_name
from storage.reports.described import Described
from storage.reports.point_changes import Changes, changes_since
from storage.reports.point_values import PointValues, ages_of, value_fields, values_of
from storage.reports.points import Points, inside
from storage.store.lance import take

router = APIRouter()

CLUSTERS, AGE, CHANGES, FIELD = "clusters", "age", "changes", "metadata."
"""What colours can be of; FIELD with the name of one."""
SHOWN = 200
"""Rows of a table."""
FILED = 5_000
"""Rows of a file."""
MOST_CORNERS = 120
"""Of a lasso."""
NEIGHBOURS = 8
SIGNS = ("·", "+", "◆", "○")
"""Of what is the same, came, changed and moved; what went has a minus."""
WORDS = ("same", "came", "changed", "moved")


@dataclass(frozen=True, slots=True)
class Asked:
    """The state of the page, as its address has it."""

    of: Annotated[str, Query(max_length=200)] = ""
    """`generation@version`; empty: what readers have."""
    atlas: Annotated[str, Query(max_length=10)] = ""
    """Its number: by another one, points have other numbers and places."""
    since: Annotated[str, Query(max_length=200)] = ""
    by: Annotated[str, Query(max_length=200)] = ""
    cluster: Annotated[str, Query(max_length=10)] = ""
    point: Annotated[str, Query(max_length=10)] = ""
    lasso: Annotated[str, Query(max_length=2_000)] = ""
    """x,y,x,y...: corners in units of the map."""
    near: Annotated[str, Query(max_length=1)] = ""
    view: Annotated[str, Query(max_length=60)] = ""
    """x,y,zoom: the place in the middle, and how much larger than the whole it is. Only the browser reads it."""


AsAsked = Annotated[Asked, Depends()]


@router.get("/c/{name}/map")
def the_map(request: Request, name: str, desk: AtDesk, asked: AsAsked) -> Response:
    collection = desk.collection(name)
    versions = desk.survey.versions(collection)
    if not versions:
        return desk.page(request, "map.html", name=name, looking=None)
    looking = _Looking(desk, collection, asked)
    return desk.page(request, "map.html", name=name, looking=looking, chosen=looking.chosen())


@router.get("/c/{name}/map/points")
def points(request: Request, name: str, desk: AtDesk, asked: AsAsked) -> Response:
    looking = _Looking(desk, desk.collection(name), asked)
    return as_bytes(request, looking.kept("packed", (), looking.packed_points))


@router.get("/c/{name}/map/codes")
def codes(request: Request, name: str, desk: AtDesk, asked: AsAsked) -> Response:
    looking = _Looking(desk, desk.collection(name), asked)
    stands_on = looking.since if looking.by == CHANGES else tuple(looking.earlier) if looking.by == AGE else None
    return as_bytes(request, looking.kept("codes", (looking.by, stands_on), looking.packed_codes))


@router.get("/c/{name}/map/chosen")
def chosen(request: Request, name: str, desk: AtDesk, asked: AsAsked, as_: Annotated[str, Query(alias="as")] = "") -> Response:
    looking = _Looking(desk, desk.collection(name), asked)
    found = looking.chosen(FILED if as_ in AS else SHOWN)
    if as_ in AS and found:
        return as_file(found.flat(), as_, f"{name}-map")
    return desk.page(request, "map_chosen.html", name=name, looking=looking, chosen=found)


@dataclass(frozen=True)
class Chosen:
    """What a viewer chose."""

    title: str
    count: int
    """Points in all, of which `rows` has some."""
    rows: list[dict[str, Any]]
    query: str
    """Its part of the address."""
    went: int = 0
    """Points of the version that is compared with, at the same place, that are no more."""
    neighbours: list[dict[str, Any]] | None = None
    """Of a single one; None: not asked for."""
    single: bool = False

    def flat(self) -> list[dict[str, Any]]:
        """For a file: metadata as columns."""
        return [
            {key: value for key, value in row.items() if key not in ("metadata", "sign")}
            | {f"metadata_{key}": value for key, value in (row.get("metadata") or {}).items()}
            for row in self.rows
        ]


class _Looking:
    """One version on the map, as a request asks for it."""

    def __init__(self, desk: Desk, collection: Collection, asked: Asked) -> None:
        self.asked = asked
        self.texts = desk.settings.texts
        self._survey = desk.survey
        self._turn = desk.answerer.turn
        self._collection = collection
        self.versions = desk.survey.versions(collection)
        history = desk.lookout.publications(collection.name)
        self.published = (history[-1].generation, history[-1].version) if history else None
        wanted = _whole("an atlas", asked.atlas or "0")
        self.of = self._described(asked.of, wanted) or self._first()
        if wanted and self.of.atlas != wanted:
            raise NotFound(
                f"expected atlas {wanted} of {self.of}, found {self.of.atlas}: open the map without what was chosen on the other"
            )
        self.since = self._described(asked.since, self.of.atlas)
        self.points: Points = desk.survey.points(self.of)
        self.fields = value_fields(self.of) if self.texts else []
        self.by = self._by(asked.by)

    def _described(self, address: str, atlas: int) -> Described | None:
        """By that atlas, if it can be. Raises NotFound for a version that has no map."""
        if not address:
            return None
        part, _, number = address.rpartition("@")
        generation = self._collection.table("vectors", part)
        if (generation, int(number) if number.isdecimal() else -1) not in self.versions:
            known = ", ".join(self.address(one) for one in self.versions)
            raise NotFound(f"expected a version that has a map ({known}), found {address[:100]!r}")
        return self._survey.described(self._collection, generation, int(number), atlas)

    def _first(self) -> Described:
        """What readers have; if that has no map, the newest version of their generation that has one, or of any."""
        if not self.versions:
            raise NotFound(f"expected a map of {self._collection}, found none: `revector report {self._collection} map` makes one")
        own = [one for one in self.versions if self.published and one[0] == self.published[0]] or self.versions
        return self._survey.described(self._collection, *(self.published if self.published in own else own[-1]))

    def _by(self, wanted: str) -> str:
        if not wanted or (wanted == CHANGES and self.since is None):
            return CHANGES if self.since else CLUSTERS
        if wanted not in self.offered:
            raise SpecError(f"expected a colouring of {', '.join(self.offered)}, found {wanted[:100]!r}")
        return wanted

    @property
    def offered(self) -> dict[str, str]:
        """What colours can be of, and how that is called."""
        named = {CLUSTERS: "clusters"}
        if self.earlier:
            named[AGE] = "age"
        if self.since:
            named[CHANGES] = f"changes since version {self.since.version}"
        return named | {f"{FIELD}{field}": field for field in self.fields}

    @property
    def earlier(self) -> list[tuple[str, int]]:
        return [one for one in self.versions if one[0] == self.of.generation and one[1] < self.of.version]

    @staticmethod
    def address(version: tuple[str, int]) -> str:
        return version_name(*version)

    def named(self, version: tuple[str, int]) -> str:
        """For a person."""
        read = ", what readers have" if version == self.published else ""
        return f"version {version[1]} of {own_part(version[0])}{read}"

    def link(self, **other: str) -> str:
        """The address of the page with something else in it: an empty value is left out."""
        own = {"of": self.of.address, "atlas": str(self.of.atlas), "since": self.asked.since, "by": self.by, "view": self.asked.view}
        return urlencode({key: value for key, value in (own | other).items() if value})

    def kept(self, what: str, key: tuple[Any, ...], make: Callable[[], bytes]) -> bytes:
        return self._survey.keep((what, self.of, self.texts, *key), make, len)

    def packed_points(self) -> bytes:
        terrain = self.points.terrain
        said = {
            "extent": terrain.extent,
            "islands": [[one.number, self.island_name(place), one.colour, one.x, one.y] for place, one in enumerate(terrain.islands)],
            "counts": self.points.counts.tolist(),
        }
        return packed(said, {"x": self.points.x, "y": self.points.y, "island": self.points.islands})

    def packed_codes(self) -> bytes:
        if self.by == CHANGES and self.since is not None:
            changes = self.changes
            counts = np.bincount(changes.codes, minlength=len(WORDS)).tolist()
            legend = [[sign, word, count] for sign, word, count in zip(SIGNS, WORDS, counts, strict=True)] + [["−", "went", changes.went]]
            said = {"scale": CHANGES, "legend": legend}
            return packed(said, {"codes": changes.codes, "origins": changes.origins.ravel(), "gone": changes.gone.ravel()})
        values = self._values()
        legend = [["", label, count] for label, count in zip(values.labels, values.counts, strict=True)]
        return packed({"scale": values.scale, "legend": legend}, {"codes": values.codes})

    def _values(self) -> PointValues:
        if self.by == AGE:
            return ages_of(self.points, list(self._earlier_described()))
        if self.by.startswith(FIELD):
            return values_of(self.points, self.by.removeprefix(FIELD))
        raise SpecError(f"expected a colouring that has codes, found {self.by!r}")

    def _earlier_described(self) -> Iterator[Described]:
        """Without those that upkeep takes away at this moment."""
        for version in self.earlier:
            with suppress(NotFound):
                yield self._survey.described(self._collection, *version, self.of.atlas)

    @property
    def changes(self) -> Changes:
        assert self.since is not None
        since, points = self.since, self.points
        return self._survey.keep(
            ("changes", self.of, since), lambda: changes_since(since, points), lambda made: made.codes.nbytes + 2 * made.gone.nbytes
        )

    @property
    def cluster_rows(self) -> list[dict[str, Any]]:
        """The table of clusters, largest first."""
        before = self._counts_before()
        total, counts = max(len(self.points), 1), self.points.counts.tolist()
        rows = []
        for place, island in enumerate(self.points.terrain.islands):
            row = {
                "cluster": island.number,
                "name": self.island_name(place),
                "colour": island.colour,
                "rows": counts[place] * self.points.every,
            }
            row |= {"share": counts[place] / total, "before": None if before is None else before[place]}
            rows.append(row)
        return sorted((row for row in rows if row["rows"] or row["before"]), key=lambda row: (-row["rows"], row["cluster"]))

    def _counts_before(self) -> list[int] | None:
        """Of the earlier version, if one atlas describes both."""
        if self.since is None or (self.since.generation, self.since.atlas) != (self.of.generation, self.of.atlas):
            return None
        before = self._survey.points(self.since)
        return [count * before.every for count in before.counts.tolist()]

    def island_name(self, place: int) -> str:
        """Names are words of documents."""
        island = self.points.terrain.islands[place]
        return " ".join(island.name.split())[:80] if self.texts else f"cluster {island.number}"

    def chosen(self, most: int = SHOWN) -> Chosen | None:
        """`most`: rows of it. Raises SpecError for what is no point, cluster or lasso."""
        if self.asked.point:
            return self._single(_whole("a point", self.asked.point))
        if self.asked.lasso:
            corners = _corners(self.asked.lasso)
            numbers = inside(self.points.x, self.points.y, corners)
            went = len(inside(self.changes.gone[:, 0], self.changes.gone[:, 1], corners)) if self.since else 0
            return Chosen("within the lasso", len(numbers), self._rows(numbers[:most]), urlencode({"lasso": self.asked.lasso}), went)
        if self.asked.cluster:
            number = _whole("a cluster", self.asked.cluster)
            place = next((place for place, one in enumerate(self.points.terrain.islands) if one.number == number), None)
            if place is None:
                raise NotFound(f"expected a cluster of {self.of}, found {number}")
            numbers = np.flatnonzero(self.points.islands == place)
            return Chosen(f"in {self.island_name(place)}", len(numbers), self._rows(numbers[:most]), urlencode({"cluster": number}))
        return None

    def _rows(self, numbers: NDArray[np.intp]) -> list[dict[str, Any]]:
        """As they are shown."""
        self._survey.keep(("sources", self.of), lambda: self.points.sources, lambda made: made.nbytes)  # of many who ask one looks
        shown = numbers.tolist()
        columns = ["chunk_id", "doc_id", *(["text", *(["metadata"] if self.fields else [])] if self.texts else [])]
        changes = self.changes if self.since else None
        rows = []
        for number, row in zip(shown, self.points.take(shown, columns), strict=True):
            place = int(self.points.islands[number])
            told = {"point": number, "cluster": self.island_name(place) if place >= 0 else "", "metadata": None, **row}
            if changes is not None:
                code = int(changes.codes[number])
                told |= {"change": WORDS[code], "sign": SIGNS[code]}
            rows.append(told)
        return rows

    def _single(self, number: int) -> Chosen:
        [row] = self._rows(np.array([number])) if 0 <= number < len(self.points) else self.points.take([number], []) or [{}]
        near = self._neighbours(number) if self.asked.near else None
        return Chosen(row["chunk_id"], 1, [row], urlencode({"point": number}), neighbours=near, single=True)

    def _neighbours(self, number: int) -> list[dict[str, Any]]:
        """The chunks whose vectors are most like that of a point, best first; and where on the map they are."""
        table, address = self.of.vectors(), self.points.sources[number]
        with self._turn():
            found = nearest(table, vectors_at(table, np.array([address]))[0].astype(np.float32), NEIGHBOURS + 1)
        others = (found.addresses[0] != address) & (found.addresses[0] != NO_ROW)
        addresses, scores = found.addresses[0][others][:NEIGHBOURS], found.scores[0][others][:NEIGHBOURS]
        columns = ["chunk_id", "doc_id", *(["text"] if self.texts else [])]
        rows = take(table, addresses, columns).to_pylist()
        points = self._point_of(addresses)
        return [{**row, "score": score, "point": point} for row, score, point in zip(rows, scores.tolist(), points, strict=True)]

    def _point_of(self, sources: NDArray[np.uint64]) -> list[int | None]:
        numbers = np.flatnonzero(np.isin(self.points.sources, sources))
        found = dict(zip(self.points.sources[numbers].tolist(), numbers.tolist(), strict=True))
        return [found.get(source) for source in sources.tolist()]


def _whole(what: str, text: str) -> int:
    if not text.isdecimal():
        raise SpecError(f"expected {what} as a whole number, found {text[:100]!r}")
    return int(text)


def _corners(text: str) -> NDArray[np.int64]:
    """(k, 2). Raises SpecError for what is none."""
    parts = text.split(",")
    if len(parts) % 2 or not 6 <= len(parts) <= 2 * MOST_CORNERS or not all(part.isdecimal() and len(part) <= 5 for part in parts):
        raise SpecError(f"expected a lasso of 3 to {MOST_CORNERS} corners, x,y,x,y..., found {text[:100]!r}")
    return np.array(parts, np.int64).reshape(-1, 2)
