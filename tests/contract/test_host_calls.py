"""What every host does for a plugin, asked by a real plugin over the real protocol.

``OPENERS`` names the hosts. Each is an async context manager that runs ``PROBE``, a project, with rules
granted and denied, and gives an object with ``await call(function, **arguments)``, which returns the
structured result and raises :class:`CallRefusedError` for a refusal. A host is added here by one more opener
and nothing else.
"""

from contextlib import asynccontextmanager

import pytest

from tests.fakes.runtime_host import runtime_host
from wirthforge_sdk.contracts.bridge import HOST_CALLS, MAX_KEY_BYTES, MAX_VALUE_BYTES
from wirthforge_sdk.testing import CallRefusedError, PluginHarness

MANIFEST = """
manifest_version = 1
name = "tests/probe"
version = "1.0.0"
summary = "Makes each host call."
authors = ["The WirthForge authors"]
license = "MIT"
[runtime]
type = "python"
entry = "probe:plugin"
"""

PROBE = """
import time
from typing import Any
from wirthforge_sdk.runtime import Plugin
from wirthforge_sdk.runtime.errors import VersionConflictError
from wirthforge_sdk.runtime.storage import Delete, Get, Set

plugin = Plugin()

@plugin.function
def get(key: str) -> dict:
    absent = ["absent"]
    value = plugin.storage.get(key, absent)
    return {"found": value is not absent, "value": None if value is absent else value}

@plugin.function
def put(key: str, value: Any) -> None:
    plugin.storage.set(key, value)

@plugin.function
def put_long(key_bytes: int, value_bytes: int) -> None:
    plugin.storage.set("k" * key_bytes, "v" * (value_bytes - 2))

@plugin.function
def put_bytes(key: str, size: int) -> None:
    plugin.storage.set(key, bytes(size))

@plugin.function
def tour() -> list:
    space = plugin.storage.space("tour")
    version = space.set("k", b"\\x00", if_version=0)
    same = space.entry("k").version == version
    read = repr(space.get("k"))
    try:
        space.set("k", 1, if_version=version + 1)
        told = None
    except VersionConflictError as error:
        told = error.version - version
    _, there, *gone = plugin.storage.batch(
        Set(key="a", value="kept"), Get(key="a"), Delete(key="k", space="tour"), Get(key="k", space="tour")
    )
    space.set("short", 1, ttl_s=0.001)
    time.sleep(0.02)
    return [same, read, told, gone, there.value, space.get("short"), list(plugin.storage.list()) == ["a"]]

@plugin.function
def delete(key: str) -> bool:
    return plugin.storage.delete(key)

@plugin.function
def keys(prefix: str = "") -> list[str]:
    return list(plugin.storage.list(prefix))

@plugin.function
def publish(topic: str) -> None:
    plugin.events.publish(topic, {"n": 1})

@plugin.function
def rules() -> dict:
    found = plugin.permissions()
    return {"granted": sorted(found.granted), "denied": sorted(found.denied)}

@plugin.function
def ask(method: str, params: dict) -> Any:
    return plugin._line.call(method, **params)
"""


@asynccontextmanager
async def in_memory(project, granted, denied):
    async with PluginHarness(project, grants=granted, denied=denied) as harness:
        yield harness


OPENERS = {
    "memory": in_memory,
    "real": runtime_host,
}


@pytest.fixture(params=OPENERS)
def opened(request, tmp_path):
    """Opens a host with some rules granted and others denied."""
    (tmp_path / "src").mkdir()
    (tmp_path / "plugin.toml").write_text(MANIFEST)
    (tmp_path / "src" / "probe.py").write_text(PROBE)

    def open_with(*granted, denied=()):
        return OPENERS[request.param](tmp_path, granted, denied)

    return open_with


async def reason_of(call):
    """Why a call was refused: its code and the permission it names."""
    with pytest.raises(CallRefusedError) as refused:
        await call
    return refused.value.reason, refused.value.permission


@pytest.mark.requirement("CORE-8")
async def test_a_value_that_was_stored_is_found_until_it_is_deleted(opened):
    async with opened("storage") as host:
        assert await host.call("get", key="k") == {"found": False, "value": None}
        await host.call("put", key="k", value={"a": [1, None, "é"]})
        assert await host.call("get", key="k") == {"found": True, "value": {"a": [1, None, "é"]}}
        assert await host.call("delete", key="k") == {"result": True}
        assert await host.call("delete", key="k") == {"result": False}
        assert await host.call("get", key="k") == {"found": False, "value": None}


async def test_null_is_a_value(opened):
    async with opened("storage") as host:
        await host.call("put", key="k", value=None)
        assert await host.call("get", key="k") == {"found": True, "value": None}


