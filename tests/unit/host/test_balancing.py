"""Several instances of a plugin: they share its calls, stand in for each other, and are held back as one."""

import asyncio
from collections import Counter
from contextlib import suppress

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PATIENCE_S, PLUGIN, offered, world
from wirthforge_host.errors import PluginLacksPermissionError, PluginUnavailableError, PolicyViolationError
from wirthforge_host.plugins import lifecycle, reconciler, scaling
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import ConflictError, LimitExceededError

SOURCE = """
import os
import time
from pathlib import Path
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function(idempotent=True, timeout_s=20)
def hold(file: str) -> int:
    plugin.log.info("holding")
    while not plugin.cancelled() and not Path(file).exists():
        time.sleep(0.002)
    return os.getpid()

@plugin.function(timeout_s=20)
def hold_once(file: str) -> int:
    plugin.log.info("holding")
    while not plugin.cancelled() and not Path(file).exists():
        time.sleep(0.002)
    return os.getpid()

@plugin.function(inline=True)
def who() -> int:
    return os.getpid()

@plugin.function(calls_per_s=0.01)
def seldom() -> bool:
    return True
"""
KEEPING = """
import os
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function
def keep() -> int:
    plugin.storage.set("k", "v")
    return os.getpid()
"""
OPTIONAL = '[[permissions]]\nneed = "storage.write"\nreason = "A test."\noptional = true\n'
ME = {"cause": "a test says so", "actor": "operator:me"}


@pytest.fixture
def brisk(monkeypatch):
    """A host that looks around often."""
    monkeypatch.setattr(reconciler, "PERIOD_S", 0.2)
    monkeypatch.setattr(lifecycle, "FIRST_DELAY_S", 0.01)


@pytest.fixture
def start(tmp_path, brisk):
    """Starts a host; its plugin is to be installed."""

    def started(package=None, **options):
        package = package or make_package(source=SOURCE, functions=offered(SOURCE))
        return world(tmp_path / "h", package, **options)

    return started


@pytest.fixture
async def host(start):
    """A host with three instances of one plugin."""
    async with start() as opened:
        await opened.install()
        await scale(opened, 3)
        yield opened


async def scale(host, least, most=None):
    await host.wiring.scaling.scale(PLUGIN, least, host.operator, most=most)
    return await host.plugin()


def fleet(host):
    return host.wiring.reconciler.fleet.of(PLUGIN)


async def who(host):
    return (await host.call("who")).structured["result"]


async def until(host, condition):
    """Returns once the host was looked at and found so."""
    async with asyncio.timeout(PATIENCE_S), host.wiring.events.subscribe() as events:
        while not await condition():
            # Not every change is an event.
            with suppress(TimeoutError):
                await asyncio.wait_for(anext(events), 0.05)


async def has(host, number, *, without=()):
    """Whether that many take calls, none of them among ``without``."""
    live = [each for each in fleet(host) if each.gate.is_open and not each.lost.is_set()]
    return len(live) == number and not {each.id for each in live} & set(without)


async def holding(host, file, number, function="hold"):
    """That many calls, once each is inside an instance."""
    before = len(host.wiring.logs.tail(PLUGIN, limit=200))
    calls = [asyncio.create_task(host.call(function, file=str(file))) for _ in range(number)]
    async with asyncio.timeout(PATIENCE_S), host.wiring.logs.subscribe(PLUGIN, after=0) as lines:
        seen = 0
        while seen < before + number:
            seen += (await anext(lines)).message == "holding"
    return calls


def let_go(directory):
    """Ends the calls that hold."""
    (directory / "go").touch()


@pytest.mark.requirement("RES-12")
async def test_each_instance_has_a_user_a_socket_and_a_container_of_its_own(host):
    found = await host.plugin()
    assert (found.state, found.scale.now, len(found.instances)) == (State.RUNNING, 3, 3)
    assert found.instance == found.instances[0]
    assert len({each.uid for each in found.instances}) == 3
    ids = {each.id for each in found.instances}
    assert set(await host.containers()) == ids == host.directories("bridges")
    assert {record.id for record in await host.instances()} == ids
    joined = [record.detail["instance"] for record in await host.audited("instance.joined")]
    assert joined == [each.id for each in found.instances[1:]]
    (scaled,) = await host.audited("plugin.scale")
    assert (scaled.actor, scaled.detail) == ("operator:me", {"before": "1..1", "after": "3..3"})


@pytest.mark.requirement("PERM-3")
async def test_every_instance_may_what_its_plugin_may_whenever_it_began(start):
    package = make_package(source=KEEPING, functions=offered(KEEPING), extra=OPTIONAL)
    async with start(package=package) as host:
        await host.install()
        await host.approve("storage.write")

        async def able(number):
            await scale(host, number)
            seen = set()
            for _ in range(2 * number):
                with suppress(PluginLacksPermissionError):
                    seen.add((await host.call("keep")).structured["result"])
            return len(seen)

        assert await able(2) == 2
        assert await able(3) == 3
        await host.approve(deny=["storage.write"])
        assert await able(3) == 0
        assert await able(4) == 0


