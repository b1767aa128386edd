"""Streams of a call, both ways, by a real plugin's process, with each host that it may have.

``OPENERS`` names the hosts, as in ``test_host_calls.py``. Each gives an object with ``call`` and with
``stream(function, **arguments)``, a context of items that also has ``progress``; an argument that is an iterator is
sent as a stream.
"""

import asyncio
import itertools
from contextlib import asynccontextmanager

import pytest

from tests.fakes.runtime_host import runtime_host
from wirthforge_sdk.contracts.bridge import MAX_CHUNK_BYTES, WINDOW_BYTES
from wirthforge_sdk.testing import CallRefusedError, FunctionFailedError, PluginHarness

MANIFEST = """
manifest_version = 1
name = "tests/probe"
version = "1.0.0"
summary = "Streams."
authors = ["The WirthForge authors"]
license = "MIT"
[runtime]
type = "python"
entry = "probe:plugin"
"""

PROBE = """
import asyncio
from collections.abc import AsyncIterator, Iterator
from wirthforge_sdk.runtime import Plugin, Stream

plugin = Plugin(threads=1)
state = {"made": 0, "closed": []}

@plugin.function
def count(to: int) -> Iterator[int]:
    yield from range(to)

@plugin.function
async def count_async(to: int) -> AsyncIterator[int]:
    for n in range(to):
        await asyncio.sleep(0)
        yield n

@plugin.function
def listed(to: int) -> Iterator[int]:
    return iter(range(to))

@plugin.function
def blobs(size: int, times: int) -> Iterator[bytes]:
    for n in range(times):
        state["made"] += 1
        yield bytes([n % 251]) * size

@plugin.function
async def blobs_async(size: int, times: int) -> AsyncIterator[bytes]:
    for n in range(times):
        state["made"] += 1
        yield bytes([n % 251]) * size

@plugin.function
def blob(size: int) -> bytes:
    return b"b" * size

@plugin.function
def total(numbers: Stream[int], start: int = 0) -> int:
    return start + sum(numbers)

@plugin.function
async def total_async(numbers: AsyncIterator[int]) -> int:
    return sum([n async for n in numbers])

@plugin.function
def length(data: Iterator[bytes]) -> int:
    return sum(map(len, data))

@plugin.function
def doubled(numbers: Iterator[int]) -> Iterator[int]:
    for n in numbers:
        yield 2 * n

@plugin.function
async def doubled_async(numbers: AsyncIterator[int]) -> AsyncIterator[int]:
    async for n in numbers:
        yield 2 * n

@plugin.function
def fails(after: int) -> Iterator[int]:
    yield from range(after)
    raise ValueError("out of numbers")

@plugin.function
def lies() -> Iterator[int]:
    yield "no number"

@plugin.function
def endless() -> Iterator[int]:
    try:
        while True:
            state["made"] += 1
            yield state["made"]
    finally:
        state["closed"].append("plain")

@plugin.function
async def endless_async() -> AsyncIterator[int]:
    try:
        while True:
            state["made"] += 1
            yield state["made"]
            await asyncio.sleep(0)
    finally:
        state["closed"].append("async")

@plugin.function
def waits(numbers: Stream[int]) -> int:
    try:
        return sum(numbers)
    finally:
        state["closed"].append("input")

@plugin.function
def told() -> dict:
    return state

@plugin.function
def works(steps: int) -> str:
    for n in range(1, steps + 1):
        plugin.progress(n / steps, f"step {n}")
    return "done"
"""

WAIT_S = 20.0


@asynccontextmanager
async def in_memory(project):
    async with PluginHarness(project) as harness:
        yield harness


OPENERS = {"memory": in_memory, "real": runtime_host}


@pytest.fixture(params=OPENERS)
async def host(request, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "plugin.toml").write_text(MANIFEST)
    (tmp_path / "src" / "probe.py").write_text(PROBE)
    async with OPENERS[request.param](tmp_path) as opened:
        yield opened


async def items(host, function, /, **arguments):
    async with asyncio.timeout(WAIT_S), host.stream(function, **arguments) as stream:
        return [item async for item in stream]


async def until(host, ready):
    """Asks what the plugin's functions have noted until it is so."""
    async with asyncio.timeout(WAIT_S):
        while not ready(found := await host.call("told")):
            continue
    return found


@pytest.mark.parametrize("function", ["count", "count_async", "listed"])
async def test_items_come_in_order_and_then_the_end(host, function):
    assert await items(host, function, to=5) == [0, 1, 2, 3, 4]
    assert await items(host, function, to=0) == []


@pytest.mark.parametrize("function", ["count", "count_async", "listed"])
async def test_who_takes_no_stream_gets_all_items_in_one_answer(host, function):
    assert await host.call(function, to=3) == {"result": [0, 1, 2]}


@pytest.mark.requirement("CORE-6")
@pytest.mark.parametrize("function", ["blobs", "blobs_async"])
async def test_raw_bytes_come_as_they_are_over_many_windows(host, function):
    size = MAX_CHUNK_BYTES + 7
    found = b"".join(await items(host, function, size=size, times=5))
    assert found == b"".join(bytes([n]) * size for n in range(5))


