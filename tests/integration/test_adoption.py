"""What a host that starts goes on with, what it does not, and why: on an engine whose containers outlive it."""

import asyncio
import shutil
import sqlite3

import pytest

from tests.fakes.world import PLUGIN, run_plugin, worker, world
from tests.integration.test_recovery import counting
from wirthforge_host.errors import EngineUnavailableError, PluginUnavailableError
from wirthforge_host.plugins import instances, reconciler
from wirthforge_host.sandbox.memory_engine import MemoryEngine
from wirthforge_host.sandbox.models import ImageInfo
from wirthforge_sdk.contracts.host_api import State

AWAY = EngineUnavailableError("the engine does not answer")
ME = {"cause": "a test says so", "actor": "operator:me"}


class Lasting(MemoryEngine):
    """Does what the port says of every engine: containers go on when a host lets go of it."""

    async def close(self):
        pass


@pytest.fixture
async def engine():
    made = Lasting(process=run_plugin)
    yield made
    await MemoryEngine.close(made)


@pytest.fixture
def again(tmp_path, engine):
    """Starts a host where the one before was, and lets its plugins wait at its end."""

    def start(**settings):
        options = {"engine": engine, "leave_running": True, **settings}
        return world(tmp_path / "h", counting(PLUGIN), **options)

    return start


async def count(host):
    return (await host.call("count")).structured["result"]


@pytest.fixture
async def left(again):
    """An instance that counted once, and whose host is gone."""
    async with again() as host:
        await host.install()
        assert await count(host) == 1
        return (await host.plugin()).instance


async def why(host):
    """The outcome of the last adoption, and its reason."""
    (record,) = await host.audited("instance.adopt")
    return record.outcome, record.detail.get("reason", "")


async def test_an_instance_that_fits_goes_on_as_it_was(again, left):
    async with again() as host:
        found = await host.until(State.RUNNING)
        assert found.instance == left
        assert await count(host) == 2
        assert await why(host) == ("allowed", "")
        assert (await host.wiring.plugins.effective(PLUGIN)).mismatches == []
        await host.disable()
        assert (await host.containers(), await host.instances(), host.directories("bridges")) == (
            [],
            [],
            set(),
        )


async def test_any_number_of_hosts_may_follow_each_other(again, left):
    for number in range(2, 6):
        async with again() as host:
            assert (await host.until(State.RUNNING)).instance.id == left.id
            assert await count(host) == number


@pytest.mark.requirement("RES-12")
async def test_all_instances_of_a_plugin_go_on_and_no_more_than_it_is_to_have(again, tmp_path):
    async with again() as host:
        await host.install()
        await host.wiring.scaling.scale(PLUGIN, 3, host.operator)
        before = {each.id for each in (await host.plugin()).instances}
        assert [await count(host) for _ in range(3)] == [1, 1, 1]
    async with again() as host:
        await adopted(host, 3)
        assert {each.id for each in (await host.plugin()).instances} == before
        assert sorted([await count(host) for _ in range(3)]) == [2, 2, 2]
        assert [each.outcome for each in await host.audited("instance.adopt")] == ["allowed"] * 3
    with sqlite3.connect(tmp_path / "h" / "wirthforge.sqlite3") as database:
        database.execute("UPDATE plugins SET scale = 2, scale_most = 2")
    database.close()
    async with again() as host:
        await adopted(host, 2)
        left = {each.id for each in (await host.plugin()).instances}
        assert left < before
        await host.wiring.instances.sweep(left)
        assert set(await host.containers()) == left
        reasons = [each.detail.get("reason") for each in await host.audited("instance.adopt")]
        assert reasons[3:].count("its plugin has as many instances as it is to have") == 1


async def test_an_instance_that_is_taken_over_is_sent_events_again(engine, tmp_path):
    package = worker(
        permissions=("events.subscribe:a",), extra='[events]\n[[events.subscriptions]]\ntopic = "a"\n'
    )
    heard = [(PLUGIN, "a", 0)]
    async with world(tmp_path / "h", package, engine=engine, leave_running=True) as host:
        await host.install()
        await host.approve("events.subscribe:a")
        assert host.wiring.bus.subscriptions() == heard
    async with world(tmp_path / "h", package, engine=engine) as host:
        await adopted(host, 1)
        assert host.wiring.bus.subscriptions() == heard


async def adopted(host, number):
    """Returns once that many instances are taken over."""
    async with asyncio.timeout(9), host.wiring.events.subscribe(after=0) as events:
        for _ in range(number):
            while (await anext(events)).type != "instance.adopted":
                pass


async def other_image(engine, left, directory):
    engine._images = {
        "wirthforge/plugin-python:local": ImageInfo(
            id=f"sha256:{'2' * 64}", labels={"wirthforge.runtime": "python"}, entrypoint=("/opt/other",)
        )
    }


