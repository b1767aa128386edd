"""The host as an MCP client: one revision for a connection, and an end to every call."""

import asyncio

import pytest

from tests.fakes.plugin_peer import WAIT_S, PluginPeer
from wirthforge_host.bridge import ToolResult, session
from wirthforge_host.errors import (
    CallTimedOutError,
    FunctionMissingError,
    PluginFailedError,
    PluginLacksPermissionError,
    PluginUnavailableError,
)
from wirthforge_host.permissions.rights import Rights
from wirthforge_sdk.contracts.bridge import (
    DELIVER,
    LEGACY,
    MAX_IN_FLIGHT,
    MAX_MESSAGE_BYTES,
    MODERN,
    ErrorCode,
)
from wirthforge_sdk.contracts.events import Subscription
from wirthforge_sdk.contracts.manifest import Annotations
from wirthforge_sdk.contracts.permissions import PermissionSet
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError

ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "wirthforge-host", "version": "1.0.0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
TOOL = {"name": "add", "inputSchema": {"type": "object"}}


def start(coroutine):
    return asyncio.create_task(coroutine)


def call(bridged, arguments=None, **changes):
    values = {"timeout_s": WAIT_S, "call_id": "c1", **changes}
    return start(bridged.session.call("add", arguments or {}, **values))


def opening(bridged, **options):
    return start(bridged.session.open(timeout_s=WAIT_S, **options))


async def refused(task, error):
    with pytest.raises(error) as caught:
        async with asyncio.timeout(WAIT_S):
            await task
    return caught.value


async def test_a_modern_plugin_is_asked_once_and_every_request_carries_the_revision(bridged):
    task = opening(bridged)
    discover = await bridged.peer.received("server/discover")
    assert discover["params"]["_meta"] == ENVELOPE
    bridged.peer.answer(discover, {"supportedVersions": ["2099-01-01", MODERN]})
    assert await task == bridged.session.protocol == MODERN
    calling = call(bridged, {"a": 1}, timeout_s=2.5, traceparent="00-1-2-01")
    sent = await bridged.peer.received("tools/call")
    assert sent["params"] == {
        "name": "add",
        "arguments": {"a": 1},
        "_meta": {**ENVELOPE, "wf/timeout_ms": 2500, "traceparent": "00-1-2-01"},
    }
    bridged.peer.answer(sent, {"resultType": "complete", "content": []})
    assert await calling == ToolResult(is_error=False, structured=None, content=[])


@pytest.mark.parametrize("number", [-32601, -32602, -32603])
async def test_a_plugin_that_knows_no_discovery_is_greeted_the_old_way(bridged, number):
    task = opening(bridged)
    bridged.peer.refuse(await bridged.peer.received("server/discover"), number)
    greeting = await bridged.peer.received("initialize")
    assert greeting["params"]["protocolVersion"] == LEGACY
    assert "_meta" not in greeting["params"]
    bridged.peer.answer(greeting, {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {}})
    assert await task == "2025-06-18"
    await bridged.peer.received("notifications/initialized")
    calling = call(bridged)
    sent = await bridged.peer.received("tools/call")
    assert sent["params"]["_meta"] == {"wf/timeout_ms": WAIT_S * 1000}
    bridged.peer.answer(sent, {"content": []})
    await calling


async def test_a_plugin_silent_at_discovery_is_greeted_the_old_way_and_its_late_answer_ignored(
    bridged, monkeypatch
):
    monkeypatch.setattr(session, "DISCOVER_S", 0.01)
    task = opening(bridged)
    discover = await bridged.peer.received("server/discover")
    greeting = await bridged.peer.received("initialize")
    bridged.peer.refuse(discover, -32601)
    bridged.peer.answer(greeting, {"protocolVersion": LEGACY})
    assert await task == LEGACY
    assert await bridged.recorded("bridge.breach") == []


async def test_a_plugin_that_left_the_handshake_behind_is_not_greeted_with_it(bridged):
    task = opening(bridged)
    bridged.peer.refuse(await bridged.peer.received("server/discover"), -32022, supported=["2099-01-01"])
    await refused(task, PluginUnavailableError)


