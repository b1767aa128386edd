"""Requests of ours and their replies: numbered by us, each with a deadline, none waiting for ever.

No task and no timer for each: a call is a future in a table, and one timer serves all deadlines.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from msgspec import UNSET, Raw

from wirthforge_host.bridge import messages
from wirthforge_host.bridge.deadlines import Deadline, Deadlines
from wirthforge_host.bridge.messages import Carrying, Failure, Message
from wirthforge_host.bridge.outbox import Outbox
from wirthforge_host.errors import CallTimedOutError, PluginUnavailableError
from wirthforge_sdk.contracts.bridge import (
    MAX_IN_FLIGHT,
    MAX_REPLY_ELEMENTS,
    META_BODY,
    META_PROGRESS,
)
from wirthforge_sdk.errors import LimitExceededError, WirthForgeError

MAX_ABANDONED = 4_096
"""Calls we gave up whose late reply is still known to be one."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a call is, by the plugin's word."""

    progress: float
    total: float | None
    message: str | None


OnProgress = Callable[[Progress], None]
"""Told how far a call is; does not wait."""


class ReplyError(Exception):
    """The plugin answered a call with a JSON-RPC error."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(slots=True, eq=False)
class OpenCall:
    """A request that is not answered."""

    number: int
    method: str
    label: str | None
    cancellable: bool
    timeout_s: float
    future: asyncio.Future[Any]
    deadline: Deadline
    credit_left: Callable[[], int] | None = None
    """Of a call with a stream: what the plugin may still send."""
    on_progress: OnProgress | None = None
    takes_bytes: bool = False
    """Whether its reply may come with raw bytes."""


class Calls:
    """The calls of one connection that are not answered."""

    def __init__(self, outbox: Outbox, deadlines: Deadlines) -> None:
        self._loop = asyncio.get_running_loop()
        self._outbox = outbox
        self._deadlines = deadlines
        self._open: dict[int, OpenCall] = {}
        self._abandoned: OrderedDict[int, int] = OrderedDict()
        """With the bytes of a stream that may still be on their way."""
        # By the clock: a late reply to a call of the host before this has the number of none of ours.
        self._first = self._last = time.time_ns() // 1_000

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_open(self) -> bool:
        """Whether calls can be sent."""
        return self._outbox.is_open

    def label_of(self, number: object) -> str | None:
        """The label of an open call, or None: a plugin can name only what it was really asked."""
        call = self._open.get(number) if type(number) is int else None
        return None if call is None else call.label

    async def request(
        self,
        method: str,
        params: Any,
        *,
        timeout_s: float,
        label: str | None,
        cancellable: bool,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Sends a request and returns the result of its reply.

        Args:
            method: Of the plugin.
            params: JSON, or a :class:`Carrying`. The result is one where raw bytes came with it, as they may if
                ``_meta`` has ``wf/body``.
            timeout_s: Until when the reply must be there, from now.
            label: The id by which the audit log knows the call; host calls made for it are recorded with it.
            cancellable: Whether the plugin is told when nobody waits any more.
            on_progress: Told how far it is, as often as the plugin says; without it, the plugin is not asked to.

        Raises:
            ReplyError: The reply is an error.
            CallTimedOutError: There was none in time.
            PluginUnavailableError: The connection is closed, or closed before the reply came.
            LimitExceededError: Too many calls are open, or the plugin does not read.
            InvalidInputError: ``params`` cannot be sent.
        """
        if on_progress is not None:
            params = _with_token(params, self.next_number)
        call = self.begin(method, params, timeout_s=timeout_s, label=label, cancellable=cancellable)
        call.on_progress = on_progress
        call.takes_bytes = isinstance(params, Carrying) or META_BODY in params.get("_meta", ())
        try:
            return await call.future
        except asyncio.CancelledError:
            self._abandon(call, "nobody waits for it any more")
            raise
        finally:
            self._deadlines.remove(call.deadline)

    @property
    def next_number(self) -> int:
        """The id of the next request."""
        return self._last + 1

    def begin(
        self, method: str, params: Any, *, timeout_s: float, label: str | None, cancellable: bool
    ) -> OpenCall:
        """Sends a request, as :meth:`request`; who waits for its future must :meth:`leave` it in the end."""
        if not self._outbox.is_open:
            raise PluginUnavailableError("the plugin's instance is not connected")
        if len(self._open) >= MAX_IN_FLIGHT:
            raise LimitExceededError(f"{MAX_IN_FLIGHT} calls of the plugin are open: try again later")
        self._last += 1
        future = self._loop.create_future()
        self._outbox.post(messages.parts(self._last, method, params), lambda: not future.done())
        deadline = self._deadlines.add(timeout_s, lambda: self._expire(call))
        call = OpenCall(self._last, method, label, cancellable, timeout_s, future, deadline)
        self._open[call.number] = call
        return call

    def leave(self, call: OpenCall) -> None:
        """Nobody waits for the call any more; the plugin is told, unless it has answered."""
        self._deadlines.remove(call.deadline)
        self._abandon(call, "nobody waits for it any more")
        if not call.future.done():
            call.future.cancel()

    def fail(self, call: OpenCall, error: WirthForgeError, reason: str) -> None:
        """Gives up a call for ``error``; the plugin is told the ``reason``."""
        self._abandon(call, reason)
        self._fail(call, error)

    def progressed(self, number: int, told: Progress) -> None:
        """Passes on how far a call is; does nothing where nobody asked."""
        call = self._open.get(number)
        if call is not None and call.on_progress is not None:
            call.on_progress(told)

    def has(self, number: int) -> bool:
        """Whether a call of that number is open."""
        return number in self._open

    def was_made(self, number: int) -> bool:
        """Whether a call of that number is open, or was."""
        return self._first < number <= self._last

    def forgive(self, number: int, cost: int) -> bool:
        """Whether so many bytes of a call that was given up may have been on their way."""
        left = self._abandoned.get(number, 0)
        if left <= 0:
            return False
        self._abandoned[number] = left - cost
        return True

    def notify(self, method: str, params: dict[str, Any]) -> None:
        """Sends a notification."""
        self._outbox.write(messages.notification(method, params))

    def settle(self, reply: Message, body: memoryview | None = None) -> str | None:
        """Gives a reply, and the raw bytes that came with it, to who waits for it.

        Returns:
            What is wrong with it, or None.
        """
        number = reply.id
        if type(number) is not int:
            return "a reply has an id that no call of ours had"
        if number in self._abandoned:
            del self._abandoned[number]
            return None
        call = self._open.pop(number, None)
        if call is None:
            return "a reply is to no open call"
        if (reply.error is UNSET) == (reply.result is UNSET):
            self._fail(call, PluginUnavailableError("the plugin's reply was malformed"))
            return "a reply has not exactly one of result and error"
        if body is not None and not call.takes_bytes:
            self._fail(call, PluginUnavailableError("the plugin's reply was malformed"))
            return "raw bytes came with a reply to who takes none"
        return None if call.future.done() else self._answer(call, reply, body)

    def _answer(self, call: OpenCall, reply: Message, body: memoryview | None) -> str | None:
        try:
            if reply.error is UNSET:
                result = messages.decoded(cast("Raw", reply.result), MAX_REPLY_ELEMENTS, Any)
                call.future.set_result(result if body is None else Carrying(result, body))
            else:
                failure = messages.decoded(reply.error, MAX_REPLY_ELEMENTS, Failure)
                call.future.set_exception(ReplyError(failure))
        except WirthForgeError as error:
            self._fail(call, PluginUnavailableError(f"the plugin's reply was malformed: {error.message}"))
            return "a reply cannot be read"
        return None

    def fail_all(self) -> None:
        """The connection is over."""
        for call in self._open.values():
            self._fail(call, PluginUnavailableError("the plugin's instance went away during the call"))
        self._open.clear()

    def _expire(self, call: OpenCall) -> None:
        if not call.future.done():
            self._abandon(call, "its deadline passed")
            self._fail(call, CallTimedOutError(f"no answer within {call.timeout_s:.3g} s"))

    def _abandon(self, call: OpenCall, reason: str) -> None:
        if self._open.pop(call.number, None) is None:
            return
        self._abandoned[call.number] = 0 if call.credit_left is None else call.credit_left()
        if len(self._abandoned) > MAX_ABANDONED:
            self._abandoned.popitem(last=False)
        if call.cancellable and self._outbox.is_open:
            params = {"requestId": call.number, "reason": reason}
            self._outbox.write(messages.notification("notifications/cancelled", params))

    @staticmethod
    def _fail(call: OpenCall, error: Exception) -> None:
        if not call.future.done():
            call.future.set_exception(error)


def _with_token(params: Any, token: int) -> Any:
    """``params`` that also ask for progress."""
    if isinstance(params, Carrying):
        return params._replace(json=_with_token(params.json, token))
    return {**params, "_meta": {**params["_meta"], META_PROGRESS: token}}
