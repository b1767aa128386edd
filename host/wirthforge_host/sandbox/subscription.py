"""The bounded queue between an engine that tells events and the one who reads them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from wirthforge_host.sandbox.models import ContainerEvent, EventKind
from wirthforge_sdk.errors import WirthForgeError

CAPACITY = 1024
"""Events that wait for a slow reader."""


class Subscription(AsyncIterator[ContainerEvent]):
    """Events in the order told. One reader; all calls on the event loop's thread."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._waiting: deque[ContainerEvent] = deque(maxlen=capacity)
        self._lost = False
        self._failure: WirthForgeError | None = None
        self._something = asyncio.Event()

    def tell(self, event: ContainerEvent) -> None:
        """Appends an event; drops the oldest one when full, which the reader will be told."""
        self._lost = self._lost or len(self._waiting) == self._waiting.maxlen
        self._waiting.append(event)
        self._something.set()

    def fail(self, failure: WirthForgeError) -> None:
        """Ends the subscription: the reader gets what waits, then this error."""
        self._failure = failure
        self._something.set()

    async def __anext__(self) -> ContainerEvent:
        while True:
            if self._lost:
                self._lost = False
                return ContainerEvent(EventKind.LOST, container_id="", instance_id="")
            if self._waiting:
                return self._waiting.popleft()
            if self._failure is not None:
                raise self._failure
            self._something.clear()
            await self._something.wait()
