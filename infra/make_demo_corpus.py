"""Makes the corpus that `revector demo` ships, from the files of WordNet 3.0 (Debian: wordnet-base, /usr/share/wordnet).

    python infra/make_demo_corpus.py /usr/share/wordnet

Of each part of speech it takes the synsets that WordNet's tagged texts use most (cntlist.rev), ties by id, and of each gloss the
definition without its examples. The same input gives the same bytes.
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DEMO = Path(__file__).parents[1] / "flows" / "demo"
SHARES = {"noun": 4600, "verb": 1700, "adj": 1300, "adv": 400}
"""Synsets of each part of speech."""
SENSE_TYPES = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}
"""The digit after the % of a sense key (senseidx(5WN)); 5 is an adjective too."""
LICENSE_LINES = 29
"""At the top of every data file, numbered."""
UNFIT = re.compile(
    r"\b(offensive|obscen|disparag|derogatory|vulgar|insult|slur|sexual|intercourse|genital|rape|negr|whor)"
    r"|fuck|shit|suck|retard",
    re.IGNORECASE,
)
"""Stems, in the words or the whole gloss: not what a first impression needs."""


def synset_counts(wordnet: Path, pos: str) -> Counter[str]:
    """How often the tagged texts use each synset of `pos`, by its offset."""
    senses = {}
    for line in (wordnet / f"index.{pos}").read_text().splitlines():
        if not line.startswith(" "):
            lemma, _, number, *rest = line.split()
            senses |= {(lemma, str(sense)): offset for sense, offset in enumerate(rest[-int(number) :], 1)}
    counts: Counter[str] = Counter()
    for line in (wordnet / "cntlist.rev").read_text().splitlines():
        key, sense, count = line.split()
        lemma, _, kind = key.partition("%")
        if SENSE_TYPES[kind[0]] == pos and (lemma, sense) in senses:  # the list is older than the index: a few are gone
            counts[senses[lemma, sense]] += int(count)
    return counts


def synsets(wordnet: Path, pos: str) -> Iterator[dict[str, str]]:
    """Rows of the corpus, in the order of the data file. wndb(5WN): words are pairs, counted in hexadecimal; the gloss comes last."""
    for line in (wordnet / f"data.{pos}").read_text().splitlines():
        if line.startswith(" ") or UNFIT.search(line):
            continue
        data, _, gloss = line.partition(" | ")
        offset, _, kind, words, *rest = data.split()
        lemmas = [re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in rest[: 2 * int(words, 16) : 2]]
        definition = gloss.partition('"')[0].strip(" ;:,")
        yield {"id": f"{kind.replace('s', 'a')}{offset}", "term": ", ".join(lemmas), "gloss": definition, "pos": pos}


def chosen(wordnet: Path, pos: str, number: int) -> list[dict[str, str]]:
    """The `number` most used synsets of `pos` that have a fit definition, by id."""
    counts = synset_counts(wordnet, pos)
    fit = [row for row in synsets(wordnet, pos) if row["gloss"]]
    often = sorted(fit, key=lambda row: (-counts[row["id"][1:]], row["id"]))
    return sorted(often[:number], key=lambda row: row["id"])


def license_text(wordnet: Path) -> str:
    """WordNet's licence without the line numbers."""
    lines = (wordnet / "data.noun").read_text().splitlines()[:LICENSE_LINES]
    return "\n".join(line[4:].rstrip() for line in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("wordnet", type=Path, help="folder of data.noun, index.noun, cntlist.rev ...")
    wordnet: Path = parser.parse_args().wordnet
    rows = [row for pos, number in SHARES.items() for row in chosen(wordnet, pos, number)]
    schema = pa.schema([(name, pa.string()) for name in ("id", "term", "gloss", "pos")])
    pq.write_table(pa.Table.from_pylist(rows, schema), DEMO / "glosses.parquet", compression="zstd", compression_level=19)
    (DEMO / "LICENSE.wordnet").write_text(license_text(wordnet))


if __name__ == "__main__":
    main()
