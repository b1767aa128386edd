"""The gate of one plugin: admits calls while it is open, and tells when those inside are done.

A call enters, runs on the instance behind the gate, and leaves. Closing the gate refuses new calls; draining waits
for those inside. Replacing the instance behind it (a swap) is this and nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from wirthforge_host.errors import PluginUnavailableError
from wirthforge_sdk.errors import LimitExceededError

MAX_INSIDE = 256
"""Calls one plugin may have open; the runtime bounds itself by the same number."""


class Gate:
    """Admits and drains the calls of one plugin. For one event loop; not for threads."""

    def __init__(self, plugin: str) -> None:
        self.plugin = plugin
        self.inside = 0
        self._open = False
        self._empty = asyncio.Event()
        self._empty.set()

    def open(self) -> None:
        """Admits calls from now on."""
        self._open = True

    def close(self) -> None:
        """Refuses calls from now on; those inside go on."""
        self._open = False

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts one call as inside for as long as the context lasts.

        Raises:
            PluginUnavailableError: The gate is closed.
            LimitExceededError: :data:`MAX_INSIDE` calls are inside already.
        """
        if not self._open:
            raise PluginUnavailableError(f"{self.plugin} takes no calls just now", plugin=self.plugin)
        if self.inside >= MAX_INSIDE:
            raise LimitExceededError(
                f"{self.plugin} has {MAX_INSIDE} calls open: wait for some to end", plugin=self.plugin
            )
        self.inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self.inside -= 1
            if not self.inside:
                self._empty.set()

    async def drained(self, timeout_s: float) -> bool:
        """Waits until nobody is inside; False when ``timeout_s`` seconds were not enough."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
