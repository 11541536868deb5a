"""Promotion gates of what reports measure. Each is only where the spec sets its limit: without one nothing is measured and nothing said.

Nothing is taken from an earlier version: they look at samples and narrow columns, and what words or labels they look at is in files
that may change while the vectors stay.
"""

from collections.abc import Iterator

from pipelines.measures.gate import Gate
from pipelines.spec.reports import BalanceOptions, BiasOptions, TasksOptions
from storage.sources.labelled import option_files
from workers.judging.case import Case
from workers.reports.analyses.balance import balance_gate, groups_of, serving
from workers.reports.analyses.bias import associations, bias_gate
from workers.reports.analyses.known_tasks import accuracy_gate, labelled, scored_pairs, spearman_gate


def bias(case: Case) -> Iterator[Gate]:
    """Words of two groups: how much nearer one is to a sort of words than the other."""
    limit = case.spec.gates.max_bias
    if limit is not None:
        options = case.spec.reports.bias or BiasOptions()
        yield bias_gate(associations(options, option_files("bias", options).get("words"), case.encoding), limit)


def balance(case: Case) -> Iterator[Gate]:
    """Groups of documents: how much worse one is served than another."""
    limit = case.spec.gates.max_imbalance
    if limit is not None:
        names = groups_of(case.version, case.spec.reports.balance or BalanceOptions())
        yield balance_gate(serving(case.version, case.spec, names, case.encoding), limit)


def tasks(case: Case) -> Iterator[Gate]:
    """Labels and scored pairs: how well the vectors tell them."""
    limits, options = case.spec.gates, case.spec.reports.tasks or TasksOptions()
    if limits.min_accuracy is not None:
        yield accuracy_gate(labelled(case.version, options, option_files("tasks", options)), limits.min_accuracy)
    if limits.min_spearman is not None:
        yield spearman_gate(scored_pairs(option_files("tasks", options), case.encoding), limits.min_spearman)