@pytest.mark.parametrize(
    "result", [{"supportedVersions": ["2099-01-01"]}, {"supportedVersions": 1}, [], None]
)
async def test_a_discovery_without_our_revision_is_no_opening(bridged, result):
    task = opening(bridged)
    bridged.peer.answer(await bridged.peer.received("server/discover"), result)
    await refused(task, (PluginUnavailableError, PluginFailedError))


async def test_a_release_known_as_modern_is_never_asked_in_the_old_way(bridged):
    task = opening(bridged, protocol=MODERN)
    bridged.peer.refuse(await bridged.peer.received("server/discover"), -32601)
    await refused(task, PluginUnavailableError)


async def test_a_release_known_as_old_is_never_asked_in_the_modern_way(bridged):
    task = opening(bridged, protocol="2024-11-05")
    bridged.peer.answer(await bridged.peer.received("initialize"), {"protocolVersion": "2024-11-05"})
    assert await task == "2024-11-05"


async def test_a_release_known_by_its_revision_is_refused_when_it_speaks_another(bridged):
    task = opening(bridged, protocol=LEGACY)
    bridged.peer.answer(await bridged.peer.received("initialize"), {"protocolVersion": "2024-11-05"})
    assert (
        "its release says that it speaks 2025-11-25" in (await refused(task, PluginUnavailableError)).message
    )


async def test_a_notice_that_tools_changed_is_told_also_when_it_came_before_somebody_listened(bridged):
    told = asyncio.Queue()
    bridged.peer.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    task = opening(bridged)
    bridged.peer.answer(await bridged.peer.received("server/discover"), {"supportedVersions": [MODERN]})
    await task
    bridged.session.when_tools_change(lambda: told.put_nowait("changed"))
    assert told.get_nowait() == "changed"
    bridged.peer.send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    async with asyncio.timeout(WAIT_S):
        assert await told.get() == "changed"


@pytest.mark.parametrize("answer", [{"protocolVersion": "1999-01-01"}, {"protocolVersion": MODERN}, {}, "x"])
async def test_a_greeting_answered_with_nonsense_is_no_opening(bridged, answer):
    task = opening(bridged, protocol=LEGACY)
    bridged.peer.answer(await bridged.peer.received("initialize"), answer)
    await refused(task, (PluginUnavailableError, PluginFailedError))


async def listed(bridged, *pages):
    task = start(bridged.session.list_tools(timeout_s=WAIT_S))
    for page in pages:
        bridged.peer.answer(await bridged.peer.received("tools/list"), page)
    return await task


async def test_functions_come_from_all_pages_by_name_with_what_they_say_of_themselves(bridged):
    described = {
        "name": "zap",
        "description": "Zaps.",
        "inputSchema": {"type": "object", "properties": {}},
        "outputSchema": {"type": "object"},
        "annotations": {"readOnlyHint": True, "destructiveHint": False, "title": "Zap"},
        "icons": [],
    }
    zap, add = reversed(await listed(bridged, {"tools": [described], "nextCursor": "n"}, {"tools": [TOOL]}))
    assert (add.name, add.description, add.output_schema) == ("add", "", None)
    assert add.annotations == Annotations()
    assert (zap.name, zap.description, zap.output_schema) == ("zap", "Zaps.", {"type": "object"})
    assert zap.annotations == Annotations(read_only=True, destructive=False)


@pytest.mark.parametrize(
    "page",
    [
        {"tools": [TOOL, TOOL]},
        {"tools": [{"name": "add"}]},
        {"tools": [{**TOOL, "name": "a b"}]},
        {"tools": [{**TOOL, "name": "x" * 129}]},
        {"tools": [{**TOOL, "description": "x" * 20_001}]},
        {"tools": [{**TOOL, "inputSchema": True}]},
        {"tools": {}},
        {},
        None,
        {"tools": [{**TOOL, "inputSchema": {"x": "y" * 1_100_000}}]},
    ],
)
async def test_a_list_of_functions_that_is_none_is_refused(bridged, page):
    with pytest.raises(PluginFailedError):
        await listed(bridged, page)


