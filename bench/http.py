"""A call over the HTTP API, beside an endpoint that passes calls on to a process without a sandbox.

Ours is ``POST /v1/calls`` of the host as it is served, to an inline function in its container: token, gate, deadline,
metrics, audit record. The peer is what people write who keep plugins behind HTTP: a FastAPI endpoint with models for
what comes and goes, served in the same way, that asks an echo with httpx over connections that stay. Rounds of the two
alternate, made by one client; it, the peer and the peer's echo are processes of their own.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import uvicorn

from bench import bridge
from bench.figures import Figure, alone, at_least, beside, percentile
from bench.ground import OPERATOR, BenchError, Ground
from wirthforge_host.api import create_app
from wirthforge_host.tokens.service import Scope
from wirthforge_sdk.serving.process import server_config

NAME = "http"
PEER = "FastAPI, httpx, echo"
BODY = {"plugin": bridge.PLUGIN, "function": "inline", "arguments": {"text": "x" * bridge.SMALL}}
ROUNDS = 12
CALLS = {1: 300, 16: 40}
"""Of each connection in a round, by the number of connections."""
PATIENCE_S = 60.0

packages = bridge.packages


async def measure(ground: Ground) -> list[Figure]:
    """Calls a second, over one connection and over many."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(ground.wiring.running())
        await ground.wiring.installer.install(bridge.PLUGIN, OPERATOR)
        gc.collect()
        gc.freeze()  # as the host's program does
        port = await stack.enter_async_context(_served(ground))
        echo = await stack.enter_async_context(_program("echo"))
        proxy = await stack.enter_async_context(_program("proxy", await _line(echo)))
        client = await stack.enter_async_context(_program("client"))
        _, secret = await ground.wiring.tokens.create(label="bench", scopes={Scope.CALL}, by="bench")
        ours = {"port": port, "headers": {"Authorization": f"Bearer {secret}"}}
        peer: dict[str, Any] = {"port": urlsplit(await _line(proxy)).port, "headers": {}}
        return [await _compared(ground, client, ours, peer, connections) for connections in CALLS]


async def _compared(
    ground: Ground, client: Process, ours: dict[str, Any], peer: dict[str, Any], connections: int
) -> Figure:
    rates: tuple[list[float], list[float]] = [], []
    for asked in (ours, peer):
        await _rate(client, asked, connections)
    for _ in ground.rounds(f"{NAME}, {connections} connections", ROUNDS):
        for asked, found in zip((ours, peer), rates, strict=True):
            found.append(await _rate(client, asked, connections))
            await ground.wiring.audit.flush()
    figure = alone(
        f"{NAME}.inline.100B.{connections}.rate", percentile(rates[0], 50), "calls/s", n=len(rates[0])
    )
    return beside(figure, PEER, percentile(rates[1], 50), at_least(3))


async def _rate(client: Process, asked: dict[str, Any], connections: int) -> float:
    calls = CALLS[connections]
    headers = {"Content-Type": "application/json", **asked["headers"]}
    line = {**asked, "headers": headers, "body": BODY, "connections": connections, "calls": calls}
    assert client.stdin is not None
    client.stdin.write(json.dumps(line).encode() + b"\n")
    took = json.loads(await _line(client))
    if isinstance(took, str):
        raise BenchError(f"a call over HTTP was not answered with 200: {took[:300]}")
    return connections * calls / float(took)


@asynccontextmanager
async def _served(ground: Ground) -> AsyncIterator[int]:
    """The host's API, at a port."""
    server = uvicorn.Server(server_config(create_app(ground.wiring)))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve([listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


@asynccontextmanager
async def _program(*arguments: str) -> AsyncIterator[Process]:
    """One of ``bench.http_programs`` in a process, ended at the end."""
    command = ("-m", "bench.http_programs", *arguments)
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdin=PIPE, stdout=PIPE)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def _line(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_S):
        line = await process.stdout.readline()
    if not line:
        raise BenchError("a process of the benchmark ended; its message stands above")
    return line.decode().strip()
