"""When a plugin yields the processor to all others: a function of values.

A quota bounds how much a plugin takes, not when: one that runs into it holds a core for milliseconds while others wait
for it. So whoever is held back by his quota runs, until he is calm again, only while nobody else wants the processor
(``cpu.idle`` of his control group). On an idle machine that costs him nothing, and it is no step of enforcement: his
quota stays what it is.
"""

from __future__ import annotations

from dataclasses import dataclass

HELD_BACK = 0.2
"""Share of periods in which the quota held a plugin back, from which on it yields."""
CALM_S = 5.0
"""Without that, until it competes again."""


@dataclass(frozen=True, slots=True)
class Yielding:
    """Whether a plugin yields."""

    now: bool = False
    calm_s: float = 0.0
    """Since it was last held back, while it yields."""


WELL = Yielding()


def judged(before: Yielding, throttled: float, interval_s: float) -> Yielding:
    """After one more sample, of an interval in which a share of the periods was ``throttled``."""
    if throttled >= HELD_BACK:
        return Yielding(now=True)
    calm_s = before.calm_s + interval_s
    return Yielding(now=True, calm_s=calm_s) if before.now and calm_s < CALM_S else WELL