@pytest.mark.requirement("RES-12")
async def test_idle_instances_take_turns_and_busy_ones_are_passed_over(host, tmp_path):
    assert set(Counter([await who(host) for _ in range(9)]).values()) == {3}
    held = await holding(host, tmp_path / "go", 2)
    idle = {await who(host) for _ in range(5)}
    assert len(idle) == 1
    let_go(tmp_path)
    busy = {(await call).structured["result"] for call in held}
    assert len(busy) == 2
    assert not idle & busy


@pytest.mark.requirement("RES-12")
async def test_an_instance_that_dies_under_load_loses_no_idempotent_call(host, tmp_path):
    held = await holding(host, tmp_path / "go", 12)
    victim = fleet(host)[1]
    assert victim.gate.inside == 4
    async with host.wiring.events.subscribe() as events:
        await host.engine.kill(victim.container_id)
        await until(host, lambda: has(host, 3, without=[victim.id]))
        let_go(tmp_path)
        answers = await asyncio.gather(*held)
        host.wiring.events.emit("test.over")
        told = []
        while not told or told[-1] != "test.over":
            told.append((await anext(events)).type)
    assert [answer.is_error for answer in answers] == [False] * 12
    assert "plugin.state" not in told  # it ran all the time
    assert "instance.missing" in told
    (record,) = await host.audited("instance.missing")
    assert "its connection ended" in record.detail["cause"]


async def test_a_call_that_may_not_run_twice_fails_with_its_instance_and_no_other_does(host, tmp_path):
    held = await holding(host, tmp_path / "go", 3, "hold_once")
    await host.engine.kill(fleet(host)[0].container_id)
    done, _ = await asyncio.wait(held, return_when=asyncio.FIRST_COMPLETED)
    assert [type(call.exception()) for call in done] == [PluginUnavailableError]
    let_go(tmp_path)
    assert [(await call).is_error for call in held if call not in done] == [False, False]


@pytest.mark.requirement("RES-12")
async def test_fewer_are_wanted_and_those_that_leave_are_drained(host, tmp_path):
    held = await holding(host, tmp_path / "go", 2, "hold_once")
    fewer = asyncio.create_task(scale(host, 1))
    await until(host, lambda: has(host, 1))
    let_go(tmp_path)
    found = await fewer
    assert [(await call).is_error for call in held] == [False, False]
    assert (found.scale.now, len(found.instances), len(await host.containers())) == (1, 1, 1)
    assert (await host.call("who")).structured


async def test_it_is_remembered_and_holds_at_the_next_start(host):
    assert (await host.disable()).instances == []
    assert (await host.containers(), host.directories("bridges")) == ([], set())
    assert len((await scale(host, 2)).instances) == 0
    assert len((await host.enable()).instances) == 2


async def test_more_than_the_policy_allows_are_refused(host):
    with pytest.raises(PolicyViolationError, match=r"cap\.instances says at most 8"):
        await scale(host, 9)
    assert (await host.plugin()).scale.now == 3


async def test_a_policy_that_was_narrowed_since_holds_from_the_next_start_on(start, tmp_path):
    async with start() as host:
        await host.install()
        await scale(host, 3)
    policy = tmp_path / "policy.toml"
    policy.write_text("[cap]\ninstances = 2\n")
    async with start(policy=policy) as host:
        await until(host, lambda: has(host, 2))
        await host.wiring.plugins.settle([PLUGIN])
        found = await host.plugin()
        assert (found.scale.now, len(found.instances)) == (2, 2)


async def test_who_hears_that_it_drains_is_let_in_nowhere(host):
    async with host.wiring.events.subscribe() as events:
        disabling = asyncio.create_task(host.disable())
        while (event := await anext(events)).data.get("state") != State.DRAINING:
            assert event.type == "plugin.state"
        assert [each.gate.is_open for each in fleet(host)] == [False] * 3
        await disabling


async def test_where_the_host_has_no_room_those_that_run_go_on(start):
    async with start(max_instances=2) as host:
        await host.install()
        found = await scale(host, 3)
        assert (found.state, found.scale.now, len(found.instances)) == (State.RUNNING, 3, 2)
        (record,) = await host.audited("instance.missing")
        assert "may run no more" in record.detail["cause"]
        assert await who(host)


async def test_what_a_function_bounds_is_bounded_for_all_instances_together(host):
    assert not (await host.call("seldom")).is_error
    with pytest.raises(LimitExceededError, match="call less often"):
        await host.call("seldom")


