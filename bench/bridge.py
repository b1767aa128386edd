"""Calls through the host to a plugin, beside a raw echo over a Unix socket to an equal container.

Ours is ``Calls.call``: the plugin looked up, the gate, the deadline, the bridge, the result checked, metrics,
the audit record. The peer is a blocking Python program in a container of the same image with the same create
body, and a blocking Python client: no messages, no ids, no checks. Both connect the same way, through a
directory bound read-only. Blocks of ours and of the peer's alternate; audit records of a block are written
before the peer's turn, so that the peer has the machine for itself. Both have the limits of the tier
``large``, so that no CPU quota is measured.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from bench.figures import Figure, alone, at_least, at_most, beside, percentile
from bench.ground import OPERATOR, PATIENCE_S, BenchError, Ground
from tests.fakes.packages import make_package
from wirthforge_host.plugins.instance import Instance
from wirthforge_sdk.contracts.bodies import bytes_of
from wirthforge_sdk.contracts.host_api import CallIn
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.contracts.resources import MIB, Tier
from wirthforge_sdk.serving.memory import keep_large_blocks

NAME = "bridge"
PLUGIN = "demo/echo"
PEER = "raw socket echo"
TIER = Tier.LARGE
SMALL, LARGE = 100, MIB
ROUNDS, BLOCK = 25, 100
BUSY_ROUNDS, BUSY_BLOCK, IN_FLIGHT = 12, 2_000, 64
LARGE_ROUNDS, LARGE_BLOCK = 10, 10

PROGRAM = Path(__file__).with_name("echo_program.py")
SOURCE = '''from wirthforge_sdk.runtime import Plugin

plugin = Plugin()


@plugin.function(inline=True)
def inline(text: str) -> str:
    """Gives back what it got."""
    return text


@plugin.function
def pooled(text: str) -> str:
    """Gives back what it got."""
    return text


@plugin.function(inline=True)
def raw(data: bytes) -> bytes:
    """Gives back what it got."""
    return data
'''

Call = Callable[[], Awaitable[object]]


def packages() -> list[bytes]:
    """What the host's shelf must hold."""
    text = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    result = {"type": "object", "properties": {"result": {"type": "string"}}, "required": ["result"]}
    data = {"type": "string", "contentEncoding": "base64"}
    raw_in = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    raw_out = {"type": "object", "properties": {"result": data}, "required": ["result"]}
    functions = [
        Function(
            name=name,
            description="Gives back what it got.",
            input_schema={**taken, "additionalProperties": False},
            output_schema=given,
        )
        for name, taken, given in (
            ("inline", text, result),
            ("pooled", text, result),
            ("raw", raw_in, raw_out),
        )
    ]
    limits = f'[resources]\ntier = "{TIER}"'
    return [make_package(PLUGIN, functions=functions, source=SOURCE, extra=limits)]


async def measure(ground: Ground) -> list[Figure]:
    """One in flight, many in flight, large bodies; the peer beside each."""
    async with ground.wiring.running():
        await ground.wiring.installer.install(PLUGIN, OPERATOR)
        gc.collect()
        gc.freeze()  # as the host's program does
        keep_large_blocks()
        with Echo.running(ground) as echo:
            return [
                *await _one_in_flight(ground, echo),
                *await _many_in_flight(ground, echo),
                *await _large_bodies(ground, echo),
            ]


