"""A host that serves MCP over HTTP, and clients of it: raw ones, and the official SDKs of both lines."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.packages import make_package
from tests.fakes.serving import serving
from tests.fakes.world import World, offered, world, world_on_engine
from wirthforge_host.api import create_app
from wirthforge_sdk.client.events import ServerEvent, read_events
from wirthforge_sdk.contracts.bridge import META_CAPABILITIES, META_CLIENT, META_PROTOCOL, MODERN

ROOT = Path(__file__).parents[2]
OLD_SDK = "mcp==1.30.0"
"""The last line that knows ``initialize`` alone; the workspace has the other."""

SOURCE = """
import time
from pathlib import Path
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()


@plugin.function(read_only=True, destructive=False, open_world=False)
def echo(text: str) -> str:
    "Says what it was told."
    return text


@plugin.function(read_only=True, destructive=False, open_world=False)
def fail(text: str) -> str:
    "Says that it failed."
    raise ValueError(text)


@plugin.function(destructive=False, open_world=False, timeout_s=30)
def hold(file: str) -> str:
    "Waits for a file, or until nobody waits for it."
    plugin.log.info("holding")
    plugin.progress(0.5, "holding")
    while not plugin.cancelled():
        if Path(file).exists():
            return "released"
        time.sleep(0.005)
    plugin.log.info("told to stop")
    return "stopped"


@plugin.function
def erase(name: str) -> str:
    "Erases something, or so it says."
    plugin.progress(1, "erased", total=2)
    return f"erased {name}"


@plugin.function(read_only=True, destructive=False, open_world=False)
def keep(key: str) -> bool:
    "Needs a permission."
    plugin.storage.set(key, 1)
    return True
"""
PLUGIN = "demo/tools"
ECHO, ERASE, HOLD, FAIL, KEEP = (f"demo__tools__{name}" for name in ("echo", "erase", "hold", "fail", "keep"))


def package(name: str = PLUGIN, **more: Any) -> bytes:
    """A package of :data:`SOURCE`."""
    return make_package(name, **{"source": SOURCE, "functions": offered(SOURCE), **more})


@cache
def old_sdk() -> Path:
    """The interpreter of an environment with the SDK's 1.x line; made once, and kept beside the other caches."""
    place = ROOT / ".cache" / "mcp-1"
    python = place / "bin" / "python"
    made = place / OLD_SDK
    if not made.exists():
        uv = ["uv", "--no-progress", "--quiet"]
        subprocess.run([*uv, "venv", "--clear", "--python", "3.11", place], check=True, timeout=300)
        subprocess.run([*uv, "pip", "install", "--python", python, OLD_SDK], check=True, timeout=300)
        made.touch()
    return python


@dataclass
class McpHost:
    """A host with a port, and tokens of its own."""

    host: World
    address: str
    app: Any
    """What serves."""

    @property
    def url(self) -> str:
        return f"{self.address}/mcp"

    async def token(self, *scopes: str, label: str = "a model") -> str:
        """A secret that is good for ``scopes``."""
        _, secret = await self.host.wiring.tokens.create(label=label, scopes=scopes, by="test")
        return secret

    async def approve_pending(self, *, always: bool = False, yes: bool = True) -> str:
        """Decides on the next call that waits, once there is one; returns who asked."""
        approvals = self.host.wiring.mcp.approvals
        async with asyncio.timeout(10), self.host.wiring.events.subscribe() as events:
            while not approvals.pending():
                await anext(events)
        call = approvals.pending()[0]
        if yes:
            await approvals.approve(call.id, self.host.operator, always=always)
        else:
            await approvals.deny(call.id, self.host.operator)
        return call.caller


