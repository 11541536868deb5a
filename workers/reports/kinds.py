"""The kinds of reports by their names in the spec. A new one is a module of `analyses`, its options in the spec, and a line here."""

from pipelines.spec.reports import ReportKind
from workers.reports.analyses.balance import study_balance
from workers.reports.analyses.bias import study_bias
from workers.reports.analyses.drift import study_drift
from workers.reports.analyses.duplicates import study_duplicates
from workers.reports.analyses.known_tasks import study_tasks
from workers.reports.analyses.labels import study_labels
from workers.reports.analyses.map import study_map
from workers.reports.analyses.neighbour_graph import study_neighbours
from workers.reports.analysis import Analysis

ANALYSES: dict[ReportKind, Analysis] = {
    "map": Analysis(study_map),
    "duplicates": Analysis(study_duplicates),
    "neighbours": Analysis(study_neighbours),
    "balance": Analysis(study_balance, on_atlas=False, limits=("max_imbalance", "queries")),
    "bias": Analysis(study_bias, on_atlas=False, limits=("max_bias",)),
    "tasks": Analysis(study_tasks, on_atlas=False, limits=("min_accuracy", "min_spearman")),
    "drift": Analysis(study_drift, compares=True),
    "labels": Analysis(study_labels, on_atlas=False),
}
