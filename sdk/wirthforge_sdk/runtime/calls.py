"""The call that code runs for: who asked, until when, and whether they still want to know."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

from wirthforge_sdk.runtime.wire import Id

if TYPE_CHECKING:
    import asyncio


class Call:
    """One ``tools/call`` in flight. Its flags are written by the reader and read by whoever works for it."""

    __slots__ = ("cancelled", "deadline", "id", "task")

    def __init__(self, number: Id, timeout_ms: float | None) -> None:
        self.id = number
        self.deadline = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        """Reading of the monotonic clock in seconds after which nobody waits; None: no limit was told."""
        self.cancelled = False
        self.task: asyncio.Task[None] | None = None

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, negative after it; None if it has none."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def expired(self) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline


CURRENT: ContextVar[Call | None] = ContextVar("wirthforge_call", default=None)
"""Set around the author's function; asyncio tasks and ``asyncio.to_thread`` inherit it."""
