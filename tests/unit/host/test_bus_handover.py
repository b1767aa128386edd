"""Subscriptions go from one release's instances to another's: in order, at one point, no event lost or doubled."""

import asyncio
import itertools
from collections import defaultdict
from datetime import UTC, datetime

import pytest

from tests.fakes.bus_plugin import PLUGIN, Plugin, publish
from tests.fakes.plugin_peer import WAIT_S
from wirthforge_host.bus import Gap
from wirthforge_host.bus import subscriber as bus_subscriber
from wirthforge_host.bus.models import BusEvent
from wirthforge_host.bus.queue import Queue
from wirthforge_host.errors import PluginUnavailableError
from wirthforge_sdk.contracts.events import Subscription
from wirthforge_sdk.errors import UnavailableError
from wirthforge_sdk.serving.errors import DatabaseUnavailableError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = [{"durable": True}, {"queue": 10_000}, {"queue": 2, "overflow": "block"}]
DURABLE_OR_NOT = pytest.mark.parametrize("durable", [True, False])


def data(events):
    return [event["data"] for event in events]


def told_undelivered(bus):
    return [event.data["event"] for event in bus._news.recent() if event.type == "event.undelivered"]


class Held:
    """Answers of a plugin that come when it is let go, or never."""

    def __init__(self):
        self.go = asyncio.Event()
        self.cancelled = 0

    async def __call__(self, _event):
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def begin_hand_over(old, new):
    """A hand-over that has come to its point, and waits for what is on its way."""
    task = asyncio.create_task(new.take_over(old))
    async with asyncio.timeout(WAIT_S):
        while new.subscriber._way is None:  # noqa: ASYNC110 (nothing tells of the point itself)
            await asyncio.sleep(0)
    return task


async def ended(task):
    async with asyncio.timeout(WAIT_S):
        await task


class Ledger:
    """What two plugins were sent, and what was wrong about it."""

    def __init__(self, bus):
        self.seen = defaultdict(list)
        self.wrong = []
        self._at_work = set()
        self._more = asyncio.Event()
        self._live = None
        self._line_up, bus.line_up = bus.line_up, self._lined_up

    def _lined_up(self, subscriber, **more):
        self._live = subscriber
        return self._line_up(subscriber, **more)

    @property
    def count(self):
        return sum(map(len, self.seen.values()))

    async def has(self, count):
        async with asyncio.timeout(WAIT_S):
            while self.count < count:
                self._more.clear()
                await self._more.wait()

    def of(self, plugin):
        async def answer(event):
            topic = event["topic"]
            if topic in self._at_work or event["missed"] or self._live is not plugin.subscriber:
                self.wrong.append(event)
            self._at_work.add(topic)
            self.seen[topic].append(event["data"])
            self._more.set()
            for _ in range(event["data"] % 4):
                await asyncio.sleep(0)
            self._at_work.remove(topic)

        return answer


async def publishes_until(over, bus, topic):
    for number in itertools.count():
        await publish(bus, topic, number)
        await asyncio.sleep(0)
        if over.is_set():
            break
    return list(range(number + 1))


@pytest.mark.requirement("CORE-7")
@pytest.mark.parametrize("terms", KINDS, ids=["durable", "drops", "blocks"])
async def test_back_and_forth_every_event_is_seen_once_in_order_by_one_of_the_two(bus, terms):
    ledger, over = Ledger(bus), asyncio.Event()
    old, new = (Plugin(bus, "events").connect("a.*", **terms) for _ in range(2))
    old.answer, new.answer = ledger.of(old), ledger.of(new)
    await old.subscriber.begin(old.send)
    topics = ("a.x", "a.y", "a.z")
    publishers = [asyncio.create_task(publishes_until(over, bus, topic)) for topic in topics]
    for _ in range(100):
        await new.take_over(old)
        await ledger.has(ledger.count + 2)
        old, new = new, old
    over.set()
    published = await asyncio.gather(*publishers)
    await ledger.has(sum(map(len, published)))
    assert ledger.wrong == []
    assert ledger.seen == dict(zip(topics, published, strict=True))
    assert min(old.sent.qsize(), new.sent.qsize()) > 50
    assert len(bus.subscriptions()) == 1


