"""Percentiles of any stretch of time out of what each minute kept.

Percentiles of percentiles say nothing. A minute is therefore kept as the counts of its values in buckets whose bounds
grow by a fixed factor; counts of many minutes add up to those of all their values, and the nearest rank in them is
within :data:`ACCURACY` of the value that sorting all of them would give. This is DDSketch (Masson, Rim and Lee, VLDB
2019) for values that are not negative.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

GROWTH = 1.02
"""Each bucket's upper bound over its lower one."""
ACCURACY = (GROWTH - 1) / (GROWTH + 1)
"""The largest relative error of a percentile: 1 %."""
SMALLEST = 1e-6
"""Below it a value counts as nothing: a microsecond of a processor a second, a byte in eleven days."""

_LOG_GROWTH = math.log(GROWTH)


class Sketch:
    """Counts of values. Mutable: it grows by a value, or by another sketch."""

    __slots__ = ("buckets", "count", "largest", "nothings", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.largest = 0.0
        self.nothings = 0
        """Values below :data:`SMALLEST`."""
        self.buckets: dict[int, int] = {}

    def add(self, value: float, times: int = 1) -> None:
        """Counts a value; one that is not a number is left out."""
        if value < SMALLEST:
            self.nothings += times
        elif value == value:  # noqa: PLR0124 (the quickest test for a number)
            bucket = math.ceil(math.log(value) / _LOG_GROWTH)
            self.buckets[bucket] = self.buckets.get(bucket, 0) + times
            self.total += value * times
            self.largest = max(self.largest, value)
        else:
            return
        self.count += times

    def merge(self, other: Sketch) -> None:
        """Counts all that ``other`` counted."""
        self.count += other.count
        self.total += other.total
        self.largest = max(self.largest, other.largest)
        self.nothings += other.nothings
        for bucket, number in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + number

    @property
    def mean(self) -> float:
        """0 of no values."""
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """The value of nearest rank: that at least ``percent`` of all are not above, within :data:`ACCURACY`.

        0 of no values; the largest is exact.
        """
        rank = max(1, math.ceil(self.count * percent / 100))
        passed = self.nothings
        if rank <= passed or not self.buckets:
            return 0.0
        if rank >= self.count:
            return self.largest
        for bucket in sorted(self.buckets):
            passed += self.buckets[bucket]
            if passed >= rank:
                return min(self.largest, 2 * GROWTH**bucket / (GROWTH + 1))
        return self.largest

    def packed(self) -> list[Any]:
        """Plain values that :meth:`unpacked` takes."""
        return [self.count, self.total, self.largest, self.nothings, self.buckets]

    @classmethod
    def unpacked(cls, packed: list[Any]) -> Sketch:
        """The sketch of what :meth:`packed` gave."""
        sketch = cls()
        sketch.count, sketch.total, sketch.largest, sketch.nothings, sketch.buckets = packed
        return sketch


def merged(sketches: Iterable[Sketch]) -> Sketch:
    """A new sketch of all their values."""
    whole = Sketch()
    for sketch in sketches:
        whole.merge(sketch)
    return whole