async def loosened(engine, left, directory):
    await engine.set_cpu(left.container, quota_us=1_000_000, period_us=10_000)


async def gone(engine, left, directory):
    await engine.remove(left.container)


async def ended(engine, left, directory):
    await engine.kill(left.container)


async def no_directory(engine, left, directory):
    shutil.rmtree(directory / "bridges" / left.id)
    await engine.wait(left.container, timeout_s=9)


async def disabled(engine, left, directory):
    with sqlite3.connect(directory / "wirthforge.sqlite3") as database:
        database.execute("UPDATE plugins SET enabled = 0, state = 'draining'")
    database.close()


async def limited_meanwhile(engine, left, directory):
    with sqlite3.connect(directory / "wirthforge.sqlite3") as database:
        insert = "INSERT INTO plugin_resources VALUES (?, ?, '2030-01-01 00:00:00')"
        database.execute(insert, (PLUGIN, '{"pids": 20}'))
    database.close()


MISFITS = {
    "it is of another image": (other_image, "made of another image"),
    "it is not locked down as it was": (loosened, "cpu_quota_us"),
    "its container is gone": (gone, "its container is gone"),
    "it ended": (ended, "ended with exit code 137"),
    "its directory was deleted": (no_directory, "ended with exit code 0"),
    "it is not wanted": (disabled, "not wanted"),
    "it has other limits now, and no kernel takes them": (limited_meanwhile, "cannot be set from here"),
}


@pytest.mark.requirement("RES-10")
@pytest.mark.parametrize("what", MISFITS)
async def test_what_does_not_fit_is_removed_and_what_is_wanted_started_anew(
    again, left, engine, tmp_path, what
):
    spoil, reason = MISFITS[what]
    await spoil(engine, left, tmp_path / "h")
    async with again() as host:
        found = await host.until(State.STOPPED if spoil is disabled else State.RUNNING)
        outcome, told = await why(host)
        assert (outcome, reason in told) == ("failed", True), told
        instances_now = [] if spoil is disabled else [found.instance.id]
        assert left.id not in instances_now
        assert await host.containers() == instances_now
        assert [record.id for record in await host.instances()] == instances_now
        assert host.directories("bridges") == set(instances_now)
        if found.instance:
            assert await count(host) == 1


async def test_one_that_does_not_come_back_is_not_waited_for(again, left, engine, monkeypatch):
    monkeypatch.setattr(instances, "ADOPT_S", 0.2)
    monkeypatch.setattr("wirthforge_host.bridge.server.uid_of", lambda _: 1)  # somebody connects, but not it
    async with again() as host:
        await host.until(State.STARTING)
        assert "did not connect within 0.2 s" in (await why(host))[1]
        monkeypatch.undo()
        found = await host.until(State.RUNNING)
        assert found.instance.id != left.id


@pytest.mark.parametrize("limit", ["tmpfs_bytes = 8388608", "open_files = 200"])
async def test_limits_that_only_a_start_changes_start_it_anew(again, left, tmp_path, limit):
    policy = tmp_path / "policy.toml"
    policy.write_text(f"[tiers.small]\n{limit}\n")
    async with again(policy=policy) as host:
        assert (await host.until(State.RUNNING)).instance.id != left.id
        assert "by other rules" in (await why(host))[1]


@pytest.mark.requirement("PERM-6")
async def test_one_that_offers_what_was_not_signed_is_quarantined_and_gone(again, left, tmp_path):
    with sqlite3.connect(tmp_path / "h" / "wirthforge.sqlite3") as database:
        database.execute("UPDATE releases SET functions = replace(functions, 'Counts its calls', 'Harmless')")
    database.close()
    async with again() as host:
        assert "another description" in (await host.until(State.QUARANTINED)).cause
        assert (await why(host))[0] == "denied"
        await host.wiring.instances.sweep()  # as the host does next, and tells nobody
        assert await host.containers() == []


async def test_what_stood_still_stands_still_and_goes_on_where_it_was(again, left, engine):
    async with again() as host:
        await host.until(State.RUNNING)
        await host.wiring.containment.pause(PLUGIN, **ME)
    async with again() as host:
        async with asyncio.timeout(9), host.wiring.events.subscribe() as events:
            while (await host.plugin()).instance is None:
                await anext(events)
        assert (await host.plugin()).state is State.PAUSED
        assert (await engine.state(left.container)).paused
        with pytest.raises(PluginUnavailableError):
            await count(host)
        await host.wiring.containment.resume(PLUGIN, **ME)
        assert (await host.plugin()).state is State.RUNNING
        assert await count(host) == 2