async def test_what_waits_goes_on_in_order_with_its_gaps_and_after_what_is_on_its_way(bus):
    old, new = (Plugin(bus, "events").connect("a", queue=10) for _ in range(2))
    old.answer = held = Held()
    await old.subscriber.begin(old.send)
    for number in range(101):
        await publish(bus, "a", number)
        await asyncio.sleep(0)
    task = await begin_hand_over(old, new)
    await publish(bus, "a", 101)
    assert new.sent.empty(), "the first is not acknowledged"
    assert not task.done()
    held.go.set()
    await ended(task)
    taken = 31  # besides the one on its way
    events = await new.got(taken + 10)
    assert data(events) == [*range(1, taken + 1), *range(92, 102)]
    assert {event["data"]: event["missed"] for event in events if event["missed"]} == {92: 92 - taken - 1}
    assert data(await old.got(1)) == [0]
    assert old.sent.empty()


async def test_another_topic_does_not_wait_for_what_is_on_its_way(bus):
    old, new = (Plugin(bus, "events").connect("a.*") for _ in range(2))
    old.answer = held = Held()
    await old.subscriber.begin(old.send)
    await publish(bus, "a.slow", 1)
    await old.got(1)
    task = await begin_hand_over(old, new)
    await publish(bus, "a.fast", 2)
    assert data(await new.got(1)) == [2]
    held.go.set()
    await ended(task)


async def test_a_publisher_that_waits_for_room_goes_on_waiting_and_is_served(bus):
    old, new = (Plugin(bus, "events").connect("a", queue=2, overflow="block") for _ in range(2))
    old.answer = held = Held()
    await old.subscriber.begin(old.send)
    for number in range(34):
        await publish(bus, "a", number)
        await asyncio.sleep(0)
    waiting = [asyncio.create_task(publish(bus, "a", number)) for number in (34, 35)]
    task = await begin_hand_over(old, new)
    assert not any(each.done() for each in waiting)
    held.go.set()
    await ended(asyncio.gather(task, *waiting))
    events = await new.got(35)
    assert data(events) == list(range(1, 36))
    assert not any(event["missed"] for event in events)


@DURABLE_OR_NOT
async def test_of_an_old_one_that_dies_meanwhile_what_is_durable_is_sent_again(bus, durable):
    old, new = (Plugin(bus, "events").connect("a", durable=durable) for _ in range(2))
    gone = asyncio.Event()

    async def answer(_event):
        await gone.wait()
        raise PluginUnavailableError("gone")

    old.answer = answer
    await old.subscriber.begin(old.send)
    await publish(bus, "a", 1, 2)
    [first] = await old.got(1)
    task = await begin_hand_over(old, new)
    gone.set()
    old.subscriber.close()
    await ended(task)
    events = await new.got(2 if durable else 1)
    assert data(events) == ([1, 2] if durable else [2])
    assert not durable or events[0]["id"] == first["id"]
    assert told_undelivered(bus) == []


@DURABLE_OR_NOT
async def test_what_died_with_the_old_one_just_before_is_not_forgotten(bus, durable):
    old, new = (Plugin(bus, "events").connect("a", durable=durable) for _ in range(2))

    async def answer(_event):
        raise PluginUnavailableError("gone")

    old.answer = answer
    await old.subscriber.begin(old.send)
    await publish(bus, "a", 1)
    await old.got(1)
    await ended(new.take_over(old))
    await publish(bus, "a", 2)
    assert data(await new.got(2 if durable else 1)) == ([1, 2] if durable else [2])


@DURABLE_OR_NOT
async def test_an_old_one_that_never_acknowledges_is_cut(bus, durable, monkeypatch):
    monkeypatch.setattr(bus_subscriber, "HAND_OVER_S", 0.01)
    old, new = (Plugin(bus, "events").connect("a", durable=durable) for _ in range(2))
    old.answer = held = Held()
    await old.subscriber.begin(old.send)
    await publish(bus, "a", 1, 2)
    [first] = await old.got(1)
    await ended(new.take_over(old))
    assert held.cancelled == 1
    events = await new.got(2 if durable else 1)
    assert data(events) == ([1, 2] if durable else [2])
    assert told_undelivered(bus) == ([] if durable else [first["id"]])


