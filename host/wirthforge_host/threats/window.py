"""A sliding window as a small value: what came within the last seconds, in slots of a tenth of the window.

Bounded time and room however much comes: at most eleven slots of amounts, and of different things no more than the
threshold. What is counted is that of between one and 1.1 windows: never too little, so nobody hides by spreading what
he does over an edge.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from wirthforge_host.signals import Signal
from wirthforge_host.threats.models import Bounds, Finding, Judge

SLOTS = 10
MAX_TOLD = (5, 200)
"""Items of a list, and characters of a text, that a finding repeats."""

Window: TypeAlias = tuple[tuple[int, float], ...]
"""(slot's number, amount), oldest first; empty at first."""
Distinct: TypeAlias = dict[int, int]
"""Of each thing that came, by its hash, the number of the slot in which it came last; empty at first."""


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
    slot = _slot(signal, bounds)
    kept = [each for each in window or () if each[0] >= slot - SLOTS]
    before = kept.pop()[1] if kept and kept[-1][0] == slot else 0.0
    kept.append((slot, before + amount))
    total = sum(each for _, each in kept)
    return ((), total) if total >= bounds.threshold else (tuple(kept), total)


def distinct(window: Distinct | None, signal: Signal, what: str, bounds: Bounds) -> tuple[Distinct, int]:
    """As :func:`counted`, of how many different ``what`` came.

    Kept are hashes, of 64 bits, and fewer than the threshold. Python salts them: nobody can choose names that fall
    together.
    """
    slot = _slot(signal, bounds)
    kept = {each: at for each, at in (window or {}).items() if at >= slot - SLOTS}
    kept[hash(what)] = slot
    return ({}, len(kept)) if len(kept) >= bounds.threshold else (kept, len(kept))


def _slot(signal: Signal, bounds: Bounds) -> int:
    return int(signal.at_s * SLOTS / bounds.window_s)


def _cut(value: Any) -> Any:
    items, characters = MAX_TOLD
    if isinstance(value, list):
        return [_cut(each) for each in value[:items]]
    return value if isinstance(value, int | float) else str(value)[:characters]
