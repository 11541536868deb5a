"""What a person reads of an evaluation and of a comparison."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.show.terminal import one_line
from pipelines.measures.gate import Gate
from storage.history.evaluations import Evaluation
from workers.judging.comparison import Answer, Changed, Comparison, Side

NARROWEST = 100
"""Columns that two lists side by side need."""


def evaluation(made: Evaluation) -> None:
    """A line a gate, and what made it fail."""
    console = Console(highlight=False, soft_wrap=True)
    verdict = "passes" if made.passed else "[bold red]fails[/bold red]"
    console.print(f"[bold]{made.collection}[/bold]  version {made.version} of {made.generation} {verdict}")
    console.print(f"       {'gate':<14} {'value':>9} {'limit':>6}", style="bold")
    for gate in made.gates:
        numbers = f"{_number(gate.value):>9} {_number(gate.threshold):>6}"
        console.print(f"{_verdict(gate)} {gate.name:<14} {numbers}  {escape(gate.detail)}")
        if gate.rows and not gate.passed:
            console.print(f"       {', '.join(one_line(row, NARROWEST) for row in gate.rows)}", markup=False)


def _verdict(gate: Gate) -> str:
    if gate.value is None or gate.kind == "information":
        return "      "
    return "[green]ok[/green]    " if gate.passed else "[red]fails[/red] "


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3f}"


def comparison(made: Comparison) -> None:
    """The measures of both, what they share, and the queries that changed most."""
    console = Console(highlight=False, soft_wrap=True)
    table = _table(made.collection, "a", "b")
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
    console = Console(highlight=False)
    width = max(console.width, NARROWEST)
    console = Console(highlight=False, width=width)
    console.print(f"\n[bold]{escape(one_line(changed.query, width - 20))}[/bold]  overlap {changed.overlap:.1f}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for side in ("a", "b"):
        table.add_column(side, width=width // 2 - 1, no_wrap=True, overflow="ellipsis")
    for place in range(max(len(changed.a), len(changed.b))):
        table.add_row(*(_cell(found[place], width) if place < len(found) else "" for found in (changed.a, changed.b)))
    console.print(table)


def _cell(found: Answer, width: int) -> str:
    return escape(f"{found.score:.3f} {one_line(found.doc_id, width // 6)}  {one_line(found.text, width)}")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column)
    return table
