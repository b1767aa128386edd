"""A connection in the place of one that ended: of the same instance, which gains nothing by having died."""

import asyncio

import pytest

from tests.fakes.plugin_peer import WAIT_S, PluginPeer
from wirthforge_host.bridge.connection import MAX_BREACHES
from wirthforge_host.bridge.host_calls.forms import EVENTS_PER_S
from wirthforge_sdk.contracts.bridge import REPAIRED
from wirthforge_sdk.contracts.events import Subscription


async def again(bridged):
    """The instance's process died, and another connects: its end, and the host's."""
    bridged.peer.close()
    await bridged.lost.wait()
    await bridged.endpoint.reopen()
    bridged.peer = await PluginPeer.connect(bridged.path)
    bridged.session = await bridged.endpoint.accept(timeout_s=WAIT_S)
    return bridged.peer


@pytest.mark.requirement("RES-10")
async def test_breaches_of_the_protocol_stay_counted(bridged):
    for _ in range(MAX_BREACHES - 2):
        bridged.peer.send(b"no json")
        assert (await bridged.peer.receive())["error"]["code"] == -32700
    peer = await again(bridged)
    peer.send(b"no json")
    assert (await peer.receive())["error"]["code"] == -32700
    assert not bridged.endpoint.was_cut
    peer.send(b"no json")
    assert await peer.hung_up()
    assert bridged.endpoint.was_cut, "whom the host cut off is not repaired"


async def test_what_was_used_up_of_a_rate_stays_so(bridged):
    bridged.grant("events.publish:a")
    for number in range(int(2 * EVENTS_PER_S)):
        assert "result" in await bridged.peer.asked("host/events.publish", number, topic="a", data=1)
    peer = await again(bridged)
    assert await peer.code("host/events.publish", topic="a", data=1) == "RESOURCE_EXHAUSTED"


async def test_how_the_process_before_ended_is_taken_in_its_form_alone(bridged):
    assert bridged.endpoint.crash is None
    peer = await again(bridged)
    peer.notify(REPAIRED, code=-9)
    for wrong in (256, -65, True, 3.0, "3", None):
        peer.notify(REPAIRED, code=wrong)
    peer.notify(REPAIRED, code=-11)
    await peer.asked("host/permissions.list")
    assert bridged.endpoint.crash == -11
    assert len(await bridged.recorded("bridge.breach")) == 6


async def test_only_who_ended_can_be_followed(bridged):
    with pytest.raises(RuntimeError, match="one connection at a time"):
        await bridged.endpoint.reopen()


@pytest.mark.requirement("RES-10")
async def test_events_that_come_meanwhile_wait_for_whoever_comes_next(services, short_path, peer_of, bridged):
    await bridged.endpoint.close()
    topic = Subscription(topic="weather.*")
    directory = short_path / "j"
    bridged.grant("events.subscribe:weather.*")
    lost = asyncio.Event()
    endpoint = await bridged.bridge.listen(
        peer_of(rights=bridged.rights, subscriptions=(topic,)), directory, on_lost=lost.set
    )
    first = await PluginPeer.connect(directory / "bridge.sock")
    before = await endpoint.accept(timeout_s=WAIT_S)
    await before.subscribe()
    await services.bus.publish("application:t", "weather.rain", b"1")
    sent = await first.received("events/deliver")
    assert sent["params"]["arguments"]["event"]["data"] == 1
    await services.bus.publish("application:t", "weather.rain", b"2")
    first.close()
    await lost.wait()
    await services.bus.publish("application:t", "weather.snow", b"3")

    await endpoint.reopen()
    second = await PluginPeer.connect(directory / "bridge.sock")
    after = await endpoint.accept(timeout_s=WAIT_S)
    await after.go_on(before)
    await services.bus.publish("application:t", "weather.hail", b"4")
    found = []
    for _ in range(3):
        delivered = await second.received("events/deliver")
        second.answer(delivered, {"content": []})
        found.append(delivered["params"]["arguments"]["event"]["data"])
    assert sorted(found) == [2, 3, 4], "neither lost nor doubled; what was sent once is not sent again"
    await endpoint.close()
    assert services.bus.subscriptions() == []
