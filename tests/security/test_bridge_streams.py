"""What a plugin may try with streams: an answer, a breach that is counted, or the end of its connection.

Every attack ends with a proof that the host is well, or that the connection is over and recorded.
"""

import asyncio
import gc
import json
import tracemalloc

import pytest

from tests.fakes.plugin_peer import WAIT_S
from wirthforge_host.bridge import connection
from wirthforge_host.bridge.connection import MAX_BREACHES
from wirthforge_host.bridge.stream import Item
from wirthforge_host.errors import CallTimedOutError, PluginFailedError
from wirthforge_sdk.contracts.bridge import (
    MAX_CALL_BYTES,
    MAX_CHUNK_BYTES,
    MAX_CREDIT_BYTES,
    MAX_HEADER_BYTES,
    MAX_STREAMS,
    MODERN,
    WINDOW_BYTES,
)
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError


def item(number, seq, value=None):
    params = {"requestId": number, "seq": seq, "item": value}
    return json.dumps({"jsonrpc": "2.0", "method": "wf/item", "params": params}).encode()


def head(number, seq, count):
    params = {"requestId": number, "seq": seq, "_meta": {"wf/bytes": count}}
    return json.dumps({"jsonrpc": "2.0", "method": "wf/item", "params": params}).encode()


class Opened:
    """A streamed call, and the number by which the plugin knows it."""

    def __init__(self, bridged, stream, number):
        self.bridged = bridged
        self.stream = stream
        self.number = number

    async def breaches(self):
        return [record.detail["reason"] for record in await self.bridged.recorded("bridge.breach")]

    async def failed(self, reason):
        """Proves that the call failed, the breach was counted, the plugin told, and all else goes on."""
        with pytest.raises(PluginFailedError, match="broke the protocol"):
            await answer(self.stream)
        cancelled = await self.bridged.peer.received("notifications/cancelled")
        assert cancelled["params"]["requestId"] == self.number
        assert reason in (await self.breaches())[-1]
        await alive(self.bridged)


async def answer(stream):
    async with asyncio.timeout(WAIT_S):
        return await stream.answer()


async def alive(bridged):
    task = asyncio.create_task(bridged.session.call("alive", {}, timeout_s=WAIT_S, call_id="c"))
    while (message := await bridged.peer.receive()) is not None:
        if message.get("params", {}).get("name") == "alive":
            bridged.peer.answer(message, {"structuredContent": {"n": 1}})
            break
    assert (await task).structured == {"n": 1}


async def ended(bridged, reason):
    assert await bridged.peer.hung_up()
    async with asyncio.timeout(WAIT_S):
        await bridged.lost.wait()
    found = await bridged.recorded("bridge.breach")
    assert found[-1].detail["connection_ended"] is True
    assert reason in found[-1].detail["reason"]


async def open_session(bridged, capabilities):
    opening = asyncio.create_task(bridged.session.open(timeout_s=WAIT_S))
    asked = await bridged.peer.received("server/discover")
    bridged.peer.answer(asked, {"supportedVersions": [MODERN], "capabilities": capabilities})
    await opening


@pytest.fixture
async def opened(bridged):
    await open_session(bridged, {"experimental": {"wf/streams": {}}})
    stream = bridged.session.stream("f", {}, timeout_s=WAIT_S, idle_s=WAIT_S, call_id="s", input_name="data")
    async with stream:
        call = await bridged.peer.received("tools/call")
        assert call["params"]["_meta"]["wf/stream"] == {"credit": WINDOW_BYTES, "input": "data"}
        yield Opened(bridged, stream, call["id"])


async def test_what_a_plugin_sends_is_told_in_order_and_answered(opened):
    opened.bridged.peer.send(item(opened.number, 0, {"a": 1}))
    opened.bridged.peer.writer.write(
        head(opened.number, 1, 3) + b"\n" + b"\n{x" + item(opened.number, 2, "é") + b"\n"
    )
    opened.bridged.peer.send({"jsonrpc": "2.0", "id": opened.number, "result": {"content": []}})
    async with asyncio.timeout(WAIT_S):
        assert [each async for each in opened.stream] == [Item({"a": 1}), b"\n{x", Item("é")]
    assert await answer(opened.stream) == {"content": []}
    assert not await opened.breaches()


