"""balance: how groups of documents differ, by the fields of their metadata: in share and spread, and in how well they are served."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.measures.gate import Gate, unmeasured
from pipelines.measures.groups import FEWEST, Centres, Gap, gap
from pipelines.spec.declared import CollectionSpec
from pipelines.spec.reports import BalanceOptions
from storage.reading.neighbourhoods import locate
from storage.reading.neighbours import to_numpy
from storage.sources.labelled import load_labelled
from storage.store.lance import scan_batches, take
from storage.tables.version import Version
from workers.embedding.encoding import Encoding
from workers.reports.analysis import Findings, Study
from workers.reports.held_out import batches_of, field_of, fields_of, known_rows, texts_of
from workers.reports.ranking import held_labels, rank

GROUPS = 50
"""Values of a field that are groups of their own: the most frequent ones. The others are one group together."""
OTHERS, NOTHING = "(others)", "(no value)"
COUNTED = 20_000
"""Values that are counted at a time: beyond that the rarer half is forgotten, which none of the most frequent ones of a field is."""
READ_ROWS = 8_192
WHY_NO_GAP = (
    f"no two groups have {FEWEST} rows with a label of another field (reports.balance.label), or labelled queries (gates.queries): "
    "how well each is served is not known"
)

Names = Mapping[str, Sequence[str]]
"""The groups of each field, most frequent first."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Of each group of a field how often something goes wrong (0 to 1; None where nothing was tried), and of how many tries."""

    rates: list[float | None]
    counts: list[int]

    @property
    def gap(self) -> Gap | None:
        return gap(self.rates, self.counts)


Served = Mapping[str, Mapping[str, Rates]]
"""By field, then by what was tried: "knn error", "missed": 1 - recall@10 of labelled queries."""


def study_balance(study: Study) -> Findings:
    """Where each group lies, how far it spreads, and how far apart two are served: the imbalance is the largest such gap between two
    groups of at least 30 rows or queries, as far as chance does not explain it."""
    options, spec, version = study.options, study.spec, study.version
    assert isinstance(options, BalanceOptions)
    names = groups_of(version, options)
    places = _places(version, names)
    with Encoding(version, spec.workers) as encoding:
        served = serving(version, spec, names, encoding)
    gaps = _told_gaps(names, served)
    summary: dict[str, Any] = {"imbalance": gaps[0]["certain"] if gaps else None, "gaps": gaps, "groups": _told(names, places, served)}
    if not names:
        summary["nothing"] = f"no field of the metadata has 2 to {GROUPS} values: name some in reports.balance.fields"
    elif not gaps:
        summary["nothing"] = WHY_NO_GAP
    limit = spec.gates.max_imbalance
    return Findings(summary, () if limit is None else (balance_gate(served, limit),))


def balance_gate(served: Served, limit: float) -> Gate:
    """The largest gap that is certain, beside its limit."""
    gaps = [(found.certain, field, what, found) for field, tried in served.items() for what, one in tried.items() if (found := one.gap)]
    if not gaps:
        return unmeasured("balance", "promotion", limit, f"not measured: {WHY_NO_GAP}")
    certain, field, what, found = max(gaps, key=lambda one: one[0])
    # values of metadata are told by reports alone, which go when documents are erased
    apart = f"{what} of one group of {field} is {found.gap:.3f} above that of another, {certain:.3f} beyond chance"
    detail = f"{apart}; at most {limit:g} (gates.max_imbalance): the report `balance` names them"
    return Gate("balance", "promotion", certain, limit, certain <= limit, detail)


