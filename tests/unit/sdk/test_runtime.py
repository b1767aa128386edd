"""The protocol of the runtime, line by line."""

import asyncio
import threading
from contextlib import suppress
from queue import SimpleQueue

import pytest

from tests.unit.sdk.runtime_peer import ENVELOPE, PATIENCE_S, serving
from wirthforge_sdk.contracts.bridge import (
    MAX_IN_FLIGHT,
    MAX_LOG_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_NESTING,
    META_CALL,
    META_PROTOCOL,
)
from wirthforge_sdk.runtime import CallCancelledError, HostTimeoutError, PermissionRefusedError, Plugin

# Served by one test after another, as nothing in it has state.
plugin = Plugin(threads=2)


@plugin.function
def add(a: int, b: int = 2) -> int:
    """Adds."""
    return a + b


@plugin.function
def pick(colour: str = "blue") -> str:
    return colour


@plugin.function(inline=True)
def greet(name: str) -> dict:
    return {"greeting": f"Hello, {name}!"}


@plugin.function
async def wait(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@plugin.function
def fail() -> dict:
    raise ValueError("out of milk")


@plugin.function
def leave() -> dict:
    raise SystemExit(3)


@plugin.function
def lie() -> int:
    return "no number"


@plugin.function
def read(key: str) -> dict:
    return {"value": plugin.storage.get(key, "nothing")}


@plugin.function
def keys() -> list[str]:
    return list(plugin.storage.list("a"))


@plugin.function(inline=True)
def read_inline() -> dict:
    return {"value": plugin.storage.get("key")}


@plugin.function
def repeat(text: str, times: int) -> str:
    return text * times


@plugin.function
def nest(levels: int) -> dict:
    value = {}
    for _ in range(levels):
        value = {"in": value}
    return value


@pytest.fixture
def peer():
    with serving(plugin) as peer:
        yield peer


def test_discovery_tells_the_revision_the_tools_and_the_server(peer):
    result = peer.ask("server/discover")["result"]
    assert result["supportedVersions"] == ["2026-07-28"]
    assert result["capabilities"] == {
        "tools": {"listChanged": False},
        "experimental": {"wf/streams": {}, "wf/bodies": {}},
    }
    assert result["resultType"] == "complete"
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"] == {"name": "plugin", "version": ""}


def test_tools_are_listed_by_name_with_their_schemas(peer):
    tools = peer.ask("tools/list")["result"]["tools"]
    assert [tool["name"] for tool in tools] == sorted(tool["name"] for tool in tools)
    add = next(tool for tool in tools if tool["name"] == "add")
    assert add["description"] == "Adds."
    assert add["inputSchema"]["required"] == ["a"]
    assert add["outputSchema"]["required"] == ["result"]


def test_an_object_result_is_structured_content_as_it_is(peer):
    result = peer.call("greet", name="Ada")["result"]
    assert result["structuredContent"] == {"greeting": "Hello, Ada!"}
    assert result["content"] == [{"type": "text", "text": '{"greeting":"Hello, Ada!"}'}]
    assert result["isError"] is False


def test_any_other_result_is_wrapped_as_its_schema_says(peer):
    assert peer.call("add", a=1)["result"]["structuredContent"] == {"result": 3}


@pytest.mark.parametrize(
    ("arguments", "field"),
    [({"a": "1"}, "a"), ({}, "a"), ({"a": 1, "c": 1}, "c"), ({"a": 1, "b": None}, "b")],
)
def test_wrong_arguments_are_refused_naming_the_field(peer, arguments, field):
    error = peer.call("add", **arguments)["error"]
    assert error["code"] == -32602
    assert error["data"] == {"code": "INVALID_PARAMETERS", "field": field}
    assert field in error["message"]


def test_arguments_may_be_absent_or_null(peer):
    assert "result" in peer.ask("tools/call", name="pick", arguments=None)
    assert "result" in peer.ask("tools/call", name="pick")


def test_an_exception_is_an_error_result_with_type_and_message_and_its_traceback_goes_to_the_log(peer):
    log = peer.call("fail")
    answer = peer.receive()
    assert log["method"] == "host/log"
    assert log["params"]["level"] == "error"
    assert log["params"]["message"].rstrip().endswith("ValueError: out of milk")
    assert "Traceback" in log["params"]["message"]
    assert answer["result"]["isError"] is True
    assert answer["result"]["content"] == [{"type": "text", "text": "ValueError: out of milk"}]


def test_a_function_that_exits_ends_neither_its_thread_nor_the_plugin(peer):
    for number in range(1, 6):  # more than there are threads
        assert peer.call("leave", number)["method"] == "host/log"
        assert peer.receive()["result"]["isError"] is True
    assert "result" in peer.call("add", 9, a=1)


def test_a_result_that_contradicts_its_declared_type_is_an_error(peer):
    assert peer.call("lie")["method"] == "host/log"
    assert "Expected `int`, got `str`" in peer.receive()["result"]["content"][0]["text"]


def test_an_unknown_function_is_not_found(peer):
    error = peer.call("nothing")["error"]
    assert (error["code"], error["data"]["code"]) == (-32601, "FUNCTION_NOT_FOUND")


def test_an_unknown_method_is_not_found(peer):
    assert peer.ask("prompts/list")["error"]["code"] == -32601


def test_a_host_call_names_the_call_it_is_made_for_and_its_answer_reaches_the_function(peer):
    asked = peer.call("read", 7, key="colour")
    assert asked["method"] == "host/storage.get"
    assert asked["params"] == {"key": "colour", "_meta": {META_CALL: 7}}
    peer.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"found": True, "value": "blue"}})
    assert peer.receive()["result"]["structuredContent"] == {"value": "blue"}


