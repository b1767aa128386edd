"""Real containers through the resource service: what is read of them, and whose turn it is."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.fakes.containers import LIMITS, contained
from wirthforge_host.resources.limits import apply_priority
from wirthforge_host.resources.sampler import Sampler, Watched
from wirthforge_host.sandbox.cgroup import Cgroup
from wirthforge_host.sandbox.hardening import bandwidth
from wirthforge_host.signals import Noticed, Signal, Signals
from wirthforge_sdk.contracts.resources_api import Priority

pytestmark = pytest.mark.engine

BURN = "while True: pass"
WAIT_S = 30.0
ENOUGH_S = 4.0
"""Of a processor, which two shared: scheduling evens out within tenths."""


async def until_used(seconds: float, *groups: Cgroup) -> list[float]:
    """What each used until all together used so much."""
    before = [group.usage().cpu_s for group in groups]
    async with asyncio.timeout(WAIT_S):
        while True:
            used = [group.usage().cpu_s - was for group, was in zip(groups, before, strict=True)]
            if sum(used) >= seconds:
                return used
            await asyncio.sleep(0.05)


def on_one_processor(pid: int) -> None:
    """The group's processes share the first processor with whoever else is put there."""
    lines = (line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    paths = {controllers: path for _, controllers, path in lines}
    root = Path("/sys/fs/cgroup")
    at = root / "cpuset" / paths["cpuset"].lstrip("/") if "cpuset" in paths else root / paths[""].lstrip("/")
    (at / "cpuset.cpus").write_text("0")


@pytest.mark.requirement("RES-1")
async def test_a_busy_container_is_seen_at_its_quota_and_told_of(tmp_path: Path) -> None:
    noticed: list[Signal] = []
    signals = Signals()
    signals.listen(noticed.append)
    sampler = Sampler(signals, now=lambda: datetime.now(UTC), monotonic=time.monotonic)
    async with contained(BURN, tmp_path) as (group, state):
        assert state.pid is not None
        sampler.watch(Watched("i1", "acme/burner", state.id, state.pid, Priority.NORMAL))
        await sampler.round()
        await until_used(0.5, group)
        await sampler.round()
        sample = sampler.watched["i1"].sample
        assert sample is not None
        assert sampler.watched["i1"].source == group.path
        assert 0.3 < sample.cpu_share < 1.1
        assert sample.throttled > 0.5
        assert 0 < sample.memory_share < 1
        assert sample.limits.memory_bytes == LIMITS.memory_bytes
    await sampler.round()
    assert sampler.watched["i1"].source.startswith("not readable")
    assert [each.noticed for each in noticed] == [Noticed.SAMPLED]
    sampler.forget("i1")


@pytest.mark.requirement("RES-7")
async def test_measured_shares_follow_the_priorities(tmp_path: Path) -> None:
    """Four to one by the weights, on one processor that both want all of."""
    async with (
        contained(BURN, tmp_path / "a") as (high, one),
        contained(BURN, tmp_path / "b") as (normal, other),
    ):
        for group, state in ((high, one), (normal, other)):
            assert state.pid is not None
            await asyncio.to_thread(on_one_processor, state.pid)
            group.set_cpu(*bandwidth(1.0))
        apply_priority(high, Priority.HIGH)
        apply_priority(normal, Priority.NORMAL)
        more, less = await until_used(ENOUGH_S, high, normal)
        assert 2.5 < more / less < 6.5
        apply_priority(high, Priority.NORMAL)
        same, equal = await until_used(ENOUGH_S, high, normal)
        assert 0.6 < same / equal < 1.7
