"""The host calls of one connection that are at work: how many, how many at once, how they are answered."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable

import structlog
from msgspec import Raw

from wirthforge_host.bridge import messages
from wirthforge_host.bridge.calls import Calls
from wirthforge_host.bridge.dispatcher import Dispatcher
from wirthforge_host.bridge.host_calls import TABLE
from wirthforge_host.bridge.messages import Id
from wirthforge_host.bridge.outbox import Outbox
from wirthforge_host.errors import (
    CallAbandonedError,
    CallTimedOutError,
    PluginQuarantinedError,
    PluginUnavailableError,
)
from wirthforge_sdk.contracts.bridge import MAX_IN_FLIGHT, ErrorCode
from wirthforge_sdk.errors import (
    ConflictError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    WirthForgeError,
)

AT_WORK = 16
"""Host calls of one instance that are worked on at a time; further ones of its ``MAX_IN_FLIGHT`` wait."""
WAITING = 32
"""Host calls of one instance that may wait for a person at a time, beside those."""
OPEN_BYTES = 8 * 1024 * 1024
"""Lines of open requests past which no more is read."""
END_S = 2.0
"""How long the end of what is at work is waited for."""

_CODES: dict[type[WirthForgeError], ErrorCode] = {
    CallAbandonedError: ErrorCode.CANCELLED,
    CallTimedOutError: ErrorCode.TIMEOUT,
    PluginQuarantinedError: ErrorCode.QUARANTINED,
    PluginUnavailableError: ErrorCode.PLUGIN_UNAVAILABLE,
    InvalidInputError: ErrorCode.INVALID_PARAMETERS,
    PermissionDeniedError: ErrorCode.PERMISSION_DENIED,
    NotFoundError: ErrorCode.FUNCTION_NOT_FOUND,
    ConflictError: ErrorCode.CONFLICT,
    LimitExceededError: ErrorCode.RESOURCE_EXHAUSTED,
}
"""The first that fits. The rest is a trouble of ours, of which a plugin learns no more than the sentence."""

_log = structlog.get_logger(__name__)


class Serving:
    """Answers the requests of one instance, each in a task. What they carry is decoded when it is their turn.

    Args:
        dispatcher: Does them.
        calls: Of ours, for which they may be made.
        outbox: Takes the answers.
        on_room: Called when one is over.
    """

    def __init__(
        self, dispatcher: Dispatcher, calls: Calls, outbox: Outbox, on_room: Callable[[], None]
    ) -> None:
        self._dispatcher = dispatcher
        self._calls = calls
        self._outbox = outbox
        self._at_work = asyncio.Semaphore(AT_WORK)
        self._waiting = asyncio.Semaphore(WAITING)
        self._tasks: dict[Id, asyncio.Task[None]] = {}
        self._open_bytes = 0
        self._on_room = on_room

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, number: Id) -> bool:
        return number in self._tasks

    @property
    def is_full(self) -> bool:
        """Whether open requests hold as much as they may."""
        return self._open_bytes >= OPEN_BYTES

    def begin(self, number: Id, method: str, params: Raw, size: int) -> None:
        """Has a request whose line has ``size`` bytes answered; refuses it when too many are open."""
        if len(self._tasks) >= MAX_IN_FLIGHT:
            reason = f"{MAX_IN_FLIGHT} host calls are open: wait for their answers"
            self._outbox.write(messages.refusal(number, ErrorCode.RESOURCE_EXHAUSTED, reason))
            return
        task = asyncio.get_running_loop().create_task(self._serve(number, method, params))
        self._tasks[number] = task
        # Not in the task itself: one that is cancelled before its first step runs none of its code.
        self._open_bytes += size
        task.add_done_callback(lambda _: self._done(number, size))

    def cancel(self, number: object) -> None:
        """The plugin no longer waits for an answer, and gets none."""
        task = self._tasks.get(number) if isinstance(number, int | str) else None
        if task is not None:
            task.cancel()

    def stop(self) -> None:
        """Nobody waits for any answer."""
        for task in self._tasks.values():
            task.cancel()

    async def ended(self) -> None:
        """Returns when nothing is at work, or hangs."""
        if tasks := list(self._tasks.values()):
            await asyncio.wait(tasks, timeout=END_S)

    def _done(self, number: Id, size: int) -> None:
        del self._tasks[number]
        self._open_bytes -= size
        self._on_room()

    async def _serve(self, number: Id, method: str, params: Raw) -> None:
        host_call = TABLE.get(method)
        async with self._waiting if host_call is not None and host_call.waits else self._at_work:
            line = await self._answer(number, method, params)
            # The slot is held until the plugin reads: replies to who does not read cannot pile up.
            await self._outbox.until_writable()
            self._outbox.write(line)

    async def _answer(self, number: Id, method: str, params: Raw) -> bytes:
        if method == "ping":
            # Of 2025-11-25; the only request of MCP itself that a server may send to a host without
            # capabilities.
            return messages.reply(number, {})
        try:
            return messages.reply(number, await self._dispatcher.call(method, params, self._calls.label_of))
        except WirthForgeError as error:
            code = next(
                (_CODES[kind] for kind in _CODES if isinstance(error, kind)), ErrorCode.INTERNAL_ERROR
            )
            return messages.refusal(number, code, error.message, error.details)
        except Exception as error:  # noqa: BLE001  (a loop that must survive)
            # A fault of ours in one host call must not end the plugin's other calls; it is loud in our log.
            # In a thread: a traceback shows source lines, and reads files for them. As text: a renderer that
            # finds the exception itself may show the variables, which hold what plugins keep with us.
            await asyncio.to_thread(_tell, method, error)
            return messages.refusal(number, ErrorCode.INTERNAL_ERROR, "the host failed at this call")


def _tell(method: str, error: Exception) -> None:
    _log.error(
        "a host call failed", method=method[:100], exception="".join(traceback.format_exception(error))
    )
