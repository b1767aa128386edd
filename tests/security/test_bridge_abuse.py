"""What a plugin may try on its bridge, and what comes of it: an answer, a delay, or the end of its connection.

Every attack ends with a proof that the host is well: another call is answered, or the connection is over and recorded.
"""

import asyncio
import gc
import itertools
import json
import os
import socket
import stat
import subprocess
import sys
import tracemalloc

import pytest

from tests.fakes.plugin_peer import INSTANCE, PLUGIN, WAIT_S, PluginPeer
from wirthforge_host.bridge import Bridge, connection, serving
from wirthforge_host.bridge.connection import ASKS_PER_S, MAX_BREACHES
from wirthforge_host.bridge.recording import RECORDS_AT_ONCE, SUMMARY_S
from wirthforge_host.errors import CallTimedOutError, PluginUnavailableError
from wirthforge_sdk.contracts.bridge import (
    MAX_CALL_BYTES,
    MAX_CALL_ELEMENTS,
    MAX_IN_FLIGHT,
    MAX_MESSAGE_BYTES,
    MAX_NESTING,
    MAX_REPLY_ELEMENTS,
)
from wirthforge_sdk.errors import InvalidInputError, UnavailableError

MIB = 1024 * 1024
NOBODY = 65_534


async def alive(bridged):
    """Proves that a call goes through, and that what came before it was read."""
    bridged.grant("storage")
    task = asyncio.create_task(bridged.session.call("f", {"n": 1}, timeout_s=WAIT_S, call_id="c"))
    while (message := await bridged.peer.receive()) is not None:
        if message.get("method") == "tools/call":
            bridged.peer.answer(message, {"structuredContent": {"n": 1}})
            break
    assert (await task).structured == {"n": 1}


async def ended(bridged, reason):
    """Proves that the connection is over, and that the host says why."""
    assert await bridged.peer.hung_up()
    async with asyncio.timeout(WAIT_S):
        await bridged.lost.wait()
    breaches = await bridged.recorded("bridge.breach")
    assert breaches[-1].detail["connection_ended"] is True
    assert reason in breaches[-1].detail["reason"]
    assert breaches[-1].outcome == "denied"
    assert bridged.events.recent()[-1].type == "bridge.ended"
    with pytest.raises(PluginUnavailableError):
        await bridged.session.call("f", {}, timeout_s=WAIT_S, call_id="c")


async def breaches(bridged):
    return [record.detail["reason"] for record in await bridged.recorded("bridge.breach")]


def request(number=1, method="host/permissions.list", **params):
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


# Lines.


async def test_a_line_over_the_bound_ends_the_connection(bridged):
    await bridged.peer.send_all(b"x" * (MAX_MESSAGE_BYTES + 1) + b"\n")
    await ended(bridged, "over")


async def test_a_line_that_never_ends_ends_the_connection_before_memory_does(bridged):
    gc.collect()
    tracemalloc.start()
    sent = 0
    while sent < 64 and await bridged.peer.send_all(b"x" * MIB):
        sent += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    await ended(bridged, "over")
    assert sent < 64
    assert peak < 4 * MAX_MESSAGE_BYTES


async def test_the_longest_line_that_is_allowed_is_read(bridged):
    bridged.grant("storage")
    head, tail = b'{"jsonrpc":"2.0","id":1,"method":"host/storage.get","params":{"key":"', b'"}}'
    bridged.peer.send(head + b"k" * (MAX_CALL_BYTES - len(head) - len(tail)) + tail)
    answer = await bridged.peer.receive()
    assert answer["error"]["data"]["code"] == "INVALID_PARAMETERS"
    assert len(answer["error"]["message"]) < 1000


async def test_a_host_call_over_its_own_bound_is_refused_and_recorded(bridged):
    bridged.grant("storage")
    value = "x" * MAX_CALL_BYTES
    assert await bridged.peer.code("host/storage.set", key="k", value=value) == "RESOURCE_EXHAUSTED"
    [record] = await bridged.recorded()
    assert (record.outcome, record.detail["parameters"]) == ("failed", "not read")
    bridged.peer.notify("host/log", level="info", message=value)
    await alive(bridged)
    assert await breaches(bridged) == ["a log line is malformed"]


