"""MCP over streamable HTTP, at ``/mcp``: headers and streams. What is said is decided in ``wirthforge_host.mcp``."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request, Response
from starlette.types import Receive, Scope, Send

from wirthforge_host.api.security import Wired, operator_of
from wirthforge_host.mcp.answers import Answer, Flow, Visitor
from wirthforge_host.mcp.protocol import STATUS, RefusedError
from wirthforge_host.tokens.service import Operator
from wirthforge_sdk.errors import PermissionDeniedError, UnauthenticatedError

router = APIRouter(tags=["mcp"], include_in_schema=False)

BEAT_S: Final = 15.0
"""How often a silent stream says that it lives, and its token is looked at."""
RETRY_MS: Final = 1_000
"""When a client that lost a stream shall ask for the rest."""


async def _visitor(
    request: Request, caller: Annotated[Operator, Depends(operator_of)], wiring: Wired
) -> Visitor:
    """Who asks: a token that may call something, from no page of a browser elsewhere.

    Raises:
        PermissionDeniedError: The token is for no calls, or the page's host is not this machine: a name that a
            stranger's DNS made this machine's (DNS rebinding) looks like the same origin.
    """
    if "call" not in caller.scopes and not caller.tools:
        raise PermissionDeniedError("this token lacks the scope 'call'", scope="call")
    origin = request.headers.get("origin")
    if origin is not None and not _is_local(origin):
        raise PermissionDeniedError("requests from pages of another host are refused")
    secret = request.headers["authorization"].partition(" ")[2].strip()

    def still_good() -> bool:
        try:
            return wiring.tokens.authenticate(secret) == caller
        except UnauthenticatedError:
            return False

    return Visitor(caller, still_good)


Visiting = Annotated[Visitor, Depends(_visitor)]


@router.post("/mcp")
async def mcp_message(request: Request, visitor: Visiting, wiring: Wired) -> Response:
    """One message of a client."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return _refused(RefusedError(-32600, "the body is application/json", status=415))
    if not (_accepts(request, "application/json") and _accepts(request, "text/event-stream")):
        return _refused(RefusedError(-32600, "accept application/json and text/event-stream", status=406))
    body = await request.body()
    try:
        _check_single(request)
        found = wiring.mcp.post(body, request.headers, visitor)
    except RefusedError as refusal:
        return _refused(refusal)
    if isinstance(found, Flow):
        return _Flowing(found, lambda: wiring.mcp.greeted.is_alive(request.headers, visitor))
    return _whole(found)


@router.get("/mcp")
async def mcp_stream(request: Request, visitor: Visiting, wiring: Wired) -> Response:
    """What the server says unasked, or the rest of an answer whose connection broke (``Last-Event-ID``)."""
    if not _accepts(request, "text/event-stream"):
        return _refused(RefusedError(-32600, "accept text/event-stream", status=406))
    try:
        found = wiring.mcp.greeted.read_on(request.headers, visitor)
    except RefusedError as refusal:
        return _refused(refusal)
    return _Flowing(found, lambda: wiring.mcp.greeted.is_alive(request.headers, visitor))


@router.delete("/mcp")
async def mcp_end(request: Request, visitor: Visiting, wiring: Wired) -> Response:
    """Ends a session."""
    try:
        wiring.mcp.greeted.end(request.headers, visitor)
    except RefusedError as refusal:
        return _refused(refusal)
    return Response(status_code=204)


class _Flowing(Response):
    """Server-sent events, or one JSON document when that was all and came soon."""

    def __init__(self, flow: Flow, is_alive: Callable[[], bool]) -> None:
        super().__init__(media_type="text/event-stream")
        self._flow = flow
        self._is_alive = is_alive
        self._reader = flow.stream.take()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 (ASGI's)
        """Sends until all is sent, nobody reads, or the token is not good any more."""
        tasks = {asyncio.create_task(self._send(send)), asyncio.create_task(_gone(receive))}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._flow.gone()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        flow, at = self._flow, self._flow.after
        if flow.patience_s and (only := await self._only(flow.patience_s)) is not None:
            await self._begin(send, b"application/json")
            await send({"type": "http.response.body", "body": only})
            return
        await self._begin(send, b"text/event-stream")
        if flow.is_primed and flow.name is not None and not at:
            await _body(send, f"id: {flow.name}-0\nretry: {RETRY_MS}\ndata: \n\n".encode())
        wait_s = 0.0  # a client waits for a first byte, not for the first message
        while (new := await flow.stream.after(at, self._reader, wait_s)) is not None and self._is_alive():
            for number, message in new:
                at = number
                await _body(send, _event(message, f"{flow.name}-{number}" if flow.name else None))
            if not new:
                await _body(send, b": \n\n")
            wait_s = BEAT_S
        await send({"type": "http.response.body", "body": b""})

    async def _only(self, patience_s: float) -> bytes | None:
        """The message that is the whole answer, if that is so within ``patience_s``."""
        stream = self._flow.stream
        first = await stream.after(0, self._reader, patience_s)
        return first[0][1] if first and len(first) == 1 and stream.ended else None

    async def _begin(self, send: Send, kind: bytes) -> None:
        headers = [(b"content-type", kind), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})


def _event(message: bytes, number: str | None) -> bytes:
    head = f"id: {number}\n".encode() if number else b""
    return head + b"event: message\ndata: " + message + b"\n\n"


async def _body(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _whole(answer: Answer) -> Response:
    headers = {"Cache-Control": "no-store"} | ({"Mcp-Session-Id": answer.session} if answer.session else {})
    return Response(answer.body, answer.status, headers, "application/json" if answer.body else None)


def _refused(refusal: RefusedError) -> Response:
    status = refusal.status or STATUS.get(refusal.number, 200)
    return Response(refusal.line(refusal.id), status, media_type="application/json")


def _accepts(request: Request, kind: str) -> bool:
    named = {each.partition(";")[0].strip().lower() for each in request.headers.get("accept", "").split(",")}
    return not named.isdisjoint({kind, "*/*", f"{kind.partition('/')[0]}/*"})


def _check_single(request: Request) -> None:
    """Of a header that decides where a request goes, two readers could take two values."""
    for name in ("mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id"):
        if len(request.headers.getlist(name)) > 1:
            raise RefusedError(-32020, f"the header {name} is there more than once")


def _is_local(origin: str) -> bool:
    try:
        host = urlsplit(origin).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
