"""Names of clusters: the words that their texts have and others have not, or else the values of their metadata."""

import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from math import log
from os.path import commonprefix
from typing import Any

TERMS = 3
"""Of a name."""
CHARACTERS = 2_000
"""Of a text that are looked at, from its beginning."""
STEM = 4
"""Letters that two words must begin with, and nearly all of the shorter one, to be taken for forms of one."""
VALUE_CHARACTERS = 60
"""Of a value of metadata; longer ones are no names."""
Ranked = dict[int, list[tuple[str, float]]]
"""cluster -> what is characteristic of it, with a score, the most characteristic first."""


def cluster_names(
    texts: Sequence[str], fields: Mapping[str, Sequence[Any]], clusters: Sequence[int], kept: Mapping[int, str] | None = None
) -> dict[int, str]:
    """A name for each of the `clusters` that n landmarks are in, no two the same: three words that are characteristic of their `texts`;
    where there are none, such a value of the metadata `fields` (name -> n values). `kept`: names that some have already."""
    words = characteristic((set(words_of(text)) for text in texts), clusters)
    values = characteristic(field_values(fields, len(clusters)), clusters)
    names = dict(kept or {})
    taken = set(names.values())
    for cluster in sorted(set(clusters) - set(names)):
        terms = _different(term for term, _ in words.get(cluster, []))
        described = [", ".join(terms[:count]) for count in range(TERMS, len(terms) + 1)] or [", ".join(terms)]
        found = [name for name in (*described, *(value for value, _ in values.get(cluster, []))) if name]
        names[cluster] = next((name for name in found if name not in taken), _numbered(found[0] if found else "cluster", taken))
        taken.add(names[cluster])
    return names


def characteristic(items: Iterable[set[str]], clusters: Sequence[int], most: int = 12) -> Ranked:
    """Of the items (words, values) that each of n things has, those that are commoner in a cluster than they are on the whole.

    The score is p log(p / q) for a share p of the members and q of all: how much the item tells of the cluster (Tomokiyo and Hurst, ACL
    Workshop on Multiword Expressions, 2003). An item that is everywhere tells nothing, in whatever language: it is the frequency in
    documents that stop words are known by, and so no list of them is needed. What one member alone has is left out.
    """
    inside, everywhere, sizes = defaultdict[int, Counter[str]](Counter), Counter[str](), Counter(clusters)
    for has, cluster in zip(items, clusters, strict=True):
        inside[cluster].update(has)
        everywhere.update(has)
    ranked: Ranked = {}
    for cluster, counts in inside.items():
        size, total = sizes[cluster], len(clusters)
        scored = []
        for item, count in counts.items():
            share, overall = count / size, everywhere[item] / total
            if count > 1 and share > overall:
                scored.append((item, share * log(share / overall)))
        ranked[cluster] = sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:most]
    return ranked


def field_values(fields: Mapping[str, Sequence[Any]], count: int) -> list[set[str]]:
    """`field: value` of each of `count` things, where there is a value, and a short one."""
    had = [set[str]() for _ in range(count)]
    for field, values in fields.items():
        for has, value in zip(had, values, strict=True):
            if value is not None and 0 < len(str(value)) <= VALUE_CHARACTERS:
                has.add(f"{field}: {value}")
    return had


def words_of(text: str) -> list[str]:
    """Words of at least two letters, of any script. Of those that put no blanks between words, pairs of characters."""
    words = []
    for run in _letters().findall(text[:CHARACTERS].casefold()):
        if _unspaced(run[0]):
            words += ["".join(pair) for pair in pairwise(run)]
        elif len(run) > 1:
            words.append(run)
    return words


@cache
def _letters() -> re.Pattern[str]:
    """Runs of letters, with the marks that belong to them: vowel signs, accents."""
    marks = "".join(sign for sign in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(sign).startswith("M"))
    return re.compile(rf"[^\W\d_](?:[^\W\d_]|[{re.escape(marks)}])*")


@cache
def _unspaced(letter: str) -> bool:
    scripts = ("CJK UNIFIED", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
    return unicodedata.name(letter, "").startswith(scripts)


def _different(terms: Iterable[str]) -> list[str]:
    """Without those that are a form of one before: "library" after "libraries"."""
    kept = list[str]()
    for term in terms:
        if not any(len(commonprefix([term, other])) >= max(STEM, min(len(term), len(other)) - 2) for other in kept):
            kept.append(term)
    return kept


def _numbered(name: str, taken: set[str]) -> str:
    number = 2
    while f"{name} {number}" in taken:
        number += 1
    return name if name not in taken else f"{name} {number}"
