"""What a plugin may try with raw bytes after an answer: a breach that is counted, or the end of its connection."""

import asyncio
import gc
import json
import tracemalloc

import pytest

from tests.fakes.plugin_peer import WAIT_S
from wirthforge_host.bridge import connection
from wirthforge_host.bridge.connection import MAX_BREACHES
from wirthforge_host.errors import CallTimedOutError, PluginFailedError, PluginUnavailableError
from wirthforge_sdk.contracts.bridge import MAX_CHUNK_BYTES, MAX_HEADER_BYTES, MAX_IN_FLIGHT, MODERN
from wirthforge_sdk.errors import InvalidInputError

KNOWS = {"experimental": {"wf/bodies": {}}}


async def open_session(bridged, capabilities):
    opening = asyncio.create_task(bridged.session.open(timeout_s=WAIT_S))
    asked = await bridged.peer.received("server/discover")
    bridged.peer.answer(asked, {"supportedVersions": [MODERN], "capabilities": capabilities})
    await opening


def calling(bridged, timeout_s=WAIT_S, **arguments):
    call = bridged.session.call("f", arguments, timeout_s=timeout_s, call_id="c")
    return asyncio.create_task(call)


def answer(number, count, **more):
    result = {"content": [], "_meta": {"wf/bytes": count}, **more}
    return json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode() + b"\n"


async def outcome(task):
    async with asyncio.timeout(WAIT_S):
        return await task


async def breaches(bridged):
    return [record.detail["reason"] for record in await bridged.recorded("bridge.breach")]


async def alive(bridged):
    """Proves that a call is still answered."""
    task = calling(bridged)
    call = await bridged.peer.received("tools/call")
    bridged.peer.answer(call, {"content": [], "structuredContent": {"well": True}})
    assert (await outcome(task)).structured == {"well": True}


async def ended(bridged, reason):
    assert await bridged.peer.hung_up()
    async with asyncio.timeout(WAIT_S):
        await bridged.lost.wait()
    assert reason in (await breaches(bridged))[-1]


@pytest.fixture
async def opened(bridged):
    await open_session(bridged, KNOWS)
    return bridged


@pytest.mark.requirement("CORE-6")
async def test_raw_bytes_come_with_an_answer_and_go_with_a_call(opened):
    task = calling(opened, data=b"\n\x00" * 3, n=1)
    call = await opened.peer.received("tools/call")
    assert call["params"]["arguments"] == {"n": 1}
    assert call["params"]["_meta"]["wf/body"] == {"input": "data"}
    assert call["params"]["_meta"]["wf/bytes"] == 6
    assert await opened.peer._reader.readexactly(6) == b"\n\x00" * 3
    opened.peer.writer.write(answer(call["id"], 4) + b"\n\n\n\n")
    assert (await outcome(task)).structured == {"result": b"\n\n\n\n"}
    await alive(opened)


async def test_who_knows_no_raw_bytes_gets_base64(bridged):
    await open_session(bridged, {})
    task = calling(bridged, data=b"abc")
    call = await bridged.peer.received("tools/call")
    assert call["params"]["arguments"] == {"data": "YWJj"}
    assert "wf/body" not in call["params"]["_meta"]
    bridged.peer.writer.write(answer(call["id"], 3) + b"abc")
    with pytest.raises(PluginUnavailableError, match="malformed"):
        await outcome(task)
    assert "who takes none" in (await breaches(bridged))[-1]
    await alive(bridged)


async def test_bytes_that_are_too_many_or_have_too_much_beside_them_are_refused_before_they_are_sent(opened):
    with pytest.raises(InvalidInputError, match="stream"):
        await outcome(calling(opened, data=b"x" * (MAX_CHUNK_BYTES + 1)))
    with pytest.raises(InvalidInputError, match="beside raw bytes"):
        await outcome(calling(opened, data=b"x", text="y" * MAX_HEADER_BYTES))
    await alive(opened)


@pytest.mark.requirement("CORE-6")
@pytest.mark.parametrize("count", [-1, MAX_CHUNK_BYTES + 1, 2**70, 1.5, "1", None, True, [1]])
async def test_a_lie_about_the_bytes_of_an_answer_ends_the_connection(opened, count):
    task = calling(opened)
    call = await opened.peer.received("tools/call")
    opened.peer.writer.write(answer(call["id"], count))
    await ended(opened, "wf/bytes")
    with pytest.raises(PluginUnavailableError):
        await outcome(task)


