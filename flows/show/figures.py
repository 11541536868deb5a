"""What a person reads of reports."""

from rich.markup import escape

from flows.show.paper import paper
from flows.show.words import duration, version
from workers.reports.run_reports import Reported


def reported(made: Reported) -> None:
    """The summary of each report."""
    console = paper()
    console.print(f"[bold]{escape(made.collection)}[/bold]  {version(made.version, made.generation)}")
    for kept in made.reports:
        age = f"made in {duration(kept.seconds)}" if kept.kind in made.made else f"of {kept.at[:16].replace('T', ' ')}"
        console.print(f"\n[bold]{kept.kind}[/bold]  {age}")
        for name, value in kept.summary.items():
            console.print(f"  {name.replace('_', ' ')}: {value}", markup=False)
        for gate in kept.gates:
            console.print(f"  {'ok' if gate.passed else '[red]beyond its limit[/red]'}  {escape(gate.name)}: {escape(gate.detail)}")
