"""MCP on standard input and output, for clients that start a program: each message goes to the host's ``/mcp``.

The client's messages are passed on as they are. What HTTP needs beside them is taken from them: headers, a session, and
the stream of what the host says unasked. A host that forgot the session (it was restarted) is greeted again.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import httpx

from wirthforge_sdk.client.connection import Connection, Request
from wirthforge_sdk.client.events import read_events
from wirthforge_sdk.contracts.bridge import INVALID_REQUEST, MAX_MESSAGE_BYTES, META_PROTOCOL, PARSE_ERROR
from wirthforge_sdk.contracts.wire import MAX_BODY_BYTES
from wirthforge_sdk.errors import UnavailableError, WirthForgeError

MAX_OPEN: Final = 64
"""Requests of the client that are open; with more, its next line waits."""
SILENCE_S: Final = 60.0
"""Longest silence of a stream: a host that lives says so every quarter of a minute."""
MAX_EVENT_BYTES: Final = MAX_MESSAGE_BYTES + 4096
"""A result of a plugin, in its envelope."""
RETRY_S: Final = 1.0
HOST_FAILED: Final = -32000

Message = dict[str, Any]
_JSON: Final = (400, 404, 406, 429)
"""Statuses whose body may be JSON-RPC's own error."""


class StdioBridge:
    """One client's conversation.

    Args:
        connection: To the host, with the token.
        write: Writes one message to the client.
    """

    def __init__(self, connection: Connection, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._connection = connection
        self._write = write
        self._session: dict[str, str] = {}
        self._greeting: bytes = b""
        self._open: dict[str, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(MAX_OPEN)
        self._news: asyncio.Task[None] | None = None

    async def run(self, lines: AsyncIterator[bytes]) -> None:
        """Passes messages both ways until the client's input ends."""
        try:
            async for line in lines:
                if line.strip():
                    await self._take(line)
        finally:
            tasks = [*self._open.values(), *([self._news] if self._news else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._session:
                with suppress(WirthForgeError):  # it ends by itself in half an hour
                    await self._connection.tell(Request("DELETE", "/mcp", headers=self._session, timeout_s=2))

    async def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            await self._fail(None, PARSE_ERROR, "a line is not JSON in UTF-8")
            return
        if not isinstance(message, dict) or len(line) > MAX_BODY_BYTES:
            problem = f"a line is one message of at most {MAX_BODY_BYTES} bytes"
            await self._fail(
                message.get("id") if isinstance(message, dict) else None, INVALID_REQUEST, problem
            )
        elif "id" not in message or "method" not in message:
            await self._pass_on(message, line)
        elif message["method"] == "initialize":
            self._greeting = line
            await self._exchange(message, line)
        else:
            await self._room.acquire()
            key = json.dumps(message["id"])
            task = self._open[key] = asyncio.create_task(self._exchange(message, line))
            task.add_done_callback(lambda _: self._settled(key, task))

    def _settled(self, key: str, task: asyncio.Task[None]) -> None:
        self._room.release()
        if self._open.get(key) is task:
            del self._open[key]

    async def _pass_on(self, message: Message, line: bytes) -> None:
        """Sends what gets no answer; since 2026-07-28 a request is cancelled by ending its connection."""
        params = message.get("params")
        number = params.get("requestId") if isinstance(params, dict) else None
        if message.get("method") == "notifications/cancelled" and not self._session:
            if task := self._open.get(json.dumps(number)):
                task.cancel()
            return
        with suppress(WirthForgeError):  # nobody waits for an answer to say it in
            await self._connection.tell(self._request(message, line))
        if message.get("method") == "notifications/initialized":
            self._follow()

    async def _exchange(self, message: Message, line: bytes) -> None:
        try:
            if await self._relayed(message, line):
                return
            await self._greet_again()
            if not await self._relayed(message, line):
                raise UnavailableError("the host does not keep the session: start the client again")
        except WirthForgeError as error:
            await self._fail(message["id"], HOST_FAILED, error.message)

    async def _relayed(self, message: Message, line: bytes) -> bool:
        """Sends a request and writes what comes; False when the host knows no such session."""
        async with self._connection.opened(self._request(message, line)) as response:
            if response.status_code == 404 and self._session and message["method"] != "initialize":  # noqa: PLR2004
                return False
            if message["method"] == "initialize" and "mcp-session-id" in response.headers:
                self._session = {"Mcp-Session-Id": response.headers["mcp-session-id"]}
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                async for event in read_events(response.aiter_bytes(), MAX_EVENT_BYTES):
                    if event.data.strip():
                        await self._write(event.data.encode())
                return True
            await self._write_whole(message, await response.aread(), response)
        return True

    async def _write_whole(self, message: Message, body: bytes, response: httpx.Response) -> None:
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or "jsonrpc" not in answer:
            detail = answer.get("detail") if isinstance(answer, dict) else None
            raise UnavailableError(str(detail or f"the host answered with status {response.status_code}"))
        if answer.get("id") is None:
            answer["id"] = message["id"]
        if message["method"] == "initialize" and isinstance(answer.get("result"), dict):
            self._session["MCP-Protocol-Version"] = str(answer["result"].get("protocolVersion"))
        await self._write(json.dumps(answer).encode())

    async def _greet_again(self) -> None:
        request = self._request({"method": "initialize"}, self._greeting)
        async with self._connection.opened(request) as response:
            if "mcp-session-id" not in response.headers:
                raise UnavailableError("the host does not greet again: start the client again")
            self._session["Mcp-Session-Id"] = response.headers["mcp-session-id"]
        initialized = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
        await self._connection.tell(self._request({"method": "notifications/initialized"}, initialized))
        self._follow()
        await self._write(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}')

    def _follow(self) -> None:
        if self._news is not None:
            self._news.cancel()
        self._news = asyncio.create_task(self._tell_news())

    async def _tell_news(self) -> None:
        """Writes what the host says unasked, for as long as it knows the session."""
        last: dict[str, str] = {}
        while True:
            headers = {"Accept": "text/event-stream", **self._session, **last}
            with suppress(UnavailableError):  # it comes back, or the next request says that it does not
                request = Request("GET", "/mcp", headers=headers, timeout_s=SILENCE_S, accept=_JSON)
                async with self._connection.opened(request) as response:
                    if response.status_code in _JSON:
                        return
                    async for event in read_events(response.aiter_bytes(), MAX_EVENT_BYTES):
                        last = {"Last-Event-ID": event.id} if event.id else last
                        await self._write(event.data.encode())
            await asyncio.sleep(RETRY_S)

    def _request(self, message: Message, line: bytes) -> Request:
        headers = {
            "Accept": "application/json, text/event-stream",
            "Content-Type": "application/json",
            **(_modern_headers(message) or self._session),
        }
        if message.get("method") == "initialize":
            headers.pop("Mcp-Session-Id", None)
        return Request(
            "POST", "/mcp", content=_once(line), headers=headers, timeout_s=SILENCE_S, accept=_JSON
        )

    async def _fail(self, number: Any, code: int, problem: str) -> None:
        error = {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": problem}}
        await self._write(json.dumps(error).encode())


def _modern_headers(message: Message) -> dict[str, str]:
    """What HTTP says of a request since 2026-07-28, beside its body; empty for one from before."""
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    version = meta.get(META_PROTOCOL) if isinstance(meta, dict) else None
    if not isinstance(params, dict) or not isinstance(version, str):
        return {}
    headers = {"MCP-Protocol-Version": version, "Mcp-Method": str(message.get("method"))}
    if message.get("method") == "tools/call" and isinstance(params.get("name"), str):
        headers["Mcp-Name"] = params["name"]
    return {name: _visible(value) for name, value in headers.items()}


def _visible(value: str) -> str:
    """``value`` as a header can carry it (MCP 2026-07-28, streamable HTTP)."""
    if value.isascii() and value.isprintable() and value == value.strip() and not value.startswith("=?"):
        return value
    return f"=?base64?{base64.b64encode(value.encode(errors='replace')).decode()}?="


async def _once(line: bytes) -> AsyncIterator[bytes]:
    yield line
