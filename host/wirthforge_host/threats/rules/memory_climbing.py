"""Memory that only grows and soon reaches its limit: a leak, or a bomb that goes slowly."""

from __future__ import annotations

from itertools import combinations, pairwise
from statistics import median
from typing import TypeAlias

from wirthforge_host.signals import Noticed, Signal
from wirthforge_host.threats.models import Bounds, Finding, Rule
from wirthforge_host.threats.ports import Usage
from wirthforge_sdk.contracts.policy import Action
from wirthforge_sdk.contracts.threats_api import Severity

STEPS = 10
"""Parts of the window, with one sample at each end: what lies between is not kept."""
DIP = 0.01
"""Share of the limit by which memory may fall from one to the next and still climb."""

Points: TypeAlias = tuple[tuple[float, float], ...]
"""(seconds, share of the limit), oldest first."""


def judge(points: Points | None, signal: Signal, bounds: Bounds) -> tuple[Points, Finding | None]:
    """Keeps a sample for each part of the window; a full one that climbs is held against the time that is left."""
    usage: Usage = signal.detail["usage"]
    points = points or ()
    since_s = signal.at_s - points[-1][0] if points else bounds.window_s
    if since_s < bounds.window_s / STEPS:
        return points, None
    kept = points[-STEPS:] if since_s < bounds.window_s else ()
    points = (*kept, (signal.at_s, usage.memory_share))
    if len(points) <= STEPS or any(after < before - DIP for (_, before), (_, after) in pairwise(points)):
        return points, None
    slope = _slope(points)
    left_s = (1 - usage.memory_share) / slope if slope > 0 else float("inf")
    if left_s > bounds.threshold * 60:
        return points, None
    message = f"its memory grows without a pause, and reaches its limit in about {left_s / 60:.1f} minutes"
    return (), Finding(message, {"share": usage.memory_share, "per_minute": slope * 60, "left_s": left_s})


def _slope(points: Points) -> float:
    """The median slope of all pairs (Theil 1950, Sen 1968): a few wild samples do not move it."""
    return median((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2))


RULE = Rule(
    summary="memory that grows until it reaches its limit",
    severity=Severity.WARNING,
    hears=frozenset({Noticed.SAMPLED}),
    threshold=10,
    unit="minutes left",
    window_s=300,
    action=Action.WARN,
    judge=judge,
    of_instance=True,
)
