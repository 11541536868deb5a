"""What a person reads: tables and sentences on stdout."""

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.show.paper import paper
from flows.show.words import counts, documents, duration, megabytes, money, one_line, outcome, short, version
from pipelines.content.documents import DeadLetter
from storage.history.catalog import Publication
from storage.store.examination import Check
from workers.observing.telling import Plan, Result
from workers.upkeep.steps import Upkeep

TEXT_WIDTH = 100


def columns(*titles: str, right: Collection[str] = ()) -> Table:
    """A table without lines. `right`: titles of columns of numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left")
    return table


def plan(made: Plan) -> None:
    """What would be done, and what it would cost."""
    console = paper()
    if not made.pending:
        console.print(f"[bold]{made.collection}[/bold] is current: nothing to do.{_standing(made.dead_letters)}")
        _notes(console, made.notes)
        return
    console.print(f"[bold]{made.collection}[/bold]  {made.change} change: {escape(made.reason)}")
    for name, (before, after) in made.identity.items():
        console.print(f"  {name:<15} {_short(before)} -> {_short(after)}", markup=False)
    console.print(f"  generation      {made.generation}  (space {made.space})")
    console.print(f"  files           {counts(made.files, ('read', 'gone', 'unchanged'))}")
    console.print(f"  documents       {documents(made.documents, made.failed)}")
    console.print(f"  chunks          {counts(made.chunks, ('added', 'removed', 'unchanged'))}")
    embed = made.embed
    console.print(f"  forward passes  [bold]{embed['contents']:,}[/bold] for {embed['chunks']:,} chunks, about {embed['tokens']:,} tokens")
    console.print(f"  reuse           {made.reuse['chunks']:,} chunks take a stored vector")
    if made.seconds is None:
        console.print("  time            unknown: the first run of this model measures it")
    else:
        console.print(f"  time            about {duration(made.seconds)}, by the speed of the last run")
    if made.cost:
        console.print(f"  cost            about {money(made.cost.total, made.cost.currency)}, by what the last run held")
    if made.dead_letters:
        console.print(f"  dead letters    {made.dead_letters:,}")
        for letter in made.reasons:
            console.print(f"                  {letter.count:,}: {letter.reason} (as in {_place(letter)})", markup=False)
    if len(made.generations) > 1:
        _planned_generations(console, made)
    _notes(console, made.notes)
    console.print(f"`revector apply {made.collection}` does it.")


def _place(letter: DeadLetter) -> str:
    return letter.file if letter.id in ("", letter.file) else f"{letter.file} {letter.id}"


def _short(value: Any) -> str:
    """A hash by its beginning; names and paths whole."""
    text = "none" if value is None else str(value)
    return f"{text[:12]}…" if len(text) > 30 and text.isalnum() else text


def _planned_generations(console: Console, made: Plan) -> None:
    numbers = ("forward passes", "tokens", "reuse")
    table = columns("generation", "part", "model", *numbers, right=numbers)
    for one in made.generations:
        values = (one.embed["contents"], one.embed["tokens"], one.reuse["chunks"])
        table.add_row(one.generation, one.role, escape(one.model), *(f"{value:,}" for value in values))
    console.print()
    console.print(table)


def _notes(console: Console, notes: Sequence[str]) -> None:
    for note in notes:
        console.print(f"note: {note}", markup=False)


def _standing(dead_letters: int) -> str:
    return f" {dead_letters:,} dead letters stand." if dead_letters else ""


def result(done: Result, with_profile: bool = False) -> None:
    """What was done, and maybe where the time went."""
    console = paper()
    if done.status == "nothing" and done.change == "none":
        console.print(f"[bold]{done.collection}[/bold] is current: nothing to do.")
        _reports(console, done)
        _notes(console, done.notes)
        return
    console.print(f"[bold]{done.collection}[/bold]  {outcome(done.status, done.version, done.generation)}")
    console.print(f"  documents       {documents(done.documents, done.failed)}")
    console.print(f"  forward passes  {done.embed['contents']:,} for {done.embed['chunks']:,} chunks; {done.reuse['chunks']:,} reused")
    if done.unread["tokens"]:
        console.print(f"  unread          {_unread(done.unread)}")
    speed = f", {done.embed['tokens'] / done.seconds['total']:,.0f} tokens/s" if done.embed["tokens"] else ""
    console.print(f"  time            {duration(done.seconds['total'])}{speed}")
    if done.cost:
        console.print(f"  cost            {money(done.cost.total, done.cost.currency)}")
    if done.dead_letters:
        console.print(f"  dead letters    {done.dead_letters:,}: `revector status {done.collection}` lists them")
    for gate in done.gates:
        if not gate.passed:
            console.print(f"  gate failed     {gate.name}: {gate.detail}", markup=False)
            if gate.rows:
                console.print(f"                  {', '.join(gate.rows[:5])}{' …' if len(gate.rows) > 5 else ''}", markup=False)
    for one in done.generations:
        if one.role != "main":
            became = one.objection or {"published": "published", "nothing": "as it was"}.get(one.status, "built")
            passes = f"{one.embed['contents']:,} forward passes"
            console.print(f"  {one.role:<15} {one.generation}, {one.model}: {became}; {passes}", markup=False)
    _reports(console, done)
    _notes(console, done.notes)
    if with_profile:
        _profile(console, done)


def _reports(console: Console, done: Result) -> None:
    """Those that the spec declares, unless all were there already."""
    made = [kind for kind, outcome in done.reports.items() if outcome == "made"]
    if made:
        console.print(f"  reports         {', '.join(made)}")
    for kind, became in done.reports.items():
        if became not in {"made", "kept"}:
            console.print(f"  report {kind:<8} {became}: `revector report {done.collection} {kind}`", markup=False)


def _unread(unread: Mapping[str, int]) -> str:
    return f"{unread['tokens']:,} tokens of {unread['contents']:,} texts are beyond what the model reads"


def _profile(console: Console, done: Result) -> None:
    total = done.seconds["total"]
    stages = columns("stage", "seconds", "share", right=("seconds", "share"))
    known = done.profile["stages"]
    for name, seconds in {**known, "the rest": total - sum(known.values())}.items():
        stages.add_row(name, f"{seconds:.2f}", f"{seconds / total:.0%}")
    console.print()
    console.print(stages)
    if not done.profile["workers"]:
        return
    numbers = ("shards", "tokens", "read", "tokenize", "model", "write", "waited")
    workers = columns("worker", *numbers, right=numbers)
    workers.title, workers.title_justify = f"model: {done.profile['how']}", "left"
    for worker in done.profile["workers"]:
        seconds_of = (f"{worker[name]:.2f} s" for name in ("read", "tokenize", "model", "write"))
        workers.add_row(worker["worker"], f"{worker['shards']:.0f}", f"{worker['tokens']:,.0f}", *seconds_of, f"{worker['waited']:.0%}")
    console.print()
    console.print(workers)


def status(shown: Mapping[str, Any]) -> None:
    """What readers have of each collection, and the newest state of its generations."""
    console = paper()
    console.print(f"store {shown['store']}")
    numbers = ("chunks", "backlog", "dead")
    table = columns("collection", "published", *numbers, "last run", right=numbers)
    for collection in shown["collections"]:
        published, last = collection["published"], collection["last_run"]
        table.add_row(
            collection["name"],
            f"version {published['version']}, {_minute(published['at'])}" if published else "not yet",
            f"{published['chunks'] if published else 0:,}",
            *(f"{collection[key]:,}" for key in ("backlog", "dead_letters")),
            f"{last['status']}, {_minute(last['began'])}" if last else "none",
        )
    console.print(table)
    for collection in shown["collections"]:
        if (here := collection["published"]) and here["gone"]:
            remedy = f"`revector apply {collection['name']}` builds it anew"
            console.print(f"! version {here['version']} of {here['generation']} is gone from the store: {remedy}", markup=False)
        if pin := collection["pin"]:
            console.print(f"! {collection['name']} is {pin.summary}: `revector resume {collection['name']}` releases it", markup=False)
        last = collection["last_run"] or {}
        if last.get("status") == "built":
            console.print(f"! the last run of {collection['name']} was built and not published: {last.get('reason')}", markup=False)
        for generation in collection["generations"]:
            mark = "*" if collection["published"] and collection["published"]["generation"] == generation["name"] else " "
            index = ", ".join(generation["index"]) or "no index: exact search"
            held = f"{generation['vectors']:,} vectors of {generation['chunks']:,} chunks"
            about = f"{generation['state']}, {generation['model']}, {generation['dimension']} dimensions, {held}, {index}"
            console.print(f"{mark} {generation['name']}  {about}", markup=False)
        if stale := (collection["failed"] or {}).get("stale", 0):
            console.print(f"! {stale:,} documents are stale: they are as they were before their files became unreadable")
        if last.get("unread", {}).get("tokens"):
            console.print(f"  unread: {_unread(last['unread'])}, in the last run")
        for letter in collection.get("letters", []):
            console.print(f"  dead: {letter['stage']} {letter['id']} {letter['file']}: {letter['reason']}", markup=False)


def _minute(at: str | None) -> str:
    """`2026-03-01 03:00`, of a moment in ISO 8601."""
    return str(at)[:16].replace("T", " ")


def results(hits: Sequence[Mapping[str, Any]]) -> None:
    console = paper()
    if not hits:
        console.print("nothing found")
    for hit in hits:
        shown = one_line(hit["text"], TEXT_WIDTH)
        metadata = "  ".join(f"{name}={value}" for name, value in hit["metadata"].items() if value is not None)
        console.print(f"{hit['score']:.3f}  {hit['chunk_id']}  {metadata}\n       {shown}", markup=False)


def history(shown: Mapping[str, Any]) -> None:
    """Publications, then runs, then what versions were judged by."""
    console = paper()
    console.print(_publications(shown["published"]))
    console.print(_runs(shown["runs"]))
    if shown["evaluations"]:
        console.print(_evaluations(shown["evaluations"]))


def _publications(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = columns("epoch", "action", "version", "generation", "chunks", "at", "who", "why")
    for row in rows:
        since = ", since removed" if row["removed"] else ", gone from the store" if row["gone"] else ""
        action = f"{row['action']}{since}"
        chunks, at = f"{row['chunks']:,}", row["at"][:19]
        cells = (row["epoch"], action, row["version"], short(row["generation"]), chunks, at, row["who"], row["why"])
        table.add_row(*(escape(str(cell)) for cell in cells))
    return table


def _runs(rows: Sequence[Mapping[str, Any]]) -> Table:
    priced = any(run.get("cost") for run in rows)
    table = columns("run", "status", "forward passes", "reused", "tokens", "seconds", "dead", *(["cost"] if priced else []))
    table.columns[0].overflow = "fold"
    for run in rows:
        embed, seconds = run.get("embed", {}), run.get("seconds", {})
        table.add_row(
            run["run_id"],
            run["status"],
            f"{embed.get('contents', 0):,}",
            f"{run.get('reuse', {}).get('chunks', 0):,}",
            f"{embed.get('tokens', 0):,}",
            f"{seconds.get('total', 0):.1f}",
            str(run.get("dead_letters", 0)),
            *([_cost(run.get("cost"))] if priced else []),
        )
    return table


def _cost(cost: Mapping[str, Any] | None) -> str:
    return money(cost["total"], cost["currency"]) if cost else "-"


def _evaluations(rows: Sequence[Mapping[str, Any]]) -> Table:
    names = ("recomputed", "overlap", "index recall", "ndcg@10")
    table = columns("evaluated", "version", "generation", *names, "failed")
    for row in rows:
        values = (row["values"].get(name) for name in names)
        numbers = ("-" if value is None else f"{value:.3f}" for value in values)
        table.add_row(row["at"][:19], str(row["version"]), short(row["generation"]), *numbers, ", ".join(row["failed"]) or "-")
    return table


def diff(changes: Mapping[str, Any]) -> None:
    """What changed between two versions."""
    console = paper()
    console.print(f"[bold]{changes['collection']}[/bold]  version {changes['from']} -> {changes['to']}")
    for level in ("documents", "chunks"):
        console.print(f"  {level:<10} {counts(changes[level], ('added', 'removed', 'changed'))}")
        for name, ids in changes[level]["examples"].items():
            if ids:
                console.print(f"    {name}: {', '.join(ids)}", markup=False)


def moved(publication: Publication) -> None:
    console = paper()
    console.print(
        f"[bold]{publication.collection}[/bold]  {publication.action}: "
        f"{version(publication.version, publication.generation)} is what readers get (epoch {publication.epoch})"
    )
    if publication.action == "rollback":
        console.print(f"It stays so, whatever runs build, until `revector resume {publication.collection}` or a promotion.")


def upkeep(done: Upkeep) -> None:
    """What was written anew, and what was taken away."""
    console = paper()
    if done.status == "nothing":
        console.print(f"[bold]{done.collection}[/bold] needs no upkeep: nothing to do.")
        return
    console.print(f"[bold]{done.collection}[/bold]  {done.status} in {duration(done.seconds['total'])}")
    for table in done.tables:
        parts = f", parts of the index {table.index_parts[0]} -> {table.index_parts[1]}" if max(table.index_parts) else ""
        console.print(f"  {table.table}  fragments {table.fragments[0]:,} -> {table.fragments[1]:,}{parts}  (version {table.versions[1]})")
    if done.published:
        console.print(f"  published       epoch {done.published}: the same rows in their new layout")
    if done.given_up:
        console.print(f"  given up        epochs {_ranges(done.given_up)}, which can no longer be rolled back to")
    for name in done.removed:
        console.print(f"  removed         {name}")
    console.print(f"  freed           {megabytes(done.freed.bytes)}: {done.freed.versions:,} old versions, {done.freed.files:,} files")
    if done.checked is not None:
        console.print(f"  checked         {done.checked:,} files: all belong to what is kept, none holds a deleted row")


def _ranges(numbers: Sequence[int]) -> str:
    """`1-4, 7`. `numbers` are sorted."""
    groups = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ", ".join(f"{group[0]}-{group[-1]}" if len(group) > 1 else str(group[0]) for group in groups)


def checks(made: Sequence[Check]) -> None:
    console = paper()
    for check in made:
        mark = "[green]ok[/green]   " if check.ok else "[red]wrong[/red]"
        console.print(f"{mark}  {escape(check.name):<20} {escape(check.detail)}")