async def test_a_server_that_does_not_know_streams_never_hears_of_them(bridged):
    await open_session(bridged, {"tools": {}})
    with pytest.raises(InvalidInputError, match="takes no streams"):
        bridged.session.stream("f", {}, timeout_s=1, idle_s=1, call_id="s", input_name="data")
    async with bridged.session.stream("f", {}, timeout_s=WAIT_S, idle_s=WAIT_S, call_id="s") as stream:
        call = await bridged.peer.received("tools/call")
        assert "wf/stream" not in call["params"]["_meta"]
        bridged.peer.answer(call, {"content": []})
        assert [each async for each in stream] == []


@pytest.mark.requirement("CORE-6")
@pytest.mark.parametrize("seq", [1, -1, 2**62])
async def test_an_item_out_of_order_is_a_breach_and_ends_the_call(opened, seq):
    opened.bridged.peer.send(item(opened.number, seq))
    await opened.failed("out of order")


async def test_the_same_item_twice_is_a_breach(opened):
    opened.bridged.peer.send(item(opened.number, 0), item(opened.number, 0))
    await opened.failed("out of order")


@pytest.mark.requirement("CORE-6")
async def test_an_item_beyond_the_credit_is_a_breach_and_ends_the_call(opened):
    body = b"x" * MAX_CHUNK_BYTES
    for seq in range(2):
        await opened.bridged.peer.send_all(head(opened.number, seq, len(body)) + b"\n" + body)
    await opened.failed("beyond its credit")


@pytest.mark.requirement("CORE-6")
async def test_items_for_a_call_that_was_never_made_are_breaches_and_end_the_connection(bridged):
    for _ in range(MAX_BREACHES):
        bridged.peer.send(item(12345, 0))
    await ended(bridged, "of no stream")


async def test_an_item_after_the_end_is_a_breach(opened):
    done = {"jsonrpc": "2.0", "id": opened.number, "result": {"content": []}}
    opened.bridged.peer.send(item(opened.number, 0, 1), done, item(opened.number, 1, 2))
    async with asyncio.timeout(WAIT_S):
        assert [each async for each in opened.stream] == [Item(1)]
    await alive(opened.bridged)
    assert ["of no stream" in reason for reason in await opened.breaches()] == [True]


