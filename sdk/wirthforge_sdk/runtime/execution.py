"""From a ``tools/call`` to its answer: where the author's functions run, and what becomes of what they do.

A cancelled call is never answered (MCP, "cancellation"); it counts as open until its function returns, so
that what a stuck plugin holds stays bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from inspect import isawaitable
from typing import Any

from msgspec import UNSET, Raw, Struct, UnsetType, field

from wirthforge_sdk.contracts.bridge import (
    INVALID_REQUEST,
    JSONRPC_NUMBER,
    MAX_CHUNK_BYTES,
    MAX_IN_FLIGHT,
    MAX_LOG_BYTES,
    MAX_STREAMS,
    META_BYTES,
    REFUSED,
    ErrorCode,
)
from wirthforge_sdk.contracts.framing import Carried
from wirthforge_sdk.runtime import wire
from wirthforge_sdk.runtime.calls import CURRENT, Call, Progress
from wirthforge_sdk.runtime.errors import HostRefusedError
from wirthforge_sdk.runtime.functions import Function, InvalidArgumentsError
from wirthforge_sdk.runtime.host import Log
from wirthforge_sdk.runtime.streams import InvalidItemError, Outgoing, Stream, given
from wirthforge_sdk.runtime.workers import Crew


class _Text(Struct):
    text: str
    type: str = "text"


class _Result(Struct, rename="camel"):
    """MCP's CallToolResult. ``resultType`` is required since 2026-07-28 and ignored before."""

    content: list[_Text]
    structured_content: Raw | UnsetType = UNSET
    is_error: bool = False
    result_type: str = field(default="complete")
    meta: dict[str, int] | UnsetType = field(name="_meta", default=UNSET)


Answer = bytes | Carried | None
"""The line of an answer, perhaps with raw bytes after it; None: nobody waits for one."""