class Echo:
    """The peer: a container that sends back what it gets."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening

    @classmethod
    @contextmanager
    def running(cls, ground: Ground) -> Iterator[Echo]:
        """Starts it; at the end it is gone."""
        with ground.calling(PROGRAM, tier=TIER) as (_, listening):
            yield cls(listening)

    @contextmanager
    def connected(self, size: int) -> Iterator[Callable[[int], list[float]]]:
        """A function that makes so many round trips of ``size`` bytes, and gives the seconds of each."""
        try:
            stream, _ = self._listening.accept()
        except TimeoutError:
            raise BenchError("the bare container did not connect: look at the engine's log") from None
        with stream:
            stream.settimeout(None)
            stream.sendall(b"%d\n" % size)
            message, buffer = b"x" * size, memoryview(bytearray(size))
            yield lambda count: [_round_trip(stream, message, buffer) for _ in range(count)]


async def _one_in_flight(ground: Ground, echo: Echo) -> list[Figure]:
    text = "x" * SMALL
    calls = {
        "inline": partial(mediated, ground, "inline", text),
        "pooled": partial(mediated, ground, "pooled", text),
        "session": partial(_bare, live(ground), text),
    }
    ours: dict[str, list[float]] = {name: [] for name in calls}
    peers: list[float] = []
    with echo.connected(SMALL) as raw:
        raw(BLOCK)
        for call in calls.values():
            await times_of(call, BLOCK)
        for _ in ground.rounds(f"{NAME}, one in flight", ROUNDS):
            for name, call in calls.items():
                ours[name] += await times_of(call, BLOCK)
                await ground.wiring.audit.flush()
                peers += raw(BLOCK)
    targets = {"inline": at_most(2.5), "pooled": at_most(4), "session": None}
    return [
        beside(
            alone(f"{NAME}.{name}.100B.p50", 1e6 * percentile(ours[name], 50), "us", n=len(ours[name])),
            PEER,
            1e6 * percentile(peers, 50),
            targets[name],
        )
        for name in calls
    ]


async def _many_in_flight(ground: Ground, echo: Echo) -> list[Figure]:
    call = partial(mediated, ground, "inline", "x" * SMALL)
    answered: list[float] = []
    written: list[float] = []
    peers: list[float] = []
    with echo.connected(SMALL) as raw:
        await together(call, BUSY_BLOCK)
        for _ in ground.rounds(f"{NAME}, {IN_FLIGHT} in flight", BUSY_ROUNDS):
            await ground.wiring.audit.flush()
            peers.append(BUSY_BLOCK / _seconds(lambda: raw(BUSY_BLOCK)))
            began = time.perf_counter()
            await together(call, BUSY_BLOCK)
            answered.append(BUSY_BLOCK / (time.perf_counter() - began))
            await ground.wiring.audit.flush()
            written.append(BUSY_BLOCK / (time.perf_counter() - began))
    peer = percentile(peers, 50)
    return [
        beside(
            alone(
                f"{NAME}.inline.100B.{IN_FLIGHT}.rate", percentile(answered, 50), "calls/s", n=len(answered)
            ),
            f"{PEER}, 1 in flight",
            peer,
            at_least(2),
        ),
        beside(
            alone(
                f"{NAME}.inline.100B.{IN_FLIGHT}.recorded", percentile(written, 50), "calls/s", n=len(written)
            ),
            f"{PEER}, 1 in flight",
            peer,
        ),
    ]


async def _large_bodies(ground: Ground, echo: Echo) -> list[Figure]:
    """1 MiB of raw bytes, beside a raw echo, and beside the same bytes as base64 in JSON."""
    body = b"x" * LARGE
    text = base64.b64encode(body).decode()
    calls = {
        "inline": partial(mediated_bytes, ground, body),
        "session": partial(_bare_bytes, live(ground), body),
        "base64": partial(_as_base64, ground, text),
    }
    ours: dict[str, list[float]] = {name: [] for name in calls}
    peers: list[float] = []
    with echo.connected(LARGE) as raw:
        raw(LARGE_BLOCK)
        for call in calls.values():
            await times_of(call, LARGE_BLOCK)
        for _ in ground.rounds(f"{NAME}, 1 MiB", LARGE_ROUNDS):
            for name, call in calls.items():
                ours[name] += await times_of(call, LARGE_BLOCK)
                await ground.wiring.audit.flush()
                peers += raw(LARGE_BLOCK)
    peer = 1e6 * percentile(peers, 50)
    p50 = {name: 1e6 * percentile(times, 50) for name, times in ours.items()}
    figures = {name: alone(f"{NAME}.{name}.1MiB.p50", p50[name], "us", n=len(ours[name])) for name in ours}
    against = alone(f"{NAME}.inline.1MiB.p50", p50["inline"], "us", n=len(ours["inline"]))
    return [
        beside(figures["inline"], PEER, peer, at_most(1.7)),
        beside(figures["session"], PEER, peer),
        beside(against, "the same as base64 in JSON", p50["base64"]),
    ]


async def mediated(ground: Ground, function: str, text: str) -> None:
    """A call as the API makes it."""
    body = CallIn(plugin=PLUGIN, function=function, arguments={"text": text})
    answer = await ground.wiring.calls.call(body, OPERATOR)
    if answer.is_error:
        raise BenchError(f"the plugin answered that it failed: {answer.content}")


async def mediated_bytes(ground: Ground, body: bytes) -> None:
    """As :func:`mediated`, of raw bytes."""
    asked = CallIn.model_construct(plugin=PLUGIN, function="raw", arguments={"data": body}, timeout_s=None)
    answer = await ground.wiring.calls.call(asked, OPERATOR)
    if len(bytes_of(answer.structured) or b"") != len(body):
        raise BenchError(f"the plugin did not answer with its bytes: {answer.content}")


async def _as_base64(ground: Ground, text: str) -> None:
    """The same function, called as who knows JSON alone calls it; what it returns is encoded for them, too."""
    answer = await ground.wiring.calls.call(
        CallIn(plugin=PLUGIN, function="raw", arguments={"data": text}), OPERATOR
    )
    if len(msgspec.json.encode(answer)) < len(text):
        raise BenchError(f"the plugin did not answer with its bytes: {answer.content}")


async def _bare_bytes(instance: Instance, body: bytes) -> None:
    await instance.session.call("raw", {"data": body}, timeout_s=PATIENCE_S, call_id="bench")


async def _bare(instance: Instance, text: str) -> None:
    """The bridge without what the host does around it."""
    await instance.session.call("inline", {"text": text}, timeout_s=PATIENCE_S, call_id="bench")


async def times_of(call: Call, count: int) -> list[float]:
    """The seconds of each of ``count`` calls, one after the other."""
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        await call()
        times.append(time.perf_counter() - began)
    return times


async def together(call: Call, count: int, in_flight: int = IN_FLIGHT) -> None:
    """``count`` calls of 100 B, so many of them at a time."""

    async def some() -> None:
        for _ in range(count // in_flight):
            await call()

    await asyncio.gather(*(some() for _ in range(in_flight)))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _round_trip(stream: socket.socket, message: bytes, buffer: memoryview) -> float:
    began = time.perf_counter()
    stream.sendall(message)
    filled = 0
    while filled < len(buffer):
        count = stream.recv_into(buffer[filled:])
        if not count:
            raise BenchError("the bare container hung up: look at the engine's log")
        filled += count
    return time.perf_counter() - began


def live(ground: Ground) -> Instance:
    """The plugin at work."""
    instance = ground.wiring.reconciler.live(PLUGIN)
    if instance is None:
        raise BenchError("the plugin did not start: `python -m bench cold_start` tells why")
    return instance
