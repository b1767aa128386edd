"""Tells many readers in the process what happens, and remembers the latest for those who come back.

Everything is bounded: what is remembered, and what waits for a slow reader. A reader that falls behind loses
the oldest and is told how many it lost; a writer never waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, Protocol, Self, TypeVar


class Numbered(Protocol):
    """Something with a number that only grows."""

    @property
    def id(self) -> int:
        """Its number."""
        ...


Item = TypeVar("Item", bound=Numbered)

Gap = Callable[[int, int | None], Item]
"""Makes the item that stands for lost ones, of the last one's number and their count (None: nobody knows)."""


class Subscription(Generic[Item]):
    """One reader's queue. Iterate it; it does not end by itself."""

    def __init__(self, bound: int, bound_weight: int, gap: Gap[Item]) -> None:
        self._queue: deque[tuple[Item, int]] = deque()
        self._bound = bound
        self._bound_weight = bound_weight
        self._weight = 0
        self._gap = gap
        self._last_lost = 0
        self._lost: int | None = 0
        self._ready = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        """The next item, or before the first one after a loss, the item that tells of it."""
        await self._ready.wait()
        try:
            if self._lost == 0:
                return self._pop()
            lost, self._lost = self._lost, 0
            return self._gap(self._last_lost, lost)
        finally:
            if not self._queue:
                self._ready.clear()

    def lose(self, last: int, count: int | None) -> None:
        """Notes that the reader will not get ``count`` items, up to the one numbered ``last``."""
        self._lost = None if count is None or self._lost is None else self._lost + count
        self._last_lost = last
        self._ready.set()

    def put(self, item: Item, weight: int) -> None:
        """Queues an item, in the place of the oldest when the queue is full."""
        while self._queue and (len(self._queue) == self._bound or self._weight + weight > self._bound_weight):
            self.lose(self._pop().id, 1)
        self._queue.append((item, weight))
        self._weight += weight
        self._ready.set()

    def _pop(self) -> Item:
        item, weight = self._queue.popleft()
        self._weight -= weight
        return item


class Broadcast(Generic[Item]):
    """One stream of numbered items, from whoever publishes to all who subscribed.

    Args:
        remember: Items kept for those who come back.
        remember_weight: What the kept items may weigh together, and what waits for one reader.
        queue: Items that may wait for one reader.
        weight: Of one item; in bytes, for instance.
        gap: Makes the item a reader gets for what it lost.
    """

    def __init__(
        self,
        *,
        remember: int,
        remember_weight: int,
        queue: int,
        weight: Callable[[Item], int],
        gap: Gap[Item],
    ) -> None:
        self._recent: deque[tuple[Item, int]] = deque()
        self._remember = remember
        self._remember_weight = remember_weight
        self._queue = queue
        self._weigh = weight
        self._gap = gap
        self._weight = 0
        self._forgotten = 0
        self._readers: set[Subscription[Item]] = set()

    def publish(self, item: Item) -> None:
        """Hands ``item`` to every reader. Its number must be above those before."""
        weight = self._weigh(item)
        self._recent.append((item, weight))
        self._weight += weight
        while len(self._recent) > self._remember or self._weight > self._remember_weight:
            forgotten, lost = self._recent.popleft()
            self._weight -= lost
            self._forgotten = forgotten.id
        for reader in self._readers:
            reader.put(item, weight)

    def recent(self, *, after: int = 0, limit: int | None = None) -> list[Item]:
        """What is remembered above the number ``after``, oldest first; with ``limit``, the newest of it."""
        items = [item for item, _ in self._recent if item.id > after]
        return items if limit is None else items[max(0, len(items) - limit) :]

    @asynccontextmanager
    async def subscribe(self, *, after: int | None = None) -> AsyncIterator[Subscription[Item]]:
        """A reader of what is published from now on, or from after the number ``after`` on.

        When something after ``after`` is no longer remembered, the first thing it reads tells so.
        """
        reader: Subscription[Item] = Subscription(self._queue, self._remember_weight, self._gap)
        if after is not None:
            for item, weight in self._recent:
                if item.id > after:
                    reader.put(item, weight)
            if after < self._forgotten:
                reader.lose(self._forgotten, None)
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