@asynccontextmanager
async def mcp_host(
    directory: Path,
    *packages: bytes,
    real: bool = False,
    wrap: Callable[[Any], Any] = lambda app: app,
    **options: Any,
) -> AsyncIterator[McpHost]:
    """A host whose plugins are installed and run, on a port of its own; ``real``: in containers."""
    opened = world_on_engine if real else world
    async with opened(directory, *packages, **options) as host:
        app = wrap(create_app(host.wiring))
        async with serving(app, grace_s=1) as address:
            yield McpHost(host, address, app)


@asynccontextmanager
async def running_tools(
    directory: Path, *packages: bytes, grant: Iterable[str] = (), **options: Any
) -> AsyncIterator[McpHost]:
    """The same with :func:`package` at work."""
    async with mcp_host(directory, *(packages or (package(),)), **options) as served:
        await served.host.install(PLUGIN)
        if grant:
            await served.host.approve(*grant, plugin=PLUGIN)
        yield served


class RawClient:
    """A client that says exactly what a test wants said."""

    def __init__(self, served: McpHost, token: str) -> None:
        self.served = served
        self.http = httpx.AsyncClient(
            base_url=served.address,
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"},
            timeout=20,
            trust_env=False,
        )
        self.session: dict[str, str] = {}

    async def post(self, message: Any, **headers: str) -> httpx.Response:
        content = message if isinstance(message, bytes) else json.dumps(message).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(
            "/mcp", content=content, headers={"Content-Type": "application/json", **self.session, **named}
        )

    async def greet(self, revision: str = "2025-11-25", **capabilities: Any) -> httpx.Response:
        """Begins a session, and goes on in it."""
        params = {
            "protocolVersion": revision,
            "capabilities": capabilities,
            "clientInfo": {"name": "t", "version": "1"},
        }
        answer = await self.post(request("initialize", params, id=0))
        self.session = {"Mcp-Session-Id": answer.headers["mcp-session-id"]}
        await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    async def ask(self, method: str, params: dict[str, Any] | None = None, *, id: Any = 1) -> dict[str, Any]:  # noqa: A002
        """The answer to a request of the session, however it comes."""
        return replies(await self.post(request(method, params or {}, id=id)))[-1]

    async def modern(self, method: str, params: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
        """The answer to a request of 2026-07-28; ``more`` are other headers, and ``capabilities``."""
        message, headers = modern_request(method, params, **more)
        return await self.post(message, **headers)

    @asynccontextmanager
    async def stream(self, **headers: str) -> AsyncIterator[AsyncIterator[ServerEvent]]:
        """The events of ``GET /mcp``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.stream("GET", "/mcp", headers={**self.session, **named}) as response:
            assert response.status_code == 200, await response.aread()
            yield read_events(response.aiter_bytes())

    async def close(self) -> None:
        await self.http.aclose()


def request(method: str, params: dict[str, Any], *, id: Any = 1) -> dict[str, Any]:  # noqa: A002
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


def modern_request(
    method: str, params: dict[str, Any] | None = None, **more: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """A request of 2026-07-28 and its headers; ``more`` are other headers, and ``capabilities``."""
    given = dict(params or {})
    given["_meta"] = {
        META_PROTOCOL: MODERN,
        META_CLIENT: {"name": "t", "version": "1"},
        META_CAPABILITIES: more.pop("capabilities", {}),
        **given.get("_meta", {}),
    }
    named = {"mcp-protocol-version": MODERN, "mcp-method": method}
    if "name" in given:
        named["mcp-name"] = given["name"]
    return request(method, given), {**named, **more}


def replies(response: httpx.Response) -> list[dict[str, Any]]:
    """The messages of an answer, whether it is JSON or a stream."""
    if response.headers["content-type"].startswith("application/json"):
        return [response.json()]
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


@asynccontextmanager
async def raw_client(served: McpHost, *scopes: str) -> AsyncIterator[RawClient]:
    """A client with a token of its own."""
    client = RawClient(served, await served.token(*(scopes or ("call",))))
    try:
        yield client
    finally:
        await client.close()


def clean_environment() -> dict[str, str]:
    """For a client's process."""
    return {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/root")}
