"""From one release of a plugin to another while calls go on, and back."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PATIENCE_S, PLUGIN, offered, world
from wirthforge_host.errors import PluginLacksPermissionError, PluginUnavailableError
from wirthforge_host.plugins import reconciler
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.upgrades_api import RollbackIn, UpgradeState
from wirthforge_sdk.errors import ConflictError, InvalidInputError, NotFoundError

SOURCE = """
import os
import time
from pathlib import Path
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()
sick = None

@plugin.function(inline=True)
def version() -> str:
    return "{version}"

@plugin.function(timeout_s=20)
def hold(file: str) -> str:
    plugin.log.info("holding")
    while not plugin.cancelled() and not Path(file).exists():
        time.sleep(0.002)
    return "{version}"

@plugin.function
def keep(value: str) -> str:
    plugin.storage.set("k", value)
    return value

@plugin.function
def kept() -> str:
    return str(plugin.storage.get("k"))

@plugin.function(inline=True)
def mark(file: str) -> bool:
    with open(file, "ab") as marks:
        marks.write(b"x")
    return True

@plugin.function
def sicken(file: str) -> bool:
    Path(file).touch()
    global sick
    sick = Path(file)
    return True

@plugin.function
def die() -> bool:
    os._exit(3)

@plugin.function
def well() -> bool:
    if not {well} or (sick and sick.exists()):
        raise RuntimeError("not well")
    return True