async def test_keys_are_listed_in_the_order_of_their_bytes_and_by_prefix(opened):
    async with opened("storage") as host:
        for key in ("b", "a2", "a10", "é", "a"):
            await host.call("put", key=key, value=0)
        assert await host.call("keys") == {"result": ["a", "a10", "a2", "b", "é"]}
        assert await host.call("keys", prefix="a") == {"result": ["a", "a10", "a2"]}


async def test_a_page_of_keys_tells_whether_there_are_more(opened):
    async with opened("storage") as host:
        for key in "abc":
            await host.call("put", key=key, value=0)
        first = await host.call("ask", method="host/storage.list", params={"limit": 2})
        assert first == {"keys": ["a", "b"], "more": True}
        rest = await host.call("ask", method="host/storage.list", params={"limit": 2, "after": "b"})
        assert rest == {"keys": ["c"], "more": False}


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY_BYTES + 1), "é" * (MAX_KEY_BYTES // 2 + 1)])
async def test_a_key_out_of_bounds_is_refused(opened, key):
    async with opened("storage") as host:
        assert await reason_of(host.call("put", key=key, value=0)) == ("INVALID_PARAMETERS", "")


async def test_a_key_and_a_value_of_just_their_bounds_are_taken_and_one_byte_more_is_refused(opened):
    async with opened("storage") as host:
        await host.call("put_long", key_bytes=MAX_KEY_BYTES, value_bytes=MAX_VALUE_BYTES)
        refused = host.call("put_long", key_bytes=1, value_bytes=MAX_VALUE_BYTES + 1)
        assert await reason_of(refused) == ("INVALID_PARAMETERS", "")


@pytest.mark.parametrize("limit", [0, 1001, "1"])
async def test_a_page_size_out_of_bounds_is_refused(opened, limit):
    async with opened("storage") as host:
        refused = host.call("ask", method="host/storage.list", params={"limit": limit})
        assert await reason_of(refused) == ("INVALID_PARAMETERS", "")


@pytest.mark.requirement("CORE-2")
@pytest.mark.parametrize(
    ("function", "arguments", "need"),
    [
        ("get", {"key": "k"}, "storage.read"),
        ("keys", {}, "storage.read"),
        ("put", {"key": "k", "value": 0}, "storage.write"),
        ("delete", {"key": "k"}, "storage.write"),
        ("publish", {"topic": "a.b"}, "events.publish:a.b"),
    ],
)
async def test_a_host_call_needs_its_permission_and_a_denial_wins(opened, function, arguments, need):
    async with opened(need) as host:
        await host.call(function, **arguments)
    async with opened() as host:
        assert await reason_of(host.call(function, **arguments)) == ("PERMISSION_DENIED", need)
    async with opened("storage", "events", denied=[need]) as host:
        assert await reason_of(host.call(function, **arguments)) == ("PERMISSION_DENIED", need)


@pytest.mark.requirement("CORE-7")
async def test_a_topic_below_a_granted_one_may_be_published_and_one_beside_it_not(opened):
    async with opened("events.publish:a.*") as host:
        await host.call("publish", topic="a.b.c")
        assert await reason_of(host.call("publish", topic="b.a")) == (
            "PERMISSION_DENIED",
            "events.publish:b.a",
        )


async def test_a_topic_that_can_be_none_is_refused_as_such(opened):
    async with opened("events") as host:
        assert await reason_of(host.call("publish", topic="Not A Topic")) == ("INVALID_PARAMETERS", "")


async def test_a_plugin_may_always_ask_what_it_may(opened):
    async with opened("storage.read", denied=["events"]) as host:
        assert await host.call("rules") == {"granted": ["storage.read"], "denied": ["events"]}


async def test_a_host_call_there_is_not_is_not_found(opened):
    async with opened("storage", "events") as host:
        refused = host.call("ask", method="host/nothing.like_it", params={})
        assert await reason_of(refused) == ("FUNCTION_NOT_FOUND", "")


@pytest.mark.parametrize("method", sorted(set(HOST_CALLS) - {"host/permissions.list"}))
async def test_parameters_of_the_wrong_type_are_refused(opened, method):
    wrong = dict.fromkeys(("key", "prefix", "topic", "level", "message"), 7)
    form = {
        "host/log": ("level", "message"),
        "host/storage.list": ("prefix",),
        "host/events.publish": ("topic",),
        "host/events.subscribe": ("topic",),
        "host/events.unsubscribe": ("topic",),
    }
    params = {field: wrong[field] for field in form.get(method, ("key",))}
    async with opened("storage", "events") as host:
        refused = host.call("ask", method=method, params=params)
        assert await reason_of(refused) == ("INVALID_PARAMETERS", "")


@pytest.mark.parametrize("method", sorted(HOST_CALLS))
async def test_a_parameter_there_is_not_is_refused(opened, method):
    async with opened("storage", "events") as host:
        refused = host.call("ask", method=method, params={"surprise": 1})
        assert await reason_of(refused) == ("INVALID_PARAMETERS", "")