@pytest.mark.requirement("CORE-6")
async def test_bytes_that_are_announced_and_never_come_end_the_connection(opened, monkeypatch):
    monkeypatch.setattr(connection, "LINE_S", 0.1)
    task = calling(opened)
    call = await opened.peer.received("tools/call")
    opened.peer.writer.write(answer(call["id"], 100) + b"x" * 99)
    await ended(opened, "not complete")
    with pytest.raises(PluginUnavailableError):
        await outcome(task)


async def test_a_call_whose_bytes_are_on_their_way_ends_at_its_deadline_and_they_are_dropped(opened):
    task = calling(opened, timeout_s=0.05)
    call = await opened.peer.received("tools/call")
    opened.peer.writer.write(answer(call["id"], 100) + b"x" * 99)
    with pytest.raises(CallTimedOutError):
        await outcome(task)
    await opened.peer.received("notifications/cancelled")
    opened.peer.writer.write(b"x")
    await alive(opened)
    assert not await breaches(opened)


async def test_fewer_bytes_than_announced_take_what_follows_with_them(opened):
    task = calling(opened)
    call = await opened.peer.received("tools/call")
    opened.peer.writer.write(answer(call["id"], 50) + b"short")
    opened.peer.writer.write(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n' + b"x" * 4)
    found = (await outcome(task)).structured["result"]
    assert bytes(found).startswith(b'short{"jsonrpc"')
    assert len(found) == 50
    await alive(opened)


async def test_more_bytes_than_announced_are_lines_that_are_none(opened):
    task = calling(opened)
    call = await opened.peer.received("tools/call")
    opened.peer.writer.write(answer(call["id"], 2) + b"abcd\n")
    assert (await outcome(task)).structured == {"result": b"ab"}
    told = await opened.peer.receive()
    assert told["error"]["code"] == -32700
    await alive(opened)
    assert len(await breaches(opened)) == 1


async def test_bytes_with_what_takes_none_are_breaches_and_end_the_connection(opened):
    for number in range(MAX_BREACHES):
        params = {"_meta": {"wf/bytes": 3}}
        opened.peer.send({"jsonrpc": "2.0", "id": number, "method": "host/config.get", "params": params})
        opened.peer.writer.write(b"abc")
    await ended(opened, "takes none")


async def test_bytes_with_a_failure_are_no_answer(opened):
    task = calling(opened)
    call = await opened.peer.received("tools/call")
    opened.peer.writer.write(answer(call["id"], 3, isError=True) + b"abc")
    with pytest.raises(PluginFailedError, match="that it failed"):
        await outcome(task)
    await alive(opened)


async def test_answers_with_bytes_to_nobody_are_breaches(opened):
    opened.peer.writer.write((answer(1, MAX_CHUNK_BYTES) + b"x" * MAX_CHUNK_BYTES) * 3)
    await alive(opened)
    assert len(await breaches(opened)) == 3


@pytest.mark.requirement("CORE-6")
async def test_what_is_announced_costs_its_bound_and_no_more_however_often_it_is_sent(opened):
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(MAX_BREACHES - 1):
            await opened.peer.send_all(answer(1, MAX_CHUNK_BYTES) + b"x" * MAX_CHUNK_BYTES)
        await opened.peer.send_all(answer(1, MAX_CHUNK_BYTES))
        await opened.recorded("bridge.breach")
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # One that is awaited, and what the test's own end has not sent.
    assert after - before < 4 * MAX_CHUNK_BYTES


async def test_a_plugin_that_reads_nothing_is_given_no_more_than_what_may_wait(opened):
    waiting = [calling(opened, data=b"x" * MAX_CHUNK_BYTES) for _ in range(MAX_IN_FLIGHT)]
    async with asyncio.timeout(WAIT_S):
        done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
    assert "does not read" in str(next(iter(done)).exception())
    assert len(pending) < 64
    opened.peer.close()
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*waiting, return_exceptions=True)
