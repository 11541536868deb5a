"""What a person reads of reports."""

from rich.markup import escape
from rich.table import Table

from flows.show.paper import paper
from flows.show.terminal import columns
from flows.show.words import duration, measured, version
from workers.reports.drawing.summaries import MEANINGS, Block, blocks
from workers.reports.exporting import Exported
from workers.reports.run_reports import Reported

WIDTH = 80
LONGEST = 10
"""Rows of a table: `--json` and the page have the others."""


def reported(made: Reported) -> None:
    """The summary of each report, in 80 columns: what its words mean, its figures, the first rows of its tables."""
    console = paper()
    console.print(f"[bold]{escape(made.collection)}[/bold]  {version(made.version, made.generation)}")
    narrow = paper(width=WIDTH, soft_wrap=False)
    for kept in made.reports:
        age = f"made in {duration(kept.seconds)}" if kept.kind in made.made else f"of {kept.at[:16].replace('T', ' ')}"
        console.print(f"\n[bold]{kept.kind}[/bold]  {age}")
        narrow.print(MEANINGS[kept.kind], style="dim")
        for block in blocks(kept.summary, LONGEST):
            if block.title:
                console.print(f"\n  {escape(block.title)}")
            narrow.print(_table(block))
        for gate in kept.gates:
            verdict = "[green]ok[/green]" if gate.passed else "[red]beyond its limit[/red]"
            narrow.print(f"  {verdict}  {escape(gate.name)} {measured(gate.value)}: {escape(gate.detail)}")


def _table(block: Block) -> Table:
    """A block as a table, indented; without a heading where the columns say nothing."""
    table = columns("", *map(escape, block.columns), right=block.numbers)
    table.show_header = block.columns != ("measure", "value")
    for row in block.rows:
        table.add_row("", *map(escape, row))
    return table


def exported(made: Exported) -> None:
    """What was written, and where."""
    paper().print(f"{made.path}: {made.to} of {made.rows:,} rows, {version(made.version, made.generation)}", markup=False)
