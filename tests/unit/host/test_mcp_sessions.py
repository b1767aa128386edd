"""Streams that are read on, and sessions that are bounded: whatever a client or a plugin does, memory is."""

import asyncio
import json

import pytest

from wirthforge_host.bridge.calls import Progress
from wirthforge_host.mcp import sessions as sessions_module
from wirthforge_host.mcp import streams
from wirthforge_host.mcp.progress import PROGRESS_BURST, teller
from wirthforge_host.mcp.sessions import IDLE_S, MAX_SESSIONS, MAX_SESSIONS_OF_ONE, NEWS, Sessions
from wirthforge_host.mcp.streams import MAX_KEPT, MAX_KEPT_BYTES, Stream
from wirthforge_host.tokens.service import ALL_SCOPES, Operator
from wirthforge_sdk.errors import LimitExceededError

SOON = 0.01
BOUND_S = 5


def caller(holder="t"):
    return Operator("me", ALL_SCOPES, frozenset(), holder)


class Monotonic:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def monotonic():
    return Monotonic()


@pytest.fixture
def sessions(monotonic):
    return Sessions(monotonic)


def begin(sessions, holder="t"):
    return sessions.begin(caller(holder), "2025-11-25", can_elicit=False)


async def test_a_reader_gets_what_it_lacks_and_then_waits_for_more():
    stream = Stream()
    reader = stream.take()
    stream.put(b"a\n")
    stream.put(b"b")
    assert await stream.after(0, reader, SOON) == [(1, b"a"), (2, b"b")]
    assert await stream.after(1, reader, SOON) == [(2, b"b")]
    assert await stream.after(2, reader, SOON) == []
    waiting = asyncio.create_task(stream.after(2, reader, BOUND_S))
    await asyncio.sleep(0)
    stream.put(b"c")
    assert await waiting == [(3, b"c")]


async def test_what_ends_a_stream_comes_with_its_end_and_nothing_after():
    stream = Stream()
    reader = stream.take()
    waiting = asyncio.create_task(stream.after(0, reader, BOUND_S))
    await asyncio.sleep(0)
    stream.finish(b"last")
    stream.put(b"later")
    assert await waiting == [(1, b"last")]
    assert stream.ended
    assert await stream.after(1, reader, BOUND_S) is None
    assert await stream.after(0, reader, BOUND_S) == [(1, b"last")]


async def test_another_reader_takes_the_place_of_the_one_that_waits():
    stream = Stream()
    first = stream.take()
    waiting = asyncio.create_task(stream.after(0, first, BOUND_S))
    await asyncio.sleep(0)
    second = stream.take()
    assert await waiting is None
    stream.put(b"a")
    assert await stream.after(0, first, BOUND_S) is None
    assert await stream.after(0, second, BOUND_S) == [(1, b"a")]


async def test_a_reader_that_falls_behind_what_is_kept_is_told_that_it_is_over():
    stream = Stream()
    reader = stream.take()
    for _ in range(MAX_KEPT + 1):
        stream.put(b"x")
    assert (stream.start, stream.holds(0), stream.holds(1)) == (1, False, True)
    assert await stream.after(0, reader, BOUND_S) is None
    assert len(await stream.after(1, reader, BOUND_S)) == MAX_KEPT


async def test_what_is_kept_is_bounded_in_bytes(monkeypatch):
    monkeypatch.setattr(streams, "MAX_KEPT_BYTES", 100)
    stream = Stream()
    for _ in range(20):
        stream.put(b"x" * 30)
        assert stream.size <= 100
    assert MAX_KEPT_BYTES == 8 * 1024 * 1024


async def test_a_token_has_so_many_sessions_and_its_oldest_idle_one_makes_room(sessions, monotonic):
    mine = []
    for _ in range(MAX_SESSIONS_OF_ONE):
        monotonic.now += 1
        mine.append(begin(sessions))
    mine[0].calls[1] = asyncio.get_running_loop().create_future()
    monotonic.now += 1
    begin(sessions)
    assert sessions.find(mine[0].id, caller()) is mine[0]  # a call is open in it
    assert sessions.find(mine[1].id, caller()) is None
    assert len(sessions) == MAX_SESSIONS_OF_ONE


def test_no_token_ends_the_sessions_of_another(sessions):
    for number in range(MAX_SESSIONS):
        begin(sessions, f"token {number}")
    with pytest.raises(LimitExceededError):
        begin(sessions, "one more")
    begin(sessions, "token 0")  # in the place of its own
    assert len(sessions) == MAX_SESSIONS


def test_a_session_is_found_by_its_own_token_until_it_was_silent_for_long(sessions, monotonic):
    session = begin(sessions)
    assert sessions.find(session.id, caller("another")) is None
    monotonic.now += IDLE_S
    assert sessions.find(session.id, caller()) is session
    monotonic.now += IDLE_S
    assert sessions.find(session.id, caller()) is session
    monotonic.now += IDLE_S + 1
    assert sessions.find(session.id, caller()) is None
    assert session.streams[NEWS].ended


def test_streams_that_ended_are_kept_while_there_is_room(sessions, monkeypatch):
    monkeypatch.setattr(sessions_module, "MAX_ENDED_BYTES", 100)
    session, other = begin(sessions), begin(sessions)
    names = []
    for one in (session, other, session):
        name, stream = one.open_stream()
        stream.put(b"x" * 40)
        sessions.settle(one, name)
        names.append(name)
    assert names[0] not in session.streams  # the oldest
    assert names[1] in other.streams
    assert names[2] in session.streams
    sessions.end(other)
    assert sessions._ended_bytes == 40
    sessions.end(session)
    assert (sessions._ended_bytes, len(sessions._ended)) == (0, 0)


async def test_what_a_client_answers_to_nothing_that_was_asked_is_ignored(sessions):
    session = begin(sessions)
    session.answered("wf-0", {})
    session.answered(None, {})
    _, stream = session.open_stream()
    asking = asyncio.create_task(session.ask(stream, "elicitation/create", {}))
    await asyncio.sleep(0)
    [number] = session._asked
    session.answered(number, {"action": "accept"})
    session.answered(number, {"action": "decline"})
    assert await asking == {"action": "accept"}
    assert session._asked == {}


async def reached(told, again=()):
    stream = Stream()
    tell = teller(stream, {"_meta": {"progressToken": "t"}})
    for progress in told:
        tell(Progress(progress, 1.0, None))
    tell.begin_anew()
    for progress in again:
        tell(Progress(progress, 1.0, None))
    kept = await stream.after(0, stream.take(), 0)
    return [json.loads(message)["params"] for _, message in kept]


async def test_progress_only_grows_and_what_counts_anew_goes_on():
    told = await reached([0.0, 0.25, 0.25, 0.5, 0.125], again=[0.5])
    assert [each["progress"] for each in told] == [0.0, 0.25, 0.5, 1.0]
    assert [each["total"] for each in told] == [1.0, 1.0, 1.0, 1.5]


async def test_progress_without_end_fills_nothing():
    assert len(await reached(number / 10_000 for number in range(10_000))) <= 2 * PROGRESS_BURST


def test_who_gave_no_token_is_told_no_progress():
    assert teller(Stream(), {}) is None
    assert teller(Stream(), {"_meta": {"progressToken": None}}) is None
