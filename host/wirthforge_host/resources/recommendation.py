"""Limits that would fit a plugin, out of what it used: a function of values.

Each rule is a percentile with room over it, so that a limit holds a runaway and no ordinary day. A percentile that
was itself cut off by a limit says too little; what was refused or held back tells that, and then the limit is raised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from wirthforge_host.resources.sketch import Sketch
from wirthforge_sdk.contracts.policy import Cap
from wirthforge_sdk.contracts.resources import MIB, Limits

NEEDED = 600
"""Samples: ten minutes at one a second; what was seen for less is no habit."""
WORTH = 0.10
"""A change by less is not worth a restart, nor the reading."""
RAISE = 1.5
"""By how much a limit goes up that was in the way."""

CPU_BUSY = 0.7
"""Share of its quota that a plugin should be busy for at p95; above it, calls wait for their turn."""
CPU_STEP = 0.05
CPU_HELD_BACK = 0.05
"""Mean share of periods held back above which the quota was in the way."""
MEMORY_ROOM = 1.3
MEMORY_STEP = 16 * MIB
MEMORY_FLOOR = 32 * MIB
PIDS_ROOM = 1.5
PIDS_FLOOR = 8


class Suggestion(NamedTuple):
    """One limit that would fit better."""

    limit: str
    current: float
    suggested: float
    reason: str


def recommend(used: Mapping[str, Sketch], limits: Limits, cap: Cap) -> list[Suggestion]:
    """What to change, nothing where too little was seen.

    Args:
        used: By metric, all samples of the time that counts.
        limits: What the plugin may use now; floors and steps keep within what ``Limits`` accepts.
        cap: What the operator gives any plugin at most.
    """
    if used.get("cpus", Sketch()).count < NEEDED:
        return []
    suggestions = [_cpus(used, limits), _memory(used, limits), _pids(used, limits)]
    capped = [_within(suggestion, getattr(cap, suggestion.limit)) for suggestion in suggestions]
    return [each for each in capped if abs(each.suggested - each.current) >= WORTH * each.current]


def _cpus(used: Mapping[str, Sketch], limits: Limits) -> Suggestion:
    busy, held_back = used["cpus"].percentile(95), used["throttled"].mean
    if held_back > CPU_HELD_BACK:
        reason = f"its quota held it back in {held_back:.0%} of the time"
        return Suggestion("cpus", limits.cpus, _up(limits.cpus * RAISE, CPU_STEP), reason)
    wanted = max(CPU_STEP, _up(busy / CPU_BUSY, CPU_STEP))
    return Suggestion(
        "cpus", limits.cpus, wanted, f"p95 is {busy:.2f} cores, and it should not be above {CPU_BUSY:.0%}"
    )


def _memory(used: Mapping[str, Sketch], limits: Limits) -> Suggestion:
    held, kills = used["memory_bytes"].percentile(99), used["oom_kills"].total
    if kills:
        reason = f"the kernel ended {kills:.0f} of its processes for memory"
        return Suggestion(
            "memory_bytes", limits.memory_bytes, _up(limits.memory_bytes * RAISE, MEMORY_STEP), reason
        )
    wanted = max(MEMORY_FLOOR, _up(held * MEMORY_ROOM, MEMORY_STEP))
    reason = f"p99 is {held / MIB:.0f} MiB, and a third of that is room enough"
    return Suggestion("memory_bytes", limits.memory_bytes, wanted, reason)


def _pids(used: Mapping[str, Sketch], limits: Limits) -> Suggestion:
    most, refused = used["pids"].largest, used["pids_refused"].total
    if refused:
        reason = f"{refused:.0f} of its forks were refused"
        return Suggestion("pids", limits.pids, math.ceil(limits.pids * RAISE), reason)
    wanted = max(PIDS_FLOOR, math.ceil(most * PIDS_ROOM))
    return Suggestion("pids", limits.pids, wanted, f"it never had more than {most:.0f}")


def _within(suggestion: Suggestion, most: float) -> Suggestion:
    if suggestion.suggested <= most:
        return suggestion
    reason = f"{suggestion.reason}; the policy's cap.{suggestion.limit} allows no more"
    return suggestion._replace(suggested=most, reason=reason)


def _up(value: float, step: float) -> float:
    """The next whole number of steps, to which rounding of fractions adds none."""
    return type(step)(round(math.ceil(round(value / step, 6)) * step, 2))
