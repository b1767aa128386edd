"""Raw bytes in calls that do not stream, by a real plugin's process, with each host that it may have.

The hosts are those of ``test_streams.py``.
"""

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.contract.test_streams import MANIFEST, WAIT_S
from tests.fakes.runtime_host import runtime_host
from wirthforge_sdk.contracts.bridge import MAX_CHUNK_BYTES
from wirthforge_sdk.testing import CallRefusedError, FunctionFailedError, PluginHarness

PROBE = """
from collections.abc import AsyncIterator, Iterator
from typing import Annotated
from msgspec import Meta
from wirthforge_sdk.runtime import Plugin, Stream

plugin = Plugin(threads=2)

@plugin.function(inline=True)
def inline(data: bytes) -> bytes:
    return data

@plugin.function
def pooled(data: bytes, times: int = 1) -> bytes:
    return data * times

@plugin.function
async def coroutine(data: bytes) -> bytes:
    return data

@plugin.function
def pieces(data: Iterator[bytes]) -> Iterator[bytes]:
    for part in data:
        yield part

@plugin.function
async def pieces_async(data: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for part in data:
        yield part

@plugin.function
def length(data: bytes) -> int:
    assert type(data) is bytes
    return len(data)

@plugin.function
def optional(data: bytes | None = None, more: bytes = b"more") -> int:
    return len(more) + (len(data) if data is not None else 100)

@plugin.function
def bounded(data: Annotated[bytes, Meta(max_length=3)]) -> int:
    return len(data)

@plugin.function
def upper(text: str) -> str:
    return text.upper()

@plugin.function
def zeros(size: int) -> bytes:
    return bytes(size)

@plugin.function
def fails(data: bytes) -> bytes:
    raise ValueError(f"{len(data)} are too many")
"""

ECHOES = ["inline", "pooled", "coroutine", "pieces", "pieces_async"]
EVERY = bytes(range(256))


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
    async with asyncio.timeout(2 * WAIT_S), OPENERS[request.param](tmp_path) as opened:
        yield opened


@pytest.mark.requirement("CORE-6")
@pytest.mark.parametrize("function", ECHOES)
@pytest.mark.parametrize("data", [b"", b"\n", EVERY, EVERY * (MAX_CHUNK_BYTES // 256)])
async def test_bytes_go_and_come_as_they_are(host, function, data):
    assert await host.call(function, data=data) == {"result": data}


async def test_many_at_once_do_not_mix(host):
    sent = [bytes([n]) * (n * 4001) for n in range(60)]
    calls = [host.call(ECHOES[n % len(ECHOES)], data=data) for n, data in enumerate(sent)]
    calls += [host.call("upper", text=str(n)) for n in range(60)]
    found = await asyncio.gather(*calls)
    assert found[:60] == [{"result": data} for data in sent]


async def test_bytes_may_come_as_base64_too(host):
    assert await host.call("length", data="AAEC") == {"result": 3}
    assert await host.call("inline", data="AAEC") == {"result": b"\x00\x01\x02"}


async def test_what_else_a_call_has_comes_as_json_beside_them(host):
    assert await host.call("pooled", data=b"ab", times=3) == {"result": b"ababab"}


async def test_a_parameter_that_need_not_come_has_its_default(host):
    assert await host.call("optional") == {"result": 104}
    assert await host.call("optional", data=b"x") == {"result": 5}
    assert await host.call("optional", more=b"") == {"result": 100}
    assert await host.call("optional", data=b"xy", more=b"z") == {"result": 3}


@pytest.mark.parametrize(
    ("function", "arguments", "field"),
    [
        ("length", {}, "data"),
        ("length", {"other": b"x"}, "other"),
        ("bounded", {"data": b"four"}, "data"),
        ("upper", {"text": b"x"}, "text"),
        ("pieces", {}, "data"),
    ],
)
async def test_bytes_that_do_not_fit_are_refused_naming_the_parameter(host, function, arguments, field):
    with pytest.raises(CallRefusedError) as refused:
        await host.call(function, **arguments)
    assert refused.value.reason == "INVALID_PARAMETERS"
    assert refused.value.details["field"] == field


async def test_a_result_that_is_longer_than_may_travel_so_is_refused_naming_the_remedy(host):
    assert await host.call("zeros", size=MAX_CHUNK_BYTES) == {"result": bytes(MAX_CHUNK_BYTES)}
    with pytest.raises(CallRefusedError, match="as a stream") as refused:
        await host.call("zeros", size=MAX_CHUNK_BYTES + 1)
    assert refused.value.reason == "RESOURCE_EXHAUSTED"


async def test_a_function_that_fails_says_so_without_bytes(host):
    if isinstance(host, PluginHarness):
        with pytest.raises(FunctionFailedError, match="3 are too many"):
            await host.call("fails", data=b"abc")
    else:
        found = await host.session.call("fails", {"data": b"abc"}, timeout_s=WAIT_S, call_id="c")
        assert found.is_error
        assert "3 are too many" in found.content[0]["text"]
    assert await host.call("length", data=b"x") == {"result": 1}
