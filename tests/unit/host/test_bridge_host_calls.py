"""Host calls: each needs its permission now, does one thing, and is recorded without what it said."""

import asyncio

import pytest

from tests.fakes.plugin_peer import INSTANCE, PLUGIN, QUOTA, WAIT_S, PluginPeer
from wirthforge_host.bridge.host_calls import TABLE
from wirthforge_host.bridge.host_calls.forms import EVENTS_PER_S
from wirthforge_host.bridge.serving import AT_WORK
from wirthforge_host.bus import MAX_EVENT_BYTES
from wirthforge_host.permissions.rights import Rights
from wirthforge_sdk.contracts.bridge import HOST_CALLS, MAX_KEY_BYTES, MAX_LOG_BYTES
from wirthforge_sdk.contracts.permissions import SCOPES, PermissionSet

PARAMETERS = {
    "host/log": {"level": "info", "message": "hello"},
    "host/storage.get": {"key": "k"},
    "host/storage.list": {},
    "host/storage.set": {"key": "k", "value": [1]},
    "host/storage.delete": {"key": "k"},
    "host/storage.batch": {"acts": [{"act": "set", "key": "k", "value": 1}]},
    "host/events.publish": {"topic": "weather.rain", "data": {"mm": 3}},
    "host/events.subscribe": {"topic": "weather.*"},
    "host/events.unsubscribe": {"topic": "weather.*"},
    "host/permissions.list": {},
    "host/permissions.request": {"permission": "ui.notify", "reason": "to tell of rain"},
    "host/plugins.call": {"plugin": "demo/other", "function": "double", "arguments": {"number": 2}},
    "host/config.get": {},
    "host/secrets.get": {"name": "api_key"},
}
SCOPE = {
    "host/events.publish": "weather.rain",
    "host/events.subscribe": "weather.*",
    "host/plugins.call": "demo/other.double",
    "host/secrets.get": "api_key",
}
GUARDED = [method for method, permission in HOST_CALLS.items() if permission is not None]
FREE = [method for method, permission in HOST_CALLS.items() if permission is None]
ANSWERED = [method for method in FREE if method != "host/permissions.request"]
"""Without anybody's doing."""


def permission_of(method):
    return ":".join(filter(None, (HOST_CALLS[method], SCOPE.get(method))))


def test_every_host_call_of_the_contract_is_done_and_tested_and_no_other():
    assert TABLE.keys() == HOST_CALLS.keys() == PARAMETERS.keys()


def test_a_call_takes_a_scope_exactly_when_its_permission_has_one():
    scoped = {method for method in GUARDED if SCOPES[HOST_CALLS[method]] is not None}
    assert scoped == {method for method, host_call in TABLE.items() if host_call.scope} == SCOPE.keys()


@pytest.mark.parametrize("method", GUARDED)
async def test_a_call_without_its_permission_is_denied_by_name_and_recorded(bridged, method):
    every_other = [permission_of(other) for other in GUARDED if permission_of(other) != permission_of(method)]
    bridged.grant(*every_other)
    answer = await bridged.peer.asked(method, **PARAMETERS[method])
    needed = permission_of(method)
    assert answer["error"]["data"] == {"permission": needed, "code": "PERMISSION_DENIED"}
    assert answer["error"]["code"] == -32050
    [record] = await bridged.recorded()
    assert (record.outcome, record.actor, record.plugin) == ("denied", f"plugin:{PLUGIN}", PLUGIN)
    assert record.detail["method"] == method
    assert record.detail["permission"] == needed


@pytest.mark.parametrize("method", GUARDED)
async def test_a_call_with_its_permission_is_done_and_recorded(bridged, method):
    bridged.grant(permission_of(method))
    answer = await bridged.peer.asked(method, number="n-1", **PARAMETERS[method])
    assert "result" in answer
    [record] = await bridged.recorded()
    assert (record.outcome, record.detail["code"], record.detail["instance"]) == ("allowed", "ok", INSTANCE)


@pytest.mark.requirement("PERM-3")
@pytest.mark.parametrize("method", GUARDED)
async def test_a_denial_wins_over_the_widest_grant(bridged, method):
    areas = ("storage", "events", "plugins", "config", "secrets")
    bridged.grant(*areas, denied=(permission_of(method),))
    assert await bridged.peer.code(method, **PARAMETERS[method]) == "PERMISSION_DENIED"


@pytest.mark.parametrize("method", ANSWERED)
async def test_a_call_that_needs_no_permission_is_done_for_any_plugin(bridged, method):
    assert "result" in await bridged.peer.asked(method, **PARAMETERS[method])


