"""The official SDK as a program: ``python mcp_sdk_client.py {…}`` does one round of all, and tells by line what it saw.

It runs with the SDK's 1.x line and with 2.x, so it imports nothing of ours. What it is told: ``url`` and ``token``, or
``command``; ``era``: ``old`` (1.x), ``legacy`` or ``modern`` (2.x in either mode).
"""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

ASKED = json.loads(sys.argv[1])
PREFIX = "demo__tools__"


def tell(what: str, **more: Any) -> None:
    print(json.dumps({"saw": what, **more}), flush=True)


def plain(result: Any) -> dict[str, Any]:
    """A result as it was on the wire."""
    found: dict[str, Any] = result.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {key: found.get(key) for key in ("content", "structuredContent", "isError")}


@asynccontextmanager
async def transport():
    async with AsyncExitStack() as stack:
        if "url" in ASKED:
            http = create_mcp_http_client(headers={"Authorization": f"Bearer {ASKED['token']}"})
            await stack.enter_async_context(http)
            yield await stack.enter_async_context(streamable_http_client(ASKED["url"], http_client=http))
        else:
            command, *args = ASKED["command"]
            program = StdioServerParameters(command=command, args=args, env=ASKED["environment"])
            yield await stack.enter_async_context(stdio_client(program))


class Old:
    """What 1.x and the handshake of 2.x offer."""

    def __init__(self, session: ClientSession, changed: anyio.Event) -> None:
        self.session, self.changed = session, changed

    async def names(self) -> list[str]:
        found, cursor = [], None
        while True:
            page = await self.session.list_tools(cursor)
            found += [tool.name for tool in page.tools]
            cursor = page.nextCursor
            if not cursor:
                return found

    async def call(self, name: str, arguments: dict[str, Any], progress: Any = None) -> Any:
        return await self.session.call_tool(PREFIX + name, arguments, progress_callback=progress)

    async def wait_for_change(self) -> None:
        tell("waiting")
        await self.changed.wait()


class New:
    """What 2.x offers since 2026-07-28."""

    def __init__(self, client: Any, changed: anyio.Event) -> None:
        self.client, self.changed = client, changed

    async def names(self) -> list[str]:
        found, cursor = [], None
        while True:
            page = await self.client.list_tools(cursor=cursor)
            found += [tool.name for tool in page.tools]
            cursor = page.next_cursor
            if not cursor:
                return found

    async def call(self, name: str, arguments: dict[str, Any], progress: Any = None) -> Any:
        return await self.client.call_tool(PREFIX + name, arguments, progress_callback=progress)

    async def wait_for_change(self) -> None:
        if self.client.protocol_version < "2026-07-28":
            tell("waiting")
            await self.changed.wait()
            return
        async with self.client.listen(tools_list_changed=True) as events:
            tell("waiting")
            async for _ in events:
                return


@asynccontextmanager
async def connected():
    changed = anyio.Event()

    async def heard(message: Any) -> None:
        told = getattr(message, "root", message)
        if type(told).__name__ == "ToolListChangedNotification":
            changed.set()

    if ASKED["era"] == "old":
        async with transport() as streams, ClientSession(*streams[:2], message_handler=heard) as session:
            begun = await session.initialize()
            tell("connected", revision=begun.protocolVersion, server=begun.serverInfo.name)
            yield Old(session, changed)
    else:
        from mcp import Client  # noqa: PLC0415 (1.x has none)

        mode = "legacy" if ASKED["era"] == "legacy" else "auto"
        # The transport is entered by the client itself.
        async with Client(transport(), mode=mode, message_handler=heard) as client:
            tell("connected", revision=client.protocol_version, server=client.server_info.name)
            yield New(client, changed)


async def main() -> None:
    async with connected() as client:
        tell("listed", names=await client.names())
        tell("echoed", result=plain(await client.call("echo", {"text": "hi"})))
        tell("failed", result=plain(await client.call("fail", {"text": "out of milk"})))
        tell("refused", result=plain(await client.call("echo", {"wrong": 1})))
        told: list[str] = []

        async def progress(_done: float, _total: float | None, message: str | None) -> None:
            told.append(message or "")

        tell("asking")
        tell("erased", result=plain(await client.call("erase", {"name": "x"}, progress)), told=told)
        await client.wait_for_change()
        tell("changed", names=await client.names())
    tell("done")


if __name__ == "__main__":
    anyio.run(main)
