"""A host on an engine that maps user ids: it knows a plugin by the id that the machine has for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.private_engine import SUBORDINATE, PrivateEngine, private_engine
from tests.fakes.world import PLUGIN, worker, world
from wirthforge_host.sandbox.docker_engine import DockerEngine
from wirthforge_sdk.contracts.host_api import State

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def mapping() -> Iterator[PrivateEngine]:
    with private_engine(userns_remap="daemon") as engine:
        yield engine


async def test_the_engine_tells_what_it_adds(mapping: PrivateEngine) -> None:
    engine = DockerEngine(mapping.url)
    try:
        found = await engine.capabilities()
    finally:
        await engine.close()
    assert (found.user_namespaces, found.uid_offset, found.gid_offset) == (True, SUBORDINATE, SUBORDINATE)


@pytest.mark.requirement("ISO-1")
async def test_a_plugin_is_called_and_its_root_is_nobody_on_the_machine(
    mapping: PrivateEngine, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("[require]\nuser_namespaces = true\nkernel_readback = true\n")
    engine = DockerEngine(mapping.url)
    async with world(tmp_path / "h", worker(), engine=engine, policy=policy) as host:
        plugin = await host.install()
        assert plugin.state is State.RUNNING, plugin.cause
        answer = await host.call("echo", text="mapped")
        told = await host.wiring.plugins.effective(PLUGIN)
        (instance,) = await host.instances()
        bridge = host.wiring.settings.data_dir / "bridges" / instance.id
        owners = {entry.name: entry.stat().st_uid for entry in bridge.iterdir()}
        await host.disable()
        left = await host.containers()

    assert answer.structured == {"result": "mapped"}
    assert (told.kernel_path, told.mismatches) == ("proc", [])
    assert told.kernel is not None
    assert (told.kernel["root_uid"], told.kernel["root_gid"]) == (SUBORDINATE, SUBORDINATE)
    assert told.kernel["uids"] == [SUBORDINATE + instance.uid] * 4
    assert "user" in told.kernel["own_namespaces"]
    assert set(owners.values()) == {SUBORDINATE + instance.uid}
    assert left == []
