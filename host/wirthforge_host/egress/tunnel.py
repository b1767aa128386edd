"""Bytes both ways between a plugin and its destination, within bounds, until one of six ends."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from wirthforge_host.egress.destinations import ESTABLISHED
from wirthforge_host.rates import TokenBucket
from wirthforge_sdk.contracts.policy import Egress as Bounds

CHUNK_BYTES = 64 * 1024
"""Read at a time, and the most that waits in this process for one direction: what is not taken is not read."""
LEAST_CHUNK = 128 * 1024
"""What a smaller read counts as, since it costs this machine as much."""


class Ending(StrEnum):
    """Why a connection is over."""

    FINISHED = "finished"
    """Both sides said all."""
    BROKEN = "broken"
    """One side went away."""
    IDLE = "idle"
    FULL = "bytes"
    """It carried as much as one connection may."""
    REVOKED = "revoked"
    STOPPED = "stopped"
    """Its instance ended."""


@dataclass(slots=True)
class Tally:
    """What a connection carried so far."""

    sent: int = 0
    """Bytes from the plugin."""
    received: int = 0
    """Bytes to the plugin."""
    moved_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    """When it last carried any, in the loop's seconds."""

    @property
    def total(self) -> int:
        """Bytes both ways."""
        return self.sent + self.received


class Stretch(NamedTuple):
    """What bytes are carried between."""

    near: socket.socket
    """To the plugin."""
    far: socket.socket
    """To the destination."""
    early: bytes
    """What the plugin sent already."""


async def carry(stretch: Stretch, tally: Tally, bounds: Bounds, rate: TokenBucket) -> Ending:
    """Tells the plugin that it is connected, and carries bytes until that is over. Closes neither socket.

    Cancelled, it leaves nothing behind.

    Args:
        stretch: The two ends.
        tally: Counts, also for who cancels.
        bounds: The operator's, on one connection.
        rate: Bytes a second of all connections of the instance.
    """
    loop = asyncio.get_running_loop()

    async def pump(source: socket.socket, sink: socket.socket, first: bytes, *, outward: bool) -> Ending:
        chunk = first or await loop.sock_recv(source, CHUNK_BYTES)
        while chunk:
            if tally.total + len(chunk) > bounds.bytes_per_connection:
                return Ending.FULL
            tally.sent += len(chunk) if outward else 0
            tally.received += 0 if outward else len(chunk)
            tally.moved_at = loop.time()
            await loop.sock_sendall(sink, chunk)
            # Also without a debt: a socket that is always ready would otherwise never let anybody else have a turn.
            await asyncio.sleep(rate.owe(max(len(chunk), LEAST_CHUNK), loop.time()))
            chunk = await loop.sock_recv(source, CHUNK_BYTES)
        sink.shutdown(socket.SHUT_WR)
        return Ending.FINISHED

    near, far, early = stretch
    try:
        await loop.sock_sendall(near, ESTABLISHED)
    except OSError:
        return Ending.BROKEN
    pumps = {
        asyncio.create_task(pump(near, far, early, outward=True)),
        asyncio.create_task(pump(far, near, b"", outward=False)),
    }
    try:
        return await _watched(pumps, tally, bounds.idle_s)
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _watched(pumps: set[asyncio.Task[Ending]], tally: Tally, idle_s: float) -> Ending:
    """How it ended: finished once both pumps have, otherwise as the first of them says."""
    loop = asyncio.get_running_loop()
    while pumps:
        left_s = tally.moved_at + idle_s - loop.time()
        if left_s <= 0:
            return Ending.IDLE
        done, pumps = await asyncio.wait(pumps, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            ending = _ending_of(task)
            if ending is not Ending.FINISHED:
                return ending
    return Ending.FINISHED


def _ending_of(task: asyncio.Task[Ending]) -> Ending:
    try:
        return task.result()
    except OSError:
        return Ending.BROKEN
