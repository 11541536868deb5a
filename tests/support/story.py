"""A store that the product itself made, with all that a dashboard tells of, and hostile words wherever a person may write one."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from random import Random
from threading import Event, Thread

import pyarrow as pa
import pyarrow.parquet as pq

from flows import apply, evaluate, promote, rollback
from storage.collection import Collection
from storage.history.catalog import Publication, publications
from storage.store.lance import Store
from tests.support.faults import small_scale
from workers.observing.telling import Result, silent
from workers.runs.session import open_session

SCRIPT = "<script>window.broken = 1</script>"
PICTURE = "<img src=x onerror='window.broken = 2'>"
BREAKOUT = "\"'><svg onload='window.broken = 3'>"
TEMPLATE = "{{ 7 * 191 }}${7 * 191}"
FORMULA = '=HYPERLINK("http://evil.example", "1")'
HOSTILE = (SCRIPT, PICTURE, BREAKOUT, TEMPLATE, FORMULA)
CANARY = "canary of a text that figures alone must not show"
DOCS, NOTES, DRAFT = "docs", "notes", "draft"
WHY_PROMOTED = f"better on our questions {SCRIPT}"
WHY_BACK = f"worse on plants {BREAKOUT}"
ODD_ID = f"{PICTURE}?a=1&b=../..#top"

_TOPICS = {
    "ships": "harbour anchor sail keel captain tide lantern deck rope storm",
    "plants": "garden seed leaf root blossom soil rain orchard moss fern",
    "kitchen": "bread salt oven butter kettle spoon flour pepper stew broth",
    "stars": "orbit comet telescope moon planet eclipse galaxy dust light sky",
}
_SPEC = """
store = "store"

[collections.docs]
source     = {{ uri = "docs", id = "id", text = ["title", "body"], metadata = {{ topic = "string", year = "int", added = "date" }} }}
chunking   = {{ by = "tokens", size = 48 }}
model      = {{ name = "hash", dimensions = 16, prompt = {prompt} }}
candidates = [{{ name = "hash", dimensions = 24 }}]
gates      = {{ max_failed = 0.04, min_accuracy = 0 }}
schedule   = {{ sync = "0 3 * * *" }}
prices     = {{ cpu_hour = 0.04, currency = "EUR" }}

[collections.docs.reports]
map = {{}}
clusters = {{}}
outliers = {{}}
duplicates = {{}}
tasks = {{ label = "topic" }}
drift = {{ limit = 0.01 }}

[collections.notes]
source = {{ uri = "notes/*.jsonl", id = "id", text = "text" }}
model  = {{ name = "hash", dimensions = 16 }}