async def test_a_revocation_is_felt_by_the_next_call_on_the_same_connection(bridged):
    bridged.grant("storage.write")
    assert "result" in await bridged.peer.asked("host/storage.set", 1, key="k", value=1)
    bridged.grant()
    assert await bridged.peer.code("host/storage.set", 2, key="k", value=2) == "PERMISSION_DENIED"


async def test_stored_values_come_back(bridged):
    bridged.grant("storage")
    value = {"a": [1, 2.5, None, "é\x00"], "b": 10**30}
    assert (await bridged.peer.asked("host/storage.get", key="k"))["result"] == {
        "found": False,
        "version": 0,
        "value": None,
    }
    assert (await bridged.peer.asked("host/storage.set", key="k", value=value))["result"] == {"version": 1}
    assert (await bridged.peer.asked("host/storage.get", key="k"))["result"] == {
        "found": True,
        "version": 1,
        "value": value,
    }
    await bridged.peer.asked("host/storage.set", key="l", value=None)
    assert (await bridged.peer.asked("host/storage.get", key="l"))["result"] == {
        "found": True,
        "version": 2,
        "value": None,
    }
    listed = await bridged.peer.asked("host/storage.list", prefix="k", limit=1)
    assert listed["result"] == {"keys": ["k"], "more": False}
    assert (await bridged.peer.asked("host/storage.delete", key="k"))["result"] == {"deleted": True}
    assert (await bridged.peer.asked("host/storage.delete", key="k"))["result"] == {"deleted": False}


async def test_a_full_storage_is_a_resource_exhausted(bridged):
    bridged.grant("storage")
    big = {"key": "k", "value": "x" * QUOTA}
    assert await bridged.peer.code("host/storage.set", **big) == "RESOURCE_EXHAUSTED"
    [record] = await bridged.recorded()
    assert (record.outcome, record.detail["code"]) == ("failed", "storage_full")


async def test_two_plugins_with_the_same_keys_do_not_meet(bridged, peer_of, tmp_path):
    rights = Rights()
    rights.replace(PermissionSet(frozenset({"storage"})), decided=1)
    directory = bridged.path.parent.with_name("i2")
    other = await bridged.bridge.listen(
        peer_of(plugin="acme/other", instance="i2", rights=rights), directory, on_lost=lambda: None
    )
    accepting = asyncio.create_task(other.accept(timeout_s=WAIT_S))
    peer = await PluginPeer.connect(directory / "bridge.sock")
    await accepting
    bridged.grant("storage")
    await bridged.peer.asked("host/storage.set", key="k", value="mine")
    assert (await peer.asked("host/storage.get", key="k"))["result"]["found"] is False
    assert (await peer.asked("host/storage.get", key="k", plugin=PLUGIN))["error"]["code"] == -32602
    await peer.asked("host/storage.set", key="k", value="theirs")
    assert (await bridged.peer.asked("host/storage.get", key="k"))["result"]["value"] == "mine"
    peer.close()
    await other.close()


async def test_the_record_has_shapes_and_no_values(bridged):
    bridged.grant("storage")
    await bridged.peer.asked("host/storage.set", key="patient-4711", value={"diagnosis": "s3cret"})
    [record] = await bridged.recorded()
    assert record.detail["parameters"] == {"key": "string(12)", "value": {"diagnosis": "string(6)"}}
    assert "s3cret" not in repr(record)
    assert "4711" not in repr(record)


async def test_a_host_call_is_recorded_with_the_operators_call_it_was_made_for(bridged):
    bridged.grant("storage")
    task = asyncio.create_task(bridged.session.call("f", {}, timeout_s=WAIT_S, call_id="call-77"))
    sent = await bridged.peer.received("tools/call")
    await bridged.peer.asked("host/storage.get", key="k", _meta={"wf/call": sent["id"]})
    for bogus in (sent["id"] + 1, "call-77", True, None, [], {"a": 1}):
        await bridged.peer.asked("host/storage.get", key="k", _meta={"wf/call": bogus})
    bridged.peer.answer(sent, {})
    await task
    assert [record.detail["call"] for record in await bridged.recorded()] == ["call-77", *[None] * 6]


async def test_a_published_event_carries_its_plugin_and_not_what_it_claims(bridged):
    bridged.grant("events.publish:weather.*")
    data = {"plugin": "acme/other", "type": "plugin.state"}
    await bridged.peer.asked("host/events.publish", topic="weather.rain", data=data)
    [event] = bridged.events.recent()
    assert (event.type, event.plugin) == ("plugin.event", PLUGIN)
    assert event.data == {"topic": "weather.rain", "data": data}


