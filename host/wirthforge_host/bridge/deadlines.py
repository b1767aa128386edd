"""When calls must have been answered: one timer for all of them.

A timer for each call costs more than sending it. Deadlines are kept in buckets of 20 ms instead, and one
timer wakes for the next bucket; adding and removing a deadline is an insertion into a dictionary. A bucket stays until
its time, so those of far deadlines are wider: however long calls may take, there are some thousands.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

TICK_S = 0.02
"""A deadline fires at most this much late, or a five-hundredth of its time where that is more."""
_EXACT_BITS = 10
"""Of a number of ticks that is not rounded further."""


class Deadline:
    """One deadline, to remove it by."""

    __slots__ = ("expire", "tick")

    def __init__(self, tick: int, expire: Callable[[], None]) -> None:
        self.tick = tick
        self.expire = expire


class Deadlines:
    """All deadlines of one event loop."""

    def __init__(self) -> None:
        self._buckets: dict[int, dict[Deadline, None]] = {}
        self._ticks: list[int] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, seconds: float, expire: Callable[[], None]) -> Deadline:
        """Has ``expire`` run ``seconds`` from now, unless removed before. It must not raise."""
        loop = asyncio.get_running_loop()
        width = 1 << max(0, int(seconds / TICK_S).bit_length() - _EXACT_BITS)
        tick = int((loop.time() + seconds) / TICK_S) + 1
        tick += -tick % width
        deadline = Deadline(tick, expire)
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = {}
            heapq.heappush(self._ticks, tick)
            if self._ticks[0] == tick:
                self._arm(loop)
        bucket[deadline] = None
        return deadline

    def remove(self, deadline: Deadline) -> None:
        """Forgets a deadline; does nothing when it has fired."""
        bucket = self._buckets.get(deadline.tick)
        if bucket is not None:
            bucket.pop(deadline, None)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._ticks[0] * TICK_S, self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        while self._ticks and self._ticks[0] * TICK_S <= now:
            for deadline in self._buckets.pop(heapq.heappop(self._ticks)):
                deadline.expire()
        if self._ticks and self._timer is None:
            self._arm(loop)
