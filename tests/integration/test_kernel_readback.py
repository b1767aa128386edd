"""What the kernel has in force for a real sandbox, and a sandbox that somebody loosened behind the engine's back."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.world import PLUGIN, SOCKET, World, remove_containers, worker, world, world_on_engine
from wirthforge_host.sandbox.docker_engine import DockerEngine
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.resources import MIB
from wirthforge_sdk.contracts.resources_api import Priority, ResourcesIn

pytestmark = pytest.mark.engine


@pytest.fixture
async def host(tmp_path: Path):
    policy = tmp_path / "policy.toml"
    policy.write_text("[require]\nkernel_readback = true\n")
    async with world_on_engine(tmp_path / "h", worker(), policy=policy) as opened:
        await opened.install()
        yield opened


async def mismatches(host: World) -> list[str]:
    return (await host.wiring.plugins.effective(PLUGIN)).mismatches


@pytest.mark.requirement("CORE-1", "ISO-1")
async def test_the_kernel_says_of_a_real_sandbox_what_was_asked_for(host):
    told = await host.wiring.plugins.effective(PLUGIN)
    assert (told.kernel_path, told.mismatches) == ("proc", [])
    uid = told.kernel["uids"][0]
    assert told.kernel["uids"] == [uid] * 4
    assert uid >= 61_000
    assert (told.kernel["capabilities"], told.kernel["no_new_privileges"]) == ([], True)
    assert (told.kernel["interfaces"], told.kernel["system_calls"]) == (["lo"], "filtered")
    assert (told.kernel["written_to_disk"], told.kernel["other_mounts"]) == ([], [])
    assert {"pid", "ipc", "uts", "mnt", "net"} <= set(told.kernel["own_namespaces"])


async def test_limits_that_somebody_raised_behind_our_back_are_found(host):
    instance = host.wiring.reconciler.live(PLUGIN)
    cgroup = await host.wiring.containment.control.cgroup(instance.container_id)
    cgroup.set_pids(4_000)
    cgroup.set_cpu(None, 10_000)
    cgroup.close()
    found = await mismatches(host)
    assert [each.partition(":")[0] for each in found] == ["kernel.cpu_quota_us", "kernel.pids"]


async def test_what_the_host_itself_changes_while_it_runs_is_none(host):
    await host.wiring.containment.throttle(PLUGIN, share=0.5, cause="a test", actor="operator:me")
    assert await mismatches(host) == []
    await host.wiring.containment.throttle(PLUGIN, share=1, cause="a test", actor="operator:me")
    override = ResourcesIn(cpus=0.25, memory_bytes=160 * MIB, pids=48, priority=Priority.LOW)
    await host.wiring.plugins.limit(PLUGIN, override, host.operator)
    assert await mismatches(host) == []


class Lying(DockerEngine):
    """Leaves out the filter of system calls, and says that it is there."""

    async def create(self, spec):
        self.profile = spec.settings.seccomp
        return await super().create(_without_filter(spec))

    async def effective(self, container):
        return replace(await super().effective(container), seccomp=self.profile)


def _without_filter(spec):
    return replace(spec, seccomp_profile="unconfined")


async def test_an_engine_that_says_it_filters_and_does_not_is_found_out(tmp_path):
    async with world(tmp_path / "h", worker(), engine=Lying(SOCKET), host_id="test-lying-engine") as host:
        plugin = await host.install()
        assert plugin.state is State.QUARANTINED
        assert "kernel.system_calls: wanted 'filtered', found 'not filtered'" in plugin.cause
        assert await host.containers() == []


@pytest.fixture
async def left(tmp_path: Path):
    """A host's settings, under which one may leave a plugin to the next."""
    host_id = f"test-{uuid.uuid4().hex}"
    yield {"host_id": host_id, "leave_running": True}
    await remove_containers(host_id)


@pytest.mark.parametrize("loosen", ["cpu weight", "pids"])
async def test_the_next_host_adopts_what_the_one_before_moved_and_tightens_what_is_looser(
    tmp_path: Path, left: dict[str, Any], loosen: str
) -> None:
    package = worker()
    async with world(tmp_path / "h", package, engine=DockerEngine(SOCKET), **left) as host:
        before = (await host.install()).instance.id
        cgroup = await host.wiring.containment.control.cgroup(
            host.wiring.reconciler.live(PLUGIN).container_id
        )
        cgroup.set_weights(64, 100) if loosen == "cpu weight" else cgroup.set_pids(4_000)
        cgroup.close()
    async with world(tmp_path / "h", package, engine=DockerEngine(SOCKET), **left) as host:
        found = await host.until(State.RUNNING)
        assert found.instance.id == before
        assert (await host.wiring.plugins.effective(PLUGIN)).mismatches == []