async def test_events_have_a_bound_in_size_and_in_rate(bridged):
    bridged.grant("events.publish")
    too_big = {"topic": "t", "data": "x" * MAX_EVENT_BYTES}
    assert await bridged.peer.code("host/events.publish", **too_big) == "INVALID_PARAMETERS"
    for number in range(int(2 * EVENTS_PER_S)):
        assert "result" in await bridged.peer.asked("host/events.publish", number, topic="t", data=1)
    assert await bridged.peer.code("host/events.publish", topic="t", data=1) == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "*",
        "weather.*",
        "weather..rain",
        ".weather",
        "weather.",
        "../weather",
        "weather/rain",
        "Weather",
        "weather.rain\n",
        "weather.rain:x",
        "weather rain",
        "wetter.größe",
        "a." * 300 + "a",
        "\x00",
    ],
)
async def test_a_topic_that_is_no_scope_is_refused_whatever_is_granted(bridged, topic):
    bridged.grant("events", "events.publish", "events.publish:weather.*")
    assert await bridged.peer.code("host/events.publish", topic=topic, data=1) == "INVALID_PARAMETERS"
    assert bridged.events.recent() == []
    [record] = await bridged.recorded()
    assert (record.outcome, record.detail["permission"]) == ("failed", None)


async def test_a_grant_below_a_topic_reaches_neither_the_topic_nor_its_neighbours(bridged):
    bridged.grant("events.publish:weather.*")
    for topic in ("weather", "weathers.rain", "other.weather.rain"):
        assert await bridged.peer.code("host/events.publish", topic=topic, data=1) == "PERMISSION_DENIED"
    assert "result" in await bridged.peer.asked("host/events.publish", topic="weather.a.b", data=1)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("host/storage.get", {}),
        ("host/storage.get", {"key": 1}),
        ("host/storage.get", {"key": ""}),
        ("host/storage.get", {"key": "k", "other": 1}),
        ("host/storage.get", {"key": "k", "_meta": 1}),
        ("host/storage.get", {"key": "x" * (MAX_KEY_BYTES + 1)}),
        ("host/storage.set", {"key": "k"}),
        ("host/storage.list", {"limit": 0}),
        ("host/storage.list", {"limit": 1001}),
        ("host/storage.list", {"limit": "1"}),
        ("host/storage.list", {"limit": True}),
        ("host/events.publish", {"topic": ["weather"], "data": 1}),
        ("host/log", {"level": "shout", "message": "x"}),
        ("host/permissions.list", {"plugin": "acme/other"}),
    ],
)
async def test_parameters_that_are_wrong_are_refused(bridged, method, params):
    bridged.grant("storage", "events")
    assert await bridged.peer.code(method, **params) == "INVALID_PARAMETERS"


@pytest.mark.parametrize(
    "method", ["host/storage", "host/", "host/storage.get ", "host/../x", "tools/list", "x" * 9999]
)
async def test_a_call_that_does_not_exist_is_refused_and_recorded(bridged, method):
    bridged.grant("storage", "events")
    assert await bridged.peer.code(method) == "FUNCTION_NOT_FOUND"
    [record] = await bridged.recorded()
    assert (record.outcome, record.detail["method"]) == ("failed", method[:100])


async def test_a_plugin_may_ask_what_it_may_do(bridged):
    bridged.grant("storage.read", "events.publish:a.*", denied=("ui.notify",))
    answer = await bridged.peer.asked("host/permissions.list")
    assert answer["result"] == {"granted": ["events.publish:a.*", "storage.read"], "denied": ["ui.notify"]}


async def test_a_log_line_is_kept_under_the_plugins_own_name_and_not_audited(bridged):
    bridged.peer.notify("host/log", level="warning", message="two\nlines", fields={"n": 1})
    await bridged.peer.asked("host/permissions.list")
    [line] = bridged.logs.tail(PLUGIN)
    assert (line.plugin, line.instance, line.level) == (PLUGIN, INSTANCE, "warning")
    assert (line.message, line.fields) == ("two\nlines", {"n": 1})
    assert [record.detail["method"] for record in await bridged.recorded()] == ["host/permissions.list"]


async def test_a_log_line_cannot_play_tricks_on_a_terminal(bridged):
    bridged.peer.notify("host/log", level="info", message="a\x1b[2J\x07b\u202ec\u200bd\te")
    await bridged.peer.asked("host/permissions.list")
    assert bridged.logs.tail(PLUGIN)[0].message == "a\ufffd[2J\ufffdb\ufffdc\ufffdd\te"


