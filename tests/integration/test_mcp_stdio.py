"""The bridge between a client's standard input and output and the host's endpoint."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from tests.fakes.mcp_host import ECHO, ERASE, HOLD, PLUGIN, request, running_tools
from wirthforge_sdk.client.connection import Connection
from wirthforge_sdk.client.mcp_stdio import MAX_OPEN, StdioBridge
from wirthforge_sdk.contracts.bridge import META_CAPABILITIES, META_PROTOCOL, MODERN
from wirthforge_sdk.contracts.wire import MAX_BODY_BYTES

BOUND_S = 10
ENVELOPE = {META_PROTOCOL: MODERN, META_CAPABILITIES: {}}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


class Client:
    """Who starts the bridge: writes lines to it, and reads what it writes."""

    def __init__(self):
        self.input, self.output = asyncio.Queue(), asyncio.Queue()

    async def lines(self):
        while (line := await self.input.get()) is not None:
            yield line

    async def write(self, message):
        assert b"\n" not in message
        await self.output.put(json.loads(message))

    def say(self, message):
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.input.put_nowait(line + b"\n")

    async def hear(self):
        return await asyncio.wait_for(self.output.get(), BOUND_S)

    async def ask(self, method, params=None, id=1):  # noqa: A002
        self.say(request(method, params or {}, id=id))
        return await self.hear()

    async def greet(self):
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        }
        answer = await self.ask("initialize", params, id=0)
        self.say(INITIALIZED)
        return answer


@asynccontextmanager
async def bridge(served, *, token=None):
    """A client, and the bridge at work for it."""
    secret = token or await served.token("call:demo/tools")
    connection = Connection(served.address, service="host", remedy="start it", token=secret, transport=None)
    client = Client()
    working = asyncio.create_task(StdioBridge(connection, client.write).run(client.lines()))
    try:
        yield client
    finally:
        client.input.put_nowait(None)
        await asyncio.wait_for(working, BOUND_S)
        await connection.close()


@pytest.fixture
async def served(tmp_path):
    async with running_tools(tmp_path / "h") as opened:
        yield opened


@pytest.fixture
async def client(served):
    async with bridge(served) as opened:
        yield opened


async def test_a_conversation_ends_its_session_when_its_input_ends(served):
    async with bridge(served) as client:
        assert (await client.greet())["result"]["protocolVersion"] == "2025-11-25"
        assert len((await client.ask("tools/list"))["result"]["tools"]) == 5
        assert len(served.host.wiring.mcp._sessions) == 1
    assert len(served.host.wiring.mcp._sessions) == 0


async def test_a_host_that_forgot_the_session_is_greeted_again_and_the_client_only_told_to_list_anew(
    served, client
):
    await client.greet()
    await client.ask("ping")
    served.host.wiring.mcp._sessions.end_all()
    client.say(request("tools/call", {"name": ECHO, "arguments": {"text": "hi"}}, id=7))
    heard = [await client.hear(), await client.hear()]
    assert {each.get("method") for each in heard} == {"notifications/tools/list_changed", None}
    [answer] = [each for each in heard if "id" in each]
    assert (answer["id"], answer["result"]["structuredContent"]) == (7, {"result": "hi"})
    await served.host.disable(PLUGIN)  # and what is told unasked is heard again
    assert (await client.hear())["method"] == "notifications/tools/list_changed"


async def test_calls_are_answered_in_any_order(served, client, tmp_path):
    await client.greet()
    file = tmp_path / "go"
    client.say(request("tools/call", {"name": HOLD, "arguments": {"file": str(file)}}, id="slow"))
    await served.host.logged("holding", plugin=PLUGIN)
    assert (await client.ask("ping", id="fast"))["id"] == "fast"
    file.touch()
    assert (await client.hear())["id"] == "slow"


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_cancellation_reaches_the_plugin(served, client, tmp_path, era):
    meta = {"_meta": ENVELOPE} if era == "modern" else {}
    if era == "legacy":
        await client.greet()
    arguments = {"file": str(tmp_path / "never")}
    client.say(request("tools/call", {"name": HOLD, "arguments": arguments, **meta}, id=3))
    await served.host.logged("holding", plugin=PLUGIN)
    client.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3, **meta}})
    await served.host.logged("told to stop", plugin=PLUGIN)
    assert (await client.ask("tools/list", meta, id=4))["id"] == 4


async def test_a_modern_client_discovers_and_calls(client):
    found = await client.ask("server/discover", {"_meta": ENVELOPE})
    assert found["result"]["supportedVersions"] == [MODERN]
    told = await client.ask("tools/call", {"name": ECHO, "arguments": {"text": "hi"}, "_meta": ENVELOPE})
    assert told["result"]["structuredContent"] == {"result": "hi"}
    unknown = await client.ask("tools/call", {"name": "nöne", "arguments": {}, "_meta": ENVELOPE})
    assert unknown["error"]["code"] == -32602


async def test_what_is_wrong_is_answered_and_the_conversation_goes_on(client):
    client.say(b"{")
    assert (await client.hear())["error"]["code"] == -32700
    client.say(b"[]")
    assert (await client.hear())["error"]["code"] == -32600
    client.say(json.dumps(request("x", {"a": "y" * MAX_BODY_BYTES}, id=5)).encode())
    assert (await client.hear())["id"] == 5
    refused = await client.ask("ping", id=6)
    assert (refused["id"], refused["error"]["code"]) == (6, -32000)  # nobody greeted
    await client.greet()
    assert (await client.ask("ping"))["result"] == {}


async def test_a_host_that_refuses_the_token_or_is_gone_is_an_error_that_says_so(served):
    revoked = await served.token("call")
    [token] = [each for each in await served.host.wiring.tokens.every() if each.label == "a model"]
    await served.host.wiring.tokens.revoke(token.id, by="test")
    async with bridge(served, token=revoked) as client:
        answer = await client.ask("initialize", {"protocolVersion": "2025-11-25"})
        assert "token" in answer["error"]["message"]
    served.address = "http://127.0.0.1:9"
    async with bridge(served, token=revoked) as client:
        assert "not reachable" in (await client.ask("ping"))["error"]["message"]


async def test_more_requests_than_may_be_open_wait_and_are_all_answered(served, client):
    await client.greet()
    for number in range(3 * MAX_OPEN):
        client.say(request("ping", {}, id=number))
    assert {(await client.hear())["id"] for _ in range(3 * MAX_OPEN)} == set(range(3 * MAX_OPEN))


@pytest.mark.requirement("BEY-1")
async def test_a_call_that_waits_for_a_yes_tells_its_progress_and_then_the_functions(served, client):
    await client.greet()
    asked = {"name": ERASE, "arguments": {"name": "x"}, "_meta": {"progressToken": "p"}}
    client.say(request("tools/call", asked, id=2))
    waiting = await client.hear()
    assert (waiting["method"], waiting["params"]["progressToken"]) == ("notifications/progress", "p")
    await served.approve_pending()
    erasing = await client.hear()
    reached = waiting["params"]["progress"]
    expected = {"progressToken": "p", "progress": reached + 1, "total": reached + 2, "message": "erased"}
    assert erasing["params"] == expected
    assert (await client.hear())["result"]["structuredContent"] == {"result": "erased x"}


@pytest.mark.requirement("BEY-1")
async def test_what_a_function_says_of_its_progress_reaches_who_gave_a_token_while_it_works(client, tmp_path):
    await client.greet()
    asked = {"name": HOLD, "arguments": {"file": str(tmp_path / "go")}}
    client.say(request("tools/call", asked | {"_meta": {"progressToken": 7}}, id=2))
    told = await client.hear()
    assert told["params"] == {"progressToken": 7, "progress": 0.5, "total": 1.0, "message": "holding"}
    (tmp_path / "go").touch()
    assert (await client.hear())["result"]["structuredContent"] == {"result": "released"}
    client.say(request("tools/call", asked, id=3))
    assert (await client.hear())["id"] == 3, "nobody asked how far it is"
