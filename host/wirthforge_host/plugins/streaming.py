"""Streamed calls of plugins' functions: found, admitted, told as they go, fed, counted and audited."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, Self

from wirthforge_host.audit.records import Outcome, Record, shape_of
from wirthforge_host.audit.service import Audit
from wirthforge_host.bridge.session import Session
from wirthforge_host.bridge.stream import Happening, Stream
from wirthforge_host.errors import FunctionMissingError, PluginUnavailableError
from wirthforge_host.metrics import Metrics
from wirthforge_host.plugins.instance import Instance
from wirthforge_host.plugins.reconciler import Reconciler
from wirthforge_host.plugins.service import Plugins
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.contracts.host_api import CallOut
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.contracts.streams_api import DEFAULT_TOTAL_S, InputOut, StreamIn
from wirthforge_sdk.errors import ConflictError, InvalidInputError, NotFoundError, WirthForgeError


class StreamedCall:
    """One call at work: iterate over what happens, then ask for its :meth:`outcome`."""

    def __init__(self, call_id: str, function: Function, session: Session, stream: Stream) -> None:
        self.id = call_id
        self.code = "abandoned"
        """As the audit log has it."""
        self.is_fed = False
        self.stream = stream
        self._function = function
        self._session = session
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self._began

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Happening:
        """What happened next, as ``Stream.__anext__``."""
        return await anext(self.stream)

    async def outcome(self) -> CallOut:
        """What the function answered in the end; raises as ``Calls.call``."""
        try:
            result = await self._session.outcome(self._function.name, self.stream)
        except WirthForgeError as error:
            self.code = error.code
            raise
        self.code = "function_failed" if result.is_error else "ok"
        return CallOut(
            id=self.id,
            is_error=result.is_error,
            structured=result.structured,
            content=result.content,
            duration_ms=round(self.seconds * 1000, 3),
        )


class Streaming:
    """Calls functions on the live instances and tells what comes."""

    def __init__(self, plugins: Plugins, reconciler: Reconciler, audit: Audit, metrics: Metrics) -> None:
        self._plugins = plugins
        self._reconciler = reconciler
        self._audit = audit
        self._metrics = metrics
        self._open: dict[str, tuple[str, StreamedCall]] = {}

    @asynccontextmanager
    async def opened(self, body: StreamIn, caller: Operator) -> AsyncIterator[StreamedCall]:
        """Calls one function; leaving early tells the plugin that nobody waits.

        Raises:
            NotFoundError: No such plugin or function.
            PluginUnavailableError: The plugin does not run.
            InvalidInputError: An argument is to follow, and the plugin takes no streams.
            LimitExceededError: Too many calls or streams are open.
        """
        instance = self._reconciler.live(body.plugin)
        if instance is None:
            plugin = await self._plugins.get(body.plugin)
            state = plugin.state.replace("_", " ")
            raise PluginUnavailableError(f"{plugin.name} is {state}: {plugin.cause}", plugin=plugin.name)
        function = instance.functions.get(body.function)
        if function is None:
            raise FunctionMissingError(
                f"{body.plugin} has no function '{body.function[:80]}'", plugin=body.plugin
            )
        with ExitStack() as inside:
            try:
                inside.enter_context(instance.gate.admitted())
                call = _begun(instance, function, body)
            except WirthForgeError as error:
                self._metrics.called(body.plugin, function.name, error.code, 0)
                await self._audit.enqueue(
                    _record(body, caller, error.code, {"function": body.function, "code": error.code})
                )
                raise
            self._open[call.id] = caller.actor, call
            try:
                async with call.stream:
                    yield call
            finally:
                del self._open[call.id]
                self._metrics.called(body.plugin, function.name, call.code, call.seconds)
                await self._audit.enqueue(_record(body, caller, call.code, _detail(call, body)))

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


def _begun(instance: Instance, function: Function, body: StreamIn) -> StreamedCall:
    call_id = os.urandom(16).hex()
    stream = instance.session.stream(
        function.name,
        body.arguments,
        timeout_s=body.timeout_s or DEFAULT_TOTAL_S,
        idle_s=min(function.timeout_s, body.idle_s or function.timeout_s),
        call_id=call_id,
        input_name=body.input,
    )
    return StreamedCall(call_id, function, instance.session, stream)


def _detail(call: StreamedCall, body: StreamIn) -> dict[str, Any]:
    return {
        "call": call.id,
        "function": body.function,
        "arguments": shape_of(body.arguments),
        "code": call.code,
        "ms": round(call.seconds * 1000, 3),
        "items": {"taken": call.stream.taken, "sent": call.stream.sent},
    }


def _record(body: StreamIn, caller: Operator, code: str, detail: dict[str, Any]) -> Record:
    outcome = Outcome.ALLOWED if code in {"ok", "function_failed"} else Outcome.FAILED
    return Record(actor=caller.actor, action="call", outcome=outcome, plugin=body.plugin, detail=detail)
