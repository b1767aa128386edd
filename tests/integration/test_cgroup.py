"""The kernel's files of a real container: what is read is what was asked for, and what is written takes effect."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes.containers import LIMITS, contained
from wirthforge_host.errors import CgroupMissingError
from wirthforge_host.sandbox.cgroup import Cgroup
from wirthforge_host.sandbox.cgroup.places import Places

pytestmark = pytest.mark.engine

WAIT_S = 20.0

IDLE = "import time\nwhile True: time.sleep(60)"
BURN = "while True: pass"
FORK_STORM = """
import os, time
for _ in range(25):
    try:
        if os.fork() == 0:
            while True: pass
    except OSError:
        pass
while True:
    try:
        if os.fork() == 0: os._exit(0)
        os.wait()
    except OSError:
        pass
"""
CLIMB = """
import time
kept = bytearray(24 << 20)
for at in range(0, len(kept), 4096): kept[at] = 1
while True: time.sleep(60)
"""


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():  # noqa: ASYNC110 (the kernel announces none of this)
            await asyncio.sleep(0.02)


async def test_what_was_asked_of_the_engine_is_in_force_in_the_kernel(tmp_path: Path) -> None:
    async with contained(IDLE, tmp_path) as (group, _):
        limits, usage = group.limits(), group.usage()
        assert limits.memory_bytes == limits.memory_and_swap_bytes == LIMITS.memory_bytes
        assert limits.cpus == pytest.approx(LIMITS.cpus, rel=0.01)
        assert limits.pids == LIMITS.pids
        assert 0 < usage.memory_bytes <= LIMITS.memory_bytes
        assert usage.cpu_s > 0
        assert usage.pids >= 1
        assert group.path == f"cgroup v{group.version}, direct"


async def test_a_quota_cut_holds_at_once_and_is_counted(tmp_path: Path) -> None:
    async with contained(BURN, tmp_path) as (group, _):
        group.set_cpu(1_000, 20_000)
        before, started = group.usage(), time.monotonic()
        await until(lambda: group.usage().periods - before.periods >= 100)
        after, lasted = group.usage(), time.monotonic() - started
        # A machine that is busy gives it less; more it must not get.
        assert 0 < (after.cpu_s - before.cpu_s) / lasted < 0.07
        assert after.throttled_periods - before.throttled_periods > 80


async def test_memory_that_is_held_is_seen_and_not_cut_away(tmp_path: Path) -> None:
    async with contained(CLIMB, tmp_path) as (group, _):
        await until(lambda: group.usage().memory_bytes > 24 << 20)
        group.set_memory(48 << 20)
        assert group.limits().memory_bytes == 48 << 20
        group.set_memory(96 << 20)
        assert group.limits().memory_and_swap_bytes == 96 << 20


async def test_a_throttled_fork_storm_is_frozen_goes_on_and_is_killed(tmp_path: Path) -> None:
    """The engine's own pause fails on such a group."""
    async with contained(FORK_STORM, tmp_path) as (group, _):
        group.set_cpu(1_000, 50_000)
        await until(lambda: group.usage().pids > 20)
        await asyncio.to_thread(group.freeze)
        frozen = group.usage().cpu_s
        await asyncio.sleep(0.3)
        assert group.usage().cpu_s == frozen
        await asyncio.to_thread(group.thaw)
        await until(lambda: group.usage().cpu_s > frozen)
        await asyncio.to_thread(group.freeze)
        await asyncio.to_thread(group.kill)
        with pytest.raises(CgroupMissingError):
            await until(lambda: group.usage().pids < 0)


@pytest.fixture
def unified() -> Iterator[Path]:
    """A group of our own in the kernel's cgroup v2 hierarchy, wherever that is mounted."""
    root = next(
        at
        for at in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
        if (at / "cgroup.controllers").exists()
    )
    directory = root / f"wirthforge-{uuid.uuid4().hex[:12]}"
    directory.mkdir()
    try:
        yield directory
    finally:
        directory.rmdir()


def test_the_kernels_v2_files_freeze_and_kill(unified: Path) -> None:
    group = Cgroup(Places(unified=True, directories={"": unified}))
    children = [subprocess.Popen(["/bin/sleep", "60"]) for _ in range(3)]
    try:
        for child in children:
            (unified / "cgroup.procs").write_text(str(child.pid))
        group.freeze()
        assert group.is_frozen()
        group.thaw()
        assert not group.is_frozen()
        group.freeze()
        group.kill()
        assert [child.wait(timeout=5) for child in children] == [-signal.SIGKILL] * 3
    finally:
        group.close()
        for child in children:
            child.kill()
            child.wait()