async def test_all_instances_are_paused_and_resumed_as_one(host, tmp_path):
    held = await holding(host, tmp_path / "go", 3)
    await host.wiring.containment.pause(PLUGIN, **ME)
    found = await host.plugin()
    assert found.state is State.PAUSED
    assert [each.state for each in found.instances] == [State.PAUSED] * 3
    with pytest.raises(PluginUnavailableError):
        await host.call("who")
    await host.wiring.containment.resume(PLUGIN, **ME)
    let_go(tmp_path)
    assert [(await call).is_error for call in held] == [False] * 3
    found = await host.plugin()
    assert [found.state, *(each.state for each in found.instances)] == [State.RUNNING] * 4


async def test_whoever_joins_a_throttled_plugin_is_throttled(host):
    await host.throttle(0.5)
    gone = fleet(host)[0]
    await host.engine.kill(gone.container_id)
    await until(host, lambda: has(host, 3, without=[gone.id]))
    found = await host.plugin()
    assert [found.state, *(each.state for each in found.instances)] == [State.THROTTLED] * 4
    quotas = {(await host.engine.effective(each.container_id)).cpu_quota_us for each in fleet(host)}
    assert len(quotas) == 1
    await host.throttle(1.0)
    assert (await host.plugin()).state is State.RUNNING


async def test_a_kill_ends_all_and_counts_as_one_crash(host):
    gone = [each.id for each in fleet(host)]
    await host.wiring.containment.kill(PLUGIN, **ME)
    await until(host, lambda: has(host, 3, without=gone))
    assert (await host.plugin()).state is State.RUNNING
    assert host.wiring.reconciler.retries._crashes[PLUGIN].count == 1
    assert len(await host.containers()) == 3


async def test_quarantine_ends_all_and_an_end_of_everything_does_too(host):
    assert await host.wiring.containment.end_all(**ME) == {PLUGIN: ""}
    found = await host.plugin()
    assert (found.state, found.instances) == (State.QUARANTINED, [])
    assert await host.containers() == []
    with pytest.raises(ConflictError):
        await host.wiring.containment.kill(PLUGIN, **ME)


async def test_new_limits_hold_for_each(host):
    await host.limit(calls_per_s=7)
    assert [each.limits.calls_per_s for each in fleet(host)] == [7] * 3


async def test_an_uninstall_leaves_nothing_of_any(host):
    await host.uninstall()
    assert (await host.containers(), await host.instances(), host.directories("bridges")) == ([], [], set())


async def seconds(host, number, begin):
    """As many looks at the load, a second apart."""
    scaling = host.wiring.scaling
    for second in range(number):
        object.__setattr__(scaling, "monotonic", lambda at=begin + second: at)
        await scaling.look()


@pytest.mark.requirement("RES-12")
async def test_the_number_follows_the_load_between_its_bounds_and_says_why(start, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "LOOK_S", 3600)  # only this test looks
    async with start() as host:
        await host.install()
        assert len((await scale(host, 1, 3)).instances) == 1
        held = await holding(host, tmp_path / "go", 8)
        await seconds(host, 6, 1e6)
        await until(host, lambda: has(host, 2))
        found = (await host.plugin()).scale
        assert (found.least, found.most, found.now) == (1, 3, 2)
        assert found.reason == "8.0 calls were inside, on average over 6 s"
        held += await holding(host, tmp_path / "go", 4)
        assert sorted(each.gate.inside for each in fleet(host)) == [4, 8]
        let_go(tmp_path)
        assert {(await call).is_error for call in held} == {False}
        await seconds(host, 130, 1e6 + 6)
        await until(host, lambda: has(host, 1))
        told = [record.detail for record in await host.audited("plugin.scaled")]
        assert [(each["before"], each["after"]) for each in told] == [("1", "2"), ("2", "1")]
        assert all("calls were inside" in each["cause"] for each in told)


@pytest.mark.requirement("RES-12")
async def test_one_that_is_too_many_for_the_load_ends_its_calls_first(start, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "LOOK_S", 3600)
    async with start() as host:
        await host.install()
        await scale(host, 2)
        await scale(host, 1, 2)
        held = await holding(host, tmp_path / "go", 2, "hold_once")
        assert [each.gate.inside for each in fleet(host)] == [1, 1]
        await seconds(host, 130, 1e6)
        await until(host, lambda: has(host, 1))
        let_go(tmp_path)
        assert [(await call).is_error for call in held] == [False, False]


async def test_bounds_that_end_the_following_hold_at_once(start, monkeypatch):
    monkeypatch.setattr(scaling, "LOOK_S", 3600)
    async with start() as host:
        await host.install()
        await scale(host, 3)
        found = await scale(host, 1, 2)
        assert (len(found.instances), found.scale.now) == (2, 2)
        found = await scale(host, 1)
        assert (len(found.instances), found.scale.reason) == (1, "")