async def test_what_is_cut_again_and_again_is_not_given_up(bus, monkeypatch):
    monkeypatch.setattr(bus_subscriber, "HAND_OVER_S", 0.01)
    monkeypatch.setattr("wirthforge_host.bus.delivery.PAUSES_S", (0.0,))
    old, new = (Plugin(bus, "events").connect("a", durable=True) for _ in range(2))
    old.answer = new.answer = Held()
    await old.subscriber.begin(old.send)
    await publish(bus, "a", 1)
    for _ in range(6):
        await old.got(1)
        await ended(new.take_over(old))
        old, new = new, old
    assert data(await old.got(1)) == [1]


async def test_attempts_are_counted_over_releases(bus, monkeypatch):
    monkeypatch.setattr("wirthforge_host.bus.delivery.PAUSES_S", (0.0, 0.0, 60.0))

    async def answer(event):
        if event["data"] == "poison":
            raise UnavailableError("it failed")

    old = Plugin(bus, "events").connect("a", durable=True)
    old.answer = answer
    await old.subscriber.begin(old.send)
    await publish(bus, "a", "poison", "good")
    await old.got(3)  # and it pauses
    monkeypatch.setattr("wirthforge_host.bus.delivery.PAUSES_S", (0.0,))
    old.subscriber.close()
    new = Plugin(bus, "events").connect("a", durable=True)
    new.answer = answer
    await new.take_over(old)
    assert data(await new.got(3)) == ["poison"] * 2 + ["good"]
    assert len(told_undelivered(bus)) == 1


@DURABLE_OR_NOT
async def test_what_the_new_release_is_not_granted_ends_with_all_that_waits(bus, durable):
    old = Plugin(bus, "events").connect("a", "b.*", durable=durable)
    new = Plugin(bus, "events.subscribe:b.*", denied=["events.subscribe:b.x"]).connect(
        "a", "b.*", durable=durable
    )
    old.answer = held = Held()
    await old.subscriber.begin(old.send)
    await publish(bus, "a", 1, 2)
    await publish(bus, "b.x", 3, 4)
    await publish(bus, "b.y", 5, 6)
    await old.got(3)
    task = await begin_hand_over(old, new)
    held.go.set()
    await ended(task)
    assert data(await new.got(1)) == [6]
    assert [pattern for _, pattern, _ in bus.subscriptions()] == ["b.*"]
    await publish(bus, "a", 7)
    new.grant("events")
    await publish(bus, "b.x", 8)
    await publish(bus, "a", 9)
    assert sorted(data(await new.got(2))) == [8, 9]
    assert not durable or set(bus.log.cursors) == {(PLUGIN, "a"), (PLUGIN, "b.*")}


@DURABLE_OR_NOT
async def test_a_pattern_that_is_gone_ends_and_a_new_one_begins(bus, durable):
    old = await Plugin(bus, "events").begin("a", "b", durable=durable)
    new = Plugin(bus, "events").connect("b", "c", durable=durable)
    await publish(bus, "c", "before")
    await new.take_over(old)
    for topic in "abc":
        await publish(bus, topic, topic)
    assert sorted(data(await new.got(2))) == ["b", "c"]
    assert [bus.log.keeps(topic) for topic in "abc"] == [False, durable, durable]
    await old.take_over(new)
    for topic in "abc":
        await publish(bus, topic, topic)
    assert sorted(data(await old.got(2))) == ["a", "b"]
    assert new.sent.empty()


@DURABLE_OR_NOT
async def test_a_subscription_that_becomes_durable_or_ceases_to_be_begins_anew(bus, durable):
    old = await Plugin(bus, "events").begin("a", durable=not durable)
    new = Plugin(bus, "events").connect("a", durable=durable)
    await new.take_over(old)
    await publish(bus, "a", 1)
    assert data(await new.got(1)) == [1]
    assert bus.log.keeps("a") is durable
    new.subscriber.close()
    await publish(bus, "a", 2)
    again = await Plugin(bus, "events").begin("a", durable=durable)
    await publish(bus, "a", 3)
    assert data(await again.got(1 + durable)) == ([2, 3] if durable else [3])