def test_a_value_that_is_not_stored_is_the_default(peer):
    asked = peer.call("read", key="colour")
    peer.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"found": False, "value": None}})
    assert peer.receive()["result"]["structuredContent"] == {"value": "nothing"}


def test_keys_are_fetched_page_by_page(peer):
    asked = peer.call("keys")
    assert "after" not in asked["params"]
    peer.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"keys": ["a1", "a2"], "more": True}})
    asked = peer.receive()
    assert asked["params"]["after"] == "a2"
    peer.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"keys": ["a3"], "more": False}})
    assert peer.receive()["result"]["structuredContent"] == {"result": ["a1", "a2", "a3"]}


def refuse(peer, asked, code, **data):
    error = {"code": -32050, "message": "no", "data": {"code": code, **data}}
    peer.send({"jsonrpc": "2.0", "id": asked["id"], "error": error})


def test_a_refusal_the_author_does_not_catch_is_passed_on_with_its_code(peer):
    refuse(peer, peer.call("read", key="k"), "PERMISSION_DENIED", permission="storage.read")
    error = peer.receive()["error"]
    assert error["code"] == -32050
    assert error["data"] == {"code": "PERMISSION_DENIED", "permission": "storage.read"}


def test_a_refusal_for_a_reason_this_runtime_does_not_know_keeps_its_code(peer):
    refuse(peer, peer.call("read", key="k"), "LICENCE_REQUIRED")
    assert peer.receive()["error"]["data"] == {"code": "LICENCE_REQUIRED"}


def test_an_author_can_catch_a_refusal_and_learn_the_permission():
    plugin = Plugin()

    @plugin.function
    def read() -> str:
        try:
            return plugin.storage.get("k")
        except PermissionRefusedError as error:
            return f"{error.code} {error.permission}"

    with serving(plugin) as peer:
        refuse(peer, peer.call("read"), "PERMISSION_DENIED", permission="storage.read")
        assert peer.receive()["result"]["structuredContent"] == {"result": "PERMISSION_DENIED storage.read"}


def test_an_inline_function_that_makes_a_host_call_fails_instead_of_hanging(peer):
    assert peer.call("read_inline")["method"] == "host/log"
    assert "remove inline=True" in peer.receive()["result"]["content"][0]["text"]


def test_a_call_whose_deadline_passed_in_the_queue_is_refused_without_running(peer):
    error = peer.call("add", timeout_ms=-1, a=1)["error"]
    assert error["data"]["code"] == "TIMEOUT"


