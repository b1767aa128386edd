"""Acting on a running container: its quota, standing still, going on, ending.

Through the kernel's cgroup files where the host sees them (0.04 ms), and otherwise through the engine (10-100 ms):
``docs/operations.md`` says when that is. Files are believed to be the container's only when their path names it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from wirthforge_host.errors import CgroupMissingError, CgroupUnreachableError
from wirthforge_host.sandbox.cgroup import Cgroup, CgroupLimits
from wirthforge_host.sandbox.hardening import bandwidth
from wirthforge_host.sandbox.ports import ContainerEngine
from wirthforge_sdk.contracts.resources import Limits
from wirthforge_sdk.errors import ConflictError

LIVE = ("cpus", "memory_bytes", "pids", "io_bytes_per_s", "io_operations_per_s")
"""Limits that the kernel takes while a container runs."""


class Control:
    """The running containers of one engine. A ``container`` is a full id, a ``pid`` that of its first process."""

    def __init__(self, engine: ContainerEngine) -> None:
        self._engine = engine

    async def cgroup(self, container: str, pid: int | None = None) -> Cgroup | None:
        """The container's cgroup, to be closed by the caller; None when it does not run, or is not to be seen here.

        Whoever knows the ``pid`` of its first process needs no engine that answers.
        """
        if pid is not None and (found := await asyncio.to_thread(_cgroup, pid, container)) is not None:
            return found
        state = await self._engine.state(container)
        if state is None or state.pid is None:
            return None
        return await asyncio.to_thread(_cgroup, state.pid, state.id)

    async def set_cpus(self, container: str, cpus: float, pid: int | None = None) -> None:
        """Gives it ``cpus`` cores from now on.

        Raises:
            ContainerMissingError: There is no such container.
            UnavailableError: Neither the kernel nor the engine did it.
        """
        quota_us, period_us = bandwidth(cpus)
        if not await self._directly(container, pid, lambda cgroup: cgroup.set_cpu(quota_us, period_us)):
            await self._engine.set_cpu(container, quota_us=quota_us, period_us=period_us)

    async def freeze(self, container: str, pid: int | None = None) -> None:
        """Lets all its processes stand still, and returns when they do.

        Raises:
            ContainerMissingError: There is no such container.
            UnavailableError: Neither the kernel nor the engine did it.
        """
        if not await self._directly(container, pid, Cgroup.freeze):
            await self._engine.pause(container)

    async def thaw(self, container: str, pid: int | None = None) -> None:
        """Lets them go on, whoever froze them.

        Raises:
            ContainerMissingError: There is no such container.
            UnavailableError: Neither the kernel nor the engine did it.
        """
        if not await self._directly(container, pid, Cgroup.thaw):
            await self._engine.unpause(container)

    async def kill(self, container: str, pid: int | None = None) -> None:
        """Ends all its processes, frozen ones too; does nothing when none runs.

        Raises:
            UnavailableError: Neither the kernel nor the engine did it.
        """
        if not await self._directly(container, pid, Cgroup.kill):
            await self._engine.kill(container)

    async def oom_kills(self, container: str, pid: int | None) -> int:
        """Its processes that the kernel ended for memory until now; 0 where the host cannot see that."""
        cgroup = None if pid is None else await asyncio.to_thread(_cgroup, pid, container)
        if cgroup is None:
            return 0
        try:
            return (await asyncio.to_thread(cgroup.usage)).oom_kills
        except (CgroupMissingError, CgroupUnreachableError):
            return 0
        finally:
            cgroup.close()

    async def _directly(self, container: str, pid: int | None, act: Callable[[Cgroup], None]) -> bool:
        """Whether ``act`` was done on the container's cgroup."""
        cgroup = await self.cgroup(container, pid)
        if cgroup is None:
            return False
        try:
            await asyncio.to_thread(act, cgroup)
        except (CgroupMissingError, CgroupUnreachableError):
            return False  # gone meanwhile, or not to be written: the engine has the last word
        finally:
            cgroup.close()
        return True


def hold_to(cgroup: Cgroup, limits: Limits, *, share: float = 1.0) -> tuple[str, ...]:
    """Puts limits in force while the container runs. Blocking.

    Args:
        cgroup: Of the container.
        limits: What it may use from now on.
        share: Of the processor's quota that a throttled container keeps.

    Returns:
        Which of :data:`LIVE` are in force now; memory cannot go below what is in use.
    """
    before = cgroup.limits()
    acts: dict[str, Callable[[], None]] = {
        "cpus": lambda: cgroup.set_cpu(*bandwidth(limits.cpus * share)),
        "memory_bytes": lambda: cgroup.set_memory(limits.memory_bytes),
        "pids": lambda: cgroup.set_pids(limits.pids),
        "io_bytes_per_s": lambda: _set_io(cgroup, before, limits),
    }
    now: list[str] = []
    for name, act in acts.items():
        try:
            act()
        except ConflictError:
            continue
        now.append(name)
    if "io_bytes_per_s" in now:
        now.append("io_operations_per_s")
    return tuple(now)


def _set_io(cgroup: Cgroup, before: CgroupLimits, limits: Limits) -> None:
    """New rates for the devices that have rates; which ones was decided when the container was made."""
    for device in before.io:
        cgroup.set_io(
            replace(
                device,
                read_bytes_per_s=limits.io_bytes_per_s,
                write_bytes_per_s=limits.io_bytes_per_s,
                read_operations_per_s=limits.io_operations_per_s,
                write_operations_per_s=limits.io_operations_per_s,
            )
        )


def _cgroup(pid: int, container: str) -> Cgroup | None:
    try:
        # The pid is the engine's machine's; seen from here it may be somebody else's.
        return Cgroup.of_process(pid, container=container)
    except (CgroupMissingError, CgroupUnreachableError):
        return None
