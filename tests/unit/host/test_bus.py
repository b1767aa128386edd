"""The bus: order, bounds, what is kept, and that a revocation ends a subscription at once."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from tests.fakes.bus_plugin import PLUGIN, Plugin, publish
from tests.fakes.plugin_peer import WAIT_S
from wirthforge_host.bus import Bus, Gap, Retention
from wirthforge_host.bus import service as bus_service
from wirthforge_host.bus.feeds import KeptFeed
from wirthforge_host.bus.models import HOST, BusEvent
from wirthforge_host.bus.queue import Queue
from wirthforge_host.bus.store import READ_BYTES
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_sdk.contracts.events import Subscription
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError, UnavailableError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.requirement("CORE-7")
async def test_events_of_a_topic_come_in_order_one_at_a_time_and_topics_do_not_wait_for_each_other(bus):
    plugin = Plugin(bus, "events")
    open_, worst, held = {}, {}, asyncio.Event()

    async def answer(event):
        topic = event["topic"]
        open_[topic] = open_.get(topic, 0) + 1
        worst[topic] = max(worst.get(topic, 0), open_[topic])
        if topic == "a.slow":
            await held.wait()
        await asyncio.sleep(0)
        open_[topic] -= 1

    plugin.answer = answer
    await plugin.begin("a.*")
    await publish(bus, "a.slow", *range(3))
    await publish(bus, "a.fast", *range(10))
    first = await plugin.got(11)
    assert [event["data"] for event in first if event["topic"] == "a.fast"] == list(range(10))
    held.set()
    rest = await plugin.got(2)
    assert [event["data"] for event in [*first, *rest] if event["topic"] == "a.slow"] == [0, 1, 2]
    assert worst == {"a.slow": 1, "a.fast": 1}


@pytest.mark.requirement("RES-12")
@pytest.mark.parametrize("durable", [False, True])
async def test_of_several_instances_one_has_what_the_manifest_subscribes_to_and_then_the_next(bus, durable):
    first = await Plugin(bus, "events").begin("a", durable=durable)
    second = await Plugin(bus, beside=first).begin("a", durable=durable)
    second.subscriber.subscribe(Subscription(topic="b"))
    await publish(bus, "a", 1)
    await publish(bus, "b", 2)
    assert [event["data"] for event in await first.got(1)] == [1]
    assert [event["data"] for event in await second.got(1)] == [2]  # its own
    first.subscriber.close()
    await asyncio.wait(bus._tasks)  # the next one's turn
    await publish(bus, "a", 3)
    assert [event["data"] for event in await second.got(1)] == [3]
    assert first.sent.empty()
    second.subscriber.close()
    assert bus.subscriptions() == []


@pytest.mark.requirement("CORE-7")
async def test_a_full_queue_drops_the_oldest_and_the_next_event_tells_how_many(bus):
    plugin = Plugin(bus, "events")
    held = asyncio.Event()
    plugin.answer = lambda _: held.wait()
    await plugin.begin("a", queue=10)
    await publish(bus, "a", 0)
    await plugin.got(1)
    for number in range(1, 101):
        await publish(bus, "a", number)
        await asyncio.sleep(0)
    held.set()
    taken = 31  # what was on its way besides the one that was held
    events = await plugin.got(taken + 10)
    assert [event["data"] for event in events] == [*range(1, taken + 1), *range(91, 101)]
    assert [event["missed"] for event in events if event["missed"]] == [100 - taken - 10]
    assert events[taken]["missed"] == 100 - taken - 10


@pytest.mark.requirement("CORE-7")
async def test_a_queue_that_blocks_makes_its_publisher_wait_and_then_refuses(bus, monkeypatch):
    queue, other = Queue(2, blocks=True), Queue(10)
    bus.join("a", queue)
    bus.join("a", other)
    await publish(bus, "a", 1, 2)
    waiting = asyncio.create_task(publish(bus, "a", 3))
    await asyncio.sleep(0)
    assert not waiting.done()
    await queue.take()
    async with asyncio.timeout(WAIT_S):
        await waiting
    monkeypatch.setattr(bus_service, "BLOCK_S", 0.01)
    with pytest.raises(LimitExceededError, match="no room"):
        await publish(bus, "a", 4)
    assert len(other) == 3, "what was refused was published to nobody"
    bus.part("a", queue)
    await publish(bus, "a", 5)


def event(number, publisher="plugin:acme/a"):
    return BusEvent(number, "a", publisher, NOW, b"1")


async def test_news_of_the_host_push_nothing_out_of_a_queue_that_blocks_and_are_told_as_missed():
    queue = Queue(2, blocks=True)
    await queue.reserve()
    for number in (1, 2, 3):
        queue.put(event(number, HOST))
    queue.put(event(4))
    queue.settle()
    for number in (5, 6):
        queue.put(event(number, HOST))
    assert [(await queue.take()).id, await queue.take(), (await queue.take()).id] == [1, Gap(2), 4]
    queue.put(event(7))
    assert [await queue.take(), (await queue.take()).id, len(queue)] == [Gap(2), 7, 0]


async def test_a_loss_is_told_where_it_happened_however_often_it_does():
    queue = Queue(2)
    for number in range(1, 5):
        queue.put(event(number))
    assert [await queue.take(), (await queue.take()).id] == [Gap(2), 3]
    queue.put(event(5))
    queue.put(event(6))
    assert [await queue.take(), (await queue.take()).id, (await queue.take()).id] == [Gap(1), 5, 6]


@pytest.mark.requirement("PERM-3")
async def test_a_revocation_ends_a_subscription_at_once_with_what_is_on_its_way(bus):
    plugin, cancelled = Plugin(bus, "events.subscribe:a"), asyncio.Event()

    async def answer(_):
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    plugin.answer = answer
    await plugin.begin("a")
    await publish(bus, "a", 1)
    await plugin.got(1)
    plugin.grant()
    async with asyncio.timeout(WAIT_S):
        await cancelled.wait()
    assert bus.subscriptions() == []
    await publish(bus, "a", 2)
    plugin.answer = None
    plugin.grant("events.subscribe:a")
    await publish(bus, "a", 3)
    assert [event["data"] for event in await plugin.got(1)] == [3]


async def test_what_a_revoked_durable_subscription_would_have_got_is_never_sent(bus):
    plugin = await Plugin(bus, "events.subscribe:a").begin("a", durable=True)
    plugin.grant()
    await asyncio.wait(bus._tasks)
    assert not bus.log.keeps("a")
    await publish(bus, "a", "not for it")
    again = await Plugin(bus, "events.subscribe:a").begin("a", durable=True)
    await publish(bus, "a", "for it")
    assert [event["data"] for event in await again.got(1)] == ["for it"]
    assert plugin.sent.empty()


@pytest.mark.requirement("CORE-7")
async def test_a_durable_subscription_goes_on_over_instances_and_hosts_without_a_loss(
    bus, database, audit, events, clock
):
    plugin = await Plugin(bus, "events").begin("a.#", durable=True)
    await publish(bus, "a.b", 1)
    [first] = await plugin.got(1)
    plugin.subscriber.close()
    await publish(bus, "a.b", 2)
    again = await Plugin(bus, "events").begin("a.#", durable=True)
    [second] = await again.got(1)
    assert (second["data"], second["id"] > first["id"]) == (2, True)
    again.subscriber.close()
    await publish(bus, "a.c", 3)
    # A host that is killed writes nothing more: the next one reads what is there.
    after = Bus(database, audit, events, now=clock)
    await after.load()
    late = await Plugin(after, "events").begin("a.#", durable=True)
    got = {event["data"]: event["id"] for event in await late.got(3)}
    assert got[1] == first["id"], "what comes twice has the same id"
    assert set(got) == {1, 2, 3}
    await after.close()
    last = Bus(database, audit, events, now=clock)
    await last.load()
    final = await Plugin(last, "events").begin("a.#", durable=True)
    await publish(last, "a.d", 4)
    assert [event["data"] for event in await final.got(1)] == [4], "what is acknowledged is not sent again"
    await last.close()


async def test_an_event_that_was_not_acknowledged_is_sent_again_until_it_is_given_up(bus, monkeypatch):
    monkeypatch.setattr("wirthforge_host.bus.delivery.PAUSES_S", (0.0,))
    plugin = Plugin(bus, "events")

    async def answer(event):
        if event["data"] == "poison":
            raise UnavailableError("it failed")

    plugin.answer = answer
    await plugin.begin("a", durable=True)
    await publish(bus, "a", "poison", "good")
    assert [event["data"] for event in await plugin.got(6)] == ["poison"] * 5 + ["good"]
    told = [event for event in bus._news.recent() if event.type == "event.undelivered"]
    assert [(event.plugin, event.data["on"]) for event in told] == [(PLUGIN, "a")]


async def test_an_event_that_kills_the_plugin_is_met_five_times(bus):
    for _ in range(5):
        plugin = Plugin(bus, "events")

        async def answer(_):
            raise PluginUnavailableError("gone")

        plugin.answer = answer
        await plugin.begin("a", durable=True)
        if not bus.log.last or bus.log.cursors[PLUGIN, "a"] == bus.log.last:
            await publish(bus, "a", "deadly")
        await plugin.got(1)
        await asyncio.sleep(0)
        plugin.subscriber.close()
    survivor = await Plugin(bus, "events").begin("a", durable=True)
    await publish(bus, "a", "harmless")
    assert [event["data"] for event in await survivor.got(1)] == ["harmless"]


@pytest.mark.requirement("CORE-7")
async def test_retention_drops_the_oldest_and_a_reader_that_was_behind_is_told(bus, clock):
    await bus.keep("a.#", Retention(events=5), by="operator:test")
    start = bus.log.last
    await publish(bus, "a.b", *range(8))
    await publish(bus, "a.c", "mine")
    [row, _] = await bus.log.usages()
    assert (row.topic, row.events) == ("a.b", 5)
    feed = KeptFeed(bus.log, "a.#", start)
    got = [await feed.take() for _ in range(7)]
    assert got[0] == Gap(None)
    assert [json.loads(event.encoded) for event in got[1:]] == [3, 4, 5, 6, 7, "mine"]
    clock.advance(8 * 24 * 3600)
    await bus.log.expire()
    assert await bus.log.usages() == []
    assert (await bus.log.read(start, "#"))[0] == []


async def test_a_reader_holds_no_more_than_so_many_bytes_and_misses_nothing(bus):
    await bus.keep("a", Retention(events=50), by="operator:test")
    start, long = bus.log.last, "x" * 60_000
    await publish(bus, "a", *(f"{number} {long}" for number in range(11)))
    found, position = await bus.log.read(start, "a")
    assert sum(len(event.encoded) for event in found) <= READ_BYTES
    assert (len(found), position) == (4, found[-1].id)
    feed = KeptFeed(bus.log, "a", start)
    got = [json.loads((await feed.take()).encoded) for _ in range(11)]
    assert [each.split()[0] for each in got] == [str(number) for number in range(11)]


async def test_one_publishers_flood_pushes_out_only_its_own(bus):
    await bus.keep("a", Retention(events=3), by="operator:test")
    await bus.publish("plugin:acme/quiet", "a", b'"quiet"')
    for number in range(10):
        await bus.publish("plugin:acme/loud", "a", str(number).encode())
    kept = [event.encoded for event in (await bus.log.read(0, "a"))[0]]
    assert kept == [b'"quiet"', b"7", b"8", b"9"]


async def test_news_of_the_host_are_events_under_its_own_word(bus, events):
    plugin = await Plugin(bus, "events.subscribe:host.plugin.*").begin("host.plugin.*")
    everything = await Plugin(bus, "events").begin("#")
    events.emit("plugin.state", plugin="acme/other", state="running")
    [event] = await plugin.got(1)
    assert (event["topic"], event["publisher"]) == ("host.plugin.state", "host")
    assert event["data"] == {"plugin": "acme/other", "state": "running"}
    assert everything.sent.empty(), "a wildcard at the start does not reach the host"
    await publish(bus, "a", 1)
    assert [each["data"] for each in await everything.got(1)] == [1]


@pytest.mark.parametrize("topic", ["", "A", "host.x", "a.*", "#", "a" * 300])
async def test_what_is_no_topic_is_refused(bus, topic):
    with pytest.raises(InvalidInputError):
        await publish(bus, topic, 1)


@pytest.mark.parametrize("data", [b'"' + b"x" * 70_000 + b'"', b"[" * 62 + b"]" * 62])
async def test_data_that_could_not_be_delivered_is_refused(bus, data):
    with pytest.raises(InvalidInputError):
        await bus.publish("application:test", "a", data)


async def test_many_publishers_share_commits_and_ids_grow_in_the_order_of_commits(bus):
    await bus.keep("#", Retention(), by="operator:test")
    made = await asyncio.gather(*(publish(bus, f"t{number % 7}", number) for number in range(300)))
    ids = [event.id for [event] in made]
    stored, _ = await bus.log.read(0, "#", limit=1000)
    assert [event.id for event in stored] == sorted(ids)
    assert len(set(ids)) == 300


async def test_what_is_acknowledged_out_of_order_moves_no_cursor_past_what_is_not(bus):
    plugin, held = Plugin(bus, "events"), asyncio.Event()

    async def answer(event):
        if event["topic"] == "a.slow":
            await held.wait()

    plugin.answer = answer
    await plugin.begin("a.*", durable=True)
    await publish(bus, "a.slow", "first")
    await publish(bus, "a.fast", "second")
    await plugin.got(2)
    await asyncio.sleep(0)
    plugin.subscriber.close()
    again = await Plugin(bus, "events").begin("a.*", durable=True)
    assert [event["data"] for event in await again.got(1)] == ["first"]
