"""Work that goes on while its answer is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Tasks:
    """What is at work, so that none is forgotten."""

    def __init__(self) -> None:
        self._open: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None], settled: Callable[[], None]) -> asyncio.Task[None]:
        """Starts ``work``; ``settled`` is called when it is over, however it ends."""
        task = asyncio.create_task(work)
        self._open.add(task)

        def done(_: asyncio.Task[None]) -> None:
            self._open.discard(task)
            settled()

        task.add_done_callback(done)
        return task

    def cancel(self) -> None:
        """Ends all of it."""
        for task in tuple(self._open):
            task.cancel()
