"""Starts in progress, and the plugins that may not be started just now."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Starts:
    """Lets whoever wants a plugin to end interrupt its start, however long that would take.

    Args:
        on_freed: Called when a plugin may be started again.
    """

    def __init__(self, on_freed: Callable[[], None]) -> None:
        self._on_freed = on_freed
        self._scopes: dict[str, asyncio.Timeout] = {}
        self._ending: Counter[str] = Counter()
        self._held: set[str] = set()
        self._over = False

    def allowed(self, plugin: str) -> bool:
        """Whether the plugin may be started now."""
        return not self._over and plugin not in self._held and not self._ending[plugin]

    async def run(self, plugin: str, start: Awaitable[T]) -> T | None:
        """What ``start`` brings, or None when it was interrupted."""
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scopes[plugin] = scope
                try:
                    return await start
                finally:
                    del self._scopes[plugin]
        except TimeoutError:
            if scope.expired():
                return None
            raise

    @contextmanager
    def ending(self, plugin: str) -> Iterator[None]:
        """Interrupts a start of the plugin and allows no other, for as long as the context lasts."""
        self._ending[plugin] += 1
        self._interrupt(plugin)
        try:
            yield
        finally:
            self._ending[plugin] -= 1
            if not self._ending[plugin]:
                del self._ending[plugin]
                self._on_freed()

    def hold(self, plugin: str) -> None:
        """Allows no start: the plugin was stopped, and the database may not know."""
        self._held.add(plugin)

    def release(self, plugin: str) -> None:
        """What an operator wants of the plugin is in the database again."""
        self._held.discard(plugin)

    def close(self) -> None:
        """Interrupts every start and allows no other, ever."""
        self._over = True
        for plugin in list(self._scopes):
            self._interrupt(plugin)

    def _interrupt(self, plugin: str) -> None:
        scope = self._scopes.get(plugin)
        if scope is not None and not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())
