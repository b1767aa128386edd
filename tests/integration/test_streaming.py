"""Streamed calls over HTTP: a real server, a plugin in a process of its own, and our own client."""

import asyncio
import itertools
import json

import httpx
import pytest

from tests.fakes.packages import make_package
from tests.fakes.serving import serving
from tests.fakes.world import PATIENCE_S as WAIT_S
from tests.fakes.world import PLUGIN, offered, world
from wirthforge_host.api import create_app
from wirthforge_host.errors import CallTimedOutError, PluginUnavailableError
from wirthforge_host.tokens.service import Scope
from wirthforge_sdk.client.host import HostClient
from wirthforge_sdk.errors import InvalidInputError, NotFoundError

CODE = """
import time
from collections.abc import AsyncIterator, Iterator
from wirthforge_sdk.runtime import Plugin, Stream

plugin = Plugin()
closed = []

@plugin.function
def count(to: int) -> Iterator[int]:
    plugin.progress(0.5, "half")
    yield from range(to)

@plugin.function
def blobs(size: int, times: int) -> Iterator[bytes]:
    for n in range(times):
        yield bytes([n % 251]) * size

@plugin.function
def fails(raw: bool) -> Iterator[bytes]:
    yield b"first"
    raise ValueError("out of bytes")

@plugin.function
def doubled(numbers: Iterator[int]) -> Iterator[int]:
    for n in numbers:
        yield 2 * n

@plugin.function
def length(data: Stream[bytes]) -> int:
    return sum(map(len, data))

@plugin.function
async def endless() -> AsyncIterator[int]:
    import asyncio
    closed.append("begun")
    try:
        yield 1
        await asyncio.Event().wait()
    finally:
        closed.append("endless")

@plugin.function
async def linger() -> bool:
    import asyncio
    closed.append("begun")
    try:
        await asyncio.Event().wait()
    finally:
        closed.append("linger")

@plugin.function
def told() -> list[str]:
    return closed
"""


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


def asked(function, /, **arguments):
    return {"plugin": PLUGIN, "function": function, "arguments": arguments}


@pytest.mark.requirement("CORE-6")
async def test_items_progress_and_the_end_come_as_lines(http, host):
    answer = await http.post("/v1/calls/stream", json=asked("count", to=3))
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[0] == {"type": "begin", "id": answer.headers["wirthforge-call"]}
    assert [line["item"] for line in lines if line["type"] == "item"] == [0, 1, 2]
    assert [line["message"] for line in lines if line["type"] == "progress"] == ["half"]
    assert lines[-1]["type"] == "end"
    assert lines[-1]["call"]["is_error"] is False
    (record,) = await host.audited("call")
    assert record.detail["items"] == {"taken": 3, "sent": 0}
    assert record.detail["code"] == "ok"


async def test_a_result_of_bytes_may_come_as_bytes(http):
    answer = await http.post(
        "/v1/calls/stream",
        json=asked("blobs", size=400_000, times=10),
        headers={"Accept": "application/octet-stream"},
    )
    assert answer.content == b"".join(bytes([n]) * 400_000 for n in range(10))


async def test_bytes_are_cut_off_where_the_call_fails(http):
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post(
            "/v1/calls/stream",
            json=asked("fails", raw=True),
            headers={"Accept": "application/octet-stream"},
        )


async def test_the_client_gives_items_and_the_answer(client):
    async with client.stream(PLUGIN, "count", {"to": 4}) as stream:
        assert [item async for item in stream] == [0, 1, 2, 3]
    assert stream.answer.is_error is False
    assert stream.progress.message == "half"


async def test_a_function_that_fails_says_so_after_what_it_yielded(client):
    async with client.stream(PLUGIN, "fails", {"raw": False}) as stream:
        assert [item async for item in stream] == [b"first"]
    assert stream.answer.is_error
    assert "out of bytes" in stream.answer.content[0]["text"]


async def numbers(values):
    for value in values:
        yield value


