"""The processes around a call over HTTP: the peer, what the peer asks, and the client of both.

``echo`` and ``proxy ADDRESS`` print the address they serve. ``client`` reads a line of JSON for each round, and answers
with the seconds that it took.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from functools import partial
from typing import Any

import httpx
import uvicorn
import uvloop
from fastapi import FastAPI
from pydantic import BaseModel

from wirthforge_sdk.serving.process import server_config


class CallIn(BaseModel):
    """As much as the host's own model asks."""

    plugin: str
    function: str
    arguments: dict[str, Any] = {}


class CallOut(BaseModel):
    """What the endpoint answers."""

    result: Any


def proxy(echo: str) -> FastAPI:
    """The endpoint; its client keeps its connections, as many as there are calls."""
    app = FastAPI()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.AsyncClient(base_url=echo, limits=limits)

    @app.post("/v1/calls")
    async def call(body: CallIn) -> CallOut:
        answer = await client.post("/", json=body.arguments)
        answer.raise_for_status()
        return CallOut(result=answer.json())

    return app


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    """Gives back the body it got."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message.get("more_body", False)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def serve(app: Any) -> None:
    """Serves ``app`` as our own servers are served, and prints where."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        await uvicorn.Server(server_config(app)).serve([listening])


class Caller(asyncio.Protocol):
    """One connection, one call after another: no more than a client has to do."""

    def __init__(self, request: bytes, calls: int) -> None:
        self._request = request
        self._left = calls
        self._got = b""
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Makes the first call."""
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Makes the next call when an answer is complete."""
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            return
        self._left -= 1
        if not head.startswith(b"HTTP/1.1 200") or not self._left:
            self._transport.close()
            return
        self._got = b""
        self._transport.write(self._request)

    def connection_lost(self, _: Exception | None) -> None:
        """Tells what came of it."""
        self.done.set_result(self._got if self._left else None)


async def round_of(asked: dict[str, Any]) -> float | str:
    """The seconds of one round, or the answer that was none."""
    body = json.dumps(asked["body"]).encode()
    head = "".join(
        f"{name}: {value}\r\n" for name, value in {**asked["headers"], "Content-Length": len(body)}.items()
    )
    request = f"POST /v1/calls HTTP/1.1\r\nHost: bench\r\n{head}\r\n".encode() + body
    loop = asyncio.get_running_loop()
    callers = [Caller(request, asked["calls"]) for _ in range(asked["connections"])]
    began = time.perf_counter()
    for caller in callers:
        await loop.create_connection(partial(next, iter([caller])), "127.0.0.1", asked["port"])
    wrong = await asyncio.gather(*(caller.done for caller in callers))
    seconds = time.perf_counter() - began
    return next((each.decode() for each in wrong if each is not None), seconds)


async def client() -> None:
    """Makes the rounds it is asked for."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await round_of(json.loads(line))), flush=True)


if __name__ == "__main__":
    role = sys.argv[1]
    work = client() if role == "client" else serve(echo if role == "echo" else proxy(sys.argv[2]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)
