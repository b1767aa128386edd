"""What runs is what is wanted: after a stop, after a kill, and whatever the engine does meanwhile."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest

from tests.fakes.packages import SOURCE, make_package
from tests.fakes.world import PLUGIN, run_plugin, world
from wirthforge_host.errors import EngineUnavailableError, ImageMissingError, PluginUnavailableError
from wirthforge_host.plugins import lifecycle, reconciler, store
from wirthforge_host.plugins.models import InstanceRecord
from wirthforge_host.plugins.retries import Retries
from wirthforge_host.sandbox.memory_engine import MemoryEngine
from wirthforge_host.sandbox.models import SandboxRequest
from wirthforge_host.sandbox.service import Sandboxes
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.resources import TIERS, Tier
from wirthforge_sdk.errors import ConflictError
from wirthforge_sdk.serving.database import Database
from wirthforge_sdk.serving.errors import DatabaseUnavailableError

AWAY = EngineUnavailableError("the engine does not answer")
GONE = "0123456789abcdef"


@pytest.fixture
def brisk(monkeypatch):
    """A host that looks around often."""
    monkeypatch.setattr(reconciler, "PERIOD_S", 0.1)
    monkeypatch.setattr(lifecycle, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr("wirthforge_host.plugins.retries.LONGEST_DELAY_S", 0.1)


@pytest.fixture
async def host(tmp_path, brisk):
    """A host with a plugin at work."""
    async with world(tmp_path / "h", make_package()) as opened:
        assert (await opened.install()).state is State.RUNNING
        yield opened


async def greets(host, plugin=PLUGIN):
    return (await host.call(plugin=plugin, name="Ada")).structured == {"result": "Hello, Ada!"}


async def one_of_each(host):
    """Asserts that a running plugin has one container, one record, one directory."""
    instance = (await host.plugin()).instance
    assert await host.containers() == [instance.id]
    assert [record.id for record in await host.instances()] == [instance.id]
    assert host.directories("bridges") == {instance.id}
    return instance.id


async def test_a_host_that_stops_leaves_nothing_and_runs_again_what_ran(tmp_path):
    package, directory = make_package(), tmp_path / "h"
    async with world(directory, package) as host:
        await host.install()
        first = await one_of_each(host)
    assert (await host.containers(), host.directories("bridges")) == ([], set())
    async with world(directory, package) as host:
        await host.until(State.RUNNING)
        assert await one_of_each(host) != first
        assert await greets(host)
        moves = [record.detail["after"] for record in await host.audited("plugin.state")]
        assert moves[-3:] == ["unhealthy", "starting", "running"]


async def test_a_host_that_starts_does_not_run_what_was_disabled_or_waits(tmp_path):
    packages = [make_package("demo/a"), make_package("demo/b", permissions=["storage.read"])]
    async with world(tmp_path / "h", *packages) as host:
        await host.install("demo/a")
        await host.install("demo/b")
        await host.disable("demo/a")
    async with world(tmp_path / "h", *packages) as host:
        assert (await host.enable("demo/a")).state is State.RUNNING
        assert [(await host.plugin(name)).state for name in ("demo/a", "demo/b")] == [
            State.RUNNING,
            State.AWAITING_APPROVAL,
        ]
        assert len(await host.containers()) == 1


async def test_a_host_that_starts_removes_what_a_killed_one_left(tmp_path):
    package, directory, engine = make_package(), tmp_path / "h", MemoryEngine(process=run_plugin)
    async with world(directory, package) as host:
        await host.install()
        async with host.wiring.database.transaction() as tx:
            left = InstanceRecord(
                id=GONE, plugin=PLUGIN, digest="sha256:", uid=61_007, started_at=datetime.now(UTC)
            )
            await store.add_instance(tx, left)
    # Its container goes on, as one does when only the host is killed.
    orphan = await Sandboxes(engine, "a-test").spec(request(host))
    container = await engine.create(orphan)
    await engine.start(container)
    (directory / "bridges" / GONE).mkdir()
    (directory / "bridges" / GONE / "bridge.sock").touch()
    (directory / "releases" / ".half.partial").mkdir()
    async with world(directory, package, engine=engine) as host:
        await host.until(State.RUNNING)
        await one_of_each(host)
        assert await engine.state(container) is None
        assert len(host.directories("releases")) == 1


def request(host):
    """A sandbox of an instance that nobody knows."""
    directory = host.wiring.settings.data_dir
    return SandboxRequest(
        instance_id=GONE,
        plugin=PLUGIN,
        version="1.0.0",
        digest=f"sha256:{'0' * 64}",
        host_id="a-test",
        uid=61_007,
        limits=TIERS[Tier.SMALL],
        image="any",
        runtime="python",
        bridge_directory=directory / "bridges" / GONE,
        code_directory=directory / "releases",
    )


async def test_a_stray_file_in_its_directories_stops_no_host(tmp_path):
    package, directory = make_package(), tmp_path / "h"
    async with world(directory, package) as host:
        await host.install()
        kept = host.directories("releases")
    for name in ("bridges", "releases"):
        (directory / name / "core").write_text("dumped")
        (directory / name / "link").symlink_to(directory)
    async with world(directory, package) as host:
        await host.until(State.RUNNING)
        await one_of_each(host)
        assert host.directories("releases") == kept
        assert directory.is_dir()


@pytest.mark.parametrize("where", ["bridges", "releases"])
async def test_what_cannot_be_swept_keeps_no_plugin_from_running(tmp_path, monkeypatch, where):
    def refuse(entry, *_, **__):
        raise PermissionError(1, "Operation not permitted", str(entry))

    package, directory = make_package(), tmp_path / "h"
    async with world(directory, package) as host:
        await host.install()
    (directory / where / "stuck").mkdir()
    monkeypatch.setattr("wirthforge_host.plugins.directories.shutil.rmtree", refuse)
    async with world(directory, package) as host:
        assert (await host.until(State.RUNNING)).instance is not None
    monkeypatch.undo()


async def test_a_container_removed_from_outside_is_started_again(host):
    first = (await host.plugin()).instance
    await host.engine.remove(first.container)
    await host.until(State.UNHEALTHY)
    await host.until(State.RUNNING)
    assert await one_of_each(host) != first.id
    assert await greets(host)


async def test_containers_of_another_host_are_left_alone(tmp_path):
    engine = MemoryEngine(process=run_plugin)
    async with world(tmp_path / "a", make_package(), engine=engine, host_id="a") as one:
        await one.install()
        async with world(tmp_path / "b", make_package(), engine=engine, host_id="b", uid_base=62_000) as two:
            await two.install()
            assert len(await one.containers()) == len(await two.containers()) == 1
            await two.uninstall()
            assert await greets(one)


@pytest.mark.parametrize("method", ["create", "start", "image", "effective", "of_host"])
async def test_a_plugin_starts_when_an_engine_that_was_away_is_back(tmp_path, brisk, method):
    async with world(tmp_path / "h", make_package()) as host:
        host.engine.faults.errors[method] = AWAY
        found = await host.install()
        if method != "of_host":
            assert (found.state, found.cause) == (State.UNHEALTHY, "the engine does not answer")
        host.engine.faults.errors.clear()
        await host.until(State.RUNNING)
        await one_of_each(host)


async def test_an_engine_that_is_away_for_long_is_no_crash_loop(tmp_path, brisk, monkeypatch):
    monkeypatch.setattr("wirthforge_host.plugins.retries.LONGEST_DELAY_S", 0.01)
    async with world(tmp_path / "h", make_package()) as host:
        host.engine.faults.errors["create"] = ImageMissingError("no image: run `make setup`")
        await host.install()
        async with asyncio.timeout(6), host.wiring.events.subscribe() as events:
            for _ in range(3 * lifecycle.MAX_CRASHES):
                assert (await anext(events)).data["state"] in {"starting", "unhealthy"}
        assert (await host.plugin()).cause in {"no image: run `make setup`", "trying again"}
        host.engine.faults.errors.clear()
        await host.until(State.RUNNING)


async def test_calls_go_on_while_the_engine_is_away(host):
    host.engine.faults.errors = dict.fromkeys(("of_host", "state", "events", "create", "remove"), AWAY)
    assert await greets(host)
    assert (await host.plugin()).state is State.RUNNING


async def test_what_the_engine_could_not_stop_is_stopped_when_it_is_back(host):
    host.engine.faults.errors["remove"] = AWAY
    with pytest.raises(EngineUnavailableError):
        await host.disable()
    assert (await host.plugin()).state is State.DRAINING
    for act in (host.uninstall, host.enable):
        with pytest.raises((EngineUnavailableError, ConflictError)):
            await act()
    assert (await host.plugin()).state is State.DRAINING
    assert len(host.directories("releases")) == len(await host.instances()) == 1
    host.engine.faults.errors.clear()
    stopped = await host.until(State.STOPPED)
    assert (stopped.enabled, stopped.cause) == (False, "disabled")
    assert (await host.containers(), await host.instances(), host.directories("bridges")) == ([], [], set())


async def test_what_the_engine_cannot_stop_is_cut_off_from_the_host(host):
    live = host.wiring.reconciler.live(PLUGIN)
    host.engine.faults.errors["remove"] = AWAY
    with pytest.raises(EngineUnavailableError):
        await host.disable()
    assert not live.session.is_open
    assert host.directories("bridges") == set()


async def test_a_container_that_cannot_be_removed_keeps_its_user_and_holds_nobody_up(tmp_path, brisk):
    packages = [make_package("demo/a"), make_package("demo/b")]
    async with world(tmp_path / "h", *packages) as host:
        uid = (await host.install("demo/a")).instance.uid
        host.engine.faults.errors["remove"] = AWAY
        with pytest.raises(EngineUnavailableError):
            await host.disable("demo/a")
        other = await host.install("demo/b")
        assert other.state is State.RUNNING
        assert other.instance.uid != uid
        host.wiring.reconciler._wake.set()
        assert {record.uid for record in await host.instances()} == {uid, other.instance.uid}
        host.engine.faults.errors.clear()
        await host.until(State.STOPPED, plugin="demo/a")


async def test_stopping_a_host_whose_engine_is_away_ends_and_the_next_one_cleans_up(tmp_path, brisk):
    engine, package = MemoryEngine(process=run_plugin), make_package()
    async with asyncio.timeout(9):
        async with world(tmp_path / "h", package, engine=engine) as host:
            await host.install()
            engine.faults.errors = dict.fromkeys(("of_host", "remove"), AWAY)
        engine.faults.errors.clear()
        async with world(tmp_path / "h", package, engine=engine) as host:
            await host.until(State.RUNNING)
            await one_of_each(host)


async def test_a_plugin_that_hangs_at_its_start_holds_up_no_other(tmp_path, brisk):
    flag = tmp_path / "hang"
    hangs = f"import time\nfrom pathlib import Path\nif Path({str(flag)!r}).exists(): time.sleep(60)\n"
    packages = [make_package("demo/a", source=hangs + SOURCE), make_package("demo/b")]
    async with world(tmp_path / "h", *packages) as host:
        await host.install("demo/a")
        await host.install("demo/b")
    flag.touch()
    async with world(tmp_path / "h", *packages) as host:
        await host.until(State.STARTING, plugin="demo/a")
        await host.until(State.RUNNING, plugin="demo/b")
        assert await greets(host, "demo/b")
        await host.engine.remove((await host.plugin("demo/b")).instance.container)
        await host.until(State.UNHEALTHY, plugin="demo/b")
        await host.until(State.RUNNING, plugin="demo/b")
        assert (await host.plugin("demo/a")).state is State.STARTING


@pytest.fixture
async def starting(tmp_path):
    """A host on which ``demo/a`` starts and does not get on, and ``demo/b`` could be installed."""

    async def process(spec):
        slow = dict(spec.settings.labels)["wirthforge.plugin"] == "demo/a"
        return await (asyncio.Event().wait() if slow else run_plugin(spec))

    packages = [make_package("demo/a"), make_package("demo/b")]
    engine = MemoryEngine(process=process)
    async with world(tmp_path / "h", *packages, engine=engine, start_timeout_s=60) as host:
        install = asyncio.create_task(host.install("demo/a"))
        await host.until(State.STARTING, plugin="demo/a")
        yield host
        install.cancel()
        await asyncio.gather(install, return_exceptions=True)


@pytest.mark.parametrize("act", ["disable", "uninstall"])
async def test_a_plugin_that_starts_slowly_is_stopped_at_once(starting, act):
    async with asyncio.timeout(5):
        await getattr(starting, act)("demo/a")
    assert {record.state for record in await starting.wiring.plugins.records()} <= {State.STOPPED}
    assert (await starting.containers(), await starting.instances()) == ([], [])


async def test_a_plugin_that_starts_slowly_holds_up_no_other_install(starting):
    async with asyncio.timeout(5):
        assert (await starting.install("demo/b")).state is State.RUNNING
    assert (await starting.plugin("demo/a")).state is State.STARTING


async def test_a_host_stops_at_once_whatever_starts(starting):
    async with asyncio.timeout(5):
        await starting.wiring.reconciler.shut_down()
    assert await starting.containers() == []


async def test_a_fault_with_one_plugin_leaves_the_others_in_care(tmp_path, brisk):
    packages = [make_package("demo/a"), make_package("demo/b")]
    async with world(tmp_path / "h", *packages) as host:
        for name in ("demo/a", "demo/b"):
            await host.install(name)

    class Odd(MemoryEngine):
        """Breaks its promise to raise nothing but our errors."""

        async def create(self, spec):
            if dict(spec.settings.labels)["wirthforge.plugin"] == "demo/a":
                raise ZeroDivisionError
            return await super().create(spec)

    async with world(tmp_path / "h", *packages, engine=Odd(process=run_plugin)) as host:
        await host.until(State.RUNNING, plugin="demo/b")
        await host.engine.remove((await host.plugin("demo/b")).instance.container)
        await host.until(State.UNHEALTHY, plugin="demo/b")
        await host.until(State.RUNNING, plugin="demo/b")
        assert set(host.wiring.reconciler.faults.seen) == {"ZeroDivisionError()"}
        host.wiring.reconciler.faults.seen.clear()


async def test_a_database_that_is_locked_for_a_while_is_waited_for(tmp_path, brisk):
    async with world(tmp_path / "h", make_package()) as host:
        await host.install()
        another = await asyncio.to_thread(Database, host.wiring.settings.database)
        async with another.transaction():
            await host.engine.remove((await host.plugin()).instance.container)
        await host.until(State.UNHEALTHY)
        await host.until(State.RUNNING)
        await another.dispose()


@asynccontextmanager
async def away(_database):
    raise DatabaseUnavailableError("the database does not answer: try again later")
    yield


@pytest.mark.parametrize("act", ["disable", "uninstall"])
@pytest.mark.parametrize("lost", [["transaction"], ["transaction", "reading"]])
async def test_a_plugin_can_be_stopped_when_nothing_can_be_written_down(host, monkeypatch, act, lost):
    live = host.wiring.reconciler.live(PLUGIN)
    for method in lost:
        monkeypatch.setattr(Database, method, away)
    with pytest.raises(DatabaseUnavailableError, match=r"demo/hello was stopped.*not written down"):
        await getattr(host, act)()
    assert not live.session.is_open
    assert await host.containers() == []
    monkeypatch.undo()
    # What is written down says that it runs; nobody starts it for that.
    async with host.wiring.reconciler.alone_with(PLUGIN):
        await host.wiring.reconciler.settle(PLUGIN)
    assert await host.containers() == []
    with pytest.raises(PluginUnavailableError):
        await host.call(name="Ada")
    await host.disable()
    await host.until(State.STOPPED)  # the next sweep forgets its instance
    assert (await host.enable()).state is State.RUNNING
    assert await greets(host)


async def test_what_was_stopped_without_a_record_is_started_when_an_operator_says_so(host, monkeypatch):
    monkeypatch.setattr(Database, "transaction", away)
    with pytest.raises(DatabaseUnavailableError):
        await host.disable()
    monkeypatch.undo()
    await host.enable()
    await host.until(State.RUNNING)
    assert await greets(host)


async def test_acts_at_the_same_time_are_done_one_after_the_other(host):
    acts = [host.disable(), host.enable(), host.disable(), host.enable(), host.disable()]
    async with asyncio.timeout(9):
        await asyncio.gather(*acts)
    assert (await host.plugin()).state is State.STOPPED
    assert (await host.containers(), await host.instances(), host.directories("bridges")) == ([], [], set())


async def test_a_host_that_stops_while_a_plugin_starts_leaves_nothing(tmp_path):
    engine = MemoryEngine()
    async with asyncio.timeout(9):
        async with world(tmp_path / "h", make_package(), engine=engine, start_timeout_s=0.5) as host:
            install = asyncio.create_task(host.wiring.installer.install(PLUGIN, host.operator))
            await host.until(State.STARTING)
    await asyncio.gather(install, return_exceptions=True)
    assert (await host.containers(), host.directories("bridges")) == ([], set())


def test_what_crashed_is_due_after_its_delay_and_forgotten_when_told():
    now = 100.0
    retries = Retries(lambda: now)
    assert retries.is_due("demo/a")
    assert retries.next_in_s() is None
    assert retries.crashed("demo/a", ran_s=0)
    assert not retries.is_due("demo/a")
    assert retries.next_in_s() == 0.5
    now = 101.0
    assert retries.is_due("demo/a")
    assert retries.next_in_s() == -0.5
    retries.settled("demo/a")
    assert retries.next_in_s() is None
    assert [retries.crashed("demo/a", ran_s=0) for _ in range(4)] == [True, True, True, False]
    retries.forget("demo/a")
    assert retries.is_due("demo/a")
    assert retries.crashed("demo/a", ran_s=0)
    retries.hindered("demo/b")
    assert retries.next_in_s() == 0.5
    assert not retries.is_due("demo/b")