async def test_what_stands_still_and_is_not_written_so_goes_on(again, left, engine):
    await engine.pause(left.container)
    async with again() as host:
        assert (await host.until(State.RUNNING)).instance.id == left.id
        assert not (await engine.state(left.container)).paused


@pytest.mark.parametrize("methods", [["of_host", "events", "create", "image"], ["image"], ["effective"]])
async def test_an_engine_that_is_away_when_the_host_starts_costs_no_instance(
    again, left, engine, monkeypatch, methods
):
    monkeypatch.setattr(reconciler, "PERIOD_S", 0.05)
    monkeypatch.setattr(instances, "RESUBSCRIBE_S", 0.05)
    engine.faults.errors = dict.fromkeys(methods, AWAY)
    async with again() as host:
        with pytest.raises(PluginUnavailableError):
            await count(host)
        async with asyncio.timeout(9):  # a few rounds in which nothing can be decided
            for _ in range(3):
                await host.wiring.reconciler.faults.survive(host.wiring.reconciler._converge())
        assert len(await host.instances()) == 1
        engine.faults.errors.clear()
        assert (await host.until(State.RUNNING)).instance.id == left.id
        assert await count(host) == 2


async def test_a_host_that_is_stopped_while_it_adopts_leaves_what_it_found(again, left, engine, monkeypatch):
    waits = asyncio.Event()

    async def never(*_, **__):
        waits.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(instances, "examine", never)
        async with again():
            await asyncio.wait_for(waits.wait(), 9)
    async with again() as host:
        assert (await host.until(State.RUNNING)).instance.id == left.id
        assert await count(host) == 2


SLOW, WELL, LOST = PLUGIN, "demo/well", "demo/lost"


async def test_one_that_is_slow_to_come_back_holds_up_no_other_and_nothing_is_started_beside_it(
    tmp_path, engine, monkeypatch
):
    options = {"engine": engine, "leave_running": True}
    packages = [counting(name) for name in (SLOW, WELL, LOST)]
    async with world(tmp_path / "h", *packages, **options) as host:
        before = {name: (await host.install(name)).instance for name in (SLOW, WELL, LOST)}
    await engine.remove(before[LOST].container)
    go_on, examined = asyncio.Event(), instances.examine

    async def examine(session, record, approved, **more):
        if record.name == SLOW:
            await go_on.wait()
        return await examined(session, record, approved, **more)

    monkeypatch.setattr(instances, "examine", examine)
    async with world(tmp_path / "h", *packages, **options) as host:
        well, lost = [await host.until(State.RUNNING, plugin=name) for name in (WELL, LOST)]
        assert (well.instance.id, lost.instance.id != before[LOST].id) == (before[WELL].id, True)
        enabling = asyncio.create_task(host.enable(SLOW))
        for _ in range(3):
            await host.wiring.reconciler._converge()
        now = {before[SLOW].id, well.instance.id, lost.instance.id}
        assert ({*await host.containers()}, host.directories("bridges")) == (now, now)
        assert {record.id for record in await host.instances()} == now
        go_on.set()
        assert (await host.until(State.RUNNING, plugin=SLOW)).instance.id == before[SLOW].id
        await enabling
        assert len(await host.containers()) == 3


async def test_nothing_is_started_beside_one_of_which_nothing_could_be_decided_yet(again, left, monkeypatch):
    tried = asyncio.Event()

    async def away(*_, **__):
        tried.set()
        raise AWAY

    monkeypatch.setattr(instances, "examine", away)
    async with again() as host:
        await asyncio.wait_for(tried.wait(), 9)
        await host.enable()  # settles it, once nobody else is at it
        await host.wiring.reconciler._converge()  # which sweeps, too
        assert await host.containers() == [left.id]
        assert (await host.plugin()).instance is None
        monkeypatch.undo()
        host.wiring.reconciler.wake()
        assert (await host.until(State.RUNNING)).instance.id == left.id


async def test_without_the_setting_a_host_that_is_stopped_leaves_nothing(again, left, engine):
    async with again(leave_running=False) as host:
        await host.until(State.RUNNING)
    assert (await host.containers(), host.directories("bridges")) == ([], set())


async def test_what_an_engine_that_was_away_hindered_starts_as_soon_as_it_is_back(
    tmp_path, engine, monkeypatch
):
    monkeypatch.setattr(instances, "RESUBSCRIBE_S", 0.05)
    engine.faults.errors = dict.fromkeys(("create", "events"), AWAY)
    async with world(tmp_path / "h", counting(PLUGIN), engine=engine) as host:
        assert (await host.install()).state is State.UNHEALTHY
        engine.faults.errors.clear()
        await host.until(State.RUNNING)  # and not after the half minute that what is hindered waits
