"""What every host does with events, asked by a real plugin over the real protocol."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.fakes.runtime_host import runtime_host
from wirthforge_sdk.testing import CallRefusedError, PluginHarness

WAIT_S = 10
MANIFEST = """
manifest_version = 1
name = "tests/probe"
version = "1.0.0"
summary = "Hears events."
authors = ["The WirthForge authors"]
license = "MIT"
[runtime]
type = "python"
entry = "probe:plugin"
[[permissions]]
need = "events.subscribe:weather.#"
reason = "to hear the weather"
[[permissions]]
need = "events.subscribe:calm.*"
reason = "to hear asynchronously"
[[events.subscriptions]]
topic = "weather.#"
[[events.subscriptions]]
topic = "calm.*"
"""
PROBE = """
import time
from typing import Any
from wirthforge_sdk.runtime import Event, Plugin

plugin = Plugin()
heard = []

@plugin.on_event("weather.#")
def weather(event: Event) -> None:
    heard.append([event.topic, event.publisher.partition(":")[0], event.data])

@plugin.on_event("calm.*")
async def calm(event: Event) -> None:
    heard.append([event.topic, event.publisher.partition(":")[0], event.data])

@plugin.on_event("extra")
def extra(event: Event) -> None:
    heard.append([event.topic, event.publisher.partition(":")[0], event.data])

@plugin.function
def until(count: int) -> list:
    end = time.monotonic() + 5
    while len(heard) < count and time.monotonic() < end:
        time.sleep(0.005)
    return heard

@plugin.function
def publish(topic: str, data: Any) -> int:
    return plugin.events.publish(topic, data)

@plugin.function
def subscribe(pattern: str) -> None:
    plugin.events.subscribe(pattern)

@plugin.function
def unsubscribe(pattern: str) -> bool:
    return plugin.events.unsubscribe(pattern)
"""


@asynccontextmanager
async def in_memory(project, granted, denied):
    async with PluginHarness(project, grants=granted, denied=denied) as harness:
        yield harness


OPENERS = {"memory": in_memory, "real": runtime_host}


@pytest.fixture(params=OPENERS)
def opened(request, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "plugin.toml").write_text(MANIFEST)
    (tmp_path / "src" / "probe.py").write_text(PROBE)
    return lambda *granted, denied=(): OPENERS[request.param](tmp_path, granted, denied)


async def heard(host, count):
    async with asyncio.timeout(WAIT_S):
        return [(topic, data) for topic, _, data in (await host.call("until", count=count))["result"]]


@pytest.mark.requirement("CORE-7")
async def test_a_plugin_is_sent_what_its_manifest_subscribes_to_and_is_granted(opened):
    async with opened("events.subscribe:weather.#", "events.subscribe:calm.*") as host:
        await host.publish("weather.rain.heavy", {"mm": 3})
        await host.publish("other.news", 0)
        await host.publish("calm.sea", [1])
        assert sorted(await heard(host, 2)) == [("calm.sea", [1]), ("weather.rain.heavy", {"mm": 3})]


async def test_what_is_denied_within_a_granted_pattern_is_not_delivered(opened):
    async with opened("events", denied=["events.subscribe:weather.secret.*"]) as host:
        await host.publish("weather.secret.plan", 1)
        await host.publish("weather.secret", 2)
        assert await heard(host, 1) == [("weather.secret", 2)]


async def test_without_the_grant_nothing_is_delivered(opened):
    async with opened("events.subscribe:calm.*") as host:
        await host.publish("weather.rain", 1)
        await host.publish("calm.sea", 2)
        assert await heard(host, 1) == [("calm.sea", 2)]


@pytest.mark.requirement("CORE-7")
async def test_a_subscription_can_be_made_and_ended_while_the_plugin_runs(opened):
    async with opened("events.subscribe:extra") as host:
        assert await host.call("unsubscribe", pattern="extra") == {"result": False}
        await host.publish("extra", 1)
        await host.call("subscribe", pattern="extra")
        await host.publish("extra", 2)
        assert await heard(host, 1) == [("extra", 2)]
        assert await host.call("unsubscribe", pattern="extra") == {"result": True}
        await host.publish("extra", 3)
        assert await heard(host, 1) == [("extra", 2)]


@pytest.mark.requirement("CORE-2")
async def test_a_subscription_needs_a_grant_that_covers_its_pattern(opened):
    async with opened("events.subscribe:extra.*") as host:
        with pytest.raises(CallRefusedError) as refused:
            await host.call("subscribe", pattern="extra")
        assert (refused.value.reason, refused.value.permission) == (
            "PERMISSION_DENIED",
            "events.subscribe:extra",
        )


async def test_ids_grow_and_the_hosts_own_topics_are_nobody_elses(opened):
    async with opened("events") as host:
        first = (await host.call("publish", topic="a.b", data=1))["result"]
        assert (await host.call("publish", topic="a.b", data=2))["result"] > first
        with pytest.raises(CallRefusedError) as refused:
            await host.call("publish", topic="host.plugin.state", data=1)
        assert refused.value.reason == "INVALID_PARAMETERS"
