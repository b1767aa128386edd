"""Streamed calls of plugins' functions: found, admitted, told as they go, fed, counted and audited."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Self

from wirthforge_host.audit.records import Outcome, Record
from wirthforge_host.audit.service import Audit
from wirthforge_host.bridge.session import Session
from wirthforge_host.bridge.stream import Happening, Stream
from wirthforge_host.metrics import Metrics
from wirthforge_host.plugins.call import Answer, Call, begun
from wirthforge_host.plugins.calls import Calls
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.targets import function_of, take_one
from wirthforge_host.plugins.upgrades.counting import Answered
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.streams_api import DEFAULT_TOTAL_S, InputOut, StreamIn
from wirthforge_sdk.errors import ConflictError, InvalidInputError, NotFoundError, WirthForgeError

Tell = Callable[[Answered], None]
"""Told of what a call ended with."""


class StreamedCall:
    """One call at work: iterate over what happens, then ask for its :meth:`outcome`."""

    def __init__(self, call: Call, session: Session, stream: Stream, tell: Tell) -> None:
        self.id = call.id
        self.is_fed = False
        self.stream = stream
        self._call = call
        self._session = session
        self._tell = tell

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Happening:
        """What happened next, as ``Stream.__anext__``."""
        return await anext(self.stream)

    async def outcome(self) -> Answer:
        """What the function answered in the end; raises as ``Calls.call``."""
        call = self._call
        try:
            result = await self._session.outcome(call.function.name, self.stream)
        except WirthForgeError as error:
            call.code = error.code
            self._tell(error)
            raise
        self._tell(result)
        call.outcome, call.code = Outcome.ALLOWED, "function_failed" if result.is_error else "ok"
        return Answer(
            id=call.id,
            is_error=result.is_error,
            structured=result.structured,
            content=result.content,
            duration_ms=round((time.monotonic() - call.began) * 1000, 3),
            cached=False,
        )


class Streaming:
    """Calls functions on the live instances and tells what comes."""

    def __init__(
        self,
        calls: Calls,
        audit: Audit,
        metrics: Metrics,
    ) -> None:
        self._calls = calls
        self._audit = audit
        self._metrics = metrics
        self._open: dict[str, tuple[str, StreamedCall]] = {}

    @asynccontextmanager
    async def opened(self, body: StreamIn, caller: Operator) -> AsyncIterator[StreamedCall]:
        """Calls one function; leaving early tells the plugin that nobody waits.

        It is made once, whatever becomes of its instance, and its result is not kept: what came cannot be taken back.

        Raises:
            NotFoundError: No such plugin or function.
            FunctionQuarantinedError: The function is not what was approved.
            PluginUnavailableError: The plugin does not run.
            InvalidInputError: An argument is to follow, and the plugin takes no streams.
            LimitExceededError: The plugin or the function is called too often, or too many calls or streams are open.
        """
        asked_at = time.monotonic()
        instance = await self._calls.entered(body, caller.actor)
        function = function_of(instance, body.function)
        total_s = body.timeout_s or DEFAULT_TOTAL_S
        call = begun(body.plugin, function, caller.actor, total_s, asked_at=asked_at)
        call.code = "abandoned"
        with ExitStack() as inside:
            try:
                take_one(instance, function)
                inside.enter_context(instance.gate)
                await instance.session.connection.awake(min(call.remaining_s(), function.timeout_s))
                streamed = self._streamed(call, instance, body)
            except WirthForgeError as error:
                call.code = error.code
                await self._record(call, body, {})
                raise
            self._calls.know(call)
            inside.callback(self._calls.forget, call)
            self._open[call.id] = caller.actor, streamed
            try:
                async with streamed.stream:
                    yield streamed
            finally:
                del self._open[call.id]
                count = {"taken": streamed.stream.taken, "sent": streamed.stream.sent}
                await self._record(call, body, {"items": count})

    async def feed(self, call_id: str, items: AsyncIterator[Any], caller: Operator) -> InputOut:
        """Sends the argument that follows; the plugin's credit sets the pace.

        Args:
            call_id: Of a call of the same caller that is open.
            items: JSON, or ``bytes``. When it raises, the call ends.
            caller: Who made the call.

        Raises:
            NotFoundError: No such call is open.
            ConflictError: It is fed already.
        """
        actor, call = self._open.get(call_id, ("", None))
        if call is None or actor != caller.actor:
            raise NotFoundError("no such call of yours is open")
        if call.is_fed or not call.stream.takes_input:
            raise ConflictError("the call takes no input, or is fed already")
        call.is_fed = True
        stream = call.stream
        try:
            async for item in items:
                if not await stream.feed(item):
                    return InputOut(items=stream.sent, complete=False)
            await stream.finish()
        except BaseException as error:
            reason = error.message if isinstance(error, WirthForgeError) else "its input broke off"
            stream.abort(InvalidInputError(f"the call ended: {reason}", field="input"))
            raise
        return InputOut(items=stream.sent, complete=True)

    async def _record(self, call: Call, body: StreamIn, more: dict[str, Any]) -> None:
        seconds = time.monotonic() - call.began
        self._metrics.called(call.plugin, call.function.name, call.code, seconds)
        detail = call.detail(body.arguments, seconds) | more
        await self._audit.enqueue(
            Record(actor=call.actor, action="call", outcome=call.outcome, plugin=call.plugin, detail=detail)
        )

    def _streamed(self, call: Call, instance: Instance, body: StreamIn) -> StreamedCall:
        function = call.function
        stream = instance.session.stream(
            function.name,
            body.arguments,
            timeout_s=body.timeout_s or DEFAULT_TOTAL_S,
            idle_s=min(function.timeout_s, body.idle_s or function.timeout_s),
            call_id=call.id,
            input_name=body.input,
        )

        def tell(answered: Answered) -> None:
            # How long it takes is as much its reader's doing.
            self._calls.trials.tell(instance, call, body.arguments, answered, None)

        return StreamedCall(call, instance.session, stream, tell)
