"""The messages of one answer, kept for a while, so that a client whose connection broke can read on.

A writer never waits. A reader that falls behind what is kept, or is followed by another, is told that its end has come.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final

MAX_KEPT: Final = 256
MAX_KEPT_BYTES: Final = 8 * 1024 * 1024
"""Of one stream: the largest answer there is, and what came before it."""


class Stream:
    """Numbered messages, from 1."""

    def __init__(self) -> None:
        self._kept: deque[bytes] = deque()
        self._last = 0
        self._changed = asyncio.Event()
        self._reader = 0
        self.size = 0
        """Bytes kept."""
        self.ended = False

    def put(self, message: bytes) -> None:
        """Adds a message: one JSON document on one line."""
        if self.ended:
            return
        message = message.rstrip()
        self._kept.append(message)
        self._last += 1
        self.size += len(message)
        while len(self._kept) > MAX_KEPT or self.size > MAX_KEPT_BYTES:
            self.size -= len(self._kept.popleft())
        self._wake()

    def finish(self, message: bytes) -> None:
        """Adds the last message; a reader sees both at once."""
        self.put(message)
        self.end()

    def end(self) -> None:
        """No more will come."""
        self.ended = True
        self._wake()

    @property
    def start(self) -> int:
        """The number after which all is kept."""
        return self._last - len(self._kept)

    def holds(self, after: int) -> bool:
        """Whether all that came after the message numbered ``after`` is still kept."""
        return self.start <= after <= self._last

    def take(self) -> int:
        """Becomes its one reader, in the place of the one before."""
        self._reader += 1
        self._wake()
        return self._reader

    async def after(self, number: int, reader: int, wait_s: float) -> list[tuple[int, bytes]] | None:
        """What came after the message numbered ``number``; empty when nothing did within ``wait_s`` seconds.

        None: nothing more will come for this reader.
        """
        if number == self._last and not self.ended and reader == self._reader:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
        if reader != self._reader or not self.holds(number):
            return None
        new = [(at, each) for at, each in enumerate(self._kept, self.start + 1) if at > number]
        return None if not new and self.ended else new

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
