"""How many chunks an edit of one sentence changes besides those that it lies in, and how full chunks are.

python -m benchmarks.edit_locality tokenizer.json data.noun      # real tokens; WordNet's glosses as sentences
python -m benchmarks.edit_locality --edits 10000                 # words as tokens; made-up sentences
"""

import argparse
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from pipelines.chunking.chunker import Chunker
from pipelines.chunking.making import make_chunker
from pipelines.chunking.tokens import ModelTokenizer, Tokenizer, WordTokenizer
from pipelines.spec.declared import ChunkingSpec

EDITS_PER_DOCUMENT = 50
SENTENCES_PER_DOCUMENT = (60, 120)


@dataclass(frozen=True, slots=True)
class Edit:
    """A text after the replacement, insertion or deletion of one sentence."""

    text: str
    """The new version."""
    start: int
    """Where the edited sentence begins in it."""
    end: int
    """Where it ends; after a deletion, `start`."""


def random_edit(sentences: Sequence[str], pool: Sequence[str], rng: random.Random) -> Edit:
    """Edit a document, given as its sentences with their trailing whitespace; new sentences are drawn from `pool`."""
    place = rng.randrange(len(sentences))
    kind = rng.choice(("replace", "insert", "delete"))
    new = "" if kind == "delete" else rng.choice(pool)
    before = "".join(sentences[:place])
    after = "".join(sentences[place if kind == "insert" else place + 1 :])
    return Edit(before + new + after, len(before), len(before) + len(new))


def others_changed(old: Sequence[str], spans: Sequence[tuple[int, int]], edit: Edit) -> int:
    """How many chunks of the new version are not among the `old` chunks (as a multiset), nor overlap or touch the edit."""
    left = Counter(old)
    changed = 0
    for start, end in spans:
        text = edit.text[start:end]
        if left[text]:
            left[text] -= 1
        elif edit.start == edit.end:
            changed += not start <= edit.start <= end
        else:
            changed += end <= edit.start or start >= edit.end
    return changed


def locality(chunker: Chunker, documents: Sequence[Sequence[str]], pool: Sequence[str], rng: random.Random) -> Iterator[int]:
    """`others_changed` of random edits of each document, given as sentences."""
    for sentences in documents:
        text = "".join(sentences)
        edits = [random_edit(sentences, pool, rng) for _ in range(EDITS_PER_DOCUMENT)]
        [whole], *edited = ([spans] for spans in chunker.spans([text, *(edit.text for edit in edits)]))
        old = [text[start:end] for start, end in whole]
        yield from (others_changed(old, spans, edit) for [spans], edit in zip(edited, edits, strict=True))


def made_up_sentences(count: int, rng: random.Random) -> list[str]:
    """Sentences of 3 to 40 words."""
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(2000)]
    return [" ".join(rng.choices(words, k=rng.randint(3, 40))).capitalize() + ". " for _ in range(count)]


def glosses(path: Path) -> list[str]:
    """The glosses of a data file of WordNet as sentences."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [gloss.strip().capitalize() + ". " for _, found, gloss in (line.partition(" | ") for line in lines) if found]


def report(name: str, chunker: Chunker, tokenizer: Tokenizer, pool: Sequence[str], edits: int, size: int) -> str:
    """One line of the table. All chunkers see the same edits."""
    rng = random.Random(0)  # noqa: S311
    documents = [rng.choices(pool, k=rng.randint(*SENTENCES_PER_DOCUMENT)) for _ in range(-(-edits // EDITS_PER_DOCUMENT))]
    changed = np.array(list(islice(locality(chunker, documents, pool, rng), edits)))
    texts = ["".join(sentences) for sentences in documents]
    pieces = [text[start:end] for text, spans in zip(texts, chunker.spans(texts), strict=True) for start, end in spans]
    fill = np.mean(tokenizer.counts(pieces)) / (size - tokenizer.special_tokens)
    return f"{name:10} {len(changed):7} {changed.mean():7.3f} {np.percentile(changed, 99):5.0f} {changed.max():5} {fill:6.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", nargs="?", type=Path, help="a tokenizer.json; none: words")
    parser.add_argument("glosses", nargs="?", type=Path, help="a data file of WordNet; none: made-up sentences")
    parser.add_argument("--edits", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    tokenizer: Tokenizer = ModelTokenizer.at(options.tokenizer) if options.tokenizer else WordTokenizer()
    pool = glosses(options.glosses) if options.glosses else made_up_sentences(20_000, random.Random(1))  # noqa: S311
    print("chunker      edits    mean   p99   max   fill")
    for by in ("stable", "tokens"):
        spec = ChunkingSpec(by=by, size=options.size)
        print(report(by, make_chunker(spec, tokenizer, None), tokenizer, pool, options.edits, options.size))


if __name__ == "__main__":
    main()
