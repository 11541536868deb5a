"""What a person reads: tables and sentences on stdout."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.show.progress import duration
from storage.history.catalog import Publication
from workers.observing.report import Plan, Result
from workers.upkeep.steps import Upkeep

TEXT_WIDTH = 100


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def plan(made: Plan) -> None:
    """What would be done, and what it would cost."""
    console = _console()
    if not made.pending:
        console.print(f"[bold]{made.collection}[/bold] is current: nothing to do.{_standing(made.dead_letters)}")
        _notes(console, made.notes)
        return
    console.print(f"[bold]{made.collection}[/bold]  {made.change} change: {escape(made.reason)}")
    for name, (before, after) in made.identity.items():
        console.print(f"  {name:<15} {_short(before)} -> {_short(after)}", markup=False)
    console.print(f"  generation      {made.generation}  (space {made.space})")
    console.print(f"  files           {_counts(made.files, ('read', 'gone', 'unchanged'))}")
    console.print(f"  documents       {_counts(made.documents, ('added', 'changed', 'removed', 'unchanged'))}")
    console.print(f"  chunks          {_counts(made.chunks, ('added', 'removed', 'unchanged'))}")
    embed = made.embed
    console.print(f"  forward passes  [bold]{embed['contents']:,}[/bold] for {embed['chunks']:,} chunks, about {embed['tokens']:,} tokens")
    console.print(f"  reuse           {made.reuse['chunks']:,} chunks take a stored vector")
    if made.seconds is None:
        console.print("  time            unknown: the first run of this model measures it")
    else:
        console.print(f"  time            about {duration(made.seconds)}, by the speed of the last run")
    if made.cost:
        console.print(f"  cost            about {_money(made.cost.total, made.cost.currency)}, by what the last run held")
    if made.dead_letters:
        console.print(f"  dead letters    {made.dead_letters:,}")
    if len(made.generations) > 1:
        _planned_generations(console, made)
    _notes(console, made.notes)
    console.print("`revector apply` does it.")


def _short(value: Any) -> str:
    """A hash by its beginning; names and paths whole."""
    text = "none" if value is None else str(value)
    return f"{text[:12]}…" if len(text) > 30 and text.isalnum() else text


def _planned_generations(console: Console, made: Plan) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("generation", "part", "model", "forward passes", "tokens", "reuse"):
        table.add_column(column, justify="right" if column in {"forward passes", "tokens", "reuse"} else "left")
    for each in made.generations:
        numbers = (each.embed["contents"], each.embed["tokens"], each.reuse["chunks"])
        table.add_row(each.generation, each.role, escape(each.model), *(f"{number:,}" for number in numbers))
    console.print()
    console.print(table)


def _notes(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        console.print(f"note: {note}", markup=False)


def _money(amount: float, currency: str) -> str:
    """To the cent; less than a unit to two digits: it may be all there is."""
    return f"{amount:,.2f} {currency}" if amount >= 1 else f"{amount:.2g} {currency}"


def _standing(dead_letters: int) -> str:
    return f" {dead_letters:,} dead letters stand." if dead_letters else ""


def _counts(values: Mapping[str, int], names: Sequence[str]) -> str:
    return ", ".join(f"{values[name]:,} {name}" for name in names)


def result(done: Result, with_profile: bool = False) -> None:
    """What was done, and maybe where the time went."""
    console = _console()
    if done.status == "nothing" and done.change == "none":
        console.print(f"[bold]{done.collection}[/bold] is current: nothing to do.")
        _notes(console, done.notes)
        return
    headline = {
        "published": "published",
        "partial": "published, with dead letters",
        "built": "built, [bold]not published[/bold]",
        "nothing": "published before",
    }[done.status]
    console.print(f"[bold]{done.collection}[/bold]  {headline}: version {done.version} of {done.generation}")
    console.print(f"  documents       {_counts(done.documents, ('added', 'changed', 'removed', 'unchanged'))}")
    console.print(f"  forward passes  {done.embed['contents']:,} for {done.embed['chunks']:,} chunks; {done.reuse['chunks']:,} reused")
    speed = f", {done.embed['tokens'] / done.seconds['total']:,.0f} tokens/s" if done.embed["tokens"] else ""
    console.print(f"  time            {duration(done.seconds['total'])}{speed}")
    if done.cost:
        console.print(f"  cost            {_money(done.cost.total, done.cost.currency)}")
    if done.dead_letters:
        console.print(f"  dead letters    {done.dead_letters:,}: `revector status {done.collection}` lists them")
    for gate in done.gates:
        if not gate.passed:
            console.print(f"  gate failed     {gate.name}: {gate.detail}", markup=False)
            if gate.rows:
                console.print(f"                  {', '.join(gate.rows[:5])}{' …' if len(gate.rows) > 5 else ''}", markup=False)
    for each in done.generations:
        if each.role != "main":
            outcome = each.objection or {"published": "published", "nothing": "as it was"}.get(each.status, "built")
            passes = f"{each.embed['contents']:,} forward passes"
            console.print(f"  {each.role:<15} {each.generation}, {each.model}: {outcome}; {passes}", markup=False)
    _notes(console, done.notes)
    if with_profile:
        _profile(console, done)


def _profile(console: Console, done: Result) -> None:
    total = done.seconds["total"]
    stages = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("stage", "seconds", "share"):
        stages.add_column(column, justify="left" if column == "stage" else "right")
    known = done.profile["stages"]
    for name, seconds in {**known, "the rest": total - sum(known.values())}.items():
        stages.add_row(name, f"{seconds:.2f}", f"{seconds / total:.0%}")
    console.print()
    console.print(stages)
    if not done.profile["workers"]:
        return
    workers = Table(box=None, pad_edge=False, header_style="bold", title=f"model: {done.profile['how']}", title_justify="left")
    columns = ("worker", "shards", "tokens", "read", "tokenize", "model", "write", "waited")
    for column in columns:
        workers.add_column(column, justify="left" if column == "worker" else "right")
    for each in done.profile["workers"]:
        seconds_of = (f"{each[name]:.2f} s" for name in ("read", "tokenize", "model", "write"))
        workers.add_row(each["worker"], f"{each['shards']:.0f}", f"{each['tokens']:,.0f}", *seconds_of, f"{each['waited']:.0%}")
    console.print()
    console.print(workers)


def status(found: Mapping[str, Any]) -> None:
    """All collections, and the generations of each."""
    console = _console()
    console.print(f"store {found['store']}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("collection", "published", "chunks", "vectors", "backlog", "dead", "last run"):
        table.add_column(column, justify="right" if column in {"chunks", "vectors", "backlog", "dead"} else "left")
    for each in found["collections"]:
        published = each["published"]
        shown = f"version {published['version']}, {published['at'][:16].replace('T', ' ')}" if published else "not yet"
        last = each["last_run"]
        table.add_row(
            each["name"],
            shown,
            *(f"{each[key]:,}" for key in ("chunks", "vectors", "backlog", "dead_letters")),
            f"{last['status']}, {str(last['began'])[:16].replace('T', ' ')}" if last else "none",
        )
    console.print(table)
    for each in found["collections"]:
        for generation in each["generations"]:
            mark = "*" if each["published"] and each["published"]["generation"] == generation["name"] else " "
            index = ", ".join(generation["index"]) or "no index: exact search"
            told = f"{generation['state']}, {generation['model']}, {generation['dimension']} dimensions, {index}"
            console.print(f"{mark} {generation['name']}  {told}", markup=False)
        for letter in each.get("letters", []):
            console.print(f"  dead: {letter['stage']} {letter['id']} {letter['file']}: {letter['reason']}", markup=False)


def results(hits: Sequence[Mapping[str, Any]]) -> None:
    """Search results, best first."""
    console = _console()
    if not hits:
        console.print("nothing found")
    for hit in hits:
        shown = one_line(hit["text"], TEXT_WIDTH)
        metadata = "  ".join(f"{name}={value}" for name, value in hit["metadata"].items())
        console.print(f"{hit['score']:.3f}  {hit['chunk_id']}  {metadata}\n       {shown}", markup=False)


def one_line(text: str, width: int) -> str:
    """The beginning of a text. Without control characters: a document must not steer the terminal."""
    joined = " · ".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    shown = "".join(letter for letter in joined if letter.isprintable())
    return shown if len(shown) <= width else shown[: width - 1] + "…"


def history(found: Mapping[str, Any]) -> None:
    """Publications, then runs, then what versions were judged by."""
    console = _console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("epoch", "action", "version", "generation", "chunks", "at", "who", "why"):
        table.add_column(column)
    for row in found["published"]:
        shown = (
            row["epoch"],
            f"{row['action']}, since removed" if row["removed"] else row["action"],
            row["version"],
            row["generation"].rpartition(".")[2],
            f"{row['chunks']:,}",
            row["at"][:19],
            row["who"],
            row["why"],
        )
        table.add_row(*(escape(str(value)) for value in shown))
    console.print(table)
    runs = Table(box=None, pad_edge=False, header_style="bold")
    priced = any(run.get("cost") for run in found["runs"])
    for column in ("run", "status", "forward passes", "reused", "tokens", "seconds", "dead", *(["cost"] if priced else [])):
        runs.add_column(column, overflow="fold" if column == "run" else "ellipsis")
    for run in found["runs"]:
        embed, seconds = run.get("embed", {}), run.get("seconds", {})
        runs.add_row(
            run["run_id"],
            run["status"],
            f"{embed.get('contents', 0):,}",
            f"{run.get('reuse', {}).get('chunks', 0):,}",
            f"{embed.get('tokens', 0):,}",
            f"{seconds.get('total', 0):.1f}",
            str(run.get("dead_letters", 0)),
            *([_cost(run.get("cost"))] if priced else []),
        )
    console.print(runs)
    if found["evaluations"]:
        console.print(_evaluations(found["evaluations"]))


def _cost(told: Mapping[str, Any] | None) -> str:
    return _money(told["total"], told["currency"]) if told else "-"


def _evaluations(made: Sequence[Mapping[str, Any]]) -> Table:
    names = ("recomputed", "overlap", "index recall", "ndcg@10")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("evaluated", "version", "generation", *names, "failed"):
        table.add_column(column)
    for each in made:
        values = (each["values"].get(name) for name in names)
        shown = ("-" if value is None else f"{value:.3f}" for value in values)
        table.add_row(
            each["at"][:19], str(each["version"]), each["generation"].rpartition(".")[2], *shown, ", ".join(each["failed"]) or "-"
        )
    return table


def diff(found: Mapping[str, Any]) -> None:
    """What changed between two versions."""
    console = _console()
    console.print(f"[bold]{found['collection']}[/bold]  version {found['from']} -> {found['to']}")
    for level in ("documents", "chunks"):
        console.print(f"  {level:<10} {_counts(found[level], ('added', 'removed', 'changed'))}")
        for name, ids in found[level]["examples"].items():
            if ids:
                console.print(f"    {name}: {', '.join(ids)}", markup=False)


def moved(publication: Publication) -> None:
    """Where the pointer is now."""
    _console().print(
        f"[bold]{publication.collection}[/bold]  {publication.action}: version {publication.version} of "
        f"{publication.generation} is what readers get (epoch {publication.epoch})"
    )


def upkeep(done: Upkeep) -> None:
    """What was written anew, and what was taken away."""
    console = _console()
    if done.status == "nothing":
        console.print(f"[bold]{done.collection}[/bold] needs no upkeep: nothing to do.")
        return
    console.print(f"[bold]{done.collection}[/bold]  {done.status} in {duration(done.seconds['total'])}")
    for each in done.tables:
        parts = f", parts of the index {each.index_parts[0]} -> {each.index_parts[1]}" if max(each.index_parts) else ""
        console.print(f"  {each.table}  fragments {each.fragments[0]:,} -> {each.fragments[1]:,}{parts}  (version {each.versions[1]})")
    if done.published:
        console.print(f"  published       epoch {done.published}: the same rows in their new layout")
    if done.given_up:
        console.print(f"  given up        epochs {_ranges(done.given_up)}, which can no longer be rolled back to")
    for table in done.removed:
        console.print(f"  removed         {table}")
    console.print(f"  freed           {done.freed.bytes / 1e6:,.1f} MB: {done.freed.versions:,} old versions, {done.freed.files:,} files")
    if done.checked is not None:
        console.print(f"  checked         {done.checked:,} files: all belong to what is kept, none holds a deleted row")


def _ranges(numbers: Sequence[int]) -> str:
    """`1-4, 7`. `numbers` are sorted."""
    groups = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{group[0]}-{group[-1]}" if len(group) > 1 else str(group[0]) for group in groups)


def checks(found: Sequence[Any]) -> None:
    """One line a check."""
    console = _console()
    for check in found:
        mark = "[green]ok[/green]   " if check.ok else "[red]wrong[/red]"
        console.print(f"{mark}  {escape(check.name):<20} {escape(check.detail)}")