async def test_a_queue_that_blocks_from_now_on_drops_nothing_and_one_that_ceases_to_lets_publishers_go(bus):
    queue = Queue(3)
    bus.join("a", queue)
    await publish(bus, "a", 1, 2, 3)
    queue.bind(2, blocks=True)
    waiting = asyncio.create_task(publish(bus, "a", 5))
    await asyncio.sleep(0)
    queue.put(BusEvent(1, "a", "application:test", NOW, b"4"))  # of one that asked for room before
    assert [(await queue.take()).encoded for _ in range(2)] == [b"1", b"2"]
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.bind(2, blocks=False)
    await ended(waiting)
    assert await queue.take() == Gap(1)
    assert [(await queue.take()).encoded for _ in range(2)] == [b"4", b"5"]


async def test_the_terms_are_those_of_the_new_release(bus):
    old = Plugin(bus, "events").connect("a", queue=100, timeout_s=5)
    new = Plugin(bus, "events").connect("a", queue=2, overflow="block", timeout_s=7)
    times = []

    async def send(pattern, event, timeout_s):
        times.append(timeout_s)
        await new.send(pattern, event, timeout_s)

    old.answer = held = Held()
    await old.subscriber.begin(old.send)
    for number in range(37):
        await publish(bus, "a", number)
        await asyncio.sleep(0)
    task = asyncio.create_task(new.subscriber.take_over(old.subscriber, send))
    await asyncio.sleep(0.0)
    waiting = asyncio.create_task(publish(bus, "a", 37))
    await asyncio.sleep(0.0)
    assert not waiting.done(), "it blocks now"
    held.go.set()
    await ended(asyncio.gather(task, waiting))
    assert data(await new.got(37)) == list(range(1, 38)), "and has dropped nothing"
    assert times == [7] * 37
    await old.take_over(new)
    narrow = Plugin(bus, "events").connect("a", queue=2)
    old.answer = held = Held()
    for number in range(37):
        await publish(bus, "a", number)
        await asyncio.sleep(0)
    task = await begin_hand_over(old, narrow)
    held.go.set()
    await ended(task)
    events = await narrow.got(33)
    assert data(events) == [*range(1, 32), 35, 36]
    assert events[-2]["missed"] == 3


async def test_what_an_instance_subscribes_to_itself_is_not_handed_over_and_waits_for_its_return(bus):
    old = await Plugin(bus, "events").begin("a")
    new = Plugin(bus, "events").connect("a")
    new.subscriber.subscribe(Subscription(topic="of.new"))
    old.subscriber.subscribe(Subscription(topic="of.old", queue=1, overflow="block"))
    await new.take_over(old)
    old.subscriber.subscribe(Subscription(topic="of.old.too"))
    await publish(bus, "of.old", 1, 2, 3, 4)
    await publish(bus, "of.new", 5)
    assert data(await new.got(1)) == [5]
    await old.take_over(new)
    for topic in ("of.old", "of.old.too", "of.new"):
        await publish(bus, topic, topic)
    assert data(await old.got(2)) == ["of.old", "of.old.too"]
    assert new.sent.empty()


@DURABLE_OR_NOT
async def test_where_the_old_one_is_gone_it_is_a_start(bus, durable):
    old = await Plugin(bus, "events").begin("a", durable=durable)
    await publish(bus, "a", 1)
    await old.got(1)
    old.subscriber.close()
    await publish(bus, "a", 2)
    new = Plugin(bus, "events").connect("a", durable=durable)
    await new.take_over(old)
    await publish(bus, "a", 3)
    events = await new.got(1 + durable)
    assert data(events)[-1] == 3


