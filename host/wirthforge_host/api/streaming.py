"""Streamed calls over HTTP: what comes, as lines of JSON or raw bytes; what follows, as a second request's body."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import AsyncExitStack
from typing import Annotated, Any, TypeVar, cast

import msgspec
from fastapi import APIRouter, Header, Path, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from wirthforge_host.api.security import Caller, Wired
from wirthforge_host.bridge.stream import Happening, Item
from wirthforge_host.plugins.streaming import StreamedCall
from wirthforge_sdk.contracts.bridge import MAX_CALL_BYTES, too_deep
from wirthforge_sdk.contracts.problem import problem_of
from wirthforge_sdk.contracts.streams_api import CALL_HEADER, LINES, RAW, InputOut, StreamIn, StreamLine
from wirthforge_sdk.errors import InvalidInputError, UnavailableError, WirthForgeError

router = APIRouter(prefix="/v1")

INPUT_PATH = "/v1/calls/[0-9a-f]{32}/input"
"""Whose body has no bound: it is read as the plugin takes it."""

LISTEN_AFTER_S = 0.05
"""After which it is listened whether who called has hung up: most calls are over by then, and need no task for it."""

CallId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
Answer = TypeVar("Answer")

_encode = msgspec.json.encode


class Streamed(StreamingResponse):
    """A response that ends its call when it ends, however that is."""

    media_type = LINES

    def __init__(
        self, call: StreamedCall, content: AsyncIterator[bytes], form: str, ending: AsyncExitStack
    ) -> None:
        super().__init__(
            content, media_type=form, headers={CALL_HEADER: call.id, "Cache-Control": "no-store"}
        )
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        async with self._ending:
            await super().__call__(scope, receive, send)


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": f"A line for each thing that happens, or with `Accept: {RAW}` the bytes of the result "
        "alone, cut off where the call fails. Hanging up cancels the call.",
        "content": {RAW: {"schema": {"type": "string", "format": "binary"}}},
        "model": StreamLine,
    }
}


@router.post("/calls/stream", status_code=200, tags=["calls"], response_class=Streamed, responses=_ANSWERS)
async def stream(
    body: StreamIn, operator: Caller, wiring: Wired, accept: Annotated[str, Header()] = LINES
) -> Streamed:
    """Calls one function of a plugin and answers with what it yields, as it comes."""
    async with AsyncExitStack() as stack:
        call = await stack.enter_async_context(wiring.streaming.opened(body, operator))
        is_raw = accept.partition(";")[0].strip().lower() == RAW
        content = _raw(call) if is_raw else _lines(call)
        return Streamed(call, content, RAW if is_raw else LINES, stack.pop_all())
    raise AssertionError  # for type checkers: nothing above is suppressed


_INPUT = {
    "requestBody": {
        "required": True,
        "content": {
            LINES: {"schema": {"type": "string"}, "description": "An item a line."},
            RAW: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post("/calls/{call_id}/input", tags=["calls"], openapi_extra=_INPUT)
async def feed(
    call_id: CallId,
    request: Request,
    operator: Caller,
    wiring: Wired,
    content_type: Annotated[str, Header()] = LINES,
) -> InputOut:
    """Feeds the argument that a streamed call said would follow; read no faster than the plugin takes it."""
    is_raw = content_type.partition(";")[0].strip().lower() == RAW
    body = _body(request)
    return await wiring.streaming.feed(call_id, body if is_raw else _items(body), operator)


async def unless_gone(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """What ``work`` returns; it is cancelled when who asked hangs up."""
    asking = _Asking(request)
    timer = asyncio.get_running_loop().call_later(LISTEN_AFTER_S, asking.listen)
    try:
        return await work
    except asyncio.CancelledError:
        if asking.is_gone and asking.task.uncancel() == 0:
            raise UnavailableError("nobody waits for the answer any more") from None
        raise
    finally:
        timer.cancel()
        asking.end()


class _Asking:
    """Whoever asked, and whether they still do."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._listening: asyncio.Task[None] | None = None
        self.task = cast("asyncio.Task[Any]", asyncio.current_task())
        self.is_gone = False

    def listen(self) -> None:
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            continue
        self.is_gone = True
        self.task.cancel()

    def end(self) -> None:
        if self._listening is not None:
            self._listening.cancel()


async def _lines(call: StreamedCall) -> AsyncGenerator[bytes]:
    yield _line({"type": "begin", "id": call.id})
    try:
        async for happening in call:
            yield _line(_told(happening))
        outcome = await call.outcome()
    except WirthForgeError as error:
        yield _line({"type": "error", "problem": problem_of(error).model_dump(mode="json")})
    else:
        yield _line({"type": "end", "call": outcome})


async def _raw(call: StreamedCall) -> AsyncGenerator[bytes]:
    """The bytes alone. An error breaks the body off: HTTP has no other way to say so once it has begun."""
    async for happening in call:
        if isinstance(happening, bytes):
            yield happening
        elif isinstance(happening, Item):
            raise InvalidInputError(f"the function yields JSON: ask for {LINES}", field="Accept")
    outcome = await call.outcome()
    if outcome.is_error:
        raise UnavailableError("the function failed after it began to answer")


def _told(happening: Happening) -> dict[str, Any]:
    if isinstance(happening, bytes):
        return {"type": "chunk", "base64": b64encode(happening).decode()}
    if isinstance(happening, Item):
        return {"type": "item", "item": happening.value}
    told = {"progress": happening.progress, "total": happening.total, "message": happening.message}
    return {"type": "progress", **told}


def _line(told: dict[str, Any]) -> bytes:
    return _encode(told) + b"\n"


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect:
        raise InvalidInputError("its input broke off", field="input") from None


async def _items(body: AsyncIterator[bytes]) -> AsyncIterator[Any]:
    rest = b""
    async for chunk in body:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_CALL_BYTES:
            raise InvalidInputError(f"a line is over {MAX_CALL_BYTES} bytes", field="input")
        for line in lines:
            if line.strip():
                yield _item(line)
    if rest.strip():
        yield _item(rest)


def _item(line: bytes) -> Any:
    if too_deep(line):
        raise InvalidInputError("an item is nested too deep", field="input")
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInputError("a line of the input is not JSON in UTF-8", field="input") from None