def test_a_host_call_waits_no_longer_than_the_call_it_is_made_for(peer):
    asked = peer.call("read", timeout_ms=30, key="k")
    assert asked["method"] == "host/storage.get"
    gave_up = peer.receive()
    assert (gave_up["method"], gave_up["params"]["requestId"]) == ("notifications/cancelled", asked["id"])
    assert peer.receive()["error"]["data"]["code"] == "TIMEOUT"


def test_functions_run_side_by_side():
    plugin = Plugin(threads=2)
    meeting = threading.Barrier(2, timeout=PATIENCE_S)

    @plugin.function
    def meet() -> int:
        return meeting.wait()

    with serving(plugin) as peer:
        peer.start("meet", 1)
        peer.start("meet", 2)
        numbers = {peer.receive()["result"]["structuredContent"]["result"] for _ in range(2)}
    assert numbers == {0, 1}


def test_async_functions_run_side_by_side():
    plugin = Plugin()
    arrived = asyncio.Event()

    @plugin.function
    async def first() -> str:
        await arrived.wait()
        return "first"

    @plugin.function
    async def second() -> str:
        arrived.set()
        return "second"

    with serving(plugin) as peer:
        peer.start("first", 1)
        peer.start("second", 2)
        answers = {peer.receive()["id"], peer.receive()["id"]}
    assert answers == {1, 2}


def test_cancelling_an_async_call_cancels_its_task_and_nothing_is_answered():
    plugin = Plugin()
    running, cancelled = threading.Event(), threading.Event()

    @plugin.function
    async def hang() -> None:
        try:
            running.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    @plugin.function
    def echo() -> str:
        return "here"

    with serving(plugin) as peer:
        peer.start("hang", 1)
        assert running.wait(PATIENCE_S)  # a task cancelled before its first step would see nothing of it
        peer.cancel(1)
        assert cancelled.wait(PATIENCE_S)
        assert peer.call("echo", 3)["id"] == 3


def test_cancelling_a_running_function_is_visible_to_it_and_refuses_its_host_calls():
    plugin = Plugin()
    running, told, saw = threading.Event(), threading.Event(), SimpleQueue()

    @plugin.function
    def work() -> None:
        running.set()
        told.wait(PATIENCE_S)
        try:
            plugin.storage.get("k")
        except CallCancelledError as error:
            saw.put((plugin.cancelled(), error.code))

    @plugin.function(inline=True)
    def echo() -> str:
        return "here"

    with serving(plugin) as peer:
        peer.start("work", 1)
        assert running.wait(PATIENCE_S)
        peer.cancel(1)
        assert peer.call("echo", 2)["id"] == 2
        told.set()
        assert saw.get(timeout=PATIENCE_S) == (True, "CANCELLED")
        assert peer.call("echo", 3)["id"] == 3


def test_a_queued_call_that_is_cancelled_never_runs():
    plugin = Plugin(threads=1)
    running, go, ran = threading.Event(), threading.Event(), []

    @plugin.function
    def block() -> None:
        running.set()
        go.wait(PATIENCE_S)

    @plugin.function
    def mark(name: str) -> None:
        ran.append(name)

    with serving(plugin) as peer:
        peer.start("block", 1)
        assert running.wait(PATIENCE_S)
        peer.start("mark", 2, name="cancelled")
        peer.cancel(2)
        peer.start("mark", 3, name="kept")
        peer.start("nothing", 4)  # its refusal says that the three lines above are read
        assert peer.receive()["id"] == 4
        go.set()
        assert [peer.receive()["id"] for _ in range(2)] == [1, 3]
    assert ran == ["kept"]


def test_calls_beyond_the_bound_are_refused_and_those_within_it_are_answered():
    plugin = Plugin(threads=1)
    go = threading.Event()

    @plugin.function
    def block() -> None:
        go.wait(PATIENCE_S)

    with serving(plugin) as peer:
        for number in range(MAX_IN_FLIGHT + 1):
            peer.start("block", number)
        error = peer.receive()
        go.set()
        answered = {peer.receive()["id"] for _ in range(MAX_IN_FLIGHT)}
    assert error["id"] == MAX_IN_FLIGHT
    assert error["error"]["data"]["code"] == "RESOURCE_EXHAUSTED"
    assert answered == set(range(MAX_IN_FLIGHT))


