"""tasks: how well the vectors serve tasks whose answers are known."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.measures.gate import Gate, unmeasured
from pipelines.measures.scores import classified, linear_labels, solved, spearman
from pipelines.spec.reports import TasksOptions
from storage.tables.version import Version
from workers.embedding.encoding import Encoding
from workers.reports.analysis import Findings, Study
from workers.reports.given import given_labels, given_rows, number
from workers.reports.held_out import KnownRows, field_of, known_rows, of_documents

Files = Mapping[str, bytes]


def study_tasks(study: Study) -> Findings:
    """Labels, pairs and analogies, each if the options name them."""
    options, gates = study.options, study.spec.gates
    assert isinstance(options, TasksOptions)
    summary: dict[str, Any] = {}
    known = labelled(study.version, options, study.files)
    if known:
        summary["labels"] = _classification(known)
    with Encoding(study.version, study.spec.workers) as encoding:
        rank = scored_pairs(study.files, encoding)
        if rank:
            summary["pairs"] = {"pairs": rank[0], "spearman": rank[1]}
        if "analogies" in study.files:
            summary["analogies"] = _analogies(study.files["analogies"], encoding)
    judged = []
    if gates.min_accuracy is not None:
        judged.append(accuracy_gate(known, gates.min_accuracy))
    if gates.min_spearman is not None:
        judged.append(spearman_gate(rank, gates.min_spearman))
    return Findings(summary or {"nothing": _nothing(options, study.files)}, tuple(judged))


def _nothing(options: TasksOptions, files: Files) -> str:
    if options.label is not None or "label_file" in files:
        return "too few documents here have a label: some must tell, and some be held out"
    return "reports.tasks names no labels, pairs or analogies"


def labelled(version: Version, options: TasksOptions, files: Files) -> KnownRows | None:
    """Rows whose labels are known; None if none are named, or too few are there. Raises SpecError."""
    of: Callable[[pa.Table], pa.Array]
    if "label_file" in files:
        of = of_documents(given_labels("reports.tasks.label_file", files["label_file"]))
    elif options.label is not None:
        of = field_of("reports.tasks.label", version.vectors, options.label)
    else:
        return None
    return known_rows(version.vectors, "label", lambda rows: {"label": of(rows)})


def scored_pairs(files: Files, encoding: Encoding) -> tuple[int, float | None] | None:
    """How many pairs of texts were scored, and the rank correlation of the scores with cosines; None without a file. Raises SpecError."""
    if "pairs" not in files:
        return None
    rows = given_rows("reports.tasks.pairs", files["pairs"], ("a", "b", "score"))
    scores = [number("reports.tasks.pairs", score) for _, _, score in rows]
    vectors = _encoded([text for first, second, _ in rows for text in (first, second)], encoding)
    firsts, seconds = (np.stack([vectors[row[side]] for row in rows]) for side in (0, 1))
    return len(rows), spearman(firsts, seconds, scores)


def accuracy_gate(known: KnownRows | None, least: float) -> Gate:
    """The share of held-out rows whose label their nearest ones tell, beside its limit."""
    if known is None:
        return unmeasured("accuracy", "promotion", least, "not measured: reports.tasks names no labels that documents here have")
    _, _, truth = known.labels("label")
    accuracy = classified(truth, known.told("label")).accuracy
    detail = f"{accuracy:.3f} of {len(truth):,} held-out labels by the nearest rows; at least {least:g} (gates.min_accuracy)"
    return Gate("accuracy", "promotion", accuracy, least, accuracy >= least, detail)


def spearman_gate(rank: tuple[int, float | None] | None, least: float) -> Gate:
    """The rank correlation with what people scored, beside its limit."""
    if rank is None or rank[1] is None:
        return unmeasured("spearman", "promotion", least, "not measured: reports.tasks names no pairs of different scores")
    detail = f"{rank[1]:.3f} with the scores of {rank[0]:,} pairs; at least {least:g} (gates.min_spearman)"
    return Gate("spearman", "promotion", rank[1], least, rank[1] >= least, detail)


def _classification(known: KnownRows) -> dict[str, Any]:
    names, train, truth = known.labels("label")
    majority = int(np.bincount(train).argmax())
    linear = linear_labels(known.train.vectors, train, known.test.vectors)
    return {
        "rows": known.rows,
        "labels": len(names),
        "train": len(train),
        "held_out": len(truth),
        "majority": float((truth == majority).mean()),
        "nearest": asdict(classified(truth, known.told("label"))),
        "linear": asdict(classified(truth, linear)),
        "confused": _confused(names, truth, linear),
    }


def _confused(names: list[str], truth: np.ndarray, told: np.ndarray, most: int = 10) -> list[dict[str, Any]]:
    """The pairs of labels that are taken for each other most often."""
    pairs = Counter(zip(truth[truth != told].tolist(), told[truth != told].tolist(), strict=True))
    ranked = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
    return [{"label": names[of], "taken_for": names[as_], "rows": count} for (of, as_), count in ranked]


def _analogies(content: bytes, encoding: Encoding) -> dict[str, Any]:
    rows = given_rows("reports.tasks.analogies", content, ("a", "b", "c", "d"))
    vectors = _encoded([word for row in rows for word in row], encoding)
    there = {word: vector for word, vector in vectors.items() if np.isfinite(vector).all() and vector.any()}
    questions = [(a, b, c, d) for a, b, c, d in rows if {a, b, c, d} <= there.keys()]
    return {"questions": len(rows), "unknown": len(rows) - len(questions), "solved": solved(questions, there) if questions else None}


def _encoded(texts: list[str], encoding: Encoding) -> dict[str, np.ndarray]:
    """The vector of each, once."""
    names = list(dict.fromkeys(texts))
    return dict(zip(names, encoding.encode(names, "document"), strict=True))
