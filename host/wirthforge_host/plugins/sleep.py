"""The sleep of one instance: its processes stand still for want of calls, and go on before anything is asked of it.

While it is awake nobody pays for that but by one look at an attribute (``Connection.rouse``). All that freezes and
thaws an instance which serves goes through here, one after the other, and is carried through also when whoever began it
gives up: else a thaw that is late could undo a pause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from wirthforge_host.bridge.connection import Connection
from wirthforge_host.egress import EgressEndpoint
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_host.sandbox.control import Control
from wirthforge_sdk.errors import NotFoundError

T = TypeVar("T")


class Sleep:
    """Whether one instance sleeps. For one event loop.

    Args:
        control: Freezes and thaws.
        container: The engine's id of its container.
        pid: Of its first process, where the engine tells one.
        connection: Over which it is asked.
        egress: Its connections to the world, where it may have any.
    """

    def __init__(
        self,
        control: Control,
        container: str,
        pid: int | None,
        connection: Connection,
        egress: EgressEndpoint | None,
    ) -> None:
        self._control = control
        self._container = container
        self._pid = pid
        self._connection = connection
        self._egress = egress
        self._turn = asyncio.Lock()
        self.began = 0.0
        """When it last fell asleep, in monotonic seconds."""
        self.woke_at = 0.0

    def follow(self, connection: Connection) -> None:
        """It is asked over another connection from now on; it is awake."""
        self._connection = connection
        self.woke_at = asyncio.get_running_loop().time()

    @property
    def is_asleep(self) -> bool:
        """Whether it is to be woken before it is asked anything."""
        return self._connection.rouse is not None

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is open between it and the host, or the world."""
        return self._connection.is_quiet and (self._egress is None or self._egress.is_quiet)

    @property
    def heard_at(self) -> float:
        """When it said something last, in monotonic seconds."""
        return self._connection.heard_at

    async def begin(self, may: Callable[[], bool]) -> bool:
        """Freezes it if it ``may`` sleep, asked when it is its turn; whether it sleeps now.

        Raises:
            UnavailableError, NotFoundError: It was not frozen, or that is not known: it is thawed when it is wanted.
        """
        return await _through(self._begin(may))

    async def end(self) -> None:
        """Thaws it if it sleeps. Any number may ask for that at once.

        Raises:
            PluginUnavailableError: Its container is gone.
            UnavailableError: Neither the kernel nor the engine did it; it sleeps on.
        """
        await _through(self._end())

    async def stand_still(self) -> None:
        """Freezes it for another reason than sleep: what is asked of it wakes it no more.

        Raises:
            UnavailableError, NotFoundError: As :meth:`begin`.
        """
        await _through(self._stand_still())

    async def go_on(self) -> None:
        """Thaws it, whyever it stands still. Raises as :meth:`stand_still`."""
        await _through(self._go_on())

    async def _begin(self, may: Callable[[], bool]) -> bool:
        async with self._turn:
            if self.is_asleep or not may():
                return False
            # Before it is frozen: who asks from here on waits for its turn to wake it.
            self._connection.rouse = self.end
            self.began = asyncio.get_running_loop().time()
            await self._control.freeze(self._container, self._pid)
            return True

    async def _end(self) -> None:
        async with self._turn:
            if not self.is_asleep:
                return
            try:
                await self._control.thaw(self._container, self._pid)
            except NotFoundError as error:
                raise PluginUnavailableError("the plugin's instance is gone") from error
            self._wakes()

    async def _stand_still(self) -> None:
        async with self._turn:
            await self._control.freeze(self._container, self._pid)
            self._connection.rouse = None

    async def _go_on(self) -> None:
        async with self._turn:
            await self._control.thaw(self._container, self._pid)
            self._wakes()

    def _wakes(self) -> None:
        self._connection.rouse = None
        self.woke_at = asyncio.get_running_loop().time()


async def _through(act: Coroutine[Any, Any, T]) -> T:
    """What ``act`` returns; it goes on when who waits for it is cancelled."""
    return await asyncio.shield(asyncio.ensure_future(act))
