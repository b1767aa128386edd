"""What numbers of calls show, with a stated chance of being wrong: exact where they are small. No clock, no chance."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

EXACT_RANKS = 50
"""Times of both sides together up to which ranks are counted out; more of them are as good as normal."""
_HALVINGS = 50
_TERMS = 100_000
_SMALLEST, _NEAR = 1e-300, 1e-12


def more_often(new: int, of_new: int, old: int, of_old: int) -> float:
    """How likely as many as ``new`` of ``of_new`` are by chance, where both sides are of one kind; at most 1.

    The one-sided exact test of a fourfold table (Fisher, "The Design of Experiments", 1935).
    """
    marked, together = new + old, of_new + of_old
    most = min(marked, of_new)
    logs = _log_choose(together, of_new)
    return min(
        1.0,
        math.fsum(
            math.exp(_log_choose(marked, each) + _log_choose(together - marked, of_new - each) - logs)
            for each in range(new, most + 1)
            if of_new - each <= together - marked
        ),
    )


def at_most(marked: int, of: int, level: float) -> float:
    """What the true share is not above, but in ``level`` of all cases (Clopper and Pearson, Biometrika 26, 1934)."""
    if marked >= of:
        return 1.0
    if not marked:
        return 1.0 - float(level ** (1.0 / of))
    # P(X <= k) for a share p is I(1 - p; n - k, k + 1): DLMF 8.17.5.
    return _falls_to(level, lambda share: _beta(1.0 - share, of - marked, marked + 1))


def at_least(marked: int, of: int, level: float) -> float:
    """What the true share is not below, but in ``level`` of all cases."""
    return 1.0 - at_most(of - marked, of, level)


class Ranks(NamedTuple):
    """How likely the ranks are by chance, where both sides are of one kind."""

    larger: float
    """That the first side is as far above the second."""
    smaller: float


def ranked(first: Sequence[float], second: Sequence[float]) -> Ranks:
    """The rank test of Mann and Whitney (Annals of Mathematical Statistics 18, 1947), one-sided both ways.

    Counted out for up to :data:`EXACT_RANKS` values without ties, else by the normal law with the corrections for ties
    and continuity.
    """
    if not first or not second:
        return Ranks(1.0, 1.0)
    n, m, ordered = len(first), len(second), sorted(second)
    # Pairs that the first side wins; one of equals counts for half.
    wins = sum(bisect_left(ordered, each) + bisect_right(ordered, each) for each in first) / 2
    ties = sum(each**3 - each for each in Counter([*first, *second]).values())
    if not ties and n + m <= EXACT_RANKS:
        counts, every = _rank_counts(n, m), math.comb(n + m, n)
        at = round(wins)
        return Ranks(sum(counts[at:]) / every, sum(counts[: at + 1]) / every)
    together = n + m
    variance = n * m / 12 * (together + 1 - ties / (together * (together - 1)))
    if variance <= 0:
        return Ranks(1.0, 1.0)
    above, spread = wins - n * m / 2, math.sqrt(variance)
    return Ranks(_above((above - 0.5) / spread), _above((-above - 0.5) / spread))


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that ``share`` of them are not above; None of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _above(deviations: float) -> float:
    return 0.5 * math.erfc(deviations / math.sqrt(2))


def _rank_counts(n: int, m: int) -> list[int]:
    """In how many orders of ``n + m`` values the first side wins 0, 1, … ``n * m`` of the pairs."""
    counts = [1] + [0] * (n * m)
    for each in range(1, n + 1):
        # The coefficients of the Gaussian binomial: times 1 - q^(m + each), through 1 - q^each.
        for at in range(n * m, m + each - 1, -1):
            counts[at] -= counts[at - m - each]
        for at in range(each, n * m + 1):
            counts[at] += counts[at - each]
    return counts


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _falls_to(level: float, falling: Callable[[float], float]) -> float:
    """Where a function that falls between 0 and 1 comes down to ``level``, from above."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > level else (low, middle)
    return high


def _beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (DLMF 8.17.22, by Lentz's method)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _beta(1.0 - x, b, a)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    fraction, above, below = 1.0, 1.0, 0.0
    for term in range(_TERMS):
        half = term // 2
        if term == 0:
            part = 1.0
        elif term % 2:
            part = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            part = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        below = 1.0 / _apart(1.0 + part * below)
        above = _apart(1.0 + part / above)
        step = above * below
        fraction *= step
        if term and abs(step - 1.0) < _NEAR:
            break
    return front / a * (fraction - 1.0)


def _apart(value: float) -> float:
    """``value``, or the next that can be divided by."""
    return value if abs(value) > _SMALLEST else _SMALLEST
