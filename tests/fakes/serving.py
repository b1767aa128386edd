"""An application of ours on a port of its own, served as our servers serve it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from socket import socket
from typing import Any

import uvicorn

from wirthforge_sdk.serving.process import server_config

PATIENCE_S = 10


class _Server(uvicorn.Server):
    """Says when it listens, and leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = asyncio.Event()
        self.capture_signals = nullcontext  # type: ignore[method-assign]

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()


@asynccontextmanager
async def serving(app: Any, *, grace_s: int = 0) -> AsyncIterator[str]:
    """The address at which ``app`` answers; what still runs at the end gets ``grace_s`` seconds, if any."""
    server = _Server(server_config(app, host="127.0.0.1", port=0, timeout_graceful_shutdown=grace_s or None))
    task = asyncio.create_task(server.serve())
    await asyncio.wait_for(server.listens.wait(), PATIENCE_S)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = not grace_s
        await task
