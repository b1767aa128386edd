"""The call that code runs for: who asked, until when, and whether they still want to know."""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from wirthforge_sdk.runtime.wire import Id

if TYPE_CHECKING:
    import asyncio

    from wirthforge_sdk.runtime.streams import Outgoing, Stream


PROGRESS_S = 0.1
"""Between two words of progress of one call."""


class Progress:
    """How far a call is, told to its caller at most ten times a second, and only when it is further."""

    def __init__(self, token: Id) -> None:
        self.token = token
        self._reached = float("-inf")
        self._at = float("-inf")

    def is_due(self, reached: float, total: float | None) -> bool:
        """Whether it is time to tell that the call is at ``reached``; notes that it was told."""
        now = time.monotonic()
        if reached <= self._reached or (reached != total and now - self._at < PROGRESS_S):
            return False
        self._reached, self._at = reached, now
        return True


class Call:
    """One ``tools/call`` in flight. Its flags are written by the reader and read by whoever works for it."""

    __slots__ = ("cancelled", "deadline", "id", "input", "output", "progress", "takes_bytes", "task")

    def __init__(self, number: Id, timeout_ms: float | None) -> None:
        self.id = number
        self.deadline = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        """Reading of the monotonic clock in seconds after which nobody waits; None: no limit was told."""
        self.cancelled = False
        self.task: asyncio.Task[None] | None = None
        self.progress: Progress | None = None
        """None: its caller asked for none."""
        self.output: Outgoing | None = None
        self.input: Stream[Any] | None = None
        self.takes_bytes = False
        """Whether its caller takes a result that is bytes as they are."""

    def cancel(self) -> None:
        """Nobody waits for it any more; code that waits in one of its streams finds out at once."""
        self.cancelled = True
        if self.output is not None:
            self.output.turn.tell()
        if self.input is not None:
            self.input.wake()

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, negative after it; None if it has none."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def expired(self) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline


CURRENT: ContextVar[Call | None] = ContextVar("wirthforge_call", default=None)
"""Set around the author's function; asyncio tasks and ``asyncio.to_thread`` inherit it."""
