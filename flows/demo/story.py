"""The steps of the demo: each is a command that a person would type, its figures, and why they matter."""

import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.markup import escape

from flows import commands
from flows.demo.corpus import Key, by_letter, by_part_of_speech, lay_out, revised, without
from flows.demo.page import Page, seconds_of, words_in_common
from flows.show.progress import progress
from flows.show.words import counts, short
from pipelines.spec.parsing import load_spec
from storage import open_published
from storage.history.catalog import Publication
from workers.observing.telling import Plan, Result

COLLECTION = "glosses"
CONFIG = Path(__file__).with_name("revector.toml")
SHOWN = 3
WITHDRAWN = 10
"""Documents that are deleted: the best answers to a question."""

Hits = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Question:
    """A search of the story."""

    text: str
    where: Mapping[str, str] = field(default_factory=dict)
    """Metadata that results must have."""

    @property
    def command(self) -> str:
        """As a person would type it."""
        where = [f"--where {name}={value}" for name, value in self.where.items()]
        return " ".join([f"revector search {COLLECTION} {shlex.quote(self.text)} -k {SHOWN}", *where])


DISPUTED = Question("paying my landlord every month")
QUESTIONS = (Question("kitchen gadget for keeping milk cool"), DISPUTED, Question("talking very quietly", {"pos": "verb"}))
"""None has a word in common with its best answer."""


