"""Where the events of one subscription come from."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from wirthforge_host.bus.log import Cursor, Log
from wirthforge_host.bus.models import BusEvent, Gap


class Feed(Protocol):
    """Events in order, and the news that they arrived."""

    async def take(self) -> BusEvent | Gap:
        """The next; waits for it."""
        ...

    def acknowledge(self, event: BusEvent) -> None:
        """What was taken arrived, and is not taken again."""


class KeptFeed:
    """Kept events of a pattern after an id; with a cursor, what is acknowledged counts for it."""

    def __init__(self, log: Log, pattern: str, after: int, cursor: Cursor | None = None) -> None:
        self._log = log
        self._pattern = pattern
        self._position = after
        self._cursor = cursor
        self._told = 0
        """The newest dropped id that a gap was given for."""
        self._ready: deque[BusEvent | Gap] = deque()
        self._open: dict[int, bool] = {}
        """Taken, in order; whether it is acknowledged."""
        self._more = asyncio.Event()

    def wake(self) -> None:
        """There is more to read."""
        self._more.set()

    async def take(self) -> BusEvent | Gap:
        """The next event; before the first after what retention dropped unread, a gap that nobody counted."""
        while not self._ready:
            self._more.clear()
            before = self._position
            found, self._position = await self._log.read(before, self._pattern)
            if (dropped := self._log.dropped(self._pattern)) > max(before, self._told):
                # Of some publisher: what others published in between is kept, and read.
                self._ready.append(Gap(None))
                self._told = dropped
            self._ready.extend(found)
            self._settle()
            if self._position == before:
                await self._more.wait()
        item = self._ready.popleft()
        if isinstance(item, BusEvent):
            self._open[item.id] = False
        return item

    def acknowledge(self, event: BusEvent) -> None:
        """Moves the cursor past all that is acknowledged without a hole."""
        self._open[event.id] = True
        for number in list(self._open):
            if not self._open[number]:
                return
            del self._open[number]
            self._advance(number)
        self._settle()

    def _settle(self) -> None:
        """With nothing on its way, all that was looked at is past: also what matched no pattern."""
        if not self._ready and not self._open:
            self._advance(self._position)

    def _advance(self, last: int) -> None:
        if self._cursor is not None:
            self._log.acknowledge(self._cursor, last)