@pytest.mark.requirement("CORE-6")
async def test_both_ways_at_once_without_an_end_in_sight(client):
    found = []
    async with client.stream(PLUGIN, "doubled", feed=("numbers", numbers(itertools.count()))) as stream:
        async for item in stream:
            found.append(item)
            if len(found) == 2000:
                break
    assert found == [2 * n for n in range(2000)]


async def test_raw_bytes_are_fed(client):
    source = numbers([b"x" * 600_000] * 6)
    async with client.stream(PLUGIN, "length", feed=("data", source)) as stream:
        assert [item async for item in stream] == []
    assert stream.answer.structured == {"result": 3_600_000}


async def test_an_input_that_is_not_json_ends_the_call(http):
    async with http.stream(
        "POST", "/v1/calls/stream", json=asked("doubled") | {"input": "numbers"}
    ) as answer:
        call = answer.headers["wirthforge-call"]
        told = await http.post(f"/v1/calls/{call}/input", content=b"1\nnonsense\n")
        assert told.status_code == 422
        lines = [json.loads(line) async for line in answer.aiter_lines()]
    assert lines[-1]["type"] == "error"
    assert lines[-1]["problem"]["status"] == 422


async def test_only_who_made_a_call_feeds_it_and_once(http, host, at):
    async with http.stream(
        "POST", "/v1/calls/stream", json=asked("doubled") | {"input": "numbers"}
    ) as answer:
        path = f"/v1/calls/{answer.headers['wirthforge-call']}/input"
        _, other = await host.wiring.tokens.create(label="other", scopes=[Scope.CALL], by="test")
        stranger = await http.post(path, content=b"", headers={"Authorization": f"Bearer {other}"})
        assert stranger.status_code == 404
        refused = asyncio.Event()

        async def slowly():
            yield b"1\n"
            await refused.wait()
            yield b"2"

        feeding = asyncio.create_task(http.post(path, content=slowly()))
        lines = (json.loads(line) async for line in answer.aiter_lines())
        while (await anext(lines))["type"] != "item":
            continue
        assert (await http.post(path, content=b"3\n")).status_code == 409
        refused.set()
        assert (await feeding).json() == {"items": 2, "complete": True}
        assert [line["item"] async for line in lines if line["type"] == "item"] == [4]


@pytest.mark.requirement("CORE-6")
@pytest.mark.parametrize("function", ["endless", "linger"])
async def test_an_application_that_hangs_up_cancels_the_function(http, host, function):
    path = "/v1/calls/stream" if function == "endless" else "/v1/calls"
    calling = asyncio.create_task(http.post(path, json=asked(function)))
    async with asyncio.timeout(WAIT_S):
        while (await host.call("told")).structured != {"result": ["begun"]}:
            continue
        calling.cancel()
        while (await host.call("told")).structured != {"result": ["begun", function]}:
            continue


async def test_a_silent_plugin_and_a_slow_one_meet_their_deadlines(client):
    for limits in ({"idle_s": 0.2}, {"timeout_s": 0.2}):
        async with client.stream(PLUGIN, "endless", **limits) as stream:
            items = aiter(stream)
            assert await anext(items) == 1
            with pytest.raises(CallTimedOutError):
                await anext(items)


async def test_what_is_not_let_in_is_recorded_too(client, host):
    host.wiring.reconciler.live(PLUGIN).gate.close()
    with pytest.raises(PluginUnavailableError):
        async with client.stream(PLUGIN, "count", {"to": 1}):
            pass
    (record,) = await host.audited("call")
    assert (record.outcome, record.detail["code"]) == ("failed", "plugin_unavailable")


async def test_what_is_not_there_is_refused_before_anything_is_streamed(client):
    with pytest.raises(NotFoundError):
        async with client.stream(PLUGIN, "nothing"):
            pass
    with pytest.raises(InvalidInputError):
        async with client.stream(PLUGIN, "count", {"to": "x"}) as stream:
            [item async for item in stream]
