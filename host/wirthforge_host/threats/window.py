"""A sliding window as a small value: what came within the last seconds, in slots of a tenth of the window.

Constant time and room however much comes: at most eleven slots. What is counted is that of between one and 1.1
windows: never too little, so nobody hides by spreading what he does over an edge.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias, TypeVar

from wirthforge_host.signals import Signal
from wirthforge_host.threats.models import Bounds, Finding, Judge

SLOTS = 10
BITS = 4096
"""Of the sketch of a set."""
MAX_TOLD = (5, 200)
"""Items of a list, and characters of a text, that a finding repeats."""

Window: TypeAlias = tuple[tuple[int, float], ...]
"""(slot's number, amount), oldest first; empty at first."""
Distinct: TypeAlias = tuple[tuple[int, int], ...]
"""(slot's number, bits), oldest first: a sketch of the set of what came."""
Amount = TypeVar("Amount", float, int)


def counting(says: str, *names: str) -> Judge:
    """The judge of a rule that only counts.

    Args:
        says: The finding's sentence, with ``{count}``, ``{window_s}``, and what of the last signal's detail is named.
        names: Of that detail, what is evidence too.
    """

    def judge(window: Window | None, signal: Signal, bounds: Bounds) -> tuple[Window, Finding | None]:
        window, count = counted(window, signal, signal.amount, bounds)
        if count < bounds.threshold:
            return window, None
        evidence = {"count": count, **{name: _cut(signal.detail[name]) for name in names}}
        return window, Finding(says.format(window_s=f"{bounds.window_s:g}", **evidence), evidence)

    return judge


def counted(window: Window | None, signal: Signal, amount: float, bounds: Bounds) -> tuple[Window, float]:
    """Adds ``amount``. Gives the window, and the sum of what is in it.

    Once the sum reaches the threshold the window is empty again: each finding needs as much anew.
    """
    slot, kept = _kept(window, signal, bounds)
    before = kept.pop()[1] if kept and kept[-1][0] == slot else 0.0
    kept.append((slot, before + amount))
    total = sum(each for _, each in kept)
    return ((), total) if total >= bounds.threshold else (tuple(kept), total)


def distinct(window: Distinct | None, signal: Signal, what: str, bounds: Bounds) -> tuple[Distinct, float]:
    """As :func:`counted`, of how many different ``what`` came, estimated from :data:`BITS` bits.

    Linear counting (Whang, Vander-Zanden, Taylor 1990): off by less than one up to dozens, by 2 % at a thousand.
    Python salts the hash of texts, so nobody can choose names that fall together.
    """
    slot, kept = _kept(window, signal, bounds)
    before = kept.pop()[1] if kept and kept[-1][0] == slot else 0
    kept.append((slot, before | 1 << hash(what) % BITS))
    union = 0
    for _, bits in kept:
        union |= bits
    free = max(1, BITS - union.bit_count())
    total = -BITS * math.log(free / BITS)
    return ((), total) if round(total) >= bounds.threshold else (tuple(kept), total)


def _kept(
    window: tuple[tuple[int, Amount], ...] | None, signal: Signal, bounds: Bounds
) -> tuple[int, list[tuple[int, Amount]]]:
    slot = int(signal.at_s * SLOTS / bounds.window_s)
    oldest = slot - SLOTS
    return slot, [each for each in window or () if each[0] >= oldest]


def _cut(value: Any) -> Any:
    items, characters = MAX_TOLD
    if isinstance(value, list):
        return [_cut(each) for each in value[:items]]
    return value if isinstance(value, int | float) else str(value)[:characters]
