"""What the gates of documents would say of a plan, before it costs anything."""

from collections.abc import Iterator

from storage.history.catalog import newest_chunks
from storage.reading.completeness import document_keys, missing_documents
from workers.ingest.corpus_pass import CorpusPass, CorpusSummary
from workers.planning.state import State, TableState

Share = tuple[int, int]
"""Documents, and of how many."""


def removed(state: State, table: TableState, summary: CorpusSummary) -> Share | None:
    """The documents that readers would lose, where the pass itself tells: None unless they have the chunk table as it was before it."""
    here = state.current
    if here is None or not state.there or (here.chunk_table, here.chunk_version) != (table.target.chunk_table.name, table.version):
        return None
    kept = summary.documents_changed + summary.documents_unchanged + summary.stale
    return summary.documents_removed, summary.documents_removed + kept


def objections(state: State, table: TableState, corpus: CorpusPass) -> Iterator[str]:
    """Why what is planned would be built, and not published: for a person. `corpus`: a pass that has settled."""
    summary, gates = corpus.summary(), table.target.spec.gates
    lost, had = removed(state, table, summary) or _removed(state, table, corpus)
    if had and lost / had > gates.max_removed:
        yield (
            f"it removes {lost:,} of the {had:,} documents that readers have ({lost / had:.1%}), more than gates.max_removed lets "
            f"({gates.max_removed:.0%}): it would be built and not published, unless `--allow-removal` confirms it"
        )
    if summary.total and summary.failed / summary.total > gates.max_failed:
        yield (
            f"{summary.failed:,} of {summary.total:,} documents cannot be read or used as they are "
            f"({summary.failed / summary.total:.1%}), more than gates.max_failed lets ({gates.max_failed:.0%}): "
            "it would be built and not published"
        )


def _removed(state: State, table: TableState, corpus: CorpusPass) -> Share:
    """By the keys of both: an earlier run has changed the table that readers do not have yet, or it is another table."""
    found = newest_chunks(table.target.collection)
    if found:
        return missing_documents(document_keys(found[1]), corpus.documents(table.version))
    summary, had = corpus.summary(), state.current.chunks if state.current else 0
    return max(0, had - summary.chunks_added - summary.chunks_unchanged), had  # all tables are gone: only how many chunks is known