"""
STORES = ("storage.read", "storage.write")
TESTED = '[health]\nfunction = "well"\n'
IMPATIENT = {"drain_timeout_s": 5.0, "probation_s": 3600.0}


def release(version, *, asks=STORES, well=True, source=None, extra=TESTED, name=PLUGIN):
    code = (source or SOURCE).replace("{version}", version).replace("{well}", str(well))
    return make_package(name, version, source=code, functions=offered(code), permissions=asks, extra=extra)


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    """A host that looks around often."""
    monkeypatch.setattr(reconciler, "PERIOD_S", 0.2)


@asynccontextmanager
async def serving(directory, *packages, **settings):
    """A host on which the first of the packages serves and the others are on the shelf."""
    async with world(directory / "h", packages[0], **{**IMPATIENT, **settings}) as host:
        await host.install()
        await host.approve(*STORES)
        for package in packages[1:]:
            host.source.put(package)
        yield host


async def upgraded(host, requirement="*"):
    await host.wiring.installer.upgrade(PLUGIN, requirement, host.operator)
    return await newest(host)


async def newest(host):
    return next(iter(await host.wiring.plugins.upgrades.of_plugin(PLUGIN)), None)


async def back(host, **how):
    await host.wiring.plugins.upgrades.roll_back(PLUGIN, RollbackIn(**how), host.operator)
    return await newest(host)


async def rules(host):
    """What is decided on the newest release of the upgrade."""
    digest = (await newest(host)).after.digest
    return {each.rule for each in await host.wiring.permissions.in_force(PLUGIN) if each.digest == digest}


async def served(host):
    return (await host.call("version")).structured["result"]


async def until(host, *states):
    """The newest upgrade, once it is in one of ``states``."""
    async with asyncio.timeout(PATIENCE_S), host.wiring.events.subscribe() as events:
        while (found := await newest(host)) is None or found.state not in states:
            await anext(events)
        return found


@asynccontextmanager
async def under_load(host, callers=8):
    """Calls without a pause; gives what they answered, by version. A call that fails ends the test."""
    answers = Counter()
    stop = asyncio.Event()

    async def call():
        while not stop.is_set():
            answers[await served(host)] += 1

    tasks = [asyncio.create_task(call()) for _ in range(callers)]
    try:
        yield answers
    finally:
        stop.set()
        await asyncio.gather(*tasks)


@pytest.mark.requirement("HOT-1")
async def test_a_release_takes_the_place_of_another_under_load_and_no_call_fails(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        async with under_load(host) as answers:
            found = await upgraded(host)
            assert await served(host) == "1.1.0"
        assert (found.state, found.before.version, found.after.version) == ("probation", "1.0.0", "1.1.0")
        assert set(answers) == {"1.0.0", "1.1.0"}
        plugin = await host.plugin()
        assert (plugin.version, plugin.state, len(plugin.instances)) == ("1.1.0", State.RUNNING, 1)
        states = [record.detail["state"] for record in await host.audited("plugin.upgrade")]
        assert states == ["preparing", "probation"]


@pytest.mark.requirement("HOT-1")
async def test_calls_that_are_inside_end_where_they_began(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("2.0.0")) as host:
        held = asyncio.create_task(host.call("hold", file=str(tmp_path / "go")))
        await host.logged("holding")
        upgrading = asyncio.create_task(upgraded(host))
        await until(host, UpgradeState.PROBATION)
        assert await served(host) == "2.0.0"
        assert not upgrading.done()
        (tmp_path / "go").touch()
        assert (await held).structured == {"result": "1.0.0"}
        assert (await upgrading).state is UpgradeState.PROBATION


@pytest.mark.requirement("HOT-2")
async def test_back_and_forth_under_load_and_no_call_fails(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        async with under_load(host, callers=4) as answers:
            for _ in range(2):
                assert (await upgraded(host)).state is UpgradeState.PROBATION
                assert await served(host) == "1.1.0"
                assert (await back(host)).state is UpgradeState.ROLLED_BACK
                assert await served(host) == "1.0.0"
        assert set(answers) == {"1.0.0", "1.1.0"}
        assert len(await host.containers()) == 1


@pytest.mark.requirement("HOT-1")
async def test_no_call_is_made_twice_by_a_swap(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        file, stop, made = tmp_path / "marks", asyncio.Event(), 0

        async def call():
            nonlocal made
            while not stop.is_set():
                done = await host.call("mark", file=str(file))
                made += done.structured["result"]

        callers = [asyncio.create_task(call()) for _ in range(4)]
        for _ in range(2):
            await upgraded(host)
            await back(host)
        stop.set()
        await asyncio.gather(*callers)
        assert file.stat().st_size == made > 100


@pytest.mark.requirement("HOT-2")
async def test_a_release_that_sickens_in_its_probation_is_rolled_back(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        await upgraded(host)
        await host.call("sicken", file=str(tmp_path / "sick"))
        found = await until(host, UpgradeState.ROLLED_BACK)
        assert found.cause == "its self-test well answered that it failed"
        assert await served(host) == "1.0.0"


@pytest.mark.requirement("HOT-2")
async def test_a_release_that_dies_in_its_probation_is_rolled_back_at_once(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        await upgraded(host)
        before = {each.id for each in host.wiring.reconciler.fleet.parked(PLUGIN)}
        with pytest.raises(PluginUnavailableError):
            await host.call("die")
        found = await until(host, UpgradeState.ROLLED_BACK)
        assert "exit code 3" in found.cause or "ended" in found.cause
        plugin = await host.plugin()
        assert (plugin.version, plugin.state) == ("1.0.0", State.RUNNING)
        assert {each.id for each in plugin.instances} == before
        assert await served(host) == "1.0.0"


@pytest.mark.requirement("HOT-2")
async def test_without_its_old_instances_the_release_before_starts_again(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0"), rollback_kept_s=0.0) as host:
        await upgraded(host)
        async with asyncio.timeout(PATIENCE_S):
            while len(await host.containers()) > 1:  # noqa: ASYNC110 (no event tells of it)
                await asyncio.sleep(0.02)
        with pytest.raises(PluginUnavailableError):
            await host.call("die")
        await until(host, UpgradeState.ROLLED_BACK)
        await host.until(State.RUNNING)
        assert await served(host) == "1.0.0"


@pytest.mark.requirement("HOT-2")
async def test_a_rollback_without_old_instances_is_a_swap(tmp_path):
    async with serving(
        tmp_path, release("1.0.0"), release("1.1.0"), rollback_kept_s=0.0, probation_s=0.01
    ) as host:
        await upgraded(host)
        await until(host, UpgradeState.DONE)
        async with asyncio.timeout(PATIENCE_S):
            while host.wiring.reconciler.fleet.parked(PLUGIN):  # noqa: ASYNC110 (no event tells of it)
                await asyncio.sleep(0.02)
        async with under_load(host) as answers:
            found = await back(host)
        assert (found.after.version, found.state) == ("1.0.0", UpgradeState.PROBATION)
        assert set(answers) == {"1.0.0", "1.1.0"}


async def test_a_release_that_is_not_well_never_serves(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0", well=False)) as host:
        async with under_load(host) as answers:
            found = await upgraded(host)
        assert (found.state, "self-test" in found.cause) == (UpgradeState.FAILED, True)
        assert set(answers) == {"1.0.0"}
        assert (await host.plugin()).version == "1.0.0"
        assert len(await host.containers()) == 1
        assert [record.outcome for record in await host.audited("plugin.upgrade")] == ["allowed", "failed"]


@pytest.mark.requirement("HOT-3")
async def test_more_rights_wait_for_exactly_their_approval_and_the_old_release_serves(tmp_path):
    more = release("1.1.0", asks=(*STORES, "ui.notify"))
    async with serving(tmp_path, release("1.0.0"), more) as host:
        found = await upgraded(host)
        assert (found.state, found.cause) == (UpgradeState.AWAITING_APPROVAL, "to be decided: ui.notify")
        assert [(each.need, each.standing) for each in found.asks] == [("ui.notify", "undecided")]
        assert await served(host) == "1.0.0"
        with pytest.raises(InvalidInputError):
            await host.approve("ui.notify")  # not of the release that serves
        await host.approve("ui.notify", digest=found.after.digest)
        assert (await newest(host)).state is UpgradeState.PROBATION
        assert await served(host) == "1.1.0"
        assert (await host.call("keep", value="x")).structured == {"result": "x"}


@pytest.mark.requirement("HOT-3")
async def test_fewer_rights_need_no_approval_and_what_is_not_asked_for_is_gone(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0", asks=STORES[:1])) as host:
        assert (await upgraded(host)).state is UpgradeState.PROBATION
        assert await rules(host) == {"storage.read"}
        with pytest.raises(PluginLacksPermissionError):
            await host.call("keep", value="x")
        assert (await host.call("kept")).structured is not None


@pytest.mark.requirement("HOT-3")
async def test_a_role_reaches_no_further_than_the_release_before_asked(tmp_path):
    packages = [release("1.0.0", asks=STORES[:1]), release("1.0.1", asks=STORES[:1]), release("1.1.0")]
    async with world(tmp_path / "h", packages[0], **IMPATIENT) as host:
        await host.wiring.roles.define("keeper", list(STORES), "me")
        await host.install()
        await host.approve("role:keeper")
        host.source.put(packages[1])
        assert (await upgraded(host)).state is UpgradeState.PROBATION
        assert await rules(host) == {"role:keeper"}
        await back(host)
        host.source.put(packages[2])
        found = await upgraded(host)
        assert (found.state, found.cause) == (UpgradeState.AWAITING_APPROVAL, "to be decided: storage.write")
        assert await rules(host) == {"storage.read"}
        await host.approve(deny=["storage.write"], digest=found.after.digest)
        assert "what was denied: storage.write" in (await newest(host)).cause
        assert await served(host) == "1.0.0"


@pytest.mark.requirement("HOT-3")
async def test_what_was_denied_or_ends_stays_so_with_the_next_release(tmp_path):
    extra = f'{TESTED}[[permissions]]\nneed = "ui.notify"\nreason = "A test."\noptional = true\n'
    packages = [release(version, extra=extra) for version in ("1.0.0", "1.1.0")]
    async with world(tmp_path / "h", packages[0], **IMPATIENT) as host:
        await host.install()
        await host.approve(*STORES, deny=["ui.notify"])
        host.source.put(packages[1])
        found = await upgraded(host)
        standing = {each.need: each.standing for each in (await host.plugin()).permissions}
        assert standing == {"storage.read": "granted", "storage.write": "granted", "ui.notify": "denied"}
        carried = [
            each
            for each in await host.audited("permission.grant")
            if each.detail["digest"] == found.after.digest
        ]
        assert len(carried) == len(STORES)


@pytest.mark.requirement("CORE-8")
async def test_an_upgrade_takes_a_snapshot_and_a_rollback_can_restore_it(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        await host.call("keep", value="old")
        found = await upgraded(host)
        assert found.snapshot is not None
        await host.call("keep", value="new")
        await back(host)
        assert (await host.call("kept")).structured == {"result": "new"}
        await upgraded(host)
        await host.call("keep", value="newest")
        await back(host, restore=True)
        assert (await host.call("kept")).structured == {"result": "new"}


async def test_what_is_wanted_is_checked(tmp_path):
    async with serving(tmp_path, release("1.1.0"), release("1.0.0")) as host:
        with pytest.raises(ConflictError, match="no newer release"):
            await upgraded(host)
        with pytest.raises(NotFoundError):
            await back(host)
        with pytest.raises(NotFoundError):
            await host.wiring.plugins.upgrades.cancel(PLUGIN, host.operator)
        with pytest.raises(NotFoundError, match="not installed"):
            await host.wiring.installer.upgrade("demo/none", "*", host.operator)
        assert (await upgraded(host, "1.0.0")).state is UpgradeState.PROBATION
        with pytest.raises(ConflictError, match="is being upgraded"):
            await upgraded(host, "1.1.0")


async def test_an_upgrade_that_waits_can_be_cancelled_and_replaced(tmp_path):
    packages = [release(f"1.{minor}.0", asks=(*STORES, "ui.notify")) for minor in (1, 2)]
    async with serving(tmp_path, release("1.0.0"), *packages) as host:
        await upgraded(host, "1.1.0")
        first, second = await newest(host), await upgraded(host, "1.2.0")
        states = [each.state for each in await host.wiring.plugins.upgrades.of_plugin(PLUGIN)]
        assert states == [UpgradeState.AWAITING_APPROVAL, UpgradeState.CANCELLED]
        assert first.id < second.id
        await host.wiring.plugins.upgrades.cancel(PLUGIN, host.operator)
        assert len(host.directories("releases")) == 1
        assert (await newest(host)).after is None
        with pytest.raises(ConflictError, match="not the release"):
            await host.approve("ui.notify", digest=second.after.digest)


async def test_what_does_not_run_is_replaced_without_more_ado(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        await host.disable()
        assert (await upgraded(host)).state is UpgradeState.DONE
        assert (await host.plugin()).state is State.STOPPED
        await host.enable()
        assert await served(host) == "1.1.0"
        await host.disable()
        assert (await back(host)).state is UpgradeState.ROLLED_BACK
        assert (await host.plugin()).version == "1.0.0"


async def test_stopping_and_removing_a_plugin_ends_what_is_kept_of_the_release_before(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        await upgraded(host)
        assert len(await host.containers()) == 2
        assert (await host.disable()).state is State.STOPPED
        assert await host.containers() == []
        await host.uninstall()
        assert host.directories("releases") == set()
        with pytest.raises(NotFoundError):
            await newest(host)


@pytest.mark.parametrize("scale", [2])
async def test_all_instances_are_replaced_together(tmp_path, scale):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        await host.wiring.scaling.scale(PLUGIN, scale, host.operator)
        async with under_load(host):
            await upgraded(host)
        fleet = host.wiring.reconciler.fleet
        assert len({each.digest for each in fleet.of(PLUGIN)}) == 1
        assert (len(fleet.of(PLUGIN)), len(fleet.parked(PLUGIN))) == (scale, scale)
        await back(host)
        assert (len(fleet.of(PLUGIN)), len(fleet.parked(PLUGIN))) == (scale, 0)
        assert {await served(host) for _ in range(6)} == {"1.0.0"}


async def test_a_restart_under_load_fails_no_call_and_leaves_the_way_back(tmp_path):
    async with serving(tmp_path, release("1.0.0"), release("1.1.0")) as host:
        await upgraded(host)
        before = (await host.plugin()).instance.id
        async with under_load(host) as answers:
            await host.wiring.plugins.upgrades.restart(PLUGIN, host.operator)
        assert set(answers) == {"1.1.0"}
        after = (await host.plugin()).instance.id
        assert before != after
        assert len(await host.containers()) == 2
        await back(host)
        assert await served(host) == "1.0.0"
        await host.disable()
        with pytest.raises(ConflictError, match="nothing to restart"):
            await host.wiring.plugins.upgrades.restart(PLUGIN, host.operator)


async def test_a_host_that_starts_goes_on_where_the_one_before_was(tmp_path):
    packages = release("1.0.0"), release("1.1.0")
    async with serving(tmp_path, *packages) as host:
        await upgraded(host)
    async with world(tmp_path / "h", *packages, **IMPATIENT) as host:
        await host.until(State.RUNNING)
        assert await served(host) == "1.1.0"
        with pytest.raises(PluginUnavailableError):
            await host.call("die")
        await until(host, UpgradeState.ROLLED_BACK)
        await host.until(State.RUNNING)
        assert await served(host) == "1.0.0"


async def test_an_upgrade_of_what_others_depend_on_stays_within_what_they_take(tmp_path):
    user = make_package("demo/user", dependencies={PLUGIN: "^1"})
    async with serving(tmp_path, release("1.0.0"), release("1.1.0"), release("2.0.0"), user) as host:
        await host.install("demo/user")
        assert (await upgraded(host)).after.version == "1.1.0"
        await back(host)
        with pytest.raises(ConflictError, match=r"demo/user needs demo/hello \^1"):
            await upgraded(host, "^2")


HEARING = """
from wirthforge_sdk.runtime import Event, Plugin

