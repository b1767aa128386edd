"""Bytes of a call over HTTP: a real server, a plugin in a process of its own, our own client, and MCP."""

import base64
import json

import httpx
import pytest

from tests.fakes.packages import make_package
from tests.fakes.serving import serving
from tests.fakes.world import PATIENCE_S as WAIT_S
from tests.fakes.world import PLUGIN, offered, world
from wirthforge_host.api import create_app
from wirthforge_host.tokens.service import Scope
from wirthforge_sdk.client.host import HostClient
from wirthforge_sdk.contracts.bridge import MAX_CHUNK_BYTES, MODERN
from wirthforge_sdk.errors import InvalidInputError

CODE = """
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()
made = []

@plugin.function(inline=True)
def echo(data: bytes) -> bytes:
    return data

@plugin.function
def length(data: bytes, plus: int = 0) -> int:
    return len(data) + plus

@plugin.function(read_only=True, open_world=False, cache_s=60)
def kept(data: bytes) -> bytes:
    made.append(1)
    return data + bytes(made)

@plugin.function
def fails(data: bytes) -> bytes:
    raise ValueError("out of bytes")
"""
RAW = "application/octet-stream"
BODY = bytes(range(256)) * (MAX_CHUNK_BYTES // 256)


@pytest.fixture
async def host(tmp_path):
    async with world(tmp_path / "h", make_package(PLUGIN, functions=offered(CODE), source=CODE)) as opened:
        await opened.install()
        yield opened


@pytest.fixture
async def at(host):
    async with serving(create_app(host.wiring)) as url:
        _, secret = await host.wiring.tokens.create(label="t", scopes=[Scope.CALL], by="test")
        yield url, secret


@pytest.fixture
async def client(at):
    async with HostClient(*at) as opened:
        yield opened


@pytest.fixture
async def http(at):
    headers = {"Authorization": f"Bearer {at[1]}"}
    async with httpx.AsyncClient(base_url=at[0], headers=headers, trust_env=False, timeout=WAIT_S) as opened:
        yield opened


def asked(function, **more):
    told = {"plugin": PLUGIN, "function": function, **more}
    return {"WirthForge-Call": json.dumps(told), "Content-Type": RAW}


@pytest.mark.requirement("CORE-6")
async def test_a_body_is_an_argument_and_the_answer_is_what_the_function_returned(http, host):
    answer = await http.post("/v1/calls/raw", content=BODY, headers=asked("echo", input="data"))
    assert answer.content == BODY
    assert answer.headers["content-type"] == RAW
    (record,) = await host.audited("call")
    assert record.detail["call"] == answer.headers["wirthforge-call"]
    assert record.detail["arguments"] == {"data": f"bytes({len(BODY)})"}
    assert record.detail["code"] == "ok"


async def test_our_client_gives_bytes_or_the_whole_answer(client):
    assert await client.call_raw(PLUGIN, "echo", body=("data", BODY)) == BODY
    assert await client.call_raw(PLUGIN, "echo", body=("data", b"")) == b""
    told = await client.call_raw(PLUGIN, "length", {"plus": 1}, body=("data", b"abc"))
    assert told.structured == {"result": 4}
    failed = await client.call_raw(PLUGIN, "fails", body=("data", b"x"))
    assert failed.is_error
    assert "out of bytes" in failed.content[0]["text"]


async def test_who_calls_in_json_has_base64_of_the_same(client, http):
    text = base64.b64encode(b"\x00\xff").decode()
    assert (await client.call(PLUGIN, "echo", {"data": text})).structured == {"result": text}
    assert await client.call_raw(PLUGIN, "echo", {"data": text}) == b"\x00\xff"


async def test_an_mcp_client_has_them_as_a_resource_in_the_answer(http):
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    name = PLUGIN.replace("/", "__") + "__kept"
    params = {"name": name, "arguments": {"data": "AP8="}, "_meta": meta}
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": MODERN,
        "Mcp-Method": "tools/call",
        "Mcp-Name": name,
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    answer = await http.post("/mcp", json=message, headers=headers)
    result = json.loads(answer.text.rpartition("data: ")[2])["result"]
    assert result["structuredContent"] == {"result": "AP8B"}
    ((content),) = result["content"]
    assert content["type"] == "resource"
    assert content["resource"]["blob"] == "AP8B"
    assert content["resource"]["mimeType"] == RAW
    assert content["resource"]["uri"].startswith("wirthforge://calls/")


async def test_what_was_returned_before_is_returned_again_however_it_was_asked_for(client, http):
    first = await client.call_raw(PLUGIN, "kept", body=("data", b"abc"))
    assert first == b"abc\x01"
    assert await client.call_raw(PLUGIN, "kept", body=("data", b"abc")) == first
    again = await client.call(PLUGIN, "kept", {"data": "YWJj"})
    assert again.cached
    assert base64.b64decode(again.structured["result"]) == first
    assert await client.call_raw(PLUGIN, "kept", body=("data", b"abd")) == b"abd\x01\x01"


@pytest.mark.parametrize(
    ("headers", "body", "status", "field"),
    [
        (asked("echo"), b"x", 422, "WirthForge-Call.input"),
        (asked("echo", input="data", arguments={"data": "x"}), b"x", 422, "WirthForge-Call.input"),
        (asked("echo", input="data", other=1), b"x", 422, "WirthForge-Call.other"),
        ({"WirthForge-Call": "no json"}, b"x", 422, "WirthForge-Call"),
        (asked("echo", input="other"), b"x", 422, None),
        ({}, b"x", 422, None),
        (asked("echo", input="data"), BODY + b"x", 413, None),
    ],
)
async def test_what_is_wrong_is_told_and_nothing_is_called(http, host, headers, body, status, field):
    answer = await http.post("/v1/calls/raw", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if field is not None:
        assert field in answer.text
        assert not await host.audited("call")


async def test_a_token_that_may_not_call_gets_nothing(at, host):
    _, secret = await host.wiring.tokens.create(label="r", scopes=[Scope.READ], by="test")
    headers = {**asked("echo", input="data"), "Authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=at[0], trust_env=False, timeout=WAIT_S) as http:
        assert (await http.post("/v1/calls/raw", content=b"x", headers=headers)).status_code == 403


async def test_our_client_says_what_is_wrong(client):
    with pytest.raises(InvalidInputError, match="takes no bytes"):
        await client.call_raw(PLUGIN, "length", body=("plus", b"x"))