async def test_a_list_of_functions_without_end_is_given_up(bridged):
    with pytest.raises(PluginFailedError):
        await listed(bridged, *({"tools": [], "nextCursor": "again"} for _ in range(session.MAX_PAGES)))


async def test_a_failed_function_is_a_result_and_not_an_error(bridged):
    task = call(bridged)
    content = [{"type": "text", "text": "no such city"}]
    bridged.peer.answer(await bridged.peer.received("tools/call"), {"content": content, "isError": True})
    assert await task == ToolResult(is_error=True, structured=None, content=content)


@pytest.mark.parametrize(
    "result",
    [
        None,
        1,
        [],
        {"content": "x"},
        {"content": [1]},
        {"isError": "no"},
        {"resultType": "input_required", "content": []},
    ],
)
async def test_a_result_that_is_none_is_the_plugins_failure(bridged, result):
    task = call(bridged)
    bridged.peer.answer(await bridged.peer.received("tools/call"), result)
    await refused(task, PluginFailedError)


@pytest.mark.parametrize(
    ("number", "code", "error"),
    [
        (-32602, ErrorCode.INVALID_PARAMETERS, InvalidInputError),
        (-32602, None, InvalidInputError),
        (-32601, ErrorCode.FUNCTION_NOT_FOUND, FunctionMissingError),
        (-32601, None, FunctionMissingError),
        (-32050, ErrorCode.RESOURCE_EXHAUSTED, LimitExceededError),
        (-32050, ErrorCode.TIMEOUT, CallTimedOutError),
        (-32050, ErrorCode.PLUGIN_UNAVAILABLE, PluginUnavailableError),
        (-32603, ErrorCode.INTERNAL_ERROR, PluginFailedError),
        (-32050, "SOMETHING_NEW", PluginFailedError),
        (-1, None, PluginFailedError),
    ],
)
async def test_each_error_of_a_plugin_is_one_of_ours(bridged, number, code, error):
    task = call(bridged)
    data = {} if code is None else {"code": code}
    bridged.peer.refuse(
        await bridged.peer.received("tools/call"), number, "bad\x1b[2Jthing" + "x" * 9999, **data
    )
    raised = await refused(task, error)
    assert type(raised) is error
    assert "thing" in raised.message
    assert "\x1b" not in raised.message
    assert len(raised.message) < 500


async def test_a_caller_is_not_told_which_permission_the_plugin_lacks(bridged):
    task = call(bridged)
    sent = await bridged.peer.received("tools/call")
    bridged.peer.refuse(
        sent, -32050, "needs net.connect:x:1", code="PERMISSION_DENIED", permission="net.connect:x:1"
    )
    raised = await refused(task, PluginLacksPermissionError)
    assert "net.connect" not in f"{raised.message}{raised.details}"


async def test_a_call_that_is_not_answered_in_time_ends_and_the_plugin_is_told(bridged):
    task = call(bridged, timeout_s=0.05)
    sent = await bridged.peer.received("tools/call")
    await refused(task, CallTimedOutError)
    cancelled = await bridged.peer.received("notifications/cancelled")
    assert cancelled["params"]["requestId"] == sent["id"]
    assert bridged.session.calls_in_flight == 0


async def test_the_late_answer_of_a_call_that_timed_out_is_no_breach_but_a_second_is(bridged):
    task = call(bridged, timeout_s=0.05)
    sent = await bridged.peer.received("tools/call")
    await refused(task, CallTimedOutError)
    bridged.peer.answer(sent, {"content": []})
    after = call(bridged)
    await bridged.peer.received("notifications/cancelled")
    await bridged.peer.echo()
    await after
    assert await bridged.recorded("bridge.breach") == []
    bridged.peer.answer(sent, {"content": []})
    again = call(bridged)
    await bridged.peer.echo()
    await again
    [breach] = await bridged.recorded("bridge.breach")
    assert breach.detail["connection_ended"] is False


async def test_a_caller_that_gives_up_is_told_to_the_plugin(bridged):
    task = call(bridged)
    sent = await bridged.peer.received("tools/call")
    task.cancel()
    await refused(task, asyncio.CancelledError)
    assert (await bridged.peer.received("notifications/cancelled"))["params"]["requestId"] == sent["id"]