def test_an_id_that_is_still_open_is_refused():
    plugin = Plugin()
    go = threading.Event()

    @plugin.function
    def block() -> None:
        go.wait(PATIENCE_S)

    with serving(plugin) as peer:
        peer.start("block", "same")
        assert peer.call("block", "same")["error"]["code"] == -32600
        go.set()
        assert "result" in peer.receive()


@pytest.mark.parametrize(
    ("line", "number", "code"),
    [
        (b"{", None, -32700),
        (b"", None, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', None, -32700),
        (b"[]", None, -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', None, -32600),
        (b'{"jsonrpc":"1.0","id":3,"method":"ping"}', 3, -32600),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', None, -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', None, -32600),
        (b'{"jsonrpc":"2.0","id":"x","method":7}', "x", -32600),
        (b'{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":7}}', 4, -32602),
        (b'{"a":' * (MAX_NESTING + 1) + b"1" + b"}" * (MAX_NESTING + 1), None, -32600),
    ],
)
def test_a_line_that_is_no_message_is_answered_and_the_connection_goes_on(peer, line, number, code):
    peer.send(line)
    answer = peer.receive()
    assert (answer["id"], answer["error"]["code"]) == (number, code)
    assert "result" in peer.call("add", a=1)


def test_a_line_over_the_bound_ends_the_connection(peer):
    with suppress(ConnectionError):  # closing before all is read is a reset
        peer.send(b"x" * (MAX_MESSAGE_BYTES + 1_000_000))
    with suppress(ConnectionError):
        assert peer.receive() is None


def test_a_line_of_nearly_the_bound_is_taken(peer):
    text = "x" * (MAX_MESSAGE_BYTES - 1000)
    assert peer.call("repeat", text=text, times=0)["result"]["structuredContent"] == {"result": ""}


def test_a_result_over_the_bound_is_refused_and_not_sent(peer):
    error = peer.call("repeat", text="x" * 1000, times=3000)["error"]
    assert error["data"]["code"] == "RESOURCE_EXHAUSTED"


def test_a_result_that_nests_too_deep_is_refused_and_not_sent(peer):
    assert peer.call("nest", levels=MAX_NESTING)["error"]["data"]["code"] == "RESOURCE_EXHAUSTED"


def test_many_calls_in_one_write_are_all_answered(peer):
    numbers = range(1, 101)
    params = {"name": "greet", "arguments": {"name": "x"}, "_meta": ENVELOPE}
    peer.send(*({"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": params} for n in numbers))
    assert [peer.receive()["id"] for _ in numbers] == list(numbers)


def test_hanging_up_wakes_a_function_that_waits_for_the_host():
    plugin = Plugin()
    woken, codes = threading.Event(), []

    @plugin.function
    def read() -> None:
        try:
            plugin.storage.get("k")
        except Exception as error:
            codes.append(getattr(error, "code", "?"))
            woken.set()
            raise

    with serving(plugin) as peer:
        assert peer.call("read")["method"] == "host/storage.get"
    assert woken.wait(PATIENCE_S)
    assert codes == ["PLUGIN_UNAVAILABLE"]


def test_host_calls_outside_a_served_function_say_so():
    with pytest.raises(Exception, match="has no host"):
        plugin.storage.get("k")
    plugin.log.info("nobody hears this")
    assert plugin.cancelled() is False


def test_a_log_message_is_cut_to_its_bound_keeping_the_end():
    plugin = Plugin()
    long = "é" * MAX_LOG_BYTES + "END"

    @plugin.function(inline=True)
    def shout() -> None:
        plugin.log.warning(long, who="me", what=object)

    with serving(plugin) as peer:
        record = peer.call("shout")["params"]
    assert record["level"] == "warning"
    assert len(record["message"].encode()) <= MAX_LOG_BYTES
    assert record["message"].endswith("END")
    assert record["fields"] == {"who": "me", "what": "<class 'object'>"}


def test_events_permissions_and_writes_ask_the_host_in_its_words():
    plugin = Plugin()

    @plugin.function
    def work() -> list[str]:
        plugin.storage.set("k", {"n": 1})
        gone = plugin.storage.delete("k")
        plugin.events.publish("a.b", [1])
        return [*sorted(plugin.permissions().granted), str(gone)]

    with serving(plugin) as peer:
        peer.start("work")
        asked = []
        for result in ({}, {"deleted": True}, {}, {"granted": ["storage"], "denied": []}):
            message = peer.receive()
            asked.append((message["method"], {k: v for k, v in message["params"].items() if k != "_meta"}))
            peer.send({"jsonrpc": "2.0", "id": message["id"], "result": result})
        answer = peer.receive()["result"]["structuredContent"]
    assert asked == [
        ("host/storage.set", {"key": "k", "value": {"n": 1}}),
        ("host/storage.delete", {"key": "k"}),
        ("host/events.publish", {"topic": "a.b", "data": [1]}),
        ("host/permissions.list", {}),
    ]
    assert answer == {"result": ["storage", "True"]}


def test_a_late_answer_of_the_host_is_dropped(peer):
    asked = peer.call("read", timeout_ms=20, key="k")
    assert peer.receive()["method"] == "notifications/cancelled"
    assert peer.receive()["error"]["data"]["code"] == HostTimeoutError.code
    peer.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"found": False}})
    assert "result" in peer.call("add", 2, a=1)