async def test_a_release_takes_over_from_all_instances_of_another(bus):
    old = await Plugin(bus, "events").begin("a")
    fellow = await Plugin(bus, beside=old).begin("a")
    fellow.subscriber.subscribe(Subscription(topic="b"))
    new = Plugin(bus, "events").connect("a")
    next_ = Plugin(bus, beside=new).connect("a")
    await new.take_over(fellow)  # whichever is named
    await next_.subscriber.begin(next_.send)
    with pytest.raises(RuntimeError):
        await Plugin(bus, beside=new).connect("a").take_over(Plugin(bus, "events").connect())
    await publish(bus, "b", 0)
    await publish(bus, "a", 1)
    assert data(await new.got(1)) == [1]
    old.subscriber.close()
    new.subscriber.close()
    await asyncio.wait(bus._tasks)
    await publish(bus, "a", 2)
    assert data(await next_.got(1)) == [2]
    assert (old.sent.qsize(), fellow.sent.qsize()) == (0, 0), "who was replaced has no turn"
    await fellow.take_over(next_)
    await publish(bus, "a", 3)
    assert data(await fellow.got(1)) == [3]


async def test_who_comes_back_beside_another_waits_for_its_turn(bus):
    one = await Plugin(bus, "events").begin("a")
    other = await Plugin(bus, beside=one).begin("a")
    new = Plugin(bus, "events").connect("a")
    await new.take_over(one)
    await other.take_over(new)
    await one.subscriber.begin(one.send)
    await publish(bus, "a", 1)
    assert data(await other.got(1)) == [1]
    assert one.sent.empty()
    other.subscriber.close()
    await asyncio.wait(bus._tasks)
    await publish(bus, "a", 2)
    assert data(await one.got(1)) == [2]


async def test_a_turn_that_is_about_to_come_is_not_taken_after_a_hand_over(bus):
    old = await Plugin(bus, "events").begin("a", "gone", durable=True)
    fellow = await Plugin(bus, beside=old).begin("a", "gone", durable=True)
    new = Plugin(bus, "events").connect("a", durable=True)
    async with bus.turns:
        taking = asyncio.create_task(new.take_over(old))
        await asyncio.sleep(0)
        old.subscriber.close()  # and its fellow's turn comes
    await ended(taking)
    await asyncio.wait(bus._tasks)
    assert set(bus.log.cursors) == {(PLUGIN, "a")}
    await publish(bus, "a", 1)
    assert data(await new.got(1)) == [1]
    assert fellow.sent.empty()


async def test_an_instance_that_just_begins_has_begun_before_it_hands_over(bus):
    old = Plugin(bus, "events").connect("a", "gone", durable=True)
    new = Plugin(bus, "events").connect("a", durable=True)
    beginning = asyncio.create_task(old.subscriber.begin(old.send))
    await asyncio.sleep(0)
    await ended(asyncio.gather(new.take_over(old), beginning))
    await asyncio.wait(bus._tasks)
    assert set(bus.log.cursors) == {(PLUGIN, "a")}
    await publish(bus, "a", 1)
    assert data(await new.got(1)) == [1]
    assert old.sent.empty()


async def refused_by_the_database(_tx, _cursors):
    raise DatabaseUnavailableError("it does not answer")


@pytest.mark.parametrize("cause", [PluginUnavailableError, DatabaseUnavailableError])
async def test_a_hand_over_that_fails_changes_nothing(bus, cause, monkeypatch):
    old = await Plugin(bus, "events").begin("a", durable=True)
    new = Plugin(bus, "events").connect("a", "b", durable=True)
    if cause is PluginUnavailableError:
        new.subscriber.close()
    else:
        monkeypatch.setattr("wirthforge_host.bus.store.set_cursors", refused_by_the_database)
    with pytest.raises(cause):
        await new.take_over(old)
    monkeypatch.undo()
    await asyncio.wait(bus._tasks)
    await publish(bus, "a", 1)
    assert data(await old.got(1)) == [1]
    assert [bus.log.keeps(topic) for topic in "ab"] == [True, False]


async def test_who_is_sent_events_already_goes_on_when_told_to_begin(bus):
    plugin = await Plugin(bus, "events").begin("a", "b")
    plugin.subscriber.unsubscribe("b")
    await plugin.subscriber.begin(plugin.send)
    assert [pattern for _, pattern, _ in bus.subscriptions()] == ["a"]
    await publish(bus, "a", 1)
    assert data(await plugin.got(1)) == [1]
    new = Plugin(bus, "events").connect("a")
    await new.take_over(plugin)
    assert len(bus.subscriptions()) == 1
    new.subscriber.close()
    await new.subscriber.begin(new.send)
    assert bus.subscriptions() == []
