"""Events and logs: everyone hears in order, nobody is waited for, and who loses something is told."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wirthforge_host.events import GAP, QUEUE, REMEMBERED, REMEMBERED_BYTES, Events
from wirthforge_host.logs import BYTES_PER_S, LINES, LINES_PER_S, Logs
from wirthforge_host.rates import TokenBucket

WAIT_S = 5
PLUGIN = "acme/notes"


@pytest.fixture
def logs(clock):
    return Logs(now=clock, monotonic=clock.monotonic)


def write(logs, message="hello", plugin=PLUGIN, **fields):
    if logs.admits(plugin=plugin, instance="i1", size=len(message) + len(msgspec.json.encode(fields))):
        logs.write(plugin=plugin, instance="i1", level="info", message=message, fields=fields)


async def take(stream, count):
    async with asyncio.timeout(WAIT_S):
        return [await anext(stream) for _ in range(count)]


def emit(events, count, start=0):
    for number in range(start, start + count):
        events.emit("test.happened", n=number)


async def test_every_subscriber_hears_every_event_in_order(events):
    async with events.subscribe() as one, events.subscribe() as two:
        emit(events, 3)
        for stream in (one, two):
            assert [event.data["n"] for event in await take(stream, 3)] == [0, 1, 2]


async def test_a_subscriber_that_waits_is_woken(events):
    async with events.subscribe() as stream:
        waiting = asyncio.create_task(take(stream, 1))
        await asyncio.sleep(0)
        assert not waiting.done()
        events.emit("plugin.state", plugin=PLUGIN, state="running")
        [event] = await waiting
    assert (event.type, event.plugin, event.data) == ("plugin.state", PLUGIN, {"state": "running"})


async def test_who_comes_back_hears_what_was_missed_and_nothing_twice(events):
    emit(events, 5)
    seen = events.recent()[1].id
    async with events.subscribe(after=seen) as stream:
        emit(events, 1, start=5)
        assert [event.data["n"] for event in await take(stream, 4)] == [2, 3, 4, 5]


async def test_a_slow_subscriber_loses_the_oldest_and_is_told_how_many(events):
    async with events.subscribe() as slow:
        emit(events, QUEUE + 7)
        gap, first = await take(slow, 2)
        assert (gap.type, gap.data, gap.id) == (GAP, {"missed": 7}, first.id - 1)
        assert first.data["n"] == 7
        rest = await take(slow, QUEUE - 1)
        assert rest[-1].data["n"] == QUEUE + 6
        emit(events, 1)
        assert (await take(slow, 1))[0].data["n"] == 0


async def test_who_comes_back_too_late_is_told_that_something_is_missing(events):
    emit(events, 1)
    seen = events.recent()[0].id
    emit(events, REMEMBERED + 5)
    async with events.subscribe(after=seen) as stream:
        gap, first = await take(stream, 2)
    assert (gap.type, gap.data) == (GAP, {"missed": None})
    assert first.id == gap.id + 1


async def test_numbers_grow_over_a_restart(clock):
    before = Events(now=clock)
    emit(before, 100)
    clock.advance(0.001)
    after = Events(now=clock)
    emit(after, 1)
    assert after.recent()[0].id > before.recent()[-1].id
    assert after.recent()[0].id < 2**53


async def test_what_is_remembered_is_bounded_in_bytes_too(events):
    for number in range(100):
        events.emit("test.big", n=number, body="x" * (REMEMBERED_BYTES // 10))
    kept = events.recent()
    assert 8 <= len(kept) <= 10
    assert kept[-1].data["n"] == 99


async def test_a_subscription_that_ended_gets_nothing_more(events):
    async with events.subscribe() as stream:
        pass
    emit(events, 1)
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_an_event_is_json_for_the_wire(events):
    events.emit("a.b", plugin=PLUGIN, n=1)
    event = events.recent()[0]
    assert event.as_dict() == {
        "id": event.id,
        "type": "a.b",
        "at": event.at.isoformat(),
        "plugin": PLUGIN,
        "data": {"n": 1},
    }


async def test_the_tail_of_a_log_is_its_newest_lines_oldest_first(logs):
    for number in range(5):
        write(logs, f"line {number}", n=number)
    assert [line.message for line in logs.tail(PLUGIN, limit=2)] == ["line 3", "line 4"]
    second = logs.tail(PLUGIN)[1]
    assert (second.fields, second.instance, second.level) == ({"n": 1}, "i1", "info")
    assert [line.message for line in logs.tail(PLUGIN, after=second.id)] == ["line 2", "line 3", "line 4"]


async def test_plugins_do_not_see_or_crowd_out_each_others_lines(logs, clock):
    write(logs, "mine")
    for number in range(LINES + 100):
        clock.advance(0.1)
        write(logs, f"noise {number}", plugin="acme/noise")
    assert [line.message for line in logs.tail(PLUGIN)] == ["mine"]
    noise = logs.tail("acme/noise", limit=LINES + 100)
    assert len(noise) == LINES
    assert noise[-1].message == f"noise {LINES + 99}"


async def test_a_flood_of_lines_is_cut_to_the_rate_and_the_loss_is_told(logs, clock):
    for _ in range(100_000):
        write(logs)
    *kept, notice = logs.tail(PLUGIN, limit=LINES)
    assert len(kept) == 2 * LINES_PER_S
    assert (notice.level, notice.instance) == ("warning", "host")
    assert notice.fields == {"dropped": 100_000 - len(kept)}
    clock.advance(1)
    write(logs, "again")
    assert logs.tail(PLUGIN)[-1].message == "again"


async def test_a_flood_of_bytes_is_cut_to_the_rate(logs):
    for _ in range(100):
        write(logs, "x" * 8000)
    *kept, notice = logs.tail(PLUGIN, limit=LINES)
    assert sum(len(line.message) for line in kept) <= 2 * BYTES_PER_S
    assert notice.fields["dropped"] == 100 - len(kept)


async def test_a_follower_is_told_of_dropped_lines_while_it_follows(logs, clock):
    async with logs.subscribe(PLUGIN) as stream:
        for _ in range(500):
            write(logs)
        await take(stream, 400)
        clock.advance(2)
        write(logs, "after")
        notice, line = await take(stream, 2)
    assert (notice.fields, line.message) == ({"dropped": 100}, "after")


async def test_what_is_forgotten_is_gone(logs):
    write(logs)
    logs.forget(PLUGIN)
    assert logs.tail(PLUGIN) == []


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 50)), max_size=60))
def test_a_bucket_never_admits_more_than_its_burst_and_its_rate(steps):
    clock, admitted = 0.0, 0.0
    bucket = TokenBucket(per_s=10, burst=20, at=0.0)
    for pause, units in steps:
        clock += pause
        admitted += units if bucket.take(units, clock) else 0
        assert admitted <= 20 + 10 * clock + 1e-6


def test_a_debt_tells_when_it_is_paid():
    bucket = TokenBucket(per_s=10, burst=20, at=0.0)
    assert bucket.owe(20, 0.0) == 0
    assert bucket.owe(5, 0.0) == pytest.approx(0.5)
    assert bucket.owe(0, 0.5) == 0
    assert not bucket.take(1, 0.5)


async def test_what_waits_for_a_slow_reader_is_bounded_in_bytes_and_kept_encoded(events):
    data = [[]] * 20_000
    async with events.subscribe() as slow:
        for _ in range(300):
            events.emit("t.e", data=data)
        assert (await take(slow, 1))[0].type == GAP
        kept = await take(slow, len(events.recent()))
    assert sum(len(event.encoded) for event in kept) <= REMEMBERED_BYTES
    assert all(isinstance(event.encoded, bytes) for event in kept)
    assert kept[-1].data == {"data": data}