@pytest.mark.requirement("CORE-6")
async def test_what_was_on_its_way_when_a_call_was_given_up_is_forgiven_as_far_as_its_credit(opened):
    await opened.stream.__aexit__()
    await opened.bridged.peer.received("notifications/cancelled")
    half = b"x" * (WINDOW_BYTES // 2)
    for seq in range(2):
        await opened.bridged.peer.send_all(head(opened.number, seq, len(half)) + b"\n" + half)
    await alive(opened.bridged)
    assert not await opened.breaches()
    opened.bridged.peer.send(item(opened.number, 2))
    await alive(opened.bridged)
    assert len(await opened.breaches()) == 1


@pytest.mark.parametrize(
    "params",
    [
        {"seq": 0, "item": 1},
        {"requestId": "x", "seq": 0, "item": 1},
        {"requestId": 1, "seq": "0", "item": 1},
        {"requestId": 1, "seq": 0},
        {"requestId": 2**70, "seq": 0, "item": 1},
        {"requestId": True, "seq": 0, "item": 1},
    ],
)
async def test_an_item_that_is_none_is_a_breach(bridged, params):
    bridged.peer.notify("wf/item", **params)
    await alive(bridged)
    assert len(await bridged.recorded("bridge.breach")) == 1


async def test_an_item_over_the_bound_is_a_breach(opened):
    await opened.bridged.peer.send_all(item(opened.number, 0, "x" * MAX_CALL_BYTES) + b"\n")
    await alive(opened.bridged)
    assert "over" in (await opened.breaches())[-1]


async def test_an_item_that_cannot_be_read_ends_its_call_when_it_is_taken(opened):
    line = item(opened.number, 0, "?").replace(b'"?"', b'"\xff"')
    opened.bridged.peer.send(line)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(PluginFailedError):
            [each async for each in opened.stream]
    await alive(opened.bridged)
    assert len(await opened.breaches()) == 1


@pytest.mark.requirement("CORE-6")
@pytest.mark.parametrize("count", [-1, MAX_CHUNK_BYTES + 1, 2**70, 1.5, "1", None, True, [1]])
async def test_a_lie_about_the_bytes_that_follow_ends_the_connection(opened, count):
    opened.bridged.peer.send(head(opened.number, 0, count))
    await ended(opened.bridged, "wf/bytes")


async def test_bytes_that_never_come_end_the_connection(opened, monkeypatch):
    monkeypatch.setattr(connection, "LINE_S", 0.1)
    opened.bridged.peer.writer.write(head(opened.number, 0, 100) + b"\n" + b"x" * 99)
    await ended(opened.bridged, "not complete")


async def test_bytes_after_a_line_that_may_not_carry_any_are_read_as_lines(opened):
    line = head(opened.number, 0, 5)
    opened.bridged.peer.send(line + b" " * (MAX_HEADER_BYTES + 1 - len(line)), b"nons\n")
    await alive(opened.bridged)
    assert len(await opened.breaches()) == 3  # an item without anything, and two lines that are not JSON


@pytest.mark.parametrize("count", [0, -1, MAX_CREDIT_BYTES + 1, 2**62])
async def test_a_credit_that_is_none_is_a_breach_and_ends_the_call(opened, count):
    opened.bridged.peer.notify("wf/credit", requestId=opened.number, bytes=count)
    await opened.failed("credit")


async def test_credits_that_add_up_over_the_bound_are_a_breach(opened):
    for _ in range(2):
        opened.bridged.peer.notify("wf/credit", requestId=opened.number, bytes=MAX_CREDIT_BYTES)
    await opened.failed("credit")


async def test_a_credit_for_a_call_that_was_never_made_is_a_breach(bridged):
    bridged.peer.notify("wf/credit", requestId=12345, bytes=1)
    await alive(bridged)
    assert len(await bridged.recorded("bridge.breach")) == 1


@pytest.mark.requirement("CORE-6")
async def test_the_host_sends_no_more_than_the_plugin_takes(opened):
    peer, stream = opened.bridged.peer, opened.stream
    feeding = asyncio.create_task(stream.feed(b"x" * (3 * MAX_CHUNK_BYTES)))
    await alive(opened.bridged)  # nothing but that call was sent
    peer.notify("wf/credit", requestId=opened.number, bytes=1)
    async with asyncio.timeout(WAIT_S):
        sent = await peer.received("wf/item")
        assert sent["params"]["_meta"] == {"wf/bytes": MAX_CHUNK_BYTES}
        assert await peer._reader.readexactly(MAX_CHUNK_BYTES) == b"x" * MAX_CHUNK_BYTES
    await alive(opened.bridged)
    assert not feeding.done()
    peer.send({"jsonrpc": "2.0", "id": opened.number, "result": {"content": []}})
    async with asyncio.timeout(WAIT_S):
        assert await feeding is False


async def test_a_plugin_that_is_silent_meets_the_idle_deadline_and_is_told(bridged):
    await open_session(bridged, {"experimental": {"wf/streams": {}}})
    async with bridged.session.stream("f", {}, timeout_s=WAIT_S, idle_s=0.05, call_id="s") as stream:
        call = await bridged.peer.received("tools/call")
        with pytest.raises(CallTimedOutError, match="nothing came"):
            await answer(stream)
        assert (await bridged.peer.received("notifications/cancelled"))["params"]["requestId"] == call["id"]


async def test_more_streams_than_the_bound_are_refused(bridged):
    streams = [
        bridged.session.stream("f", {}, timeout_s=WAIT_S, idle_s=WAIT_S, call_id="s")
        for _ in range(MAX_STREAMS)
    ]
    with pytest.raises(LimitExceededError):
        bridged.session.stream("f", {}, timeout_s=WAIT_S, idle_s=WAIT_S, call_id="s")
    for stream in streams:
        await stream.__aexit__()
    await alive(bridged)


async def test_progress_comes_not_too_often_and_never_piles_up(opened):
    for number in range(500):
        told = {"progress": number, "total": 499, "message": "a\x1b[31m" + "x" * 1000}
        opened.bridged.peer.notify("notifications/progress", progressToken=opened.number, **told)
    opened.bridged.peer.notify("notifications/progress", progressToken="another's", progress=1)
    opened.bridged.peer.send({"jsonrpc": "2.0", "id": opened.number, "result": {"content": []}})
    async with asyncio.timeout(WAIT_S):
        found = [each async for each in opened.stream]
    assert len(found) < 50
    assert found[-1].progress == 499
    assert len(found[-1].message) <= 300
    assert "\x1b" not in found[-1].message


@pytest.mark.requirement("CORE-6")
async def test_a_stream_that_nobody_takes_costs_the_window_and_no_more(opened):
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        seq = sent = 0
        while sent < WINDOW_BYTES:
            line = item(opened.number, seq, 1)
            opened.bridged.peer.send(line)
            sent += len(line) + 1
            seq += 1
            if seq % 1000 == 0:
                await alive(opened.bridged)
        await alive(opened.bridged)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 8 * WINDOW_BYTES
    assert not await opened.breaches()
