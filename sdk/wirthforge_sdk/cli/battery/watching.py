"""What others feel: a neighbour that is called without a pause, and the host's own process."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wirthforge_sdk.cli.battery.catalogue import QUIET, Disturbance
from wirthforge_sdk.errors import WirthForgeError

if TYPE_CHECKING:
    from wirthforge_sdk.client import HostClient

PAUSE_S: Final = 0.02
CALL_S: Final = 10.0
TICKS: Final = os.sysconf("SC_CLK_TCK")
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Watch:
    """A neighbour's calls, and the processor and memory of the host's process, from one reading to the next."""

    host: HostClient
    pid: int
    """Of the host."""
    _times_s: list[float] = field(default_factory=list)
    _faults: list[str] = field(default_factory=list)
    _called: asyncio.Event = field(default_factory=asyncio.Event)
    _since: tuple[float, float] = (0.0, 0.0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Watch]:
        """Calls the neighbour for as long as the context lasts."""
        self._since = (time.monotonic(), self._cpu_s())
        task = asyncio.create_task(self._call_without_end())
        try:
            yield self
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def reading(self) -> Disturbance:
        """What was felt since the last reading; waits for a call that began after now."""
        self._called.clear()
        for _ in range(2):
            async with asyncio.timeout(CALL_S * 2):
                await self._called.wait()
            self._called.clear()
        now, cpu_s = time.monotonic(), self._cpu_s()
        began, used_s = self._since
        times, faults = self._times_s, tuple(self._faults)
        self._times_s, self._faults, self._since = [], [], (now, cpu_s)
        return Disturbance(
            calls=len(times),
            p50_ms=1000 * statistics.median(times or [0.0]),
            longest_ms=1000 * max(times, default=0.0),
            faults=faults,
            host_cpu=(cpu_s - used_s) / max(now - began, 0.001),
            host_mib=int(_fields(self.pid, "statm")[1]) * PAGE / (1 << 20),
        )

    async def _call_without_end(self) -> None:
        number = 0
        while True:
            number += 1
            began = time.monotonic()
            try:
                answer = await self.host.call(QUIET, "work", {"text": f"work {number}"}, timeout_s=CALL_S)
                if answer.is_error or answer.structured != {"result": f"work {number}"}:
                    self._faults.append(f"the neighbour answered {str(answer.content)[:200]}")
            except WirthForgeError as error:
                self._faults.append(error.message)
            self._times_s.append(time.monotonic() - began)
            self._called.set()
            await asyncio.sleep(PAUSE_S)

    def _cpu_s(self) -> float:
        user, system = _fields(self.pid, "stat")[13:15]
        return (int(user) + int(system)) / TICKS


def processes_of(uid: int) -> list[int]:
    """The processes of a user on this machine."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                found.append(int(entry.name))
    return found


def _fields(pid: int, name: str) -> list[str]:
    text = Path(f"/proc/{pid}/{name}").read_text(encoding="ascii")
    # The second field is the program's name in parentheses, and may hold anything.
    head, _, tail = text.rpartition(")")
    return [head.partition(" ")[0], head, *tail.split()] if head else text.split()
