"""The order of versions: the keys that sort them, what comes next after one, and sets of intervals over both.

Every stable version has a next one (``1.2.4`` follows ``1.2.3``), and so has every pre-release (nothing lies
between ``1.2.3-a`` and ``1.2.3-a.0``). So half-open intervals say all, and equal sets have equal lists.
"""

from __future__ import annotations

from typing import Any, TypeAlias

NUMBER_LIMIT = 2**53
"""Major, minor and patch are below this, so that every JSON reader keeps them exact."""

Core: TypeAlias = tuple[int, int, int]
"""Major, minor, patch."""
Parts: TypeAlias = tuple[tuple[int, int | str], ...]
"""What follows the hyphen, part by part, or :data:`STABLE`."""
Key: TypeAlias = tuple[int, int, int, Parts]
"""Orders as SemVer 2.0.0 section 11 does."""
Intervals: TypeAlias = tuple[tuple[Any, Any], ...]
"""Half-open ``(low, high)``, sorted, disjoint, not touching; the bounds are all cores or all keys."""

LOWEST: Parts = ((0, 0),)
"""The first pre-release of a core, ``-0``."""
STABLE: Parts = ((2, 0),)
"""Above every pre-release (section 11.3)."""
TOP: Core = (NUMBER_LIMIT, 0, 0)
"""Above every core."""
ALL_STABLE: Intervals = (((0, 0, 0), TOP),)
ALL_PRERELEASES: Intervals = (((0, 0, 0, LOWEST), (*TOP, LOWEST)),)


def parts_of(prerelease: str) -> Parts:
    """Section 11.4: numbers compare as numbers and come before words, which compare in ASCII order."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in prerelease.split("."))


def raised(core: Core, place: int) -> Core:
    """``core`` with the number at ``place`` one higher, carried at the limit, and zeros behind it."""
    major, minor, patch = (*core[:place], core[place] + 1, 0, 0)[:3]
    return raised(core, place - 1) if place and core[place] + 1 == NUMBER_LIMIT else (major, minor, patch)


def end_of(core: Core) -> Key:
    """Above ``core`` and its pre-releases, below everything after them."""
    return (*raised(core, 2), LOWEST)


def after(key: Key) -> Key:
    """The first version above ``key``: 1.2.4-0 follows 1.2.3, and 1.2.3-a.0 follows 1.2.3-a."""
    core, parts = key[:3], key[3]
    return end_of(core) if parts == STABLE else (*core, (*parts, *LOWEST))


def prerelease_from(key: Key) -> Key:
    """The first pre-release at or above ``key``."""
    return after(key) if key[3] == STABLE else key


def union(intervals: Intervals) -> Intervals:
    """What is in any of ``intervals``, which may be unsorted, overlapping, or empty."""
    merged: list[tuple[Any, Any]] = []
    for low, high in sorted(interval for interval in intervals if interval[0] < interval[1]):
        if merged and low <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def intersection(some: Intervals, others: Intervals) -> Intervals:
    """What is in both."""
    return union(tuple((max(a, c), min(b, d)) for a, b in some for c, d in others))


def complement(intervals: Intervals, whole: Intervals) -> Intervals:
    """What of ``whole``, a single interval, is not in ``intervals``."""
    lows = [whole[0][0], *(high for _, high in intervals)]
    highs = [*(low for low, _ in intervals), whole[0][1]]
    return union(tuple(zip(lows, highs, strict=True)))
