"""What reading the resources of many idle instances costs, beside the engine's stats API, in the same run.

The instances are containers of the same image made from the same create body as a plugin's, whose program sleeps. Ours
is the host's own sampler: every round with its rates, percentiles, ring and signals, its processor time by the
process's own clock. The peer asks the engine's API for one reading of each container, sixteen at a time, and costs the
processor time of the client, of the engine and of its runtime; what these two burn for others in a stretch of the same
length just before is taken off.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Figure, alone, at_most, beside, percentile
from bench.ground import BenchError, Ground
from wirthforge_host.resources.sampler import Sampler, Watched
from wirthforge_host.signals import Signals
from wirthforge_sdk.contracts.resources import Tier
from wirthforge_sdk.contracts.resources_api import Priority

NAME = "monitoring"
INSTANCES = 100
INSTANCES_QUICK = 20
ROUNDS = 40
PERIOD_S = 1.0
"""A host's usual one."""
ASKING = 16
PEER = "engine stats API"
ENGINE = frozenset({"dockerd", "containerd"})
IDLE = ("-c", "import time\nwhile True: time.sleep(600)")


def packages() -> list[bytes]:
    """None: what is read are containers, whoever made them."""
    return []


async def measure(ground: Ground) -> list[Figure]:
    """Ours in rounds without a pause, since pauses cost nothing; then the peer, once over all."""
    count = INSTANCES_QUICK if ground.effort.quick else INSTANCES
    containers = [_started(ground) for _ in range(count)]
    ours = await _ours(ground, containers)
    peer = _peer(ground, containers)
    per_sample = percentile(ours, 50) / count
    share = alone(f"{NAME}.share_of_core", per_sample * count / PERIOD_S, "cores", n=len(ours))
    return [
        beside(share, f"one core, {count} instances", 1.0, at_most(0.005 * count / INSTANCES)),
        beside(
            alone(f"{NAME}.cpu_per_sample", 1e6 * per_sample, "us", n=len(ours) * count),
            PEER,
            1e6 * peer / count,
            at_most(1 / 300),
        ),
        alone(f"{NAME}.round.p95", 1e3 * percentile(ours, 95), "ms", n=len(ours)),
    ]


async def _ours(ground: Ground, containers: list[tuple[str, int]]) -> list[float]:
    """Seconds of a processor, by round."""
    sampler = Sampler(Signals(), now=lambda: datetime.now(UTC), monotonic=time.monotonic)
    for number, (container, pid) in enumerate(containers):
        sampler.watch(Watched(str(number), f"bench/p{number}", container, pid, Priority.NORMAL))
    try:
        await sampler.round()
        seconds = []
        for _ in ground.rounds(NAME, ROUNDS):
            began = time.process_time()
            await sampler.round()
            seconds.append(time.process_time() - began)
        unread = [each.source for each in sampler.watched.values() if each.sample is None]
        if unread:
            raise BenchError(f"{len(unread)} of {len(containers)} instances are {unread[0]}")
    finally:
        for instance in list(sampler.watched):
            sampler.forget(instance)
    return seconds


def _peer(ground: Ground, containers: list[tuple[str, int]]) -> float:
    """Seconds of processors to ask for all once."""
    began, asked_from, engine_from = time.monotonic(), time.process_time(), _engine_s()
    with ThreadPoolExecutor(ASKING) as threads:
        for told in threads.map(
            lambda container: ground.client.stats(container, stream=False, one_shot=True),
            [container for container, _ in containers],
        ):
            if not told["memory_stats"]:
                raise BenchError("the engine told nothing of a container: look at its log")
    lasted, asking, engine = (
        time.monotonic() - began,
        time.process_time() - asked_from,
        _engine_s() - engine_from,
    )
    idle_from = _engine_s()
    time.sleep(lasted)
    return asking + max(0.0, engine - (_engine_s() - idle_from))


def _started(ground: Ground) -> tuple[str, int]:
    # All are one user's, who may have as many processes as the tier says.
    body, name, _ = ground.peer(None, IDLE, Tier.LARGE)
    client = ground.client
    container: str = client.create_container_from_config(body, name)["Id"]
    client.start(container)
    return container, int(client.inspect_container(container)["State"]["Pid"])


def _engine_s() -> float:
    """Processor time of the engine and its runtime so far, over all of their threads (proc(5), fields 14 and 15)."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name in ENGINE:
            fields = rest.split()
            total += int(fields[11]) + int(fields[12])
    if not total:
        raise BenchError("the engine's own processes cannot be seen: measure on its machine")
    return total / os.sysconf("SC_CLK_TCK")