class Execution:
    """The calls in flight of one connection. The crew that works on them outlives it."""

    def __init__(
        self, functions: Mapping[str, Function], connection: wire.Connection, log: Log, crew: Crew
    ) -> None:
        self._functions = functions
        self._connection = connection
        self._log = log
        self._open: dict[wire.Id, Call] = {}
        self._workers = crew.workers
        self._loop = crew.loop

    def abandon(self) -> None:
        """Nobody waits for any of the calls: the connection they came by is over."""
        for number in list(self._open):
            self.cancel(number)

    def accept(self, number: wire.Id, params: wire.Params, body: memoryview | None = None) -> Answer:
        """Starts a call where its function runs. An answer is returned only if there is one already.

        ``body`` is the argument that came as raw bytes.
        """
        function = self._functions.get(params.name)
        if function is None:
            return _refusal(
                number, ErrorCode.FUNCTION_NOT_FOUND, f"there is no function {params.name[:128]!r}"
            )
        if number in self._open:
            return wire.refusal(number, INVALID_REQUEST, "a call with this id is still open")
        if len(self._open) >= MAX_IN_FLIGHT:
            return _refusal(number, ErrorCode.RESOURCE_EXHAUSTED, f"{MAX_IN_FLIGHT} calls are already open")
        meta = wire.Meta() if params.meta is UNSET else params.meta
        ask = meta.stream
        came = (
            None if body is None or meta.body is None or meta.body.input is None else (meta.body.input, body)
        )
        try:
            arguments = function.bind(params.arguments, None if ask is None else ask.input, came)
        except InvalidArgumentsError as error:
            return _refusal(number, ErrorCode.INVALID_PARAMETERS, str(error), field=error.field)
        call = Call(number, meta.timeout_ms)
        call.takes_bytes = meta.body is not None
        if meta.progress_token is not None:
            call.progress = Progress(meta.progress_token)
        self._join(call, function, ask or wire.StreamAsk(), arguments, wanted=ask is not None)
        if _streams(call) and sum(map(_streams, self._open.values())) >= MAX_STREAMS:
            return _refusal(number, ErrorCode.RESOURCE_EXHAUSTED, f"{MAX_STREAMS} streams are already open")
        self._open[number] = call
        return self._start(call, function, arguments)

    def _join(
        self, call: Call, function: Function, ask: wire.StreamAsk, arguments: dict[str, Any], *, wanted: bool
    ) -> None:
        """Gives the call its streams, as far as its caller wants them."""
        if wanted and function.yields is not None:
            call.output = Outgoing(self._connection, call, ask.credit)
        if function.takes is None or function.read is None:
            return
        if ask.input is None:
            arguments[function.takes] = given(call, arguments[function.takes])
        else:
            call.input = Stream(call, function.read, self._connection)
            arguments[function.takes] = call.input

    def _start(self, call: Call, function: Function, arguments: dict[str, Any]) -> Answer:
        if function.options.inline:
            return self._run(call, function, arguments)
        if call.input is not None:
            call.input.begin()
        if function.is_async and self._loop is not None:
            work = partial(self._run_async, call, function, arguments)
            self._loop.spawn(call, work, partial(self._open.pop, call.id, None))
            return None

        def job() -> None:
            self._send(self._run(call, function, arguments))

        if not _streams(call):
            self._workers.submit(job)
            return None
        try:
            self._workers.start_apart(job)
        except RuntimeError:
            del self._open[call.id]
            return _refusal(call.id, ErrorCode.RESOURCE_EXHAUSTED, "the sandbox allows no more threads")
        return None

    def item(self, number: wire.Id, item: Any, cost: int) -> None:
        """What the caller sent as a stream; of a call that is over, nobody wants it."""
        call = self._open.get(number)
        if call is not None and call.input is not None:
            call.input.put(item, cost)

    def end_input(self, number: wire.Id) -> None:
        """The caller has sent all."""
        call = self._open.get(number)
        if call is not None and call.input is not None:
            call.input.end()

    def grant(self, number: wire.Id, count: int) -> None:
        """The caller takes ``count`` bytes more."""
        call = self._open.get(number)
        if call is not None and call.output is not None:
            call.output.grant(count)

    def cancel(self, number: wire.Id) -> None:
        """Tells a call that nobody waits for it; one that is over already is not found, which is no fault."""
        call = self._open.get(number)
        if call is None:
            return
        call.cancel()
        if self._loop is not None:
            self._loop.cancel(call)

    def _run(self, call: Call, function: Function, arguments: dict[str, Any]) -> Answer:
        mark = CURRENT.set(call)
        try:
            if (late := _too_late(call)) is not None:
                return late
            value = function.body(**arguments)
            if function.yields is not None:
                value = function.yields.drive(value, call.output)
            return self._answer(call, function, value)
        except BaseException as error:  # noqa: BLE001 - an author's sys.exit() must not end a worker
            return self._failure(call, function, error)
        finally:
            CURRENT.reset(mark)
            self._open.pop(call.id, None)

    async def _run_async(self, call: Call, function: Function, arguments: dict[str, Any]) -> None:
        try:
            answer: Answer = _too_late(call)
            if answer is None:
                value = function.body(**arguments)
                value = await value if isawaitable(value) else value
                if function.yields is not None:
                    value = await function.yields.drive_async(value, call.output)
                answer = self._answer(call, function, value)
        except BaseException as error:  # noqa: BLE001 - as in _run; cancellation ends here too, silently
            answer = self._failure(call, function, error)
        self._open.pop(call.id, None)
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        if isinstance(answer, Carried):
            self._connection.send_with(answer.line, answer.body)
        elif answer is not None:
            self._connection.send(answer)

    def _answer(self, call: Call, function: Function, value: Any) -> Answer:
        if call.cancelled:
            return None
        if call.output is not None:
            return wire.answer(call.id, _Result([]))
        if call.takes_bytes and function.returns_bytes and isinstance(value, bytes | bytearray | memoryview):
            return _raw(call, memoryview(value).cast("B"))
        structured = function.structured(value)
        line = wire.answer(call.id, _Result([_Text(structured.decode())], Raw(structured)))
        if wire.fits(line):
            return line
        return _refusal(
            call.id, ErrorCode.RESOURCE_EXHAUSTED, "the result is longer or deeper than the bridge takes"
        )

    def _failure(self, call: Call, function: Function, error: BaseException) -> bytes | None:
        """What an exception becomes: nothing, the host's refusal passed on, or MCP's ``isError`` result."""
        if call.cancelled:
            return None
        if isinstance(error, HostRefusedError):
            return _refusal(call.id, error.code, error.message, **error.details)
        if isinstance(error, InvalidItemError):
            return _refusal(call.id, ErrorCode.INVALID_PARAMETERS, str(error), field=error.field)
        import traceback  # noqa: PLC0415 - 9 ms that a plugin which does not fail never pays

        reason = sentence(error)
        self._log.error("".join(traceback.format_exception(error)), function=function.name)
        return wire.answer(call.id, _Result([_Text(reason)], is_error=True))


def _raw(call: Call, body: memoryview) -> Answer:
    """The answer with a result that travels as it is."""
    if len(body) > MAX_CHUNK_BYTES:
        return _refusal(
            call.id,
            ErrorCode.RESOURCE_EXHAUSTED,
            f"the result is over {MAX_CHUNK_BYTES} bytes: call it as a stream",
        )
    return Carried(wire.answer(call.id, _Result([], meta={META_BYTES: len(body)})), body)


def _refusal(request: wire.Id, reason: str, message: str, **data: Any) -> bytes:
    """The line that refuses a request for one of the bridge's own reasons, an ``ErrorCode``."""
    number = next((number for code, number in JSONRPC_NUMBER.items() if code == reason), REFUSED)
    return wire.refusal(request, number, message, {"code": reason, **data})


def _streams(call: Call) -> bool:
    return call.output is not None or call.input is not None


def _too_late(call: Call) -> bytes | None:
    """The answer to a call whose deadline passed while it waited. A cancelled one must not run either."""
    if call.cancelled:
        raise InterruptedError
    if call.expired():
        return _refusal(call.id, ErrorCode.TIMEOUT, "the deadline passed before the function could start")
    return None


def sentence(error: BaseException) -> str:
    """The exception's type and message; an author's ``__str__`` may itself be broken."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - any failure there means the same: there is no message
        message = "(no message)"
    return f"{type(error).__name__}: {message}"[:MAX_LOG_BYTES]
