"""A model change under a reader: MiniLM gives way to mpnet on 20,480 real passages, while a reader searches in a loop.

python -m benchmarks.switch --out build/bench/5-switch.md       # an hour and more on two cores, without a GPU; wants `reference` first
python -m benchmarks.switch --count 512 --new minilm-256        # minutes: only to see that it works

The source is taken away before the change. What the reader gets is checked answer by answer (`reader`); results are compared byte by
byte before the change and after the rollback; the quality of both generations stands beside that of the models alone (`reference`).
"""

import argparse
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import numpy as np
import orjson

from benchmarks import debian, sts
from benchmarks.harness import SCRATCH, machine, publish, spread, table
from benchmarks.reader import RESULTS, Answer, Watched
from benchmarks.reference import FOLDER, MODELS, Reference, ndcg, reference
from flows import apply, plan, promote, rollback, search
from pipelines.spaces.resolving import resolve_model
from pipelines.spec.declared import ModelSpec
from storage import open_published
from storage.history.catalog import CATALOG, Publication, published
from storage.store.lance import Store
from workers.encoders.encoder import encode
from workers.encoders.loading import load_encoder
from workers.observing.telling import Plan, Result

NAME = "debian"
SPEC = """
[collections.debian]
source = {{ uri = "data/*.parquet", id = "id", text = "text" }}
chunking = {{ by = "document" }}
model = {model}
gates = {{ queries = "queries.jsonl" }}
"""
COMPARED = 16
"""Queries whose results must be the same bytes after a rollback."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Variant:
    """A model as the spec names it."""

    reference: str
    """A key of `MODELS`."""
    dimensions: int | None = None
    """The first so many; None: all."""

    @property
    def title(self) -> str:
        return self.reference + (f"-{self.dimensions}" if self.dimensions else "")

    def toml(self) -> str:
        cut = f", dimensions = {self.dimensions}" if self.dimensions else ""
        return f'{{ name = "{MODELS[self.reference]().folder}"{cut} }}'

    def own(self, task: debian.Task, pairs: sts.Pairs, folder: Path) -> Reference:
        """What the model gives without the platform."""
        return reference(self.reference, task, pairs, folder, self.dimensions)


OLD = Variant("minilm")
NEW = {variant.title: variant for variant in (Variant("mpnet"), Variant("minilm", 256))}


@dataclass(frozen=True, slots=True)
class Quality:
    """Of a generation, through the platform."""

    ndcg: float
    """nDCG@10 of the search results."""
    spearman: float
    """Of stored vectors, on STS-B's test set, in percent."""


@dataclass(frozen=True, slots=True)
class Move:
    """The pointer's."""

    kind: str
    publication: Publication
    seconds: float
    """Of the command; of `apply`, all of it."""
    at: float
    """When the catalog was swapped, in seconds since 1970."""


class Place:
    """A folder with a corpus, a spec and a store."""

    def __init__(self, folder: Path, task: debian.Task) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copytree(task.data, folder / "data")
        shutil.copy(task.labels, folder / "queries.jsonl")
        self.folder, self.task = folder, task
        self.config = folder / "revector.toml"
        self.store = Store(str(folder / "store"))

    def declare(self, variant: Variant) -> None:
        """Write the spec, in one step: the reader reads it, too."""
        (unfinished := self.config.with_suffix(".tmp")).write_text(SPEC.format(model=variant.toml()))
        unfinished.rename(self.config)

    def hide_source(self) -> None:
        (self.folder / "data").rename(self.folder / "data-gone")

    def published(self) -> Publication:
        return published(self.store, NAME)

    def swapped(self) -> float:
        """When the catalog was swapped last, in seconds since 1970."""
        swap: datetime = self.store.open(CATALOG).versions()[-1]["timestamp"]
        return swap.timestamp()

    def results(self) -> bytes:
        """Of some searches, as they would be sent to someone."""
        return b"".join(orjson.dumps(search(NAME, query, self.config)) for query in self.task.queries[:COMPARED])

    def check_whole(self) -> None:
        """Every passage once. Raises SystemExit."""
        ids = open_published(self.store.root, NAME).table.to_lance().to_table(columns=["doc_id"])["doc_id"].to_pylist()
        if sorted(ids) != sorted(self.task.ids):
            raise SystemExit(f"expected {len(self.task.ids):,} passages, each once, found {len(ids):,}, {len(set(ids)):,} of them distinct")


def timed(name: str, work: Callable[[], T]) -> tuple[T, float]:
    began = time.perf_counter()
    done = work()
    seconds = time.perf_counter() - began
    print(f"  {name}: {seconds:.2f} s", file=sys.stderr, flush=True)
    return done, seconds


def applied(place: Place) -> tuple[Result, Move]:
    """Raises SystemExit unless it was published."""
    result, seconds = timed("apply", lambda: apply(NAME, place.config))
    if result.status != "published":
        raise SystemExit(f"expected `apply` to publish, found {result.status}: {result.reason}")
    return result, Move("apply", place.published(), seconds, place.swapped())


def moved(place: Place, kind: str, work: Callable[[], Publication]) -> Move:
    publication, seconds = timed(kind, work)
    return Move(kind, publication, seconds, place.swapped())


def quality(place: Place, variant: Variant, pairs: sts.Pairs) -> Quality:
    """Of what is published."""
    here = open_published(place.store.root, NAME)
    encoder = load_encoder(resolve_model(ModelSpec(**here.publication.model_spec())))

    def rank(query: str, answer: str) -> int:
        vector = encode(encoder, [query], "query").vectors[0]
        found = here.table.search(vector, vector_column_name="vector").distance_type("cosine").limit(RESULTS)
        ids = found.select(["doc_id", "_distance"]).to_arrow()["doc_id"].to_pylist()
        return ids.index(answer) + 1 if answer in ids else RESULTS + 1

    ranks = np.array([rank(query, answer) for query, answer in zip(place.task.queries, place.task.relevant, strict=True)])
    return Quality(ndcg(ranks), pairs.spearman(sts.through_the_platform(pairs.sentences, variant.toml())))