class Story:
    def __init__(self, folder: Path, console: Console, glosses: pa.Table, *, kept: bool) -> None:
        """`folder`: empty. `kept`: whether it will be there afterwards."""
        self._folder = folder
        self._page = Page(console)
        self._glosses = glosses
        self._kept = kept
        self._config = folder / CONFIG.name
        self._store = str(folder / "store")  # said outright: REVECTOR_STORE must not lead a demo into somebody's store
        self._steps: list[dict[str, Any]] = []

    def tell(self) -> dict[str, Any]:
        began = time.monotonic()
        self._introduce()
        chapters = (
            self._plan,
            self._load,
            self._search,
            self._repeat,
            self._edit,
            self._move,
            self._delete,
            self._roll_back,
            self._restore,
            self._try_a_model,
            self._switch,
        )
        for chapter in chapters:
            chapter()
        seconds = time.monotonic() - began
        self._sum_up(seconds)
        return {"seconds": seconds, "steps": self._steps}

    def _introduce(self) -> None:
        shutil.copyfile(CONFIG, self._config)
        files = self._write(self._glosses, by_part_of_speech)
        self._page.say(
            f"[bold]revector[/bold] keeps the embeddings of a corpus current. Here it does so with {len(self._glosses):,} "
            f"definitions of WordNet, in {files} Parquet files by part of speech, and with all-MiniLM-L6-v2 on this "
            "machine's processor. This revector.toml is all that is declared:\n"
        )
        self._page.listing(CONFIG.read_text(encoding="utf-8"))

    def _plan(self) -> None:
        self._page.heading("A plan, before any cost")
        plan = self._planned("plan")
        self._page.figures(
            {
                "documents": _counts(plan.documents),
                "forward passes": f"{plan.embed['contents']:,}, about {plan.embed['tokens']:,} tokens",
            }
        )
        self._page.why("the bill is known before it is run up, and nothing was touched.")

    def _load(self) -> None:
        self._page.heading("The first load")
        result = self._apply("first load")
        self._page.say(f"  [dim]how the model ran on this machine: {escape(result.profile['how'])}[/dim]")
        self._page.why(
            f"readers got version {result.version} whole, in one step. A crash on the way would have cost them nothing and "
            "this run seconds: the same command goes on from where it was."
        )

    def _search(self) -> None:
        self._page.heading("Search that finds by meaning")
        self._page.say("The first search takes longer: it loads the model into this process.")
        for question in QUESTIONS:
            began = time.monotonic()
            self._page.command(question.command)
            hits = self._ask(question, SHOWN)
            common = words_in_common(question.text, hits[0])
            self._page.answers(hits)
            self._page.say(f"  [dim]words that question and best answer share: {', '.join(common) or 'none'}[/dim]")
            self._record("search", question.command, began, status="found", results=hits, words_in_common=common)
        self._page.why(
            "people ask in words of their own. The query is always encoded by the model of the version that is read: two models never mix."
        )

    def _repeat(self) -> None:
        self._page.heading("Nothing changed, nothing done")
        plan = self._planned("no-op plan")
        self._page.figures({"documents": _counts(plan.documents), "forward passes": f"{plan.embed['contents']:,}"})
        self._apply("no-op")
        self._page.why("it can run every five minutes: files that are as they were are not even opened.")

    def _edit(self) -> None:
        self._page.heading("An edit of 1 % of the documents")
        self._glosses = revised(self._glosses)
        files = self._write(self._glosses, by_part_of_speech)
        self._page.say(f"Every hundredth definition is revised, all over the corpus: {files} files are written anew.")
        result = self._apply("edit")
        self._page.why(
            f"{result.embed['contents']:,} forward passes, not {len(self._glosses):,}: the cost follows the change. Most of "
            "the time goes into loading the model, which a larger change pays only once as well."
        )

    def _move(self) -> None:
        self._page.heading("Files are moved and cut anew")
        files = self._write(self._glosses, by_letter)
        self._page.say(f"The corpus now comes by first letter: the old files are gone, and every document is in one of {files} new ones.")
        self._apply("move")
        self._page.why("content decides the work, not paths: tidying up the corpus costs no forward pass.")

    def _delete(self) -> None:
        self._page.heading("A deletion")
        before = self._ask(DISPUTED, WITHDRAWN)
        gone = [hit["doc_id"] for hit in before]
        self._write(without(self._glosses, gone), by_letter)
        self._page.say(f"The {len(gone)} best answers to {DISPUTED.text!r} must go: their rows are taken out of the files.")
        self._apply("delete", withdrawn=gone)
        self._ask_again(("before", "after the deletion"), before)
        self._page.why("what leaves the corpus leaves the search with the next run, without anyone keeping a list of deletions.")

    def _roll_back(self) -> None:
        self._page.heading("A rollback")
        self._page.say("The deletion was a mistake? Readers can have the version before it while it is looked into.")
        before = self._steps[-1]["results"]
        command = "revector rollback --why 'deleted by mistake'"
        self._page.command(command)
        began = time.monotonic()
        publication = commands.rollback(config=self._config, store=self._store, why="deleted by mistake")
        self._record("rollback", command, began, status="published", version=publication.version)
        self._page.figures(
            {
                "published": f"version {publication.version} again",
                "forward passes": "0",
                "time": seconds_of(self._steps[-1]["seconds"]),
            }
        )
        self._ask_again(("before", "after the rollback"), before)
        self._page.why("a bad day at the source is undone by moving a pointer; nothing is rewritten.")

    def _restore(self) -> None:
        self._page.heading("What was deleted comes back")
        self._write(self._glosses, by_letter)
        self._page.say("The rows are put back into the files. Readers stay on what they were taken back to until that is released.")
        self._apply("restore")
        command = "revector resume"
        self._page.command(command)
        began = time.monotonic()
        publication = commands.resume(config=self._config, store=self._store)
        self._record("resume", command, began, status="published", version=publication.version)
        self._page.figures({"published": f"version {publication.version}", "time": seconds_of(self._steps[-1]["seconds"])})
        self._page.why("every content goes through a model once. Vectors that a published version still has are taken from there.")

    def _try_a_model(self) -> None:
        self._page.heading("A candidate beside what is published")
        size = open_published(self._store, COLLECTION).space["dimension"]
        name = load_spec(self._config).collections[COLLECTION].model.name
        line = f'candidates = [{{ name = "{name}", dimensions = {size // 2} }}]'
        self._config.write_text(self._config.read_text(encoding="utf-8").replace("\nworkers", f"\n{line}\nworkers"), encoding="utf-8")
        self._page.say(f"Would vectors of half the size do? The spec gets one more line, and readers notice nothing:\n\n  {escape(line)}")
        result = self._apply("candidate")
        self._page.why(
            "a candidate is kept current with every run, at one read of the corpus. This one cost no forward pass: the first "
            f"{size // 2} numbers of stored vectors are its vectors."
        )
        candidate = next(built.generation for built in result.generations if built.role == "candidate")
        command = f"revector compare {COLLECTION} published {short(candidate)}"
        began = time.monotonic()
        self._page.command(command)
        made = commands.compare(COLLECTION, "published", candidate, self._config, store=self._store)
        self._record("compare", command, began, status="compared", overlap=made.overlap, candidate=candidate)
        self._page.figures(
            {
                "dimensions": f"{made.a.dimension}, {made.b.dimension}",
                "in common": f"{made.overlap:.0%} of the 10 nearest, by {made.compared} queries" if made.overlap is not None else "unknown",
                "time": seconds_of(self._steps[-1]["seconds"]),
            }
        )
        self._page.why("nobody has to guess what a change of the model would do to the answers.")

    def _switch(self) -> None:
        self._page.heading("The switch, and back")
        candidate = self._steps[-1]["candidate"]
        before = self._ask(DISPUTED, SHOWN)
        for name, command, move in (
            ("promote", f"revector promote {COLLECTION} {short(candidate)} --why 'half the size'", self._promote),
            ("back", "revector rollback --why 'it was only a demo'", self._undo),
        ):
            self._page.command(command)
            began = time.monotonic()
            publication = move(candidate)
            self._record(name, command, began, status="published", version=publication.version, generation=publication.generation)
            self._page.figures({"published": publication.generation, "time": seconds_of(self._steps[-1]["seconds"])})
        self._steps[-1]["same"] = self._ask(DISPUTED, SHOWN) == before
        self._page.why("a switch of the model is a move of a pointer, and so is the way back: the answers are what they were, bit by bit.")

    def _promote(self, candidate: str) -> Publication:
        return commands.promote(COLLECTION, candidate, self._config, store=self._store, why="half the size")

    def _undo(self, _: str) -> Publication:
        return commands.rollback(config=self._config, store=self._store, why="it was only a demo")

    def _sum_up(self, seconds: float) -> None:
        self._page.heading(f"All of it: {seconds_of(seconds)}")
        self._page.table(("step", "forward passes", "vectors reused", "time"), map(_row, self._steps))
        if self._kept:
            self._page.say(f"\nIt is all in {self._folder}: go there and try `revector history`, `revector search glosses ...`.")
        self._page.say("\nNext: `revector init` writes a revector.toml for a corpus of your own.")

    def _write(self, glosses: pa.Table, key: Key) -> int:
        return lay_out(glosses, self._folder / COLLECTION, key)

    def _planned(self, name: str) -> Plan:
        self._page.command("revector plan")
        began = time.monotonic()
        with progress() as report:
            plan = commands.plan(config=self._config, store=self._store, report=report)
        status = "changes" if plan.pending else "nothing"
        self._record(name, "revector plan", began, documents=plan.documents, embed=plan.embed, reuse=plan.reuse, status=status)
        return plan

    def _apply(self, name: str, **more: Any) -> Result:
        self._page.command("revector apply")
        began = time.monotonic()
        with progress() as report:
            result = commands.apply(config=self._config, store=self._store, report=report)
        self._record(
            name,
            "revector apply",
            began,
            documents=result.documents,
            embed=result.embed,
            reuse=result.reuse,
            status=result.status,
            version=result.version,
            **more,
        )
        speed = f", {result.tokens_per_second:,.0f} tokens/s" if result.embed["tokens"] else ""
        self._page.figures(
            {
                "documents": _counts(result.documents),
                "forward passes": f"[bold]{result.embed['contents']:,}[/bold]",
                "vectors reused": f"{result.reuse['chunks']:,}",
                "time": seconds_of(self._steps[-1]["seconds"]) + speed,
            }
        )
        return result

    def _ask(self, question: Question, k: int) -> Hits:
        return commands.search(COLLECTION, question.text, self._config, store=self._store, k=k, where=question.where.items())

    def _ask_again(self, titles: tuple[str, str], before: Hits) -> None:
        """Show what the deletion is about, and keep what is found now with the last step."""
        after = self._ask(DISPUTED, len(before))
        self._page.command(DISPUTED.command)
        self._page.compare(titles, before[:SHOWN], after[:SHOWN])
        self._steps[-1]["results"] = after

    def _record(self, name: str, command: str, began: float, **outcome: Any) -> None:
        """A step is over. Without figures of its own it changed and cost nothing."""
        self._steps.append(
            {
                "name": name,
                "command": command,
                "seconds": time.monotonic() - began,
                "documents": {},
                "embed": {"contents": 0, "chunks": 0, "tokens": 0},
                "reuse": {"chunks": 0},
                **outcome,
            }
        )


def _row(step: Mapping[str, Any]) -> tuple[str, str, str, str]:
    passes = "" if step["name"] == "plan" else f"{step['embed']['contents']:,}"
    return step["name"], passes, f"{step['reuse']['chunks']:,}", seconds_of(step["seconds"])


def _counts(documents: Mapping[str, int]) -> str:
    return counts({name: number for name, number in documents.items() if number}) or "none"