async def test_answers_reach_their_callers_in_whatever_order_they_come(bridged):
    tasks = [call(bridged, {"n": number}) for number in range(50)]
    sent = [await bridged.peer.received("tools/call") for _ in tasks]
    for each in sent[::-2] + sent[-2::-2]:
        bridged.peer.answer(each, {"structuredContent": each["params"]["arguments"]})
    assert [(await task).structured["n"] for task in tasks] == list(range(50))


async def test_calls_in_flight_fail_at_once_when_the_instance_goes(bridged):
    tasks = [call(bridged, timeout_s=600) for _ in range(20)]
    for _ in tasks:
        await bridged.peer.received("tools/call")
    bridged.peer.close()
    for task in tasks:
        await refused(task, PluginUnavailableError)
    async with asyncio.timeout(WAIT_S):
        await bridged.lost.wait()
    assert not bridged.session.is_open
    await refused(call(bridged), PluginUnavailableError)


async def test_closing_the_endpoint_fails_calls_and_leaves_no_file(bridged):
    task = call(bridged, timeout_s=600)
    await bridged.peer.received("tools/call")
    await bridged.endpoint.close()
    await refused(task, PluginUnavailableError)
    assert not bridged.path.parent.exists()
    assert await bridged.peer.hung_up()


async def test_more_calls_than_the_contract_allows_are_refused_at_once(bridged):
    tasks = [call(bridged) for _ in range(MAX_IN_FLIGHT)]
    for _ in tasks:
        await bridged.peer.received("tools/call")
    await refused(call(bridged), LimitExceededError)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", ["x" * MAX_MESSAGE_BYTES, deep(70), deep(100_000), "\ud800", {1, 2}.__iter__(), object()]
)
async def test_arguments_that_the_wire_cannot_carry_are_refused_before_it(bridged, value):
    await refused(call(bridged, {"value": value}), InvalidInputError)
    after = call(bridged, {"fine": True})
    await bridged.peer.echo()
    assert (await after).structured == {"fine": True}


async def test_large_arguments_and_answers_pass(bridged):
    body = "é" * 900_000
    task = call(bridged, {"body": body})
    await bridged.peer.echo()
    assert (await task).structured == {"body": body}


async def test_an_instance_that_does_not_read_gets_no_more_than_fits(bridged):
    bridged.peer.writer.transport.pause_reading()
    body = {"body": "x" * 1_000_000}
    tasks = [call(bridged, body, timeout_s=0.2) for _ in range(40)]
    done, _ = await asyncio.wait(tasks, timeout=WAIT_S)
    kinds = {type(task.exception()) for task in done}
    assert len(done) == 40
    assert kinds == {CallTimedOutError, LimitExceededError}


async def test_events_go_on_over_another_connection_which_is_told_to_take_over(
    bridged, services, short_path, peer_of
):
    heard = [Subscription(topic="a", durable=True)]
    ends = []
    for name in ("old", "new"):
        rights = Rights()
        rights.replace(PermissionSet(frozenset({"events"}), frozenset()), decided=1)
        peer = peer_of(instance=name, rights=rights, subscriptions=heard)
        endpoint = await bridged.bridge.listen(peer, short_path / name, on_lost=lambda: None)
        accepting = start(endpoint.accept(timeout_s=WAIT_S))
        ends.append((endpoint, await PluginPeer.connect(short_path / name / "bridge.sock"), await accepting))
    (_, old, old_session), (_, new, new_session) = ends
    await old_session.subscribe()
    for data in (b"1", b"2"):
        await services.bus.publish("application:test", "a", data)
    first = await old.received(DELIVER)
    taking = start(new_session.take_over(old_session))
    await services.bus.publish("application:test", "a", b"3")
    assert not taking.done()
    old.answer(first, {"content": []})
    for number in (2, 3):
        sent = await new.received(DELIVER)
        assert sent["params"]["arguments"]["event"]["data"] == number
        new.answer(sent, {"content": []})
    await taking
    old.ask("host/log", 1)
    assert (await old.receive())["id"] == 1, "it was sent no event more"
    for endpoint, peer, _ in ends:
        peer.close()
        await endpoint.close()
