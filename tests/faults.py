"""``python -m tests.faults [--points N] [--seed S]``: kills a host wherever it can be, and looks at the next one.

A host on the real engine installs a plugin, has it approved, called, disabled, enabled and uninstalled. It is killed at
one point: before a step of its own (:data:`STEPS`), or at the N-th system call of a kind in one of its threads, which
strace finds out (strace(1), ``--inject``). No product code knows of it. Then a host is started in the same place, and
within :data:`CONVERGED_S` nothing may be lost that was acknowledged, nothing doubled and nothing left; and what was
begun can be done again, to the end. One line a point, then a summary; exit status 1 if any point failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.host_process import HostProcess, Place, host_process
from tests.fakes.world import PLUGIN, remove_containers, worker

CONVERGED_S = 10.0
POINT_S = 90.0
AT_ONCE = 2

CALLS = (
    *("fsync", "fdatasync", "syncfs", "rename", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat"),
    *(
        "chmod",
        "fchmod",
        "chown",
        "fchown",
        "pwrite64",
        "write",
        "ftruncate",
        "sendto",
        "connect",
        "bind",
        "listen",
    ),
)
"""System calls after which the world outside is another one."""

STEPS = {
    "tests.fakes.source:ShelfSource.download": 1,
    "wirthforge_host.plugins.trees:Trees.unpack": 1,
    "wirthforge_host.plugins.service:Plugins.admit": 1,
    "wirthforge_host.plugins.store:add_plugin": 1,
    "wirthforge_host.plugins.store:record_transition": 9,
    "wirthforge_host.plugins.store:add_instance": 2,
    "wirthforge_host.plugins.store:remove_instance": 2,
    "wirthforge_host.plugins.store:set_enabled": 3,
    "wirthforge_host.plugins.store:remove_plugin": 1,
    "wirthforge_host.plugins.reconciler:Reconciler.settle": 6,
    "wirthforge_host.bridge.server:Bridge.listen": 2,
    "wirthforge_host.sandbox.docker_engine:DockerEngine.create": 2,
    "wirthforge_host.sandbox.docker_engine:DockerEngine.start": 2,
    "wirthforge_host.sandbox.docker_engine:DockerEngine.effective": 4,
    "wirthforge_host.sandbox.docker_engine:DockerEngine.remove": 2,
    "wirthforge_host.bridge.server:Endpoint.accept": 2,
    "wirthforge_host.bridge.session:Session.open": 2,
    "wirthforge_host.bridge.session:Session.list_tools": 2,
    "wirthforge_host.plugins.reconciler:Reconciler._open_gate": 2,
    "wirthforge_host.bridge.server:Endpoint.close": 2,
    "wirthforge_host.plugins.trees:Trees.remove": 1,
}
"""Steps of install, start, stop and removal, and how often each is taken."""

STORAGE = ("storage.read", "storage.write")
ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Act:
    """What an operator does, and the plugin's state once it is acknowledged."""

    name: str
    after: str
    args: tuple[str, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    way: tuple[str, ...] = ()
    """States at rest on the way to it."""


ACTS = (
    Act("install", "awaiting_approval"),
    Act("approve", "running", STORAGE),
    Act("call", "running", ("keep",), {"key": "k", "value": "v"}),
    Act("disable", "stopped"),
    Act("enable", "running"),
    Act("uninstall", ABSENT, (), {"purge": True}, way=("stopped",)),
)


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """Where a host is killed."""

    what: str
    """One of :data:`CALLS`, or a key of :data:`STEPS`."""
    time: int
    """The first is 1."""

    def __str__(self) -> str:
        return f"{self.what} #{self.time}"

    def of(self, place: Place) -> Place:
        """The place, with a host that ends itself at the point, if it is a step."""
        return place if self.what in CALLS else place.dying_at(self.what, self.time)

    def prefix(self) -> tuple[str, ...]:
        """What ends the host at the point, if it is a system call."""
        if self.what not in CALLS:
            return ()
        inject = f"inject={self.what}:signal=KILL:when={self.time}"
        return (*_STRACE, "-o", os.devnull, "-e", f"trace={self.what}", "-e", inject)


_STRACE = ("strace", "-D", "-f", "-qq")
"""As a grandchild: the host is our own child. With ``--seccomp-bpf`` strace 6.1 injects at a first call or never."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one point."""

    point: Point
    hit: bool
    acknowledged: int
    wrong: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        where = (
            f"during {ACTS[self.acknowledged].name}"
            if self.hit and self.acknowledged < len(ACTS)
            else "at the end"
        )
        what = "; ".join(self.wrong) or (f"killed {where}" if self.hit else "not reached")
        return f"{'FAIL' if self.wrong else 'ok  '} {self.point!s:<72} {self.seconds:5.1f} s  {what}"


@asynccontextmanager
async def _place() -> AsyncIterator[Place]:
    scratch = Path(tempfile.mkdtemp(prefix="wff"))
    place = Place(directory=scratch / "h", host_id=f"fault-{os.urandom(6).hex()}", threads=1)
    place.stock([worker(permissions=STORAGE)])
    try:
        yield place
    finally:
        await remove_containers(place.host_id)
        shutil.rmtree(scratch)


async def _do(host: HostProcess, acts: Sequence[Act]) -> int:
    """How many of the acts were acknowledged before the host ended."""
    for done, act in enumerate(acts):
        try:
            await host.act(act.name, *act.args, **act.kwargs)
        except ConnectionError:
            return done
    return len(acts)


async def tried(point: Point) -> Outcome:
    """Kills a host at ``point``, and looks at the next one."""
    began = time.monotonic()
    async with _place() as place, asyncio.timeout(POINT_S):
        async with host_process(point.of(place), *point.prefix()) as host:
            done = await _do(host, ACTS)
            hit = done < len(ACTS) or await host.stop() != 0
        try:
            wrong = await _judged(place, done)
        except (ConnectionError, TimeoutError) as error:
            wrong = [f"the next host does not answer: {type(error).__name__} {error}"]
        if wrong:
            wrong.append(f"the log ends with {place.log.read_text(errors='replace')[-2000:]!r}")
    return Outcome(point, hit, done, tuple(wrong), time.monotonic() - began)


async def _judged(place: Place, done: int) -> list[str]:
    """What is wrong with the host that comes after ``done`` acknowledged acts and one begun."""
    wrong: list[str] = []
    async with host_process(place) as host:
        try:
            found = await host.act("converged", CONVERGED_S)
        except RuntimeError as error:
            return [f"no rest within {CONVERGED_S:g} s: {error}"]
        before = ACTS[done - 1].after if done else ABSENT
        states = {before, *(state for act in ACTS[done : done + 1] for state in (*act.way, act.after))}
        state = found["states"].get(PLUGIN, ABSENT)
        wrong += [f"it is {state}, not {' or '.join(sorted(states))}"] if state not in states else []
        wrong += found["wrong"]
        kept = any(act.name == "call" for act in ACTS[:done])
        if kept and state == "running":
            value = (await host.act("call", "recall", key="k"))["structured"]
            wrong += ["a value that was stored is lost"] if value != {"result": "v"} else []
        wrong += await _finished(host, done)
    return wrong


async def _finished(host: HostProcess, done: int) -> list[str]:
    """What is wrong when the act that was cut short is done again, and all after it."""
    for act in ACTS[done:]:
        try:
            await host.act(act.name, *act.args, **act.kwargs)
        except RuntimeError as error:
            if not any(
                known in str(error) for known in ("is installed already", "is not installed", "NotFoundError")
            ):
                return [f"{act.name} cannot be repeated: {error}"]
    found = await host.act("converged", CONVERGED_S)
    left = {name: each for name, each in found["left"].items() if each}
    return [*found["wrong"], *([f"left at the end: {left}"] if left else [])]


async def enumerated() -> list[Point]:
    """Every point there is: each step as often as it is taken, each kind of call as often as a thread makes it."""
    calls = ",".join(CALLS)
    points = [Point(step, time) for step, times in STEPS.items() for time in range(1, times + 1)]
    async with _place() as place:
        seen = place.directory.with_name("calls")
        async with host_process(place, *_STRACE, "-o", str(seen), "-e", f"trace={calls}") as host:
            await _do(host, ACTS)
            await host.stop()
        counts = _counts(seen.read_text(errors="replace").splitlines())
    most = {call: max((n for (each, _), n in counts.items() if each == call), default=0) for call in CALLS}
    return points + [Point(call, time) for call in CALLS for time in range(1, most[call] + 1)]


def _counts(lines: Sequence[str]) -> Counter[tuple[str, str]]:
    """How often each thread made each call, as strace counts for ``when``; a line is ``<thread> <call>(…``."""
    halves = (line.partition(" ")[::2] for line in lines)
    return Counter((rest.strip().partition("(")[0], thread) for thread, rest in halves)


def sampled(points: Sequence[Point], number: int, seed: int) -> list[Point]:
    """``number`` of the points, as many of each kind as there are, as far as it goes."""
    shuffled = random.Random(seed)  # noqa: S311 (a choice of tests, to be had again by its seed)
    piles: defaultdict[str, list[Point]] = defaultdict(list)
    for point in points:
        piles[point.what if point.what in CALLS else "step"].append(point)
    for pile in piles.values():
        shuffled.shuffle(pile)
    chosen: list[Point] = []
    while len(chosen) < number and any(piles.values()):
        chosen += [pile.pop() for pile in piles.values() if pile]
    return sorted(chosen[:number])


async def trials(points: Sequence[Point]) -> AsyncIterator[Outcome]:
    """The outcomes, as they come."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(point: Point) -> Outcome:
        async with slots:
            return await tried(point)

    for done in asyncio.as_completed([one(point) for point in points]):
        yield await done


async def _main(number: int, seed: int) -> int:
    began = time.monotonic()
    points = await enumerated()
    chosen = sampled(points, number, seed)
    print(f"seed {seed}: {len(chosen)} of {len(points)} points", flush=True)  # noqa: T201 (the program\'s own output)
    outcomes = []
    async for outcome in trials(chosen):
        outcomes.append(outcome)
        print(outcome, flush=True)  # noqa: T201 (as above)
    failed = [outcome for outcome in outcomes if outcome.wrong]
    hit = sum(outcome.hit for outcome in outcomes)
    seconds = time.monotonic() - began
    print(f"{len(outcomes)} points, {hit} killed, {len(failed)} failed, {seconds:.0f} s; seed {seed}")  # noqa: T201 (as above)
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    chosen = parser.parse_args()
    sys.exit(asyncio.run(_main(chosen.points, chosen.seed)))
