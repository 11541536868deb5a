"""What changed between two states of a corpus, by the clusters that its rows are in, beside what chance would change.

Two states have most of their rows in common, so that they are no two samples: a test that takes them for such sees nothing in a year
of small changes. What came and what went is held against what was there instead: if a night is like every other, what comes is
drawn as the rows that were there are spread, and what goes is drawn from them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 999
"""Nights that are drawn by chance: of so many clean ones the worst is the bound."""

_DRAWABLE = 1_000_000_000

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Shift:
    """From one state to another, by cluster where that is said."""

    divergence: float
    """Jensen-Shannon divergence of the shares of both states, in bits: 0 for the same, 1 for nothing in common."""
    chance: float
    """The largest divergence of 999 changes by chance that are as many rows."""
    p: float
    """The share of these changes, and of this one, that diverge at least as much."""
    moved: float
    """The share of rows that would have to change cluster to make one state's shares the other's (total variation distance)."""
    before: Shares
    """The share of each cluster, (k,)."""
    after: Shares
    z: Shares
    """(k,): how far each grew or shrank from what was expected, in standard deviations of a normal distribution."""


def change(before: Counts, added: Counts, removed: Counts, alike: float = 1.0, seed: int = 0) -> Shift:
    """Of rows by cluster, (k,) each: those that were there, those that came, those that went, of which there were no more than that.

    `alike`: rows that are drawn as one, because they are of one document: a document of 50 chunks on one topic is one draw and not 50.
    Raises ValueError where nothing was there, nothing is left, or more went than were there.
    """
    after = before + added - removed
    if not before.sum() or not after.sum() or (removed > before).any():
        raise ValueError("expected rows before the change and after it, and of those that went no more than were there")
    diverged = divergence(_shares(before), _shares(after))
    draws = _drawn(before, int(added.sum()), int(removed.sum()), max(1.0, alike), seed)
    chances = np.array([divergence(_shares(before), _shares(drawn)) for drawn in draws])
    p = float((1 + (chances >= diverged).sum()) / (1 + len(chances)))
    moved = float(abs(_shares(after) - _shares(before)).sum() / 2)
    deviations = _deviations(before, added, removed, max(1.0, alike))
    return Shift(diverged, float(chances.max()), p, moved, _shares(before), _shares(after), deviations)


def alike(rows_of_each: Counts) -> float:
    """How many rows go into a draw, where documents have so many rows each: the design effect of whole documents (Kish, 1965)."""
    total = rows_of_each.sum()
    return float((rows_of_each.astype(np.float64) ** 2).sum() / total) if total else 1.0


def divergence(first: Shares, second: Shares) -> float:
    """Jensen-Shannon, in bits, of two distributions (k,) (Lin, 1991)."""
    middle = (first + second) / 2
    return float((_relative(first, middle) + _relative(second, middle)) / 2)


def _relative(some: Shares, of: Shares) -> float:
    present = some > 0
    return float((some[present] * np.log2(some[present] / of[present])).sum())


def _shares(counts: Counts | Shares) -> Shares:
    shares: Shares = counts / max(counts.sum(), 1)
    return shares


def _drawn(before: Counts, added: int, removed: int, alike: float, seed: int) -> Shares:
    """Rows by cluster after changes by chance, (draws, k). What comes is drawn from shares that are known as well as `before` tells them:
    from their posterior, with half a row of each cluster added, so that one where nothing was may get some (Jeffreys)."""
    random = np.random.default_rng(seed)
    came, went = _documents(added, alike), _documents(removed, alike)
    arrivals = random.multinomial(came, random.dirichlet(before + 0.5, DRAWS)) * (added / max(came, 1))
    leavings = _left(random, np.rint(before / alike).astype(np.int64), went) * (removed / max(went, 1))
    drawn: Shares = np.maximum(before + arrivals - leavings, 0.0)
    return drawn


def _left(random: np.random.Generator, held: Counts, went: int) -> NDArray[np.int64]:
    """Documents that go, of those that were `held`, (draws, k): none goes twice. Of more than numpy can draw from so, that is no matter."""
    total = int(held.sum())
    if total >= _DRAWABLE:
        return random.multinomial(went, _shares(held), DRAWS)
    return random.multivariate_hypergeometric(held, min(went, total), DRAWS)


def _documents(rows: int, alike: float) -> int:
    return max(1, round(rows / alike)) if rows else 0


def _deviations(before: Counts, added: Counts, removed: Counts, alike: float) -> Shares:
    """Of what came from its expectation, less that of what went, each weighted by the root of how many rows it is of, so that clean ones
    have a variance of 1. The shares that were there are themselves a sample: the more comes beside them, the less they tell."""
    came, went = int(added.sum()), int(removed.sum())
    if not came + went:
        return np.zeros(len(before))
    expected = (before + 0.5) / (before.sum() + len(before) / 2)
    grew = _roots(added / alike, came / alike * expected) / np.sqrt(1 + came / before.sum())
    shrank = _roots(removed / alike, went / alike * _shares(before))
    deviations: Shares = np.sqrt(came / (came + went)) * grew - np.sqrt(went / (came + went)) * shrank
    return deviations


def _roots(found: Shares, expected: Shares) -> Shares:
    """Signed roots of the Poisson deviance: nearly normal also where little is expected, so that one that gets a fifth of a row a night
    is no wonder with two (McCullagh and Nelder, Generalized Linear Models, 1989)."""
    ratio = np.divide(found, expected, out=np.ones_like(expected), where=(found > 0) & (expected > 0))
    deviance = 2 * np.maximum(found * np.log(ratio) - (found - expected), 0.0)
    roots: Shares = np.sign(found - expected) * np.sqrt(deviance)
    return roots