async def test_a_host_call_of_too_many_elements_is_refused_and_marks_in_a_text_are_none(bridged):
    bridged.grant("storage")
    many = {"key": "k", "value": [[]] * (MAX_CALL_ELEMENTS // 2)}
    assert await bridged.peer.code("host/storage.set", **many) == "RESOURCE_EXHAUSTED"
    [record] = await bridged.recorded()
    assert (record.detail["code"], record.detail["parameters"]) == ("limit_exceeded", "not read")
    text = {"key": "k", "value": 'a,[{\\"' * MAX_CALL_ELEMENTS}
    answer = await bridged.peer.asked("host/storage.set", **text)
    assert "storage" in answer["error"]["message"]


@pytest.mark.parametrize("part", ["result", "error"])
async def test_a_reply_of_too_many_elements_fails_its_call_and_no_other(bridged, part):
    task = asyncio.create_task(bridged.session.call("f", {}, timeout_s=WAIT_S, call_id="c"))
    sent = await bridged.peer.received("tools/call")
    many = [[]] * (MAX_REPLY_ELEMENTS // 2)
    body = {"result": {"structuredContent": many}, "error": {"code": 1, "message": "m", "data": many}}
    bridged.peer.send({"jsonrpc": "2.0", "id": sent["id"], part: body[part]})
    with pytest.raises(PluginUnavailableError, match="elements"):
        await task
    await alive(bridged)
    assert await breaches(bridged) == ["a reply cannot be read"]


async def test_the_longest_reply_that_is_allowed_is_read(bridged):
    task = asyncio.create_task(bridged.session.call("f", {}, timeout_s=WAIT_S, call_id="c"))
    sent = await bridged.peer.received("tools/call")
    bridged.peer.answer(sent, {"structuredContent": "x" * (MAX_MESSAGE_BYTES - 100)})
    assert len((await task).structured) == MAX_MESSAGE_BYTES - 100


async def test_what_open_requests_carry_is_bounded_and_not_decoded_before_its_turn(
    bridged, services, monkeypatch
):
    bridged.grant("storage")
    release = asyncio.Event()

    async def slow(*_, **__):
        await release.wait()

    monkeypatch.setattr(services.storage, "set", slow)
    params = b'{"key":"k","value":[' + b" " * MIB + b"[]," * 20_000 + b"[]]}"
    for number in range(16):
        bridged.peer.send(
            b'{"jsonrpc":"2.0","id":%d,"method":"host/storage.set","params":%s}' % (number, params)
        )
    await asyncio.sleep(0.5)
    unread = bridged.peer.writer.transport.get_write_buffer_size()
    release.set()
    assert {(await bridged.peer.receive())["id"] for _ in range(16)} == set(range(16))
    assert 16 * len(params) - unread < serving.OPEN_BYTES + 3 * MIB


@pytest.mark.parametrize("value", ["1e99999", '"\\udcff"'])
async def test_params_that_cannot_be_read_are_refused(bridged, value):
    line = f'{{"jsonrpc":"2.0","id":1,"method":"host/storage.get","params":{{"key":{value}}}}}'
    bridged.peer.send(line.encode())
    answer = await bridged.peer.receive()
    assert answer["error"]["code"] in {-32602, -32700}
    await alive(bridged)


async def test_a_line_that_comes_too_slowly_ends_the_connection(bridged, monkeypatch):
    monkeypatch.setattr(connection, "LINE_S", 0.05)
    await bridged.peer.send_all(b'{"jsonrpc": "2.0", ')
    await ended(bridged, "not complete")


async def test_a_line_that_is_fed_byte_by_byte_gains_no_time_by_it(bridged, monkeypatch):
    monkeypatch.setattr(connection, "LINE_S", 0.2)

    async def drip():
        for _ in itertools.count():
            if not await bridged.peer.send_all(b" "):
                return
            await asyncio.sleep(0)

    dripping = asyncio.create_task(drip())
    await ended(bridged, "not complete")
    await dripping


async def test_a_plugin_that_says_nothing_for_long_is_left_alone(bridged, monkeypatch):
    monkeypatch.setattr(connection, "LINE_S", 0.05)
    bridged.peer.send(request())
    assert (await bridged.peer.receive())["id"] == 1
    with pytest.raises(CallTimedOutError):
        await bridged.session.call("f", {}, timeout_s=0.2, call_id="c")
    await bridged.peer.received("tools/call")
    await alive(bridged)


NONSENSE = {
    "no JSON": (b"hello", -32700),
    "no UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xff\xfe"}', -32700),
    "overlong UTF-8": (b'{"jsonrpc":"2.0","id":1,"method":"\xc0\xaf"}', -32700),
    "lone surrogate": (b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}', -32700),
    "cut off": (b'{"jsonrpc":"2.0","id":1,"method":"x"', -32700),
    "not a number": (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":NaN}}', -32700),
    "array": (b"[]", -32600),
    "batch": (json.dumps([request()] * 3).encode(), -32600),
    "number": (b"1", -32600),
    "null": (b"null", -32600),
    "old version": (b'{"jsonrpc":"1.0","id":1,"method":"x"}', -32600),
    "no version": (b'{"id":1,"method":"x"}', -32600),
    "huge version": (b'{"jsonrpc":"' + b"A" * 100_000 + b'","id":1,"method":"x"}', -32600),
    "method a number": (b'{"jsonrpc":"2.0","id":1,"method":1}', -32600),
    "params an array": (b'{"jsonrpc":"2.0","id":1,"method":"x","params":[1]}', -32600),
    "id a fraction": (b'{"jsonrpc":"2.0","id":1.5,"method":"x"}', -32600),
    "id a boolean": (b'{"jsonrpc":"2.0","id":true,"method":"x"}', -32600),
    "id an object": (b'{"jsonrpc":"2.0","id":{},"method":"x"}', -32600),
    "nested too deep": (
        b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":' + b"[" * 65 + b"]" * 65 + b"}}",
        -32600,
    ),
    "nested without end": (b"[" * MIB, -32600),
    "braces without end": (b'{"a":' * 200_000, -32600),
    "nested and not JSON": (b'{"jsonrpc":' + b'"["' * 200 + b"]" * 2000, -32600),
}


@pytest.mark.parametrize("kind", NONSENSE)
async def test_a_line_that_is_no_message_is_answered_and_counted(bridged, kind):
    line, number = NONSENSE[kind]
    bridged.peer.send(line)
    answer = await bridged.peer.receive()
    assert (answer["id"], answer["error"]["code"]) == (None, number)
    assert len(json.dumps(answer)) < 300
    [reason] = await breaches(bridged)
    assert len(reason) < 200
    await alive(bridged)


async def test_the_deepest_nesting_that_is_allowed_passes(bridged):
    bridged.grant("storage")
    levels = MAX_NESTING - 2
    value = json.loads("[" * levels + "]" * levels)
    bridged.peer.send(request(1, "host/storage.set", key="k", value=value))
    assert (await bridged.peer.receive())["result"] == {"version": 1}


async def test_an_object_with_a_million_keys_costs_one_call_and_is_recorded_small(bridged):
    bridged.grant("storage")
    keys = ",".join(f'"{number:x}":1' for number in range(400_000))
    line = f'{{"jsonrpc":"2.0","id":1,"method":"host/storage.get","params":{{{keys}}}}}'.encode()
    assert MAX_MESSAGE_BYTES * 0.9 < len(line) <= MAX_MESSAGE_BYTES
    bridged.peer.send(line)
    assert (await bridged.peer.receive())["error"]["data"]["code"] == "RESOURCE_EXHAUSTED"
    [record] = await bridged.recorded()
    assert len(json.dumps(record.detail)) < 2000
    await alive(bridged)


async def test_nonsense_past_the_bound_ends_the_connection(bridged):
    for _ in range(MAX_BREACHES):
        bridged.peer.send(b"nonsense")
    await ended(bridged, "broke the protocol")
    assert len(await breaches(bridged)) == MAX_BREACHES


# Replies and ids.


REPLIES = {
    "to nothing": {"jsonrpc": "2.0", "id": 10**9, "result": {}},
    "negative": {"jsonrpc": "2.0", "id": -1, "result": {}},
    "text id": {"jsonrpc": "2.0", "id": "1", "result": {}},
    "null id": {"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "x"}},
    "no id": {"jsonrpc": "2.0", "result": {}},
    "an id beyond 64 bits": {"jsonrpc": "2.0", "id": 2**80, "result": {}},
}


@pytest.mark.parametrize("kind", REPLIES)
async def test_a_reply_to_a_call_never_made_is_counted_and_changes_nothing(bridged, kind):
    task = asyncio.create_task(bridged.session.call("f", {}, timeout_s=WAIT_S, call_id="c"))
    sent = await bridged.peer.received("tools/call")
    bridged.peer.send(REPLIES[kind])
    bridged.peer.answer(sent, {"structuredContent": "right"})
    assert (await task).structured == "right"
    assert len(await breaches(bridged)) == 1


async def test_the_first_of_two_replies_counts_and_the_second_is_a_breach(bridged):
    task = asyncio.create_task(bridged.session.call("f", {}, timeout_s=WAIT_S, call_id="c"))
    sent = await bridged.peer.received("tools/call")
    bridged.peer.answer(sent, {"structuredContent": "first"})
    bridged.peer.answer(sent, {"structuredContent": "second"})
    assert (await task).structured == "first"
    await alive(bridged)
    assert await breaches(bridged) == ["a reply is to no open call"]


@pytest.mark.parametrize("both", [{"result": {}, "error": {"code": 1, "message": "x"}}, {}])
async def test_a_reply_with_both_or_neither_fails_its_call_and_is_a_breach(bridged, both):
    task = asyncio.create_task(bridged.session.call("f", {}, timeout_s=WAIT_S, call_id="c"))
    sent = await bridged.peer.received("tools/call")
    bridged.peer.send({"jsonrpc": "2.0", "id": sent["id"], **both})
    with pytest.raises(PluginUnavailableError):
        await task
    assert len(await breaches(bridged)) == 1


async def test_forged_replies_past_the_bound_end_the_connection(bridged):
    task = asyncio.create_task(bridged.session.call("f", {}, timeout_s=600, call_id="c"))
    await bridged.peer.received("tools/call")
    for number in range(MAX_BREACHES):
        bridged.peer.send({"jsonrpc": "2.0", "id": 1000 + number, "result": {}})
    await ended(bridged, "a reply is to no open call")
    with pytest.raises(PluginUnavailableError):
        await task


async def test_a_second_request_with_an_open_id_is_a_breach(bridged, services):
    bridged.grant("storage")
    async with services.storage._database.transaction():
        bridged.peer.send(request(7, "host/storage.set", key="k", value=1))
        bridged.peer.send(request(7, "host/storage.set", key="k", value=2))
        bridged.peer.send(request(8))
        assert (await bridged.peer.receive())["id"] == 8
    assert (await bridged.peer.receive())["id"] == 7
    assert len(await breaches(bridged)) == 1
    await alive(bridged)


@pytest.mark.parametrize("number", [None, "x" * 129])
async def test_a_request_with_an_id_that_cannot_be_answered_is_a_breach(bridged, number):
    bridged.peer.send(request(number))
    await alive(bridged)
    assert len(await breaches(bridged)) == 1


async def test_a_host_call_without_id_is_not_done(bridged):
    bridged.grant("storage")
    bridged.peer.notify("host/storage.set", key="k", value=1)
    bridged.peer.send(request(1, "host/storage.get", key="k"))
    assert (await bridged.peer.receive())["result"]["found"] is False
    assert len(await breaches(bridged)) == 1


@pytest.mark.parametrize("target", [None, True, 1, "1", [], {}, 1.5])
async def test_cancelling_what_is_not_open_does_nothing(bridged, target):
    bridged.peer.notify("notifications/cancelled", requestId=target)
    bridged.peer.notify("notifications/cancelled")
    await alive(bridged)


@pytest.mark.parametrize(
    "line", [{}, {"level": "info"}, {"level": "info", "message": 1}, {"level": "x", "message": "y"}]
)
async def test_a_malformed_log_line_is_a_breach_that_is_not_quoted(bridged, line):
    bridged.peer.notify("host/log", **line, secret="s3cret")
    await alive(bridged)
    assert await breaches(bridged) == ["a log line is malformed"]


# Floods.


async def test_a_flood_of_requests_waits_its_turn_and_is_all_answered(bridged):
    """Faster than the rate the host reads no more: the plugin waits, the host does not suffer."""
    loop = asyncio.get_running_loop()
    count = int(2.5 * ASKS_PER_S)
    began = loop.time()

    async def ask():
        for first in range(0, count, 100):
            await bridged.peer.send_all(b"".join(_line(request(first + n)) for n in range(100)))
            for _ in range(100):
                assert (await bridged.peer.receive())["result"] == {"granted": [], "denied": []}

    async with asyncio.timeout(20):
        await ask()
    # Twice the rate may come at once; the rest must take its time.
    assert loop.time() - began >= (count - 2 * ASKS_PER_S) / ASKS_PER_S - 0.1
    alone = len(await bridged.recorded())
    assert RECORDS_AT_ONCE <= alone < count / 2
    await bridged.endpoint.close()
    summaries = await bridged.recorded("host_call.more")
    assert len(summaries) < 2 + (loop.time() - began) / SUMMARY_S
    assert alone + sum(each.detail["counts"]["host/permissions.list"]["ok"] for each in summaries) == count


async def test_a_flood_of_refusals_hides_no_first_denial_and_no_allowed_act(bridged):
    bridged.grant("storage.write")
    count = 2 * int(RECORDS_AT_ONCE)
    for number in range(count):
        assert await bridged.peer.code("host/storage.get", number, key="k") == "PERMISSION_DENIED"
    assert "result" in await bridged.peer.asked("host/storage.set", key="k", value=1)
    await bridged.peer.code("host/nothing")
    await bridged.endpoint.close()
    first, *_ = await bridged.recorded()
    [last] = [each for each in await bridged.recorded() if each.outcome == "allowed"]
    assert (first.outcome, first.detail["permission"]) == ("denied", "storage.read")
    assert (last.outcome, last.detail["method"]) == ("allowed", "host/storage.set")
    told = [each.detail["counts"] for each in await bridged.recorded("host_call.more")]
    alone = [each for each in await bridged.recorded() if each.outcome == "denied"]
    assert (
        len(alone) + sum(each.get("host/storage.get", {}).get("permission_denied", 0) for each in told)
        == count
    )


async def test_an_endpoint_closes_while_the_audit_log_has_no_room(bridged):
    bridged.grant("storage")
    bridged.audit._bound = 0
    for number in range(3):
        bridged.peer.ask("host/storage.get", number, key="k")
    bridged.peer.send(b"nonsense")
    await bridged.peer.receive()
    await asyncio.sleep(0.2)
    async with asyncio.timeout(WAIT_S):
        await bridged.endpoint.close()
    assert await bridged.recorded() == []
    [more] = await bridged.recorded("host_call.more")
    assert sum(more.detail["counts"]["host/storage.get"].values()) == 3
    assert more.detail["counts"]["bridge.breach"] == {"breach": 1}


async def test_more_open_requests_than_the_contract_allows_are_refused(bridged, services):
    bridged.grant("storage")
    async with services.storage._database.transaction():
        for number in range(MAX_IN_FLIGHT + 10):
            bridged.peer.send(request(number, "host/storage.set", key="k", value=number))
        refused = [await bridged.peer.receive() for _ in range(10)]
    assert {answer["error"]["data"]["code"] for answer in refused} == {"RESOURCE_EXHAUSTED"}
    answered = [await bridged.peer.receive() for _ in range(MAX_IN_FLIGHT)]
    assert {answer["id"] for answer in answered} == set(range(MAX_IN_FLIGHT))


async def test_only_a_few_host_calls_are_at_work_at_once(bridged, services, monkeypatch):
    bridged.grant("storage")
    at_work, most, release = 0, 0, asyncio.Event()

    async def slow(*_, **__):
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await release.wait()
        at_work -= 1

    monkeypatch.setattr(services.storage, "get", slow)
    for number in range(100):
        bridged.peer.send(request(number, "host/storage.get", key="k"))
    await alive(bridged)
    assert most == serving.AT_WORK
    release.set()
    assert len([await bridged.peer.receive() for _ in range(100)]) == 100


async def test_a_flood_of_log_lines_leaves_a_bounded_log_and_a_plugin_that_still_answers(bridged):
    line = _line({"jsonrpc": "2.0", "method": "host/log", "params": {"level": "info", "message": "x" * 1000}})
    await bridged.peer.send_all(line * 3000)
    await alive(bridged)
    lines = bridged.logs.tail(PLUGIN, limit=100_000)
    assert sum(len(each.message) for each in lines) < 2 * 64 * 1024 + 1000
    assert "dropped" in lines[-1].fields


@pytest.mark.requirement("CORE-6")
async def test_a_plugin_that_asks_and_never_reads_is_cut_off_or_held_still(bridged):
    """Memory stays bounded: at most the replies at work and what fits the buffers."""
    bridged.grant("storage")
    bridged.peer.send(request(0, "host/storage.set", key="k", value="x" * 9000))
    assert (await bridged.peer.receive())["result"] == {"version": 1}
    bridged.peer.writer.transport.pause_reading()
    gc.collect()
    tracemalloc.start()
    for first in range(1, 3000, 100):
        lines = b"".join(_line(request(first + n, "host/storage.get", key="k")) for n in range(100))
        bridged.peer.writer.write(lines)
    with pytest.raises(CallTimedOutError):
        await bridged.session.call("f", {}, timeout_s=2, call_id="c")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * MIB


async def test_replies_that_nobody_asked_for_cannot_be_used_to_fill_memory(bridged):
    gc.collect()
    tracemalloc.start()
    for _ in range(MAX_BREACHES * 2):
        bridged.peer.send({"jsonrpc": "2.0", "id": 99, "result": "x" * MIB})
        await asyncio.sleep(0)
    await ended(bridged, "a reply is to no open call")
    current = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert current < 40 * MIB


@pytest.mark.requirement("TST-1")
async def test_one_plugins_flood_does_not_keep_another_from_being_answered(bridged, peer_of):
    directory = bridged.path.parent.with_name("i2")
    other = await bridged.bridge.listen(
        peer_of(plugin="acme/quiet", instance="i2"), directory, on_lost=lambda: None
    )
    accepting = asyncio.create_task(other.accept(timeout_s=WAIT_S))
    quiet = await PluginPeer.connect(directory / "bridge.sock")
    session = await accepting
    flood = b"".join(_line(request(number)) for number in range(20_000))
    bridged.peer.writer.write(flood)
    for number in range(20):
        task = asyncio.create_task(session.call("f", {"n": number}, timeout_s=1, call_id="c"))
        await quiet.echo()
        assert (await task).structured == {"n": number}
    quiet.close()
    await other.close()


# Who may connect.


async def test_a_second_connection_finds_nobody(bridged):
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        await PluginPeer.connect(bridged.path)
    await alive(bridged)


async def test_of_two_that_connect_at_once_one_is_served(services, short_path, peer_of):
    endpoint = await Bridge(services).listen(peer_of(), short_path / INSTANCE, on_lost=lambda: None)
    path = str(short_path / INSTANCE / "bridge.sock")
    streams = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for stream in streams:
        stream.setblocking(False)  # noqa: FBT003
        stream.connect(path)
    session = await endpoint.accept(timeout_s=WAIT_S)
    streams[0].send(_line(request()))
    assert session.is_open
    streams[1].settimeout(WAIT_S)
    with pytest.raises(ConnectionResetError):
        await asyncio.to_thread(streams[1].recv, 1)
    for stream in streams:
        stream.close()
    await endpoint.close()


async def test_nobody_but_the_instances_user_can_open_the_socket(services, short_path, peer_of):
    _as_root()
    endpoint = await Bridge(services).listen(peer_of(uid=61_007), short_path / INSTANCE, on_lost=lambda: None)
    path = short_path / INSTANCE / "bridge.sock"
    found = path.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (61_007, 61_007, 0o600)
    directory = path.parent.stat()
    assert (directory.st_uid, stat.S_IMODE(directory.st_mode)) == (os.geteuid(), 0o711)
    assert "PermissionError" in await asyncio.to_thread(_connect_as, NOBODY, path)
    await endpoint.close()


async def test_another_user_who_got_hold_of_the_socket_is_turned_away_and_recorded(
    services, short_path, peer_of
):
    _as_root()
    endpoint = await Bridge(services).listen(peer_of(uid=61_007), short_path / INSTANCE, on_lost=lambda: None)
    path = short_path / INSTANCE / "bridge.sock"
    accepting = asyncio.create_task(endpoint.accept(timeout_s=WAIT_S))
    assert "closed" in await asyncio.to_thread(_connect_as, 0, path)
    connecting = asyncio.create_task(asyncio.to_thread(_connect_as, 61_007, path))
    session = await accepting
    with pytest.raises(PluginUnavailableError):
        await session.open(timeout_s=WAIT_S)
    assert "received" in await connecting
    await services.audit.flush()
    [record] = await services.audit.page(action="bridge.breach")
    assert (record.outcome, record.detail["uid"]) == ("denied", 0)
    await endpoint.close()


async def test_an_instance_that_never_connects_is_given_up(services, short_path, peer_of):
    endpoint = await Bridge(services).listen(peer_of(), short_path / INSTANCE, on_lost=lambda: None)
    with pytest.raises(PluginUnavailableError, match="connect"):
        await endpoint.accept(timeout_s=0.05)
    await endpoint.close()
    assert not (short_path / INSTANCE).exists()


async def test_an_instance_that_restarted_can_connect_again_and_only_then(bridged):
    with pytest.raises(RuntimeError):
        await bridged.endpoint.reopen()
    bridged.peer.close()
    async with asyncio.timeout(WAIT_S):
        await bridged.lost.wait()
    await bridged.endpoint.reopen()
    accepting = asyncio.create_task(bridged.endpoint.accept(timeout_s=WAIT_S))
    bridged.peer = await PluginPeer.connect(bridged.path)
    bridged.session = await accepting
    await alive(bridged)


async def test_a_path_too_long_for_a_socket_is_refused_with_the_remedy(services, short_path, peer_of):
    with pytest.raises(InvalidInputError, match="data_dir"):
        await Bridge(services).listen(peer_of(), short_path / ("x" * 100), on_lost=lambda: None)
    assert list(short_path.iterdir()) == []


async def test_a_socket_that_cannot_be_made_is_an_error_of_ours(services, short_path, peer_of):
    (short_path / "file").write_text("")
    with pytest.raises(UnavailableError):
        await Bridge(services).listen(peer_of(), short_path / "file" / "x", on_lost=lambda: None)


def _line(message):
    return json.dumps(message).encode() + b"\n"


def _as_root():
    if os.geteuid() != 0:
        pytest.fail("this test changes its user id: run the suite as root, as the host itself runs")


CONNECT = """
import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
stream = socket.socket(socket.AF_UNIX)
stream.settimeout(5)
stream.connect(sys.argv[2])
try:
    print("received" if stream.recv(1) else "closed")
except ConnectionResetError:
    print("closed")
"""


def _connect_as(uid, path):
    """Connects as another user, in a process of its own; what came of it, in words."""
    command = [sys.executable, "-I", "-c", CONNECT, str(uid), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout + done.stderr
