"""What a person reads of a verdict: on a version, between two generations, on a bridge."""

from rich.markup import escape

from flows.show.paper import paper
from flows.show.terminal import columns
from flows.show.words import duration, measured, one_line, version
from pipelines.measures.gate import Gate
from storage.history.evaluations import Evaluation
from workers.judging.comparison import Answer, Changed, Comparison, Side
from workers.learning.build_bridge import BridgeResult, K

NARROWEST = 100
"""Columns that two lists side by side need."""


def evaluation(made: Evaluation) -> None:
    """A line a gate, and what made it fail."""
    console = paper()
    verdict = "passes" if made.passed else "[bold red]fails[/bold red]"
    console.print(f"[bold]{made.collection}[/bold]  {version(made.version, made.generation)} {verdict}")
    console.print(f"       {'gate':<14} {'value':>9} {'limit':>6}", style="bold")
    for gate in made.gates:
        numbers = f"{measured(gate.value):>9} {measured(gate.threshold):>6}"
        console.print(f"{_verdict(gate)} {gate.name:<14} {numbers}  {escape(gate.detail)}")
        if gate.rows and not gate.passed:
            console.print(f"       {', '.join(one_line(row, NARROWEST) for row in gate.rows)}", markup=False)


def _verdict(gate: Gate) -> str:
    if gate.value is None or gate.kind == "information":
        return "      "
    return "[green]ok[/green]    " if gate.passed else "[red]fails[/red] "


def comparison(made: Comparison) -> None:
    """The measures of both, what they share, and the queries that changed most."""
    console = paper()
    table = columns(made.collection, "a", "b")
    for name, a, b in zip(_MEASURES, _measures(made.a), _measures(made.b), strict=True):
        table.add_row(name, escape(a), escape(b))
    console.print(table)
    console.print(f"  {_shared(made)}")
    if made.drift:
        console.print(f"  drift: MMD² {made.drift.distance:.4g}, p {made.drift.p:.3f}")
    what = "labelled queries" if made.labelled else "stored texts as queries"
    if made.changed:
        console.print(f"\nChanged most, of {made.labelled or made.compared:,} {what}:")
    for changed in made.changed:
        _side_by_side(changed)


_MEASURES = (
    "generation",
    "version",
    "model",
    "space",
    "dimensions",
    "rows",
    "duplicates",
    "effective rank",
    "anisotropy",
    "nDCG@10",
    "recall@10",
)


def _measures(side: Side) -> list[str]:
    shape = side.shape
    named = [
        side.generation,
        f"{side.version} of chunks {side.chunk_version}",
        side.model,
        side.space,
        str(side.dimension),
        f"{shape.rows:,}",
    ]
    numbers = (shape.effective_rank, shape.anisotropy, side.ndcg, side.recall)
    return [*named, f"{shape.duplicates:.1%}", *("-" if number is None else f"{number:.3f}" for number in numbers)]


def _shared(made: Comparison) -> str:
    if made.overlap is None:
        return "overlap@10: not measured, nothing is in both"
    what = "contents" if made.compared_by == "content_hash" else "documents"
    return f"overlap@10: {made.overlap:.3f}, by {made.compared:,} {what} that both hold"


def _side_by_side(changed: Changed) -> None:
    width = max(paper().width, NARROWEST)
    console = paper(width=width, soft_wrap=False)
    console.print(f"\n[bold]{escape(one_line(changed.query, width - 20))}[/bold]  overlap {changed.overlap:.1f}")
    table = columns("a", "b")
    for column in table.columns:
        column.width, column.no_wrap, column.overflow = width // 2 - 1, True, "ellipsis"
    for place in range(max(len(changed.a), len(changed.b))):
        table.add_row(*(_cell(hits[place], width) if place < len(hits) else "" for hits in (changed.a, changed.b)))
    console.print(table)


def _cell(hit: Answer, width: int) -> str:
    return escape(f"{hit.score:.3f} {one_line(hit.doc_id, width // 6)}  {one_line(hit.text, width)}")


def bridge(made: BridgeResult) -> None:
    """A line a kind, and what became of the best."""
    console = paper()
    name = f"[bold]{made.collection}[/bold]"
    if made.status == "nothing":
        console.print(f"{name} is published in the space of the spec's model, {made.to_space}: no bridge is needed.")
        return
    console.print(f"{name}  a bridge from space {made.from_space} to {made.to_space}, {version(made.version, made.generation)}")
    sample = f"{made.pairs:,} contents, judged by {made.held_out:,} others"
    console.print(f"  learned from {sample}; {made.encoded:,} forward passes, {duration(made.seconds)}")
    numbers = (f"recall@{K}", "cosine", "seconds to fit")
    table = columns("", "kind", *numbers, right=numbers)
    for trial in made.trials:
        mark = "*" if trial.kind == made.kind and made.status == "built" else ""
        table.add_row(mark, trial.kind, f"{trial.recall:.3f}", f"{trial.cosine:.3f}", f"{trial.seconds:.2f}")
    console.print(table)
    if made.status == "built":
        console.print(f"`revector search {made.collection} QUERY --bridge` uses {made.kind}.")
    else:
        console.print(f"  gate            expected recall@{K} of {made.threshold} (gates.min_bridge_recall), found less: no bridge is kept")
