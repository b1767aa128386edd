"""The host as an MCP server on standard input and output."""

# ruff: noqa: PLC0415 (what is slow to import is imported by the command that needs it)

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from wirthforge_sdk.cli.output import Answer
from wirthforge_sdk.cli.services import required_token
from wirthforge_sdk.cli.settings import load_settings

MAX_LINE = 4 * 1024 * 1024


async def serve() -> AsyncIterator[Answer]:
    """Serve the host's tools to an MCP client that starts programs, over standard input and output.

    Uses the address and token of `wirthforge login`, or of WIRTHFORGE_HOST_URL and WIRTHFORGE_HOST_TOKEN_FILE. The
    token decides which tools there are. Ends when its input does.
    """
    from wirthforge_sdk.client.connection import Connection
    from wirthforge_sdk.client.mcp_stdio import StdioBridge

    service = load_settings().host
    token = required_token(service)
    connection = Connection(service.url, service="host", remedy="is it running?", token=token, transport=None)
    reader = asyncio.StreamReader(limit=MAX_LINE)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    try:
        await StdioBridge(connection, _write).run(reader)
    finally:
        await connection.close()
    nothing: tuple[Answer, ...] = ()
    for answer in nothing:  # stdout has the protocol alone
        yield answer


async def _write(message: bytes) -> None:
    def blocking() -> None:
        sys.stdout.buffer.write(message + b"\n")
        sys.stdout.buffer.flush()

    await asyncio.to_thread(blocking)
