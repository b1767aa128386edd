"""Plugins that are held back: on an engine in memory, and for real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PLUGIN, WORKER, World, worker, worker_functions, world, world_on_engine
from wirthforge_host.errors import EngineUnavailableError, PluginUnavailableError
from wirthforge_host.sandbox.control import Control
from wirthforge_host.sandbox.hardening import bandwidth
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import ConflictError, InvalidInputError, NotFoundError, WirthForgeError
from wirthforge_sdk.serving.errors import DatabaseUnavailableError

ME = "operator:me"
WHY = "a test says so"
BOUND_S = 9.0


@pytest.fixture(params=["memory", pytest.param("docker", marks=pytest.mark.engine)])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made = world if request.param == "memory" else world_on_engine
    async with made(tmp_path / "h", worker()) as opened:
        await opened.install()
        await opened.until(State.RUNNING)
        yield opened


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[World]:
    async with world_on_engine(tmp_path / "h", worker()) as opened:
        await opened.install()
        await opened.until(State.RUNNING)
        yield opened


async def acts(host: World, action: str) -> list[tuple[str, object]]:
    return [(each.actor, each.detail["cause"]) for each in await host.audited(action)]


@pytest.mark.requirement("RES-8")
async def test_a_throttled_plugin_answers_and_is_restored(host):
    await host.wiring.containment.throttle(PLUGIN, share=0.4, cause=WHY, actor=ME)
    assert (await host.plugin()).state is State.THROTTLED
    assert (await host.call("echo", text="slow")).structured == {"result": "slow"}
    await host.wiring.containment.throttle(PLUGIN, share=1, cause="enough", actor=ME)
    assert (await host.plugin()).state is State.RUNNING
    assert await acts(host, "plugin.throttle") == [(ME, WHY), (ME, "enough")]


@pytest.mark.parametrize("share", [0, -1, 1.01, float("nan")])
async def test_a_share_that_is_none_is_refused(host, share):
    with pytest.raises(InvalidInputError, match="share"):
        await host.wiring.containment.throttle(PLUGIN, share=share, cause=WHY, actor=ME)
    assert (await host.plugin()).state is State.RUNNING


async def test_a_paused_plugin_takes_no_calls_until_it_goes_on(host):
    await host.wiring.containment.pause(PLUGIN, cause=WHY, actor=ME)
    assert (await host.plugin()).state is State.PAUSED
    with pytest.raises(PluginUnavailableError):
        await host.call("echo", text="x")
    await host.wiring.containment.resume(PLUGIN, cause="looked", actor=ME)
    assert (await host.call("echo", text="again")).structured == {"result": "again"}
    assert (await host.plugin()).state is State.RUNNING
    assert await acts(host, "plugin.pause") + await acts(host, "plugin.resume") == [(ME, WHY), (ME, "looked")]


async def test_a_pause_that_nobody_waited_for_can_be_resumed(host, monkeypatch):
    frozen, answered, freeze = asyncio.Event(), asyncio.Event(), Control.freeze

    async def answers_late(control, container, pid=None):
        await freeze(control, container, pid)
        frozen.set()
        await answered.wait()

    with monkeypatch.context() as patched:
        patched.setattr(Control, "freeze", answers_late)
        pausing = asyncio.create_task(host.wiring.containment.pause(PLUGIN, cause=WHY, actor=ME))
        async with asyncio.timeout(BOUND_S):
            await frozen.wait()
        pausing.cancel()
        await asyncio.wait([pausing])
    with pytest.raises(PluginUnavailableError):
        await host.call("echo", text="x")
    resuming = asyncio.create_task(host.wiring.containment.resume(PLUGIN, cause="looked", actor=ME))
    answered.set()
    await asyncio.wait_for(resuming, BOUND_S)
    assert (await host.call("echo", text="again")).structured == {"result": "again"}


async def test_what_was_throttled_before_its_pause_is_throttled_after_it(host):
    await host.wiring.containment.throttle(PLUGIN, share=0.5, cause=WHY, actor=ME)
    await host.wiring.containment.pause(PLUGIN, cause=WHY, actor=ME)
    await host.wiring.containment.resume(PLUGIN, cause=WHY, actor=ME)
    assert (await host.plugin()).state is State.THROTTLED


async def test_a_paused_plugin_can_be_disabled_and_leaves_nothing(host):
    await host.wiring.containment.pause(PLUGIN, cause=WHY, actor=ME)
    async with asyncio.timeout(BOUND_S):
        assert (await host.disable()).state is State.STOPPED
    assert await host.containers() == []


@pytest.mark.requirement("RES-9")
async def test_a_killed_plugin_says_why_and_comes_back(host):
    first = (await host.plugin()).instance
    await host.wiring.containment.kill(PLUGIN, cause=WHY, actor=ME)
    await host.until(State.RUNNING, other_than=first.id)
    causes = [each.detail["cause"] for each in await host.audited("plugin.state")]
    assert WHY in causes
    assert await acts(host, "plugin.kill") == [(ME, WHY)]


@pytest.mark.requirement("RES-9")
async def test_a_quarantined_plugin_starts_only_after_somebody_looked(host):
    await host.wiring.containment.quarantine(PLUGIN, cause=WHY, actor=ME)
    plugin = await host.plugin()
    assert (plugin.state, plugin.cause, plugin.instance) == (State.QUARANTINED, WHY, None)
    assert await host.containers() == []
    with pytest.raises(ConflictError, match="disable"):
        await host.enable()
    await host.disable()
    assert (await host.enable()).state is State.RUNNING


async def test_everything_can_be_ended_at_once(tmp_path):
    names = ["demo/a", "demo/b", "demo/c"]
    async with world(tmp_path / "h", *(worker(name) for name in names)) as host:
        for name in names:
            await host.install(name)
        assert await host.wiring.containment.end_all(cause=WHY, actor=ME) == dict.fromkeys(names, "")
        assert {(await host.plugin(name)).state for name in names} == {State.QUARANTINED}
        assert await host.containers() == []


@pytest.mark.parametrize("act", ["pause", "resume", "kill", "quarantine"])
async def test_what_does_not_run_cannot_be_held(host, act):
    await host.disable()
    with pytest.raises(ConflictError, match="nothing of it runs"):
        await getattr(host.wiring.containment, act)(PLUGIN, cause=WHY, actor=ME)
    with pytest.raises(NotFoundError):
        await getattr(host.wiring.containment, act)("demo/none", cause=WHY, actor=ME)


@pytest.mark.parametrize("act", ["kill", "quarantine", "pause"])
async def test_it_is_held_also_when_nothing_can_be_written_down(tmp_path, monkeypatch, act):
    async with world(tmp_path / "h", worker()) as host:
        await host.install()
        (container,) = await host.containers()

        def away():
            raise DatabaseUnavailableError("the database does not answer")

        instance = host.wiring.reconciler.live(PLUGIN)
        with monkeypatch.context() as patch:
            patch.setattr(host.wiring.database, "transaction", away)
            with pytest.raises(WirthForgeError, match="not written down"):
                await getattr(host.wiring.containment, act)(PLUGIN, cause=WHY, actor=ME)
            assert not instance.gate.is_open
            if act != "pause":
                await asyncio.wait_for(instance.lost.wait(), BOUND_S)
        assert container


@pytest.mark.engine
@pytest.mark.requirement("RES-8")
async def test_the_kernel_says_that_it_is_slower_and_then_stands_still(real):
    control = real.wiring.containment.control
    instance = real.wiring.reconciler.live(PLUGIN)
    cgroup = await control.cgroup(instance.container_id)
    await real.wiring.containment.throttle(PLUGIN, share=0.4, cause=WHY, actor=ME)
    limits = cgroup.limits()
    assert (limits.cpu_quota_us, limits.cpu_period_us) == bandwidth(instance.limits.cpus * 0.4)
    await real.wiring.containment.pause(PLUGIN, cause=WHY, actor=ME)
    assert cgroup.is_frozen()
    await real.wiring.containment.resume(PLUGIN, cause=WHY, actor=ME)
    assert not cgroup.is_frozen()
    cgroup.close()


@pytest.mark.engine
@pytest.mark.requirement("RES-9")
async def test_a_frozen_plugin_can_be_killed(real):
    instance = real.wiring.reconciler.live(PLUGIN)
    await real.wiring.containment.pause(PLUGIN, cause=WHY, actor=ME)
    await real.wiring.containment.kill(PLUGIN, cause=WHY, actor=ME)
    await asyncio.wait_for(instance.lost.wait(), BOUND_S)
    await real.until(State.RUNNING, other_than=instance.id)


async def test_a_pause_outlives_the_instance_and_the_host(tmp_path):
    async with world(tmp_path / "h", worker()) as host:
        await host.install()
        await host.wiring.containment.pause(PLUGIN, cause=WHY, actor=ME)
    async with world(tmp_path / "h", worker()) as host:
        assert (await host.until(State.PAUSED)).instance is None
        with pytest.raises(PluginUnavailableError):
            await host.call("echo", text="x")
        await host.wiring.containment.resume(PLUGIN, cause="looked", actor=ME)
        await host.until(State.RUNNING)
        assert (await host.call("echo", text="again")).structured == {"result": "again"}


async def test_an_emergency_ends_what_is_only_starting_too(tmp_path):
    slow = make_package(source="import time\ntime.sleep(60)\n" + WORKER, functions=worker_functions())
    async with world(tmp_path / "h", slow) as host:
        installing = asyncio.create_task(host.install())
        await host.until(State.STARTING)
        assert await host.wiring.containment.end_all(cause=WHY, actor=ME) == {PLUGIN: ""}
        await installing
        assert (await host.plugin()).state is State.QUARANTINED
        assert await host.containers() == []


async def test_a_quarantine_is_written_down_also_when_the_engine_does_not_answer(tmp_path):
    async with world(tmp_path / "h", worker()) as host:
        await host.install()
        away = EngineUnavailableError("no answer")
        host.engine.faults.errors = dict.fromkeys(("state", "kill", "remove"), away)
        with suppress(WirthForgeError):
            await host.wiring.containment.quarantine(PLUGIN, cause=WHY, actor=ME)
        assert (await host.plugin()).state is State.QUARANTINED
        with pytest.raises(WirthForgeError):
            await host.wiring.containment.kill(PLUGIN, cause=WHY, actor=ME)
        host.engine.faults.errors = {}
