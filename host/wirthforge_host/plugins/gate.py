"""The gate of one instance: admits calls while it is open, and tells when those inside are done.

A call enters, runs on the instance behind the gate, and leaves. Closing the gate refuses new calls; draining waits
for those inside. Replacing the instance behind it (a swap) is this and nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.rates import TokenBucket
from wirthforge_sdk.errors import LimitExceededError

MAX_INSIDE = 256
"""Calls one instance may have open; the runtime bounds itself by the same number."""


class Gate:
    """Admits and drains the calls of one instance. For one event loop; not for threads.

    A call is made ``with gate:``, any number at a time.

    Args:
        plugin: Whose calls they are.
        calls_per_s: How many it lets in a second, on average; twice as many at once.
        monotonic: Seconds.
    """

    def __init__(self, plugin: str, calls_per_s: float, monotonic: Callable[[], float]) -> None:
        self.plugin = plugin
        self._monotonic = monotonic
        self.admit_at_most(calls_per_s)
        self.inside = 0
        self.last_at = 0.0
        """When it let a call in last."""
        self._open = False
        self._empty = asyncio.Event()
        self._empty.set()

    def admit_at_most(self, calls_per_s: float) -> None:
        """Lets in another number of calls a second from now on."""
        self._calls_per_s = calls_per_s
        self._rate = TokenBucket(calls_per_s, 2 * calls_per_s, self._monotonic())

    @property
    def is_open(self) -> bool:
        """Whether calls are admitted."""
        return self._open

    @property
    def has_room(self) -> bool:
        """Whether one more call would be within its bounds."""
        return self.inside < MAX_INSIDE and self._rate.holds(1, self._monotonic())

    def open(self) -> None:
        """Admits calls from now on."""
        self._open = True

    def close(self) -> None:
        """Refuses calls from now on; those inside go on."""
        self._open = False

    def __enter__(self) -> None:
        """Counts one call more as inside.

        Raises:
            PluginUnavailableError: The gate is closed.
            LimitExceededError: :data:`MAX_INSIDE` calls are inside already, or more came than its rate lets in.
        """
        if not self._open:
            raise PluginUnavailableError(f"{self.plugin} takes no calls just now", plugin=self.plugin)
        if self.inside >= MAX_INSIDE:
            raise LimitExceededError(
                f"{self.plugin} has {MAX_INSIDE} calls open: wait for some to end", plugin=self.plugin
            )
        now = self._monotonic()
        if not self._rate.take(1, now):
            raise LimitExceededError(
                f"{self.plugin} is called over {self._calls_per_s:g} times a second: call less often",
                plugin=self.plugin,
            )
        self.inside += 1
        self.last_at = now
        self._empty.clear()

    def __exit__(self, *_: object) -> None:
        """Counts one call less."""
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
