"""The parts of a connection: lines out of any chunks, deadlines that fire once, and writes that wait."""

import asyncio
import json
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.plugin_peer import WAIT_S
from wirthforge_host.bridge.connection import Connection
from wirthforge_host.bridge.deadlines import TICK_S, Deadlines
from wirthforge_sdk.contracts.bridge import MAX_MESSAGE_BYTES, too_many
from wirthforge_sdk.contracts.framing import Frames, LineTooLongError

BYTES = st.binary(max_size=8).map(lambda data: data.replace(b"\n", b"."))


@given(st.lists(BYTES, max_size=8), BYTES, st.data())
def test_lines_do_not_depend_on_how_the_stream_was_cut(lines, rest, data):
    stream = b"".join(line + b"\n" for line in lines) + rest
    cutter, found = Frames(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += cutter.feed(stream[:size])
        stream = stream[size:]
    assert found == lines
    assert cutter.waits == bool(rest)


@pytest.mark.parametrize("size", [MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES + 1])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n{}\n"])
def test_a_line_is_refused_from_one_byte_over_the_bound_on(size, end):
    lines = Frames()
    lines.feed(b"x" * (MAX_MESSAGE_BYTES - 5))
    rest = b"x" * (size - MAX_MESSAGE_BYTES + 5) + end
    if size <= MAX_MESSAGE_BYTES:
        lines.feed(rest)
    else:
        with pytest.raises(LineTooLongError):
            lines.feed(rest)


async def test_a_deadline_fires_once_and_not_before_its_time():
    loop = asyncio.get_running_loop()
    deadlines, fired = Deadlines(), asyncio.Queue()
    began = loop.time()
    for seconds in (0.15, 0.0, 0.05, 0.05):
        deadlines.add(seconds, lambda seconds=seconds: fired.put_nowait((seconds, loop.time() - began)))
    async with asyncio.timeout(WAIT_S):
        found = [await fired.get() for _ in range(4)]
    assert [seconds for seconds, _ in found] == [0.0, 0.05, 0.05, 0.15]
    assert all(at >= seconds for seconds, at in found)
    assert fired.empty()


async def test_a_deadline_that_was_removed_does_not_fire():
    deadlines, fired = Deadlines(), []
    removed = deadlines.add(0.01, lambda: fired.append("removed"))
    last = asyncio.Event()
    deadlines.add(0.01 + 3 * TICK_S, last.set)
    deadlines.remove(removed)
    async with asyncio.timeout(WAIT_S):
        await last.wait()
    deadlines.remove(removed)
    assert fired == []


async def test_an_expiry_may_set_and_remove_deadlines():
    deadlines, done = Deadlines(), asyncio.Event()
    second = deadlines.add(0.01, lambda: None)

    def first():
        deadlines.remove(second)
        deadlines.add(0.0, done.set)

    deadlines.add(0.0, first)
    async with asyncio.timeout(WAIT_S):
        await done.wait()


async def test_when_no_deadline_is_left_no_timer_is_either():
    deadlines = Deadlines()
    last = asyncio.Event()
    for number in range(100):
        deadlines.remove(deadlines.add(0.001 * number, lambda: None))
    deadlines.add(0.2, last.set)
    async with asyncio.timeout(WAIT_S):
        await last.wait()
    assert deadlines._timer is None
    assert (deadlines._buckets, deadlines._ticks) == ({}, [])


async def test_deadlines_of_a_day_need_few_buckets_and_are_not_much_late():
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    for number in range(50_000):
        seconds = 86_400 * (number / 50_000) ** 3
        now = loop.time()
        deadline = deadlines.add(seconds, lambda: None)
        due = deadline.tick * TICK_S - loop.time()
        assert seconds - (loop.time() - now) - 1e-6 <= due <= seconds + 2 * TICK_S + seconds / 500
        deadlines.remove(deadline)
    assert len(deadlines._buckets) < 10_000


JSON = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a,[{"\\'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='a,[{"\\'), inner),
)


def marks(value):
    if not isinstance(value, dict | list):
        return 0
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(0, len(value) - 1) + sum(map(marks, inner))


@given(JSON)
def test_elements_are_counted_without_what_stands_in_strings(value):
    document, count = json.dumps([value]).encode(), marks([value])
    assert too_many(document, count - 1)
    assert not too_many(document, count)


async def test_no_request_has_the_number_of_one_on_a_connection_before():
    asked = []
    for _ in range(2):
        connection = Connection(Mock(), Deadlines(), report=Mock(), on_lost=Mock())
        connection.connection_made(
            Mock(is_closing=Mock(return_value=False), get_write_buffer_size=Mock(return_value=0))
        )
        requests = [
            asyncio.create_task(
                connection.calls.request("f", {}, timeout_s=WAIT_S, label=None, cancellable=False)
            )
            for _ in range(3)
        ]
        await asyncio.sleep(0)
        asked.append(set(connection.calls._open))
        connection.connection_lost(None)
        await asyncio.gather(*requests, return_exceptions=True)
    assert len(asked[0] | asked[1]) == 6
    assert max(asked[1]) < 2**53  # what JSON's numbers hold everywhere


def arrive(connection, data):
    connection.get_buffer(-1)[: len(data)] = data
    connection.buffer_updated(len(data))


async def test_who_does_not_read_is_not_read_unless_its_reply_is_awaited():
    connection = Connection(Mock(), Deadlines(), report=Mock(), on_lost=Mock())
    transport = Mock(is_closing=Mock(return_value=False), get_write_buffer_size=Mock(return_value=0))
    connection.connection_made(transport)
    connection.pause_writing()
    transport.pause_reading.assert_called_once()
    arrive(connection, b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
    assert 1 not in connection._serving
    connection.resume_writing()
    transport.resume_reading.assert_called_once()
    assert 1 in connection._serving
    request = connection.calls.request("f", {}, timeout_s=WAIT_S, label=None, cancellable=False)
    waiting = asyncio.create_task(request)
    await asyncio.sleep(0)
    connection.pause_writing()
    transport.pause_reading.assert_called_once()
    arrive(connection, b'{"jsonrpc":"2.0","id":%d,"result":7}\n' % connection.calls._last)
    assert await waiting == 7
    connection.connection_lost(None)