def groups_of(version: Version, options: BalanceOptions) -> dict[str, list[str]]:
    """The groups of each field. Raises SpecError for a field that is not there."""
    for field in options.fields:
        field_of("reports.balance.fields", version.vectors, field)
    fields = options.fields or fields_of(version.vectors)
    counts = {field: Counter[str | None]() for field in fields}
    crowded = set[str]()
    for batch in scan_batches(version.vectors, ["metadata"]) if fields else ():
        for field in counts.keys() - crowded:
            for value in pc.value_counts(texts_of(batch, field)).to_pylist():
                counts[field][value["values"]] += value["counts"]
            if len(counts[field]) > COUNTED:
                crowded |= set() if options.fields else {field}
                counts[field] = Counter(dict(counts[field].most_common(COUNTED // 2)))
    return {field: _named(found) for field, found in counts.items() if options.fields or 1 < len(found) <= GROUPS}


def _named(counts: Counter[str | None]) -> list[str]:
    values = sorted((value for value in counts if value is not None), key=lambda value: (-counts[value], value))
    return [*values[:GROUPS], *([OTHERS] if len(values) > GROUPS else []), *([NOTHING] if None in counts else [])]


def _codes(texts: pa.Array, names: Sequence[str]) -> NDArray[np.intp]:
    """The group of each row, by its place among `names`."""
    codes = pc.index_in(texts, pa.array(names, pa.string())).to_numpy(zero_copy_only=False)
    rest = np.where(pc.is_valid(texts).to_numpy(zero_copy_only=False), _place(names, OTHERS), _place(names, NOTHING))
    return np.where(np.isnan(codes), rest, codes).astype(np.intp)


def _place(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else 0


def _places(version: Version, names: Names) -> dict[str, Centres]:
    """Where the groups of each field lie: one look at all vectors."""
    dimension = int(version.space["dimension"])
    places = {field: Centres(len(groups), dimension) for field, groups in names.items()}
    for rows in batches_of(version.vectors, ["metadata", "vector"], READ_ROWS) if names else ():
        vectors = to_numpy(rows["vector"].combine_chunks())
        for field, groups in names.items():
            places[field].add(_codes(texts_of(rows, field), groups), vectors)
    return places


def serving(version: Version, spec: CollectionSpec, names: Names, encoding: Encoding) -> Served:
    """How well the groups are served, by what the spec names: a label of documents, labelled queries. Raises SpecError, ModelError."""
    served: dict[str, dict[str, Rates]] = defaultdict(dict)
    label = (spec.reports.balance or BalanceOptions()).label
    if label is not None and names.keys() - {label}:
        for field, rates in _knn_errors(version, label, names).items():
            served[field]["knn error"] = rates
    if spec.gates.queries is not None and names:
        for field, rates in _missed(version, spec.gates.queries, names, encoding).items():
            served[field]["missed"] = rates
    return served


def _knn_errors(version: Version, label: str, names: Names) -> dict[str, Rates]:
    """Of held-out rows, how often most of the nearest others have another label; not by the field of the label itself, whose groups are
    mistaken for each other as they are alike, however they are served."""
    fields = [field for field in names if field != label]
    of = field_of("reports.balance.label", version.vectors, label)
    known = known_rows(
        version.vectors, "label", lambda rows: {"label": of(rows), **{f"field {field}": texts_of(rows, field) for field in fields}}
    )
    if known is None:
        return {}
    wrong = (known.labels("label")[2] != known.told("label")).astype(np.float64)
    return {field: _rates(wrong, _codes(known.test.columns[f"field {field}"], names[field]), len(names[field])) for field in fields}


def _missed(version: Version, queries: str, names: Names, encoding: Encoding) -> dict[str, Rates]:
    """Of labelled queries, the share of the relevant documents that are not among the first 10; by the groups that these are in."""
    labelled = load_labelled(queries)
    labels = held_labels(version, labelled)
    if not labels:
        return {}
    ranking = rank(version, labelled, labels, encoding)
    where = locate(version.vectors, "doc_id", {document for relevant in labels.values() for document in relevant})
    documents = sorted(where)
    rows = take(version.vectors, np.array([where[document] for document in documents], np.uint64), ["metadata"])
    rates = {}
    for field, groups in names.items():
        group = dict(zip(documents, _codes(texts_of(rows, field), groups).tolist(), strict=True))
        pairs = [(place, one) for place, relevant in labels.items() for one in sorted({group[document] for document in relevant})]
        missed = np.array([1 - ranking.quality[place]["recall"] for place, _ in pairs])
        rates[field] = _rates(missed, np.array([one for _, one in pairs], np.intp), len(groups))
    return rates


def _rates(wrong: NDArray[np.float64], groups: NDArray[np.intp], count: int) -> Rates:
    tries, sums = np.bincount(groups, minlength=count), np.bincount(groups, wrong, minlength=count)
    return Rates([float(total / tried) if tried else None for total, tried in zip(sums, tries, strict=True)], tries.tolist())


def _told(names: Names, places: Mapping[str, Centres], served: Served) -> list[dict[str, Any]]:
    """A row of each group of each field."""
    told = []
    for field, groups in names.items():
        for number, (name, place) in enumerate(zip(groups, places[field].measured(), strict=True)):
            rates = {what.replace(" ", "_"): one.rates[number] for what, one in served.get(field, {}).items()}
            told.append({"field": field, "value": name, **asdict(place), **rates})
    return told


def _told_gaps(names: Names, served: Served) -> list[dict[str, Any]]:
    """A row of whatever was tried of a field, the gaps beyond chance that are largest first."""
    gaps = [
        {"field": field, "of": what, "gap": found.gap, "certain": found.certain}
        | {"highest": names[field][found.highest], "lowest": names[field][found.lowest], "tried": sum(one.counts)}
        for field, tried in served.items()
        for what, one in tried.items()
        if (found := one.gap)
    ]
    return sorted(gaps, key=lambda row: (-row["certain"], -row["gap"], row["field"], row["of"]))
