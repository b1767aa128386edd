"""Bytes through the host out of a plugin and into one, beside a plain Unix-socket copy of as many in the same run.

Ours is a streamed call: credit, framing, the gate, deadlines, audit; the plugin is a real one in its container. The
peer is a blocking Python program in a container of the same image with the same create body, and a blocking client.
What is resident in the host's process and in the plugin's is read as the bytes pass: flat memory is the point.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.figures import Figure, alone, beside
from bench.ground import OPERATOR, BenchError, Ground
from tests.fakes.packages import make_package
from wirthforge_host.plugins.instance import Instance
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.contracts.resources import MIB, Tier
from wirthforge_sdk.contracts.streams_api import StreamIn

NAME = "stream"
PLUGIN = "demo/pipe"
PEER = "raw socket copy"
TIER = Tier.LARGE
TOTAL, QUICK_TOTAL = 10 * 1024 * MIB, 512 * MIB
PART = 256 * 1024
WARM = 64 * MIB
"""What passes before memory is looked at."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

PROGRAM = Path(__file__).with_name("copy_program.py")
SOURCE = '''from collections.abc import Iterator

from wirthforge_sdk.runtime import Plugin, Stream

plugin = Plugin()


@plugin.function
def give(total: int, size: int) -> Iterator[bytes]:
    """Gives so many bytes."""
    part = bytes(size)
    while total > 0:
        yield part[:total]
        total -= size


@plugin.function
def take(data: Stream[bytes]) -> int:
    """Counts what it gets."""
    return sum(map(len, data))
'''


def packages() -> list[bytes]:
    """What the host's shelf must hold."""
    number = {"type": "integer"}
    text = {"type": "string", "contentEncoding": "base64", "x-stream": True}

    def shaped(properties: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        return {"type": "object", "properties": properties, "required": list(properties), **more}

    functions = [
        Function(
            name="give",
            description="Gives so many bytes.",
            input_schema=shaped({"total": number, "size": number}, {"additionalProperties": False}),
            output_schema=shaped({"result": text}, {}),
            timeout_s=600,
        ),
        Function(
            name="take",
            description="Counts what it gets.",
            input_schema=shaped({"data": text}, {"additionalProperties": False}),
            output_schema=shaped({"result": number}, {}),
            timeout_s=600,
        ),
    ]
    return [make_package(PLUGIN, functions=functions, source=SOURCE, extra=f'[resources]\ntier = "{TIER}"')]


async def measure(ground: Ground) -> list[Figure]:
    """Out of the plugin, then into it; the peer after each."""
    total = QUICK_TOTAL if ground.effort.quick else TOTAL
    async with ground.wiring.running():
        await ground.wiring.installer.install(PLUGIN, OPERATOR)
        with ground.calling(PROGRAM, tier=TIER) as (_, listening):
            return [
                *await _out(ground, listening, total),
                *await _in(ground, listening, total),
            ]


async def _out(ground: Ground, listening: socket.socket, total: int) -> list[Figure]:
    resident = Resident(_live(ground))
    body = StreamIn(plugin=PLUGIN, function="give", arguments={"total": total, "size": PART}, timeout_s=3600)
    passed, began = 0, time.perf_counter()
    async with ground.wiring.streaming.opened(body, OPERATOR) as call:
        async for part in call:
            passed += len(part) if isinstance(part, bytes) else 0
            resident.look(passed)
        await call.outcome()
    ours = _rate(passed, total, began)
    with _connected(listening, "out", total) as stream:
        began, left = time.perf_counter(), total
        buffer = bytearray(PART)
        while left:
            count = stream.recv_into(buffer)
            if not count:
                raise BenchError("the bare container hung up: look at the engine's log")
            left -= count
        peer = total / MIB / (time.perf_counter() - began)
    return _figures("out", total, ours, peer, resident)


async def _in(ground: Ground, listening: socket.socket, total: int) -> list[Figure]:
    resident = Resident(_live(ground))
    part = bytes(PART)
    body = StreamIn(plugin=PLUGIN, function="take", arguments={}, timeout_s=3600, input="data")
    began = time.perf_counter()
    async with ground.wiring.streaming.opened(body, OPERATOR) as call:
        for passed in range(0, total, PART):
            if not await call.stream.feed(part):
                break
            resident.look(passed)
        await call.stream.finish()
        answer = await call.outcome()
    ours = _rate(answer.structured["result"], total, began)
    with _connected(listening, "in", total) as stream:
        began = time.perf_counter()
        for _ in range(0, total, PART):
            stream.sendall(part)
        if stream.recv(1) != b".":
            raise BenchError("the bare container hung up: look at the engine's log")
        peer = total / MIB / (time.perf_counter() - began)
    return _figures("in", total, ours, peer, resident)


class Resident:
    """What is resident in the host's process and in a plugin's, as bytes pass."""

    def __init__(self, instance: Instance) -> None:
        if instance.pid is None:
            raise BenchError("the engine tells no process ids: measure on the machine that it runs on")
        self._plugin = [str(instance.pid), *_children(str(instance.pid))]
        self._next = WARM
        self.host: list[int] = []
        self.plugin: list[int] = []

    def look(self, passed: int) -> None:
        """Reads both, once for each few MiB after the first."""
        if passed >= self._next:
            self._next += WARM // 4
            self.host.append(_resident("self"))
            self.plugin.append(sum(map(_resident, self._plugin)))


def _children(process: str) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def _resident(process: str) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE_BYTES


def _rate(passed: int, total: int, began: float) -> float:
    if passed != total:
        raise BenchError(f"{passed} of {total} bytes arrived")
    return total / MIB / (time.perf_counter() - began)


def _figures(way: str, total: int, ours: float, peer: float, resident: Resident) -> list[Figure]:
    name = f"{NAME}.{way}.{total // MIB}MiB"

    def spread(of: str, samples: list[int]) -> Figure:
        return alone(f"{name}.{of}.rss.max-min", (max(samples) - min(samples)) / MIB, "MiB", n=len(samples))

    return [
        beside(alone(f"{name}.rate", ours, "MiB/s", n=1), PEER, peer),
        spread("host", resident.host),
        spread("plugin", resident.plugin),
        alone(f"{name}.plugin.rss.max", max(resident.plugin) / MIB, "MiB", n=len(resident.plugin)),
    ]


@contextmanager
def _connected(listening: socket.socket, way: str, total: int) -> Iterator[socket.socket]:
    stream, _ = listening.accept()
    with stream:
        stream.settimeout(None)
        stream.sendall(f"{way} {total} {PART}\n".encode())
        yield stream


def _live(ground: Ground) -> Instance:
    instance = ground.wiring.reconciler.live(PLUGIN)
    if instance is None:
        raise BenchError("the plugin did not start: `python -m bench cold_start` tells why")
    return instance
