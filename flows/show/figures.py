"""What a person reads of reports."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from flows.show.paper import paper
from flows.show.terminal import columns
from flows.show.words import duration, measured, version
from storage.marts.handing import Handed
from workers.reports.drawing.summaries import MEANINGS, REASON, Block, blocks
from workers.reports.exporting import Exported
from workers.reports.run_reports import Reported

WIDTH = 80
LANDMARKS_ONLY = ("png", "page", "projector")
LONGEST = 10
"""Rows of a table: `--json` and the page have the others."""


def reported(made: Reported) -> None:
    """The summary of each report, in 80 columns: what its words mean, its figures, the first rows of its tables."""
    console = paper()
    console.print(f"[bold]{escape(made.collection)}[/bold]  {version(made.version, made.generation)}")
    narrow = paper(width=WIDTH, soft_wrap=False)
    for kind, error in made.failed.items():
        console.print(f"[red]not made[/red]  {kind}: {escape(error)}")
    for kept in made.reports:
        if not kept.passed:
            console.print(f"[red]beyond its limit[/red]  {kept.kind}")
    for kept in made.reports:
        age = f"made in {duration(kept.seconds)}" if kept.kind in made.made else f"of {kept.at[:16].replace('T', ' ')}"
        console.print(f"\n[bold]{kept.kind}[/bold]  {age}")
        narrow.print(MEANINGS[kept.kind], style="dim")
        for gate in kept.gates:
            verdict = "[green]ok[/green]" if gate.passed else "[red]beyond its limit[/red]"
            narrow.print(f"  {verdict}  {escape(gate.name)} {measured(gate.value)}: {escape(gate.detail)}")
        if reason := kept.summary.get(REASON):
            narrow.print(f"  {escape(reason)}")
        for block in blocks({key: value for key, value in kept.summary.items() if key != REASON}, LONGEST):
            if block.title:
                console.print(f"\n  {escape(block.title)}")
            narrow.print(_table(block))
        if kept.kind == "map":
            narrow.print(f"  `revector report {escape(made.collection)} map --open` shows it")


def _table(block: Block) -> Table:
    """A block as a table, indented; without a heading where the columns say nothing."""
    table = columns("", *map(escape, block.columns), right=block.numbers)
    table.show_header = block.columns != ("measure", "value")
    for row in block.rows:
        table.add_row("", *map(escape, row))
    return table


def exported(made: Exported) -> None:
    """What was written, and where."""
    what = "landmarks" if made.to in LANDMARKS_ONLY else "rows"
    paper().print(f"{made.path}: {made.to} of {made.rows:,} {what}, {version(made.version, made.generation)}", markup=False)


def handed(made: Sequence[Handed]) -> None:
    """The marts of each collection: rows, and what was changed in Postgres."""
    for one in made:
        sent = "" if one.postgres is None else f", {sum(one.postgres.values()):,} changed in Postgres"
        rows = f"{sum(one.rows.values()):,} rows in {len(one.rows)} marts"
        paper().print(f"{one.collection}: {rows}{sent}, {one.seconds:.1f} s", markup=False)