[collections.draft]
source = {{ uri = "draft/*.jsonl", id = "id", text = "text" }}
model  = {{ name = "hash", dimensions = 16 }}
"""


@dataclass(frozen=True)
class Story:
    """What was told, and where it lies."""

    folder: Path
    running: str
    """The id of the run of NOTES that goes on while the story is told."""

    @property
    def config(self) -> Path:
        return self.folder / "revector.toml"

    @property
    def store(self) -> str:
        return str(self.folder / "store")

    @property
    def docs(self) -> Collection:
        return Collection(Store(self.store), DOCS)

    def publications(self) -> list[Publication]:
        return publications(self.docs)


@contextmanager
def told(folder: Path) -> Iterator[Story]:
    """Tell all of it; a run of NOTES goes on until the end of the block."""
    (folder / "revector.toml").write_text(_SPEC.format(prompt=json.dumps(BREAKOUT)))
    config = folder / "revector.toml"
    with small_scale():
        _tell_docs(folder, config)
    _write_lines(folder / "notes/1.jsonl", {f"n{number}": f"note {number} on tides" for number in range(20)})
    apply(NOTES, config)
    _write_lines(folder / "draft/1.jsonl", {f"f{number}": "" if number % 2 else f"draft {number}" for number in range(10)})
    assert apply(DRAFT, config).status == "built"
    with going_on(str(folder / "store"), NOTES) as running:
        yield Story(folder, running)


@contextmanager
def going_on(store: str, collection: str) -> Iterator[str]:
    """A run that has begun, lives, and tells how far it is, until the end of the block. Gives its id."""
    begun, ended = Queue[str](1), Event()

    def run() -> None:  # in a thread: what a run binds to its log lines is not for those of other tests
        with suppress(_Enough), open_session(Collection(Store(store), collection), silent) as session:
            session.begin(generation=f"{collection}.vectors.next", space="next", change="data", reason="", spec={})
            tally = session.account.begin_generation()
            tally.contents, tally.embedded, tally.reused, tally.total, tally.tokens = 1_000, 1_100, 100, 4_800, 40_000
            session.account.embedding_since = time.monotonic() - 20
            session.account.tell("embed")
            session.run.write("heartbeat.json", {"beat": 1, "progress": session.account.moment})
            begun.put(session.run.run_id)
            ended.wait()
            raise _Enough

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield begun.get(timeout=60)
    finally:
        ended.set()
        thread.join()


class _Enough(Exception):
    """The run need not come to its end."""


def _tell_docs(folder: Path, config: Path) -> None:
    """Five versions, of which one failed; a candidate that was promoted; back again."""
    documents = _corpus(240)
    _write_tables(folder / "docs", documents)
    _published(apply(DOCS, config))
    _write_tables(folder / "docs", documents | _corpus(20, "new", topics=("stars",)))
    _published(apply(DOCS, config))
    documents |= _corpus(40, "more") | _hostile()
    _write_tables(folder / "docs", documents)
    _write_broken(folder / "docs")
    _published(apply(DOCS, config))
    (folder / "docs/broken.jsonl").unlink()
    whole = dict(list(documents.items())[12:])
    emptied = {id: ("", "", topic) for id, (_, _, topic) in list(whole.items())[:60]}
    _write_tables(folder / "docs", whole | emptied)
    assert apply(DOCS, config).status == "built"
    _write_tables(folder / "docs", whole)
    _published(apply(DOCS, config))
    evaluate(DOCS, config=config)
    candidate = next(row for row in _generations(folder) if row != publications(_docs(folder))[-1].generation)
    promote(DOCS, candidate.rpartition(".")[2], config, why=WHY_PROMOTED)
    rollback(DOCS, config, why=WHY_BACK)
    promote(DOCS, publications(_docs(folder))[-1].generation.rpartition(".")[2], config, why="the questions were wrong", force=True)
    _write_tables(folder / "docs", whole | _corpus(6, "last"))
    _published(apply(DOCS, config))


def _docs(folder: Path) -> Collection:
    return Collection(Store(str(folder / "store")), DOCS)


def _generations(folder: Path) -> list[str]:
    return [name.removesuffix(".lance") for name in sorted(path.name for path in (folder / "store").glob("docs.vectors.*"))]


def _published(result: Result) -> None:
    assert result.status in ("published", "partial"), (result.status, result.reason)


def _corpus(count: int, prefix: str = "d", topics: tuple[str, ...] = tuple(_TOPICS)) -> dict[str, tuple[str, str, str]]:
    """id -> title, body, topic."""
    random = Random(prefix)
    made = {}
    for number in range(count):
        topic = topics[number % len(topics)]
        words = _TOPICS[topic].split()
        length = 120 if number % 25 == 0 else random.randint(8, 16)
        body = " ".join(random.choice(words) for _ in range(length))
        made[f"{prefix}{number:04d}"] = (f"{words[number % 10]} {number}", body if number % 30 else " ".join(words), topic)
    return made


def _hostile() -> dict[str, tuple[str, str, str]]:
    texts = {f"hostile-{number}": (text, f"{text} by the harbour", text) for number, text in enumerate(HOSTILE)}
    return texts | {ODD_ID: ("an odd name", f"{CANARY} {SCRIPT}", "ships"), FORMULA: ("sums", "a formula as a name", "stars")}


def _write_tables(folder: Path, documents: dict[str, tuple[str, str, str]]) -> None:
    """In three files."""
    folder.mkdir(exist_ok=True)
    items = list(documents.items())
    third = -(-len(items) // 3)
    for part in range(3):
        rows = items[part * third : (part + 1) * third]
        titles, bodies, topics = zip(*(row for _, row in rows), strict=True)
        years = [2000 + number % 20 for number in range(len(rows))]
        days = [f"2026-0{1 + number % 9}-15" for number in range(len(rows))]
        columns = {"id": [id for id, _ in rows], "title": titles, "body": bodies, "topic": topics, "year": years, "added": days}
        pq.write_table(pa.table(columns), folder / f"{part}.parquet")


def _write_broken(folder: Path) -> None:
    """A file whose name is hostile, with rows that cannot be used; and one that cannot be read."""
    row = {"title": "t", "body": CANARY, "topic": "ships", "year": 2000, "added": "2026-01-01"}
    lines = [row, row | {"id": "d0001"}, row | {"id": BREAKOUT, "title": "", "body": ""}, row | {"id": "bad-year", "year": "none"}]
    (folder / "<img src=x onerror='window.broken = 4'>.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "broken.jsonl").write_text('{"id": "cut", "title": "half of a li\n')


def _write_lines(path: Path, texts: dict[str, str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in texts.items()))
