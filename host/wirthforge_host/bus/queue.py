"""What waits for one subscriber: bounded in number and bytes, with a stated rule for what does not fit."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from wirthforge_host.bus.models import HOST, MAX_EVENT_BYTES, BusEvent, Gap

QUEUE_BYTES = 4 * 1024 * 1024
LARGEST = 2 * MAX_EVENT_BYTES
"""What is reserved for an event that is not yet known."""


@dataclass(slots=True)
class _Waiting:
    missed: int
    """Events lost just before it."""
    event: BusEvent


class Queue:
    """Events in order. A loss is told where it happened: before the first event after it."""

    def __init__(self, bound: int, *, blocks: bool = False) -> None:
        self.blocks = blocks
        self.closed = False
        self._bound = bound
        self._events: deque[_Waiting] = deque()
        self._weight = 0
        self._missed = 0
        """Events lost after all that wait."""
        self._reserved = 0
        self._room = asyncio.Event()
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: BusEvent) -> None:
        """Takes an event; when there is no room, in the place of the oldest.

        News of the host wait for nobody, and get nothing of what others have reserved: a queue that blocks loses them.
        """
        if self.closed:
            return
        if self.blocks and event.publisher == HOST and not self._has_room():
            self._missed += 1
            return
        while not self.blocks and self._events and self._is_full_for(event):
            self._drop_oldest()
        self._events.append(_Waiting(self._missed, event))
        self._missed = 0
        self._weight += event.weight
        self._ready.set()

    async def reserve(self) -> None:
        """Waits for room that is then nobody else's: of a queue that blocks. :meth:`settle` gives it back."""
        while not self._has_room():
            self._room.clear()
            await self._room.wait()
        self._reserved += 1

    def settle(self) -> None:
        """What was reserved is used, or not needed."""
        self._reserved -= 1
        self._room.set()

    async def take(self) -> BusEvent | Gap:
        """The oldest event; before the first after a loss, the loss."""
        await self._ready.wait()
        if missed := self._events[0].missed:
            self._events[0].missed = 0
            return Gap(missed)
        event = self._events.popleft().event
        self._weight -= event.weight
        if not self._events:
            self._ready.clear()
        self._room.set()
        return event

    def acknowledge(self, event: BusEvent) -> None:
        """Nothing: what was taken is gone."""

    def bind(self, bound: int, *, blocks: bool) -> None:
        """Puts another rule in force for what waits, too; whoever waits for room that need not be let go."""
        self._bound, self.blocks = bound, blocks
        while not blocks and len(self._events) > bound:
            self._drop_oldest()
        self._room.set()

    def close(self) -> None:
        """Takes nothing more; whoever waits for room is let go."""
        self.closed = True
        self._room.set()

    def _drop_oldest(self) -> None:
        oldest = self._events.popleft()
        self._weight -= oldest.event.weight
        if self._events:
            self._events[0].missed += oldest.missed + 1
        else:
            self._missed += oldest.missed + 1

    def _is_full_for(self, event: BusEvent) -> bool:
        return len(self._events) >= self._bound or self._weight + event.weight > QUEUE_BYTES

    def _has_room(self) -> bool:
        if self.closed or not self.blocks:
            return True
        fits = self._weight + (self._reserved + 1) * LARGEST <= QUEUE_BYTES
        return fits and len(self._events) + self._reserved < self._bound