@dataclass(frozen=True, slots=True)
class Story:
    """All that happened."""

    loaded: Result
    plan: Plan
    changed: Result
    moves: list[Move]
    same: bool
    """Whether every rollback gave the results of before, byte by byte."""
    answers: list[Answer]
    exit_code: int
    """The reader's."""
    qualities: tuple[Quality, Quality]
    """Before and after."""


def tell(place: Place, old: Variant, new: Variant, pairs: sts.Pairs, rounds: int) -> Story:
    """Load; change the model under the reader, without the source; roll back and promote again, some times."""
    place.declare(old)
    loaded, first = applied(place)
    before, _ = timed("quality", lambda: quality(place, old, pairs))
    results = place.results()
    reader = Watched(place.config, NAME, place.task.queries)
    reader.settle(first.publication.epoch)
    place.hide_source()
    place.declare(new)
    planned = plan(NAME, place.config)
    changed, move = applied(place)
    moves, same = [first, move], True
    reader.settle(move.publication.epoch)
    place.check_whole()
    for _ in range(rounds):
        moves.append(moved(place, "rollback", lambda: rollback(NAME, place.config)))
        reader.settle(moves[-1].publication.epoch)
        same &= place.results() == results
        moves.append(moved(place, "promote", lambda: promote(NAME, changed.generation, place.config)))
        reader.settle(moves[-1].publication.epoch)
    exit_code = reader.end()
    after, _ = timed("quality", lambda: quality(place, new, pairs))
    return Story(loaded, planned, changed, moves, same, reader.answers(), exit_code, (before, after))


def until_seen(story: Story, move: Move) -> float:
    """Seconds from the move to the first answer from what it points to."""
    return min(answer.at for answer in story.answers if answer.epoch == move.publication.epoch) - move.at


def report(story: Story, task: debian.Task, variants: Sequence[Variant], own: Sequence[Reference]) -> str:
    rows = [
        [variant.title, f"{through.ndcg:.4f}", f"{alone.ndcg:.4f}", f"{through.spearman:.2f}", f"{alone.spearman:.2f}"]
        for variant, through, alone in zip(variants, story.qualities, own, strict=True)
    ]
    changed, planned, faults = story.changed, story.plan, [answer for answer in story.answers if answer.fault]
    return "\n\n".join(
        [
            "## A model change under a reader",
            f"{machine()}. {len(task.ids):,} Debian package descriptions, {len(task.queries):,} synopses as queries.",
            f"`apply` with {variants[0].title}: {_cost(story.loaded)}.",
            f"The source is renamed away and the model is {variants[1].title} now. `plan`: a {planned.change} change, {planned.reason}; "
            f"{planned.embed['contents']:,} forward passes, {planned.reuse['chunks']:,} reused. `apply`: {_cost(changed)}; "
            f"every passage is there, once.",
            "Its gates:\n\n"
            + table(["gate", "passed", "what it found"], [[gate.name, _yes(gate.passed), gate.detail] for gate in changed.gates]),
            f"Meanwhile the reader: {_answers(story.answers)}; {len(faults)} mixed or wrong answers, "
            f"{'0 errors' if story.exit_code == 0 else 'then an error'}.{_first_fault(faults)}",
            f"Results after each rollback are {'the same bytes as' if story.same else 'NOT the same bytes as'} before the change.",
            table(["pointer's move", "times", "the command, s", "from the move to the first answer that sees it, s"], _moves(story)),
            table(["generation", "nDCG@10 by search", "the model alone", "STS-B Spearman, stored", "the model alone"], rows),
        ]
    )


def _cost(result: Result) -> str:
    embed = result.embed
    return f"{result.seconds['total']:,.0f} s, {embed['contents']:,} forward passes, {embed['tokens']:,} tokens"


def _answers(answers: Sequence[Answer]) -> str:
    ways = Counter(answer.way for answer in answers)
    return f"{len(answers):,} answers ({', '.join(f'{number:,} by `{way}`' for way, number in ways.items())})"


def _yes(passed: bool) -> str:
    return "yes" if passed else "NO"


def _first_fault(faults: Sequence[Answer]) -> str:
    return f" The first: {faults[0].fault}." if faults else ""


def _moves(story: Story) -> list[list[str]]:
    """The first publication has no reader yet; the second one is when the reader must load the new model."""
    kinds = {"apply": "`apply`, the new model met first", "rollback": "`rollback`", "promote": "`promote`"}
    groups = {title: [move for move in story.moves[1:] if move.kind == kind] for kind, title in kinds.items()}
    return [
        [title, str(len(moves)), spread([move.seconds for move in moves]), spread([until_seen(story, move) for move in moves])]
        for title, moves in groups.items()
        if moves
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=debian.COUNT, help="passages")
    parser.add_argument("--new", choices=sorted(NEW), default="mpnet")
    parser.add_argument("--rounds", type=int, default=5, help="rollbacks, and promotions")
    parser.add_argument("--reference", type=Path, default=FOLDER, help="vectors of the models alone, made where they are missing")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    task, pairs = debian.load(count=options.count), sts.load()
    variants = (OLD, NEW[options.new])
    story = tell(Place(SCRATCH / "switch", task), *variants, pairs, options.rounds)
    own = [variant.own(task, pairs, options.reference) for variant in variants]
    publish(report(story, task, variants, own), options.out)


if __name__ == "__main__":
    main()