async def test_a_long_log_line_is_cut_at_its_bound(bridged):
    bridged.peer.notify(
        "host/log", level="info", message="é" * MAX_LOG_BYTES, fields={"x": "y" * MAX_LOG_BYTES}
    )
    await bridged.peer.asked("host/permissions.list")
    [line] = bridged.logs.tail(PLUGIN)
    assert line.message == "é" * (MAX_LOG_BYTES // 2)
    assert line.fields == {"dropped": f"fields over {MAX_LOG_BYTES} bytes"}


async def test_a_call_that_the_plugin_cancels_gets_no_answer_and_is_recorded(bridged, services):
    bridged.grant("storage")
    async with services.storage._database.transaction():
        bridged.peer.ask("host/storage.set", 1, key="k", value=1)
        bridged.peer.notify("notifications/cancelled", requestId=1)
        assert (await bridged.peer.asked("host/permissions.list", 2))["id"] == 2
    assert (await bridged.peer.asked("host/storage.get", 3, key="k"))["result"]["found"] is False
    codes = {record.detail["method"]: record.detail["code"] for record in await bridged.recorded()}
    assert codes.get("host/storage.set", "cancelled") == "cancelled"


async def test_a_fault_of_ours_in_one_call_leaves_the_others_alone(bridged, services, monkeypatch, capsys):
    bridged.grant("storage")

    async def broken(*_, **__):
        raise ZeroDivisionError("the password is s3cret")

    monkeypatch.setattr(services.storage, "get", broken)
    answer = await bridged.peer.asked("host/storage.get", key="k")
    assert answer["error"]["data"]["code"] == "INTERNAL_ERROR"
    assert "s3cret" not in repr(answer)
    assert "result" in await bridged.peer.asked("host/storage.set", key="k", value=1)
    assert [record.detail["code"] for record in await bridged.recorded()] == ["internal_error", "ok"]
    assert "ZeroDivisionError" in capsys.readouterr().out


async def test_a_ping_of_an_old_server_is_answered(bridged):
    assert (await bridged.peer.asked("ping"))["result"] == {}


class Endless:
    """Calls of other plugins that nobody answers."""

    def __init__(self):
        self.entered, self.left = asyncio.Event(), asyncio.Event()

    async def call_for(self, *_, **__):
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()


@pytest.mark.requirement("PERM-4")
async def test_a_revocation_cuts_the_host_calls_that_need_it_and_no_other(bridged, services):
    endless = Endless()
    services.exchange.connect(endless)
    bridged.grant("plugins.call:demo/other.double")
    bridged.peer.ask("host/plugins.call", 1, **PARAMETERS["host/plugins.call"])
    async with asyncio.timeout(WAIT_S):
        await endless.entered.wait()
        bridged.grant("plugins.call:demo/other.double", "storage")
        assert "result" in await bridged.peer.asked("host/storage.list", 2)
        bridged.grant("storage")
        answer = await bridged.peer.receive()
        await endless.left.wait()
    needed = "plugins.call:demo/other.double"
    assert answer["error"]["data"] == {"permission": needed, "code": "PERMISSION_DENIED"}
    denied = [each for each in await bridged.recorded() if each.outcome == "denied"]
    assert [each.detail["permission"] for each in denied] == [needed]


async def test_a_permission_is_asked_for_only_as_the_release_names_it(bridged):
    asked = {"permission": "storage.read", "reason": "to look"}
    assert await bridged.peer.code("host/permissions.request", **asked) == "INVALID_PARAMETERS"
    bridged.grant("ui.notify")
    assert (
        await bridged.peer.asked("host/permissions.request", 2, **PARAMETERS["host/permissions.request"])
    )["result"] == {}
    bridged.grant(denied=("ui",))
    refused = await bridged.peer.asked(
        "host/permissions.request", 3, **PARAMETERS["host/permissions.request"]
    )
    assert refused["error"]["data"] == {"permission": "ui.notify", "code": "PERMISSION_DENIED"}


async def test_what_waits_for_a_person_takes_no_place_of_what_is_at_work(bridged):
    bridged.grant("storage.read")
    for number in range(AT_WORK + 1):
        bridged.peer.ask("host/permissions.request", number, **PARAMETERS["host/permissions.request"])
    answer = await bridged.peer.asked("host/storage.get", "n", key="k")
    assert answer["result"]["found"] is False
    bridged.grant("storage.read", "ui.notify")
    answers = [await bridged.peer.receive() for _ in range(AT_WORK + 1)]
    assert {answer["id"] for answer in answers} == set(range(AT_WORK + 1))
    assert all("result" in answer for answer in answers)