async def test_bytes_that_a_function_returns_are_a_stream_of_themselves(host):
    assert b"".join(await items(host, "blob", size=3_000_000)) == b"b" * 3_000_000


async def some(*values):
    for value in values:
        yield value


@pytest.mark.parametrize("function", ["total", "total_async"])
async def test_an_argument_is_fed_item_by_item(host, function):
    for source in (iter([1, 2, 3]), some(1, 2, 3)):
        async with asyncio.timeout(WAIT_S), host.stream(function, numbers=source) as stream:
            assert [item async for item in stream] == []
            assert (await asyncio.to_thread(stream.result))["structuredContent"] == {"result": 6}


async def test_an_argument_that_may_be_a_stream_may_come_whole(host):
    assert await host.call("total", numbers=[1, 2], start=1) == {"result": 4}
    assert await host.call("total_async", numbers=[1, 2]) == {"result": 3}
    assert await host.call("length", data="YmJi") == {"result": 3}


async def test_raw_bytes_are_fed_over_many_windows(host):
    source = iter([b"x" * 700_000] * 8)
    async with asyncio.timeout(WAIT_S), host.stream("length", data=source) as stream:
        assert [item async for item in stream] == []
        assert (await asyncio.to_thread(stream.result))["structuredContent"] == {"result": 5_600_000}


@pytest.mark.requirement("CORE-6")
@pytest.mark.parametrize("function", ["doubled", "doubled_async"])
async def test_both_ways_at_once_without_an_end_in_sight(host, function):
    async with asyncio.timeout(WAIT_S), host.stream(function, numbers=itertools.count()) as stream:
        found = []
        async for item in stream:
            found.append(item)
            if len(found) == 1000:
                break
    assert found == [2 * n for n in range(1000)]


async def test_what_came_before_a_failure_is_there_and_then_the_failure(host):
    found = []

    async def take():
        async with host.stream("fails", after=3) as stream:
            async for item in stream:
                found.append(item)  # noqa: PERF401 - what came before the failure is looked at

    with pytest.raises(FunctionFailedError, match="ValueError: out of numbers"):
        await take()
    assert found == [0, 1, 2]


async def test_an_item_that_is_not_what_the_function_declares_fails_the_call(host):
    with pytest.raises(FunctionFailedError, match="yielded what it does not declare"):
        await items(host, "lies")


async def test_an_item_that_does_not_fit_the_parameter_is_refused_naming_it(host):
    async with host.stream("total", numbers=iter([1, "two"])) as stream:
        with pytest.raises(CallRefusedError) as refused:
            [item async for item in stream]
    assert refused.value.reason == "INVALID_PARAMETERS"


@pytest.mark.requirement("CORE-6")
@pytest.mark.parametrize("function", ["blobs", "blobs_async"])
async def test_a_slow_taker_slows_the_plugin(host, function):
    size, times = 64 * 1024, 400
    async with asyncio.timeout(WAIT_S), host.stream(function, size=size, times=times) as stream:
        taken = 0
        async for chunk in stream:
            taken += len(chunk)
            made = (await host.call("told"))["made"]
            # In flight: the window, the one item that may overdraw it, and the one that waits for credit.
            assert made * size <= taken + WINDOW_BYTES + 2 * size
    assert taken == size * times


@pytest.mark.requirement("CORE-6")
async def test_a_stalled_stream_holds_up_no_other_call(host):
    async with asyncio.timeout(WAIT_S), host.stream("blobs", size=64 * 1024, times=400):
        # The plugin has one thread for calls, and the stream stands still beyond its window.
        found = await until(host, lambda found: found["made"] * 64 * 1024 > WINDOW_BYTES)
        assert await host.call("total", numbers=[1]) == {"result": 1}
        assert await items(host, "count", to=3) == [0, 1, 2]
        assert (await host.call("told"))["made"] == found["made"]


@pytest.mark.requirement("CORE-6")
@pytest.mark.parametrize(("function", "name"), [("endless", "plain"), ("endless_async", "async")])
async def test_who_leaves_closes_the_generator(host, function, name):
    async with asyncio.timeout(WAIT_S), host.stream(function) as stream:
        async for item in stream:
            assert item == 1
            break
    await until(host, lambda found: found["closed"] == [name])


async def test_who_leaves_frees_a_function_that_waits_for_its_input(host):
    never = asyncio.Event()

    async def nothing():
        await never.wait()
        yield 1

    async with host.stream("waits", numbers=nothing()):
        pass
    await until(host, lambda found: found["closed"] == ["input"])


async def test_progress_is_told_and_the_end_of_it_never_lost(host):
    async with asyncio.timeout(WAIT_S), host.stream("works", steps=1000) as stream:
        assert [item async for item in stream] == []
        assert (await asyncio.to_thread(stream.result))["structuredContent"] == {"result": "done"}
    assert 1 <= len(stream.progress) < 100
    assert stream.progress[-1]["progress"] == 1.0
    assert stream.progress[-1]["message"] == "step 1000"


async def test_a_function_that_streams_nothing_is_told_so_when_it_is_sent_a_stream(host):
    async with host.stream("count", to=iter([1])) as stream:
        with pytest.raises(CallRefusedError) as refused:
            [item async for item in stream]
    assert refused.value.reason == "INVALID_PARAMETERS"