plugin = Plugin()

@plugin.function(inline=True)
def version() -> str:
    return "{version}"

@plugin.on_event("a")
def passing(event: Event) -> None:
    note("a", event)

@plugin.on_event("b")
def lasting(event: Event) -> None:
    note("b", event)

def note(topic, event):
    with open("FILE", "a") as heard:
        heard.write(f"{topic} {event.data}\\n")

@plugin.function
def well() -> bool:
    return True
"""
SUBSCRIPTIONS = """
[[events.subscriptions]]
topic = "a"

[[events.subscriptions]]
topic = "b"
durable = true
"""


@pytest.mark.requirement("HOT-1", "CORE-7")
async def test_events_are_neither_lost_nor_doubled_by_swaps(tmp_path):
    source = HEARING.replace("FILE", str(tmp_path / "heard"))
    asks = ("events.subscribe:a", "events.subscribe:b")
    packages = [
        release(version, source=source, asks=asks, extra=SUBSCRIPTIONS) for version in ("1.0.0", "1.1.0")
    ]
    async with world(tmp_path / "h", packages[0], **IMPATIENT) as host:
        await host.install()
        await host.approve(*asks)
        host.source.put(packages[1])
        bus, published, stop = host.wiring.bus, 0, asyncio.Event()

        async def publish():
            nonlocal published
            while not stop.is_set():
                published += 1
                for topic in "ab":
                    await bus.publish("application:t", topic, str(published).encode())
                await asyncio.sleep(0.005)

        publishing = asyncio.create_task(publish())
        for _ in range(2):
            await upgraded(host)
            await back(host)
        await host.wiring.plugins.upgrades.restart(PLUGIN, host.operator)
        stop.set()
        await publishing
        async with asyncio.timeout(PATIENCE_S):
            while len(heard := (tmp_path / "heard").read_text().split("\n")) <= 2 * published:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        for topic in "ab":
            assert [line for line in heard if line.startswith(topic)] == [
                f"{topic} {number}" for number in range(1, published + 1)
            ]
        assert published > 20
