"""What a person reads of a bridge that was built."""

from rich.console import Console
from rich.table import Table

from flows.show.progress import duration
from workers.learning.build_bridge import BridgeResult, K


def bridge(made: BridgeResult) -> None:
    """A line a kind, and what became of the best."""
    console = Console(highlight=False, soft_wrap=True)
    name = f"[bold]{made.collection}[/bold]"
    if made.status == "nothing":
        console.print(f"{name} is published in the space of the spec's model, {made.to_space}: no bridge is needed.")
        return
    console.print(f"{name}  a bridge from space {made.from_space} to {made.to_space}, version {made.version} of {made.generation}")
    told = f"{made.pairs:,} contents, judged by {made.held_out:,} others"
    console.print(f"  learned from {told}; {made.encoded:,} forward passes, {duration(made.seconds)}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "kind", f"recall@{K}", "cosine", "seconds to fit"):
        table.add_column(column, justify="left" if column in {"", "kind"} else "right")
    for trial in made.trials:
        mark = "*" if trial.kind == made.kind and made.status == "built" else ""
        table.add_row(mark, trial.kind, f"{trial.recall:.3f}", f"{trial.cosine:.3f}", f"{trial.seconds:.2f}")
    console.print(table)
    if made.status == "built":
        console.print(f"`revector search {made.collection} QUERY --bridge` uses {made.kind}.")
    else:
        console.print(f"  gate            expected recall@{K} of {made.threshold} (gates.min_bridge_recall), found less: no bridge is kept")