def test_a_plugin_serves_one_host_at_a_time():
    with serving(plugin) as peer:
        assert "result" in peer.call("add", a=1)
        with pytest.raises(RuntimeError, match="already serves"):
            plugin.serve(None)
    with serving(plugin) as peer:
        assert "result" in peer.call("add", a=1)


HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "c", "version": "1"},
}


def legacy(peer, method, number=1, **params):
    peer.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    return peer.receive()


def test_initialize_begins_the_handshake_era_at_the_revision_asked_for(peer):
    result = legacy(peer, "initialize", **HELLO)["result"]
    assert result["protocolVersion"] == "2025-06-18"
    peer.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert legacy(peer, "ping")["result"] == {}
    assert "ttlMs" not in legacy(peer, "tools/list")["result"]
    called = legacy(peer, "tools/call", name="add", arguments={"a": 1})["result"]
    assert called["structuredContent"] == {"result": 3}


def test_an_unknown_revision_is_answered_with_the_newest_legacy_one(peer):
    welcome = {**HELLO, "protocolVersion": "1999-01-01"}
    assert legacy(peer, "initialize", **welcome)["result"]["protocolVersion"] == "2025-11-25"


def test_the_handshake_era_refuses_the_modern_envelope(peer):
    legacy(peer, "initialize", **HELLO)
    assert peer.ask("server/discover")["error"]["code"] == -32600


def test_the_modern_era_refuses_the_handshake_naming_what_it_serves(peer):
    peer.ask("server/discover")
    error = legacy(peer, "initialize", **HELLO)["error"]
    assert error["code"] == -32022
    assert error["data"] == {"supported": ["2026-07-28"], "requested": "2025-06-18"}


def test_the_modern_era_has_no_ping(peer):
    assert peer.ask("ping")["error"]["code"] == -32601


@pytest.mark.parametrize("meta", [{}, {META_PROTOCOL: "2026-07-28"}])
def test_a_request_without_the_whole_envelope_is_refused_and_settles_no_era(peer, meta):
    assert peer.ask("tools/list", meta=meta)["error"]["code"] == -32602
    assert "result" in legacy(peer, "initialize", **HELLO)


def test_another_modern_revision_is_refused_and_settles_no_era(peer):
    error = peer.ask("server/discover", meta={**ENVELOPE, META_PROTOCOL: "2031-01-01"})["error"]
    assert (error["code"], error["data"]["requested"]) == (-32022, "2031-01-01")
    assert "result" in legacy(peer, "initialize", **HELLO)
