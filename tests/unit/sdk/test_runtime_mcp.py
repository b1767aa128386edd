"""The official MCP client drives the runtime, in both eras: a plugin is an MCP server."""

import asyncio
from contextlib import asynccontextmanager

import anyio
import mcp_types as types
import pytest
from mcp import Client, MCPError
from mcp.shared.message import SessionMessage

from tests.unit.sdk.runtime_peer import PATIENCE_S, process_for, project

PLUGIN = """
import asyncio, threading
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function(read_only=True, open_world=False)
def add(a: int, b: int = 2) -> int:
    "Adds."
    return a + b

@plugin.function
async def split(text: str) -> dict[str, list[str]]:
    return {"words": text.split()}

@plugin.function
def fail() -> None:
    raise ValueError("out of milk")

began, ended = threading.Event(), threading.Event()

@plugin.function
async def hang() -> None:
    began.set()
    try:
        await asyncio.Event().wait()
    finally:
        ended.set()

@plugin.function
def has_begun() -> bool:
    return began.wait(5)

@plugin.function
def has_ended() -> bool:
    return ended.wait(5)
"""


@asynccontextmanager
async def over_lines(stream):
    """The framing of MCP's stdio transport on a connected socket, as the client's own does on pipes."""
    reader, writer = await asyncio.open_connection(sock=stream, limit=2**22)
    to_client, incoming = anyio.create_memory_object_stream(16)
    outgoing, from_client = anyio.create_memory_object_stream(16)

    async def receive():
        async with to_client:
            while line := await reader.readline():
                await to_client.send(SessionMessage(types.jsonrpc_message_adapter.validate_json(line)))

    async def send():
        async with from_client:
            async for message in from_client:
                writer.write(
                    message.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"
                )
                await writer.drain()

    try:
        async with anyio.create_task_group() as tasks, incoming, outgoing:
            tasks.start_soon(receive)
            tasks.start_soon(send)
            yield incoming, outgoing
            tasks.cancel_scope.cancel()
    finally:
        writer.close()


@pytest.fixture
def stream(tmp_path):
    with process_for(project(tmp_path, PLUGIN)) as (_, stream):
        stream.settimeout(0)
        yield stream


@pytest.fixture(params=["auto", "legacy", "2026-07-28"])
def client(stream, request):
    return Client(over_lines(stream), mode=request.param, read_timeout_seconds=PATIENCE_S)


async def test_it_lists_the_functions_with_schemas_and_hints(client):
    async with client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {"add", "split", "fail", "hang", "has_begun", "has_ended"}
    assert tools["add"].description == "Adds."
    assert tools["add"].annotations.read_only_hint is True
    assert tools["add"].annotations.open_world_hint is False
    assert tools["add"].output_schema["properties"] == {"result": {"type": "integer"}}


async def test_it_calls_functions_and_their_results_fit_their_schemas(client):
    async with client:
        await client.list_tools()  # from here the client checks every result against its schema
        assert (await client.call_tool("add", {"a": 1})).structured_content == {"result": 3}
        words = await client.call_tool("split", {"text": "a b"})
    assert words.structured_content == {"words": ["a", "b"]}
    assert words.content[0].text == '{"words":["a","b"]}'


async def test_a_failure_is_an_error_result_and_not_an_exception(client):
    async with client:
        result = await client.call_tool("fail", {})
    assert result.is_error is True
    assert result.content[0].text == "ValueError: out of milk"


async def test_wrong_arguments_and_unknown_functions_are_protocol_errors(client):
    async with client:
        with pytest.raises(MCPError, match="Expected `int`"):
            await client.call_tool("add", {"a": "one"})
        with pytest.raises(MCPError, match="no function 'nothing'"):
            await client.call_tool("nothing", {})


async def test_giving_a_call_up_cancels_it(client):
    async with client:
        call = asyncio.create_task(client.call_tool("hang", {}))
        assert (await client.call_tool("has_begun", {})).structured_content == {"result": True}
        call.cancel()
        assert (await client.call_tool("has_ended", {})).structured_content == {"result": True}


async def test_the_automatic_client_finds_the_modern_era(stream):
    async with Client(over_lines(stream), mode="auto", read_timeout_seconds=PATIENCE_S) as client:
        assert client.session.discover_result.supported_versions == ["2026-07-28"]


async def test_the_legacy_client_gets_the_newest_legacy_revision(stream):
    async with Client(over_lines(stream), mode="legacy", read_timeout_seconds=PATIENCE_S) as client:
        assert client.session.initialize_result.protocol_version == "2025-11-25"
