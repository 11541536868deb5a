"""What a run shows as Prometheus metrics: their names, what they mean, and where their values are read off."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pipelines.measures.gate import Gate
from storage.history.catalog import Publication
from workers.observing.account import Account
from workers.observing.telling import Result

Measure = tuple[str, dict[str, str], float]
"""Name, labels beside collection and command, value."""
Measures = list[Measure]

HELP = {
    "revector_run_began_timestamp_seconds": "When the newest run began.",
    "revector_run_seconds": "That the newest run took, or has taken so far.",
    "revector_run_status": "1 for how the newest run ended, or running.",
    "revector_run_error": "1 for the kind of error that the newest run ended with.",
    "revector_run_change": "1 for the kind of change that the newest run brings.",
    "revector_run_stage": "1 for what the run is at.",
    "revector_heartbeat_timestamp_seconds": "When the process of the run last showed that it lives.",
    "revector_progress_timestamp_seconds": "When the run last came any further.",
    "revector_progress_documents": "Documents read so far.",
    "revector_progress_chunks": "Chunks of the present generation that have a vector, of those to write.",
    "revector_progress_chunks_total": "Chunks to write in the present generation.",
    "revector_stage_seconds": "Wall time of each stage of the newest run.",
    "revector_forward_passes": "Contents that the newest run put through the model.",
    "revector_tokens": "Tokens that the newest run put through the model.",
    "revector_tokens_per_second": "Through the model, since the first shard of the present generation began.",
    "revector_chunks_embedded": "Chunks that the forward passes served.",
    "revector_chunks_reused": "Chunks that took a stored vector.",
    "revector_actors": "Actors that have the model.",
    "revector_actors_replaced": "Actors of the newest run that died, hung or did not load the model.",
    "revector_shards_in_flight": "Shards that actors have.",
    "revector_shards_requeued": "Shards of the newest run that were put back, whole or in halves.",
    "revector_cost": "What the newest run has cost so far, by the prices of the spec.",
    "revector_documents": "Documents of the corpus by what became of them since the run before.",
    "revector_chunks": "Chunks of the corpus by what became of them since the run before.",
    "revector_failed_documents": "Documents that could not be read or embedded, a lost file by what is in it.",
    "revector_stale_documents": "Those of them that readers have as they were before.",
    "revector_dead_letters": "Inputs that could not be read or embedded.",
    "revector_gate_value": "What a gate measured.",
    "revector_gate_passed": "1 if the version passed the gate.",
    "revector_report_passed": "1 if a report that the spec declares is there, and within its limit.",
    "revector_published_version": "Of the vectors table that readers have.",
    "revector_published_epoch": "Of the publication that readers have.",
    "revector_published_chunks": "That readers have.",
    "revector_versions_behind": "Versions that a rollback keeps from readers; 0 without one.",
    "revector_published_timestamp_seconds": "When readers got what they have.",
    "revector_marts_left": "1 if the marts say what the newest run did, in the store and where the spec wants them besides.",
    "revector_last_success_timestamp_seconds": "When a run last ended well; one that found nothing to do counts.",
    "revector_next_update_timestamp_seconds": "When the schedule comes to it next, seen from the last success; infinite without one.",
}


def families(measures: Measures, labels: dict[str, str]) -> Any:
    """A prometheus_client collector of `measures`, each with `labels` as well."""
    from prometheus_client.core import GaugeMetricFamily

    class Collector:
        def collect(self) -> Iterator[GaugeMetricFamily]:
            gauges: dict[str, GaugeMetricFamily] = {}
            for name, own, value in measures:
                family = gauges.setdefault(name, GaugeMetricFamily(name, HELP[name], labels=[*labels, *own]))
                family.add_metric([*labels.values(), *own.values()], value)
            yield from gauges.values()

    return Collector()


def of_outcome(began: float, now: float, outcome: str, error: BaseException | None) -> Iterator[Measure]:
    """Measures of any run, also of one that failed before it had begun. Times are Unix time, in seconds."""
    yield "revector_run_began_timestamp_seconds", {}, began
    yield "revector_run_seconds", {}, now - began
    yield "revector_heartbeat_timestamp_seconds", {}, now
    yield "revector_run_status", {"outcome": outcome}, 1
    if error is not None:
        yield "revector_run_error", {"error": type(error).__name__}, 1


def of_account(account: Account, progressed: float, going_on: bool) -> Iterator[Measure]:
    """Measures of a run that has begun. `progressed`: when it last did, in Unix time."""
    yield "revector_progress_timestamp_seconds", {}, progressed
    if account.change:
        yield "revector_run_change", {"change": account.change}, 1
    if moment := account.moment:
        if going_on:
            yield "revector_run_stage", {"stage": moment.stage}, 1
        yield "revector_progress_documents", {}, moment.documents
        yield "revector_progress_chunks", {}, moment.chunks
        yield "revector_progress_chunks_total", {}, moment.chunks if moment.total is None else moment.total
    if account.speed:
        yield "revector_tokens_per_second", {}, account.speed
    tallies = list(account.tallies)
    yield "revector_forward_passes", {}, sum(tally.contents for tally in tallies)
    yield "revector_tokens", {}, sum(tally.tokens for tally in tallies)
    yield "revector_chunks_embedded", {}, sum(tally.embedded for tally in tallies)
    yield "revector_chunks_reused", {}, sum(tally.reused for tally in tallies)
    workforce = account.workforce
    yield "revector_actors", {}, workforce.alive
    yield "revector_actors_replaced", {}, workforce.replaced
    yield "revector_shards_in_flight", {}, workforce.in_flight
    yield "revector_shards_requeued", {}, workforce.requeued
    for stage, seconds in account.profile.so_far().items():
        yield "revector_stage_seconds", {"stage": stage}, seconds
    if cost := account.cost():
        for stage, amount in cost.stages.items():
            yield "revector_cost", {"stage": stage, "currency": cost.currency}, amount


def of_publication(publication: Publication) -> Iterator[Measure]:
    """Measures of a publication, to be asked of the one that readers have."""
    yield "revector_published_version", {}, publication.version
    yield "revector_published_epoch", {}, publication.epoch
    yield "revector_published_chunks", {}, publication.chunks
    yield "revector_published_timestamp_seconds", {}, datetime.fromisoformat(publication.at).timestamp()


def of_result(result: Any) -> Iterator[Measure]:
    """Measures of what a run did: a Result, or anything that has gates, or the outcomes of reports."""
    if isinstance(result, Result):
        for change, count in result.documents.items():
            yield "revector_documents", {"change": change}, count
        for change, count in result.chunks.items():
            yield "revector_chunks", {"change": change}, count
        yield "revector_dead_letters", {}, result.dead_letters
        yield "revector_failed_documents", {}, result.failed["documents"]
        yield "revector_stale_documents", {}, result.failed["stale"]
        yield "revector_versions_behind", {}, result.pin.behind if result.pin else 0
    for kind, outcome in getattr(result, "outcomes", {}).items():
        yield "revector_report_passed", {"report": kind}, outcome in {"made", "kept"}
    for gate in getattr(result, "gates", ()):
        yield from _of_gate(gate)


def _of_gate(gate: Gate) -> Iterator[Measure]:
    yield "revector_gate_passed", {"gate": gate.name}, gate.passed
    if gate.value is not None:
        yield "revector_gate_value", {"gate": gate.name}, gate.value
