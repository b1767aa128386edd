"""A host under mixed load for as long as one likes, and whether its memory and its descriptors stay what they were.

``python -m tests.endurance [SECONDS] [PLUGINS]`` installs so many plugins in real containers and has their functions
called without a pause: plain ones, failing ones, ones that store, publish, log, stream and call each other. It prints a
JSON object every tenth of the time and ends with 1 when memory or descriptors grew, or a call was answered wrongly.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fakes.packages import make_package
from tests.fakes.world import World, offered, world_on_engine
from wirthforge_host.logs import LINES
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.streams_api import StreamIn
from wirthforge_sdk.errors import LimitExceededError

CALLERS = 8
SAMPLES = 10
WARM = 2
"""Samples before the one that the last is compared with: caches fill, and rings of events and samples."""
GROWTH = 1.10
"""What memory may have at the end, of what it had then."""
PATIENCE_S = 300.0

SOURCE = """
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()
heard = 0


@plugin.function
def add(a: int, b: int) -> int:
    plugin.log.info("adding", a=a, b=b)
    return a + b


@plugin.function
def fail() -> None:
    raise ValueError("as asked")


@plugin.function
def keep(key: str, value: str) -> str:
    plugin.storage.set(key, value)
    return plugin.storage.get(key)


@plugin.function
def tell(text: str) -> bool:
    plugin.events.publish("endurance.told", {"text": text})
    return True


@plugin.function
def count(to: int):
    for number in range(to):
        yield number


@plugin.function
def ask(other: str, a: int, b: int) -> int:
    return plugin.plugins.call(other, "add", a=a, b=b)["result"]
"""


def name_of(number: int) -> str:
    """Of one of the plugins."""
    return f"demo/e{number:03}"


def package(number: int, plugins: int) -> bytes:
    """One of the plugins; it may call the next."""
    return make_package(
        name_of(number), source=SOURCE, functions=offered(SOURCE), permissions=rights(number, plugins)
    )


def rights(number: int, plugins: int) -> list[str]:
    """What a plugin needs."""
    other = name_of((number + 1) % plugins)
    return ["storage.read", "storage.write", "events.publish:endurance.told", f"plugins.call:{other}.add"]


class Load:
    """The callers, and what came of their calls."""

    def __init__(self, host: World, plugins: int) -> None:
        self.host = host
        self.plugins = plugins
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def run(self, seed: int) -> None:
        """Calls until cancelled."""
        dice = random.Random(seed)  # noqa: S311 (to be repeated, not to be kept from anybody)
        kinds = [self._add, self._fail, self._keep, self._tell, self._count, self._ask]
        while True:
            number, a, b = dice.randrange(self.plugins), dice.randrange(1_000), dice.randrange(1_000)
            made = dice.choice(kinds)
            try:
                right = await made(number, a, b)
            except LimitExceededError:
                self.outcomes["limited"] += 1
                continue
            except Exception as error:  # noqa: BLE001 (whatever it is, the run says so)
                right = False
                self.wrong.append(f"{made.__name__}: {type(error).__name__}: {error}"[:300])
            self.outcomes["right" if right else "wrong"] += 1

    async def _call(self, number: int, function: str, **arguments: Any) -> Any:
        answer = await self.host.call(function, plugin=name_of(number), **arguments)
        return answer.is_error or (answer.structured or {}).get("result")

    async def _add(self, number: int, a: int, b: int) -> bool:
        return bool(await self._call(number, "add", a=a, b=b) == a + b)

    async def _fail(self, number: int, _a: int, _b: int) -> bool:
        return await self._call(number, "fail") is True

    async def _keep(self, number: int, a: int, b: int) -> bool:
        value = f"{b}" * 100
        return bool(await self._call(number, "keep", key=f"k{a}-{b % 7}", value=value) == value)

    async def _tell(self, number: int, a: int, _b: int) -> bool:
        return await self._call(number, "tell", text=f"{a}") is True

    async def _count(self, number: int, a: int, _b: int) -> bool:
        body = StreamIn(plugin=name_of(number), function="count", arguments={"to": a})
        async with self.host.wiring.streaming.opened(body, self.host.operator) as stream:
            got = [each async for each in stream]
            return len(got) == a and not (await stream.outcome()).is_error

    async def _ask(self, number: int, a: int, b: int) -> bool:
        other = name_of((number + 1) % self.plugins)
        return bool(await self._call(number, "ask", other=other, a=a, b=b) == a + b)


def fill(host: World, plugins: int) -> None:
    """Has as many lines logged as are kept of each plugin: what grows from then on is no ring that fills."""
    for number in range(plugins):
        for line in range(LINES):
            host.wiring.logs.write(
                plugin=name_of(number),
                instance="before",
                level="info",
                message=f"{line} " + "x" * 400,  # as long as what a failing function has logged
                fields={"a": line, "b": line},
            )


def looked(load: Load, at_s: float) -> dict[str, Any]:
    """What is to be seen now."""
    gc.collect()
    usages = load.host.wiring.resources.usages().model_dump(mode="json")["items"]
    return {
        "at_s": round(at_s),
        "calls": dict(load.outcomes),
        "host_mib": int(Path("/proc/self/statm").read_text().split()[1]) * 4 // 1024,
        "host_fds": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "host_tasks": len(asyncio.all_tasks()),
        "plugins": len(usages),
        "plugins_mib": sum(each["sample"]["memory_bytes"] for each in usages if each["sample"]) >> 20,
    }


async def main(seconds: float, plugins: int) -> int:
    """Runs it; whether something grew, or was wrong."""
    made = await asyncio.to_thread(lambda: [package(number, plugins) for number in range(plugins)])
    with tempfile.TemporaryDirectory(prefix="wf", dir="/tmp") as scratch:  # sockets need a short path
        async with world_on_engine(Path(scratch) / "h", *made) as host:
            for number in range(plugins):
                await host.install(name_of(number))
                await host.approve(*rights(number, plugins), plugin=name_of(number))
            for number in range(plugins):
                await host.until(State.RUNNING, plugin=name_of(number), patience_s=PATIENCE_S)
            fill(host, plugins)
            load = Load(host, plugins)
            callers = [asyncio.create_task(load.run(seed)) for seed in range(CALLERS)]
            began, seen = time.monotonic(), []
            for _ in range(SAMPLES):
                await asyncio.sleep(seconds / SAMPLES)
                seen.append(looked(load, time.monotonic() - began))
                sys.stdout.write(json.dumps(seen[-1]) + "\n")
                sys.stdout.flush()
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
    early, late = seen[WARM], seen[-1]
    grew = [
        name
        for name in ("host_mib", "host_fds", "host_tasks", "plugins_mib")
        if late[name] > early[name] * GROWTH
    ]
    verdict = {"grew": grew, "wrong": load.wrong[:5], "calls_per_s": round(load.outcomes["right"] / seconds)}
    sys.stdout.write(json.dumps(verdict) + "\n")
    return 1 if grew or load.wrong else 0


if __name__ == "__main__":
    asked = [sys.argv[1] if len(sys.argv) > 1 else "600", sys.argv[2] if len(sys.argv) > 2 else "50"]
    sys.exit(asyncio.run(main(float(asked[0]), int(asked[1]))))
