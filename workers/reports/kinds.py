"""The kinds of reports by their names in the spec. A new one is a module of `analyses`, its options in the spec, and a line here."""

from pipelines.spec.reports import ReportKind
from workers.reports.analyses.duplicates import study_duplicates
from workers.reports.analyses.map import study_map
from workers.reports.analysis import Analysis

ANALYSES: dict[ReportKind, Analysis] = {
    "map": Analysis(study_map),
    "duplicates": Analysis(study_duplicates),
}
