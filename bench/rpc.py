"""Calls through the host to a plugin, beside gRPC over a Unix socket.

Ours is ``Calls.call``, as in :mod:`bench.bridge`. The peer is ``grpcio``'s client and server, which pass bytes on as
they are: nothing is encoded, checked or recorded, and its server is a process without a sandbox. Blocks alternate. The
processor's time is that of both sides, and ours has the writing of the audit records in it.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from bench import bridge
from bench.bridge import (
    BLOCK,
    LARGE,
    LARGE_BLOCK,
    LARGE_ROUNDS,
    SMALL,
    mediated,
    mediated_bytes,
    times_of,
    together,
)
from bench.figures import Figure, alone, at_most, beside, percentile
from bench.ground import OPERATOR, PATIENCE_S, BenchError, Ground
from wirthforge_sdk.serving.memory import keep_large_blocks

NAME = "rpc"
PEER = "gRPC over a Unix socket"
ROUNDS = 15
IN_FLIGHT = 16
BUSY_ROUNDS, BUSY_BLOCK = 6, 1_600
PROGRAM = Path(__file__).with_name("rpc_program.py")

if TYPE_CHECKING:
    Echo = grpc.UnaryUnaryMultiCallable[bytes, bytes]  # its stubs are generic, it is not

packages = bridge.packages


async def measure(ground: Ground) -> list[Figure]:
    """Round trips, small and large, and the processor's time of both sides."""
    async with ground.wiring.running(), _server(ground) as (server, address):
        await ground.wiring.installer.install(bridge.PLUGIN, OPERATOR)
        gc.collect()
        gc.freeze()  # as the host's program does
        keep_large_blocks()
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(address, options=options) as channel:
            echo: Echo = channel.unary_unary("/bench/echo")
            return [
                await _round_trips(ground, echo, "100B", (ROUNDS, BLOCK), 1 / 20),
                await _round_trips(ground, echo, "1MiB", (LARGE_ROUNDS, LARGE_BLOCK), 1 / 5),
                await _processor_time(ground, echo, server),
            ]


async def _round_trips(
    ground: Ground, echo: Echo, size: str, effort: tuple[int, int], target: float
) -> Figure:
    body = b"x" * (SMALL if size == "100B" else LARGE)
    small = partial(mediated, ground, "inline", body.decode())
    call = small if size == "100B" else partial(mediated_bytes, ground, body)
    rounds, block = effort
    ours: list[float] = []
    peers: list[float] = []
    await times_of(call, block)
    _echo_times(echo, body, block)
    for _ in ground.rounds(f"{NAME}, {size}", rounds):
        ours += await times_of(call, block)
        await ground.wiring.audit.flush()
        peers += _echo_times(echo, body, block)
    figure = alone(f"{NAME}.inline.{size}.p50", 1e6 * percentile(ours, 50), "us", n=len(ours))
    return beside(figure, PEER, 1e6 * percentile(peers, 50), at_most(target))


async def _processor_time(ground: Ground, echo: Echo, server: Process) -> Figure:
    call = partial(mediated, ground, "inline", "x" * SMALL)
    container = bridge.live(ground).container_id
    processes = [int(row[1]) for row in ground.client.top(container)["Processes"]]
    ours: list[float] = []
    peers: list[float] = []
    for _ in ground.rounds(f"{NAME}, {IN_FLIGHT} in flight", BUSY_ROUNDS):
        began = _processor_s(processes)
        await together(call, BUSY_BLOCK, IN_FLIGHT)
        await ground.wiring.audit.flush()
        ours.append((_processor_s(processes) - began) / BUSY_BLOCK)
        began = _processor_s([server.pid])
        _echo_together(echo, BUSY_BLOCK)
        peers.append((_processor_s([server.pid]) - began) / BUSY_BLOCK)
    figure = alone(f"{NAME}.inline.100B.{IN_FLIGHT}.cpu", 1e6 * percentile(ours, 50), "us", n=len(ours))
    return beside(figure, PEER, 1e6 * percentile(peers, 50), at_most(1 / 40))


def _echo_times(echo: Echo, message: bytes, count: int) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        echo(message)
        times.append(time.perf_counter() - began)
    return times


def _echo_together(echo: Echo, count: int) -> None:
    message = b"x" * SMALL
    waiting = deque(echo.future(message) for _ in range(IN_FLIGHT))
    for _ in range(count - IN_FLIGHT):
        waiting.popleft().result()
        waiting.append(echo.future(message))
    for call in waiting:
        call.result()


def _processor_s(processes: list[int]) -> float:
    """What this process and the others have used of processors, in seconds."""
    used_ns = time.process_time_ns()
    for process in processes:
        for thread in Path(f"/proc/{process}/task").iterdir():
            used_ns += int((thread / "schedstat").read_text().split()[0])
    return used_ns / 1e9


@asynccontextmanager
async def _server(ground: Ground) -> AsyncIterator[tuple[Process, str]]:
    """The peer's process and its address, ended at the end."""
    address = f"unix:{ground.directory / 'grpc.sock'}"
    process = await asyncio.create_subprocess_exec(sys.executable, str(PROGRAM), address, stdout=PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            if not await process.stdout.readline():
                raise BenchError("gRPC's server did not start; its message stands above")
        yield process, address
    finally:
        process.kill()
        await process.wait()
