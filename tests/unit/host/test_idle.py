"""Plugins that nobody calls: they sleep, are stopped, and whoever calls them, tells them or ends them finds them so."""

import asyncio
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest

from tests.fakes.configured import NEEDS, configured
from tests.fakes.packages import make_package
from tests.fakes.world import PATIENCE_S, PLUGIN, offered, worker, world
from wirthforge_host.errors import (
    CallTimedOutError,
    FunctionMissingError,
    PluginQuarantinedError,
    PluginUnavailableError,
)
from wirthforge_host.plugins import lifecycle
from wirthforge_host.signals import Noticed, Signal
from wirthforge_sdk.contracts.configuration_api import ConfigurationIn, Outcome
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.contracts.streams_api import StreamIn
from wirthforge_sdk.contracts.upgrades_api import UpgradeState
from wirthforge_sdk.errors import ConflictError, NotFoundError, UnavailableError

A_MINUTE, AN_HOUR = 61.0, 3_700.0
ME = {"cause": "a test says so", "actor": "operator:me"}
HEARING = """
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()
seen = []

@plugin.function
def greet(name: str) -> str:
    "Says what was heard."
    return " ".join(seen)

@plugin.on_event("weather.#")
def heard(event):
    seen.append(event.topic)
    plugin.log.info(f"heard {event.topic}")
"""


class Resting:
    """A host whose clock a test may turn ahead, for the decision whether somebody is idle."""

    def __init__(self, host):
        self.host = host
        self.idle = host.wiring.idle
        self.fleet = host.wiring.reconciler.fleet

    async def after(self, seconds):
        """As if nothing had been asked of anybody for so long."""
        self.idle.monotonic = lambda: time.monotonic() + seconds
        try:
            await self.idle.look()
        finally:
            self.idle.monotonic = time.monotonic

    @property
    def one(self):
        return self.fleet.of(PLUGIN)[0]

    async def stands_still(self):
        state = await self.host.engine.state(self.one.container_id)
        return state.paused, self.one.sleep.is_asleep

    async def echo(self, text="hello", **more):
        return (await self.host.call("echo", text=text, **more)).structured["result"]


@pytest.fixture(autouse=True)
def brisk(monkeypatch):
    """A plugin that did not start is tried again at once."""
    monkeypatch.setattr(lifecycle, "FIRST_DELAY_S", 0.01)


@pytest.fixture
async def resting(tmp_path):
    """A host with one plugin at work."""
    async with world(tmp_path / "h", worker()) as host:
        await host.install()
        yield Resting(host)


@pytest.fixture
async def asleep(resting):
    """The same, asleep."""
    await resting.after(A_MINUTE)
    assert await resting.stands_still() == (True, True)
    return resting


@pytest.fixture
async def stopped(resting):
    """The same, stopped."""
    await resting.after(AN_HOUR)
    assert (await resting.host.plugin()).state is State.IDLE
    return resting


def gated(monkeypatch, engine, method):
    """Holds up an act of the engine: what it has begun, and what lets it go on."""
    begun, go, act = asyncio.Event(), asyncio.Event(), getattr(engine, method)

    async def held(*arguments, **more):
        begun.set()
        await go.wait()
        return await act(*arguments, **more)

    monkeypatch.setattr(engine, method, held)
    return SimpleNamespace(begun=begun, go=go)


def counted(monkeypatch, engine, method):
    """How often the engine did something."""
    times, act = [], getattr(engine, method)

    async def noted(*arguments, **more):
        times.append(method)
        return await act(*arguments, **more)

    monkeypatch.setattr(engine, method, noted)
    return times


async def turned(condition):
    """Returns once it holds, which takes turns of the loop and no time."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 (nobody tells of it)
            await asyncio.sleep(0)


async def soon(event):
    await asyncio.wait_for(event.wait(), PATIENCE_S)


@pytest.mark.requirement("RES-14")
async def test_who_is_not_called_for_a_minute_stands_still_and_goes_on_with_the_next_call(resting):
    await resting.after(A_MINUTE - 2)
    assert await resting.stands_still() == (False, False)
    await resting.after(A_MINUTE)
    assert await resting.stands_still() == (True, True)
    found = await resting.host.plugin()
    assert (found.state, found.instance.state, found.instance.asleep) == (State.RUNNING, State.RUNNING, True)
    assert await resting.echo() == "hello"
    assert await resting.stands_still() == (False, False)
    await resting.after(A_MINUTE - 2)
    assert await resting.stands_still() == (False, False)


async def test_calls_at_once_wake_it_once(asleep, monkeypatch):
    woken = counted(monkeypatch, asleep.host.engine, "unpause")
    assert await asyncio.gather(*(asleep.echo(str(each)) for each in range(8))) == [*"01234567"]
    assert woken == ["unpause"]


@pytest.mark.requirement("RES-14")
async def test_a_call_that_enters_while_it_is_frozen_is_answered(resting, monkeypatch):
    freezing = gated(monkeypatch, resting.host.engine, "pause")
    look = asyncio.create_task(resting.after(A_MINUTE))
    await soon(freezing.begun)
    call = asyncio.create_task(resting.echo())
    await turned(lambda: resting.one.gate.inside)
    freezing.go.set()
    await look
    assert await call == "hello"
    assert await resting.stands_still() == (False, False)


async def test_who_has_a_call_inside_is_not_idle(resting, tmp_path):
    call = asyncio.create_task(resting.host.call("hold", file=str(tmp_path / "go")))
    await resting.host.logged("holding")
    await resting.after(AN_HOUR)
    assert await resting.stands_still() == (False, False)
    (tmp_path / "go").touch()
    assert not (await call).is_error


async def test_who_uses_the_processor_is_not_idle(resting):
    def sampled(cpus):
        usage = SimpleNamespace(cpus=cpus)
        at_s = time.monotonic() + A_MINUTE - 1
        resting.idle.judge(Signal(Noticed.SAMPLED, PLUGIN, resting.one.id, at_s, detail={"usage": usage}))

    sampled(0.01)
    await resting.after(A_MINUTE)
    assert await resting.stands_still() == (False, False)
    resting.idle.judge(Signal(Noticed.CLOSED, PLUGIN, resting.one.id, 0.0))
    sampled(0.0)
    await resting.after(A_MINUTE)
    assert await resting.stands_still() == (True, True)


async def test_one_that_cannot_be_frozen_takes_calls_as_ever(resting):
    resting.host.engine.faults.errors["pause"] = UnavailableError("no engine")
    await resting.after(A_MINUTE)
    assert await resting.echo() == "hello"
    assert await resting.stands_still() == (False, False)


async def test_one_that_cannot_be_thawed_says_so_and_is_tried_with_the_next_call(asleep):
    asleep.host.engine.faults.errors["unpause"] = UnavailableError("no engine")
    with pytest.raises(UnavailableError, match="no engine"):
        await asleep.echo()
    asleep.host.engine.faults.errors.clear()
    assert await asleep.echo() == "hello"


async def test_a_caller_that_waits_for_it_to_wake_waits_no_longer_than_it_said(asleep, monkeypatch):
    waking = gated(monkeypatch, asleep.host.engine, "unpause")
    with pytest.raises(CallTimedOutError, match="did not wake in time"):
        await asleep.echo(timeout_s=0.05)
    waking.go.set()
    assert await asleep.echo() == "hello"


@pytest.mark.requirement("RES-14")
async def test_a_pause_outlasts_a_wake_that_nobody_waits_for_any_more(asleep, monkeypatch):
    waking = gated(monkeypatch, asleep.host.engine, "unpause")
    call = asyncio.create_task(asleep.echo())
    await soon(waking.begun)
    call.cancel()
    pause = asyncio.create_task(asleep.host.wiring.containment.pause(PLUGIN, **ME))
    await turned(lambda: asleep.one.paused)
    waking.go.set()
    await pause
    assert await asleep.stands_still() == (True, False)
    with pytest.raises(PluginUnavailableError):
        await asleep.echo()
    assert await asleep.stands_still() == (True, False)


async def test_an_operators_pause_takes_the_place_of_sleep_and_a_resume_ends_it(asleep):
    await asleep.host.wiring.containment.pause(PLUGIN, **ME)
    found = await asleep.host.plugin()
    assert (found.state, found.instance.asleep) == (State.PAUSED, False)
    await asleep.after(AN_HOUR)
    assert (await asleep.host.plugin()).state is State.PAUSED
    with pytest.raises(PluginUnavailableError):
        await asleep.echo()
    await asleep.host.wiring.containment.resume(PLUGIN, **ME)
    assert await asleep.echo() == "hello"


async def test_who_sleeps_can_be_killed_and_is_started_again(asleep):
    before = asleep.one.id
    await asleep.host.wiring.containment.kill(PLUGIN, **ME)
    await asleep.host.until(State.RUNNING, other_than=before)
    assert await asleep.echo() == "hello"


async def test_who_sleeps_can_be_throttled_and_is_not_stopped_then(asleep):
    await asleep.host.throttle(0.5)
    await asleep.after(AN_HOUR)
    assert (await asleep.host.plugin()).state is State.THROTTLED
    assert await asleep.stands_still() == (True, True)
    assert await asleep.echo() == "hello"
    assert asleep.one.cpu_share == 0.5


async def test_a_stream_wakes_it_too(asleep):
    body = StreamIn(plugin=PLUGIN, function="echo", arguments={"text": "streamed"})
    async with asleep.host.wiring.streaming.opened(body, asleep.host.operator) as call:
        async for _ in call:
            pass
        assert (await call.outcome()).structured["result"] == "streamed"


@pytest.mark.requirement("RES-14")
async def test_a_new_configuration_wakes_who_sleeps_and_is_read_by_who_was_stopped(tmp_path):
    async with world(tmp_path / "h", configured()) as host:
        await host.install()
        await host.approve(*NEEDS)
        resting, given = Resting(host), host.wiring.provisioning

        async def set_city(city):
            body = ConfigurationIn(values={"city": city}, reason="a test")
            return (await given.merge(PLUGIN, body, host.operator, expected=None)).delivery.outcome

        await set_city("Paris")
        await given.set_secret(PLUGIN, "api_key", "k", host.operator)
        await host.until(State.RUNNING)
        await resting.after(A_MINUTE)
        assert await resting.stands_still() == (True, True)
        assert await set_city("Oslo") is Outcome.APPLIED
        await resting.after(AN_HOUR)
        assert await set_city("Rome") is Outcome.NOT_RUNNING
        assert (await host.plugin()).state is State.IDLE
        assert (await host.call("config")).structured["city"] == "Rome"


@pytest.mark.requirement("RES-14")
async def test_an_event_wakes_a_subscriber_and_a_subscriber_is_not_stopped(tmp_path):
    extra = '[[events.subscriptions]]\ntopic = "weather.#"\n'
    package = make_package(
        source=HEARING, functions=offered(HEARING), permissions=["events.subscribe:weather.#"], extra=extra
    )
    async with world(tmp_path / "h", package) as host:
        await host.install()
        await host.approve("events.subscribe:weather.#")
        resting = Resting(host)
        await resting.after(AN_HOUR)
        assert await resting.stands_still() == (True, True)
        await host.wiring.bus.publish("application:test", "weather.rain", b"{}")
        await host.logged("heard weather.rain")
        assert (await host.call("greet", name="x")).structured["result"] == "weather.rain"


@pytest.mark.requirement("RES-14")
async def test_who_is_not_called_for_an_hour_is_stopped_and_still_listed(resting):
    tools = resting.host.wiring.mcp._tools
    before = list(tools.visible(resting.host.operator))
    assert before
    changes = []
    async with tools.listening(changes.append):
        await resting.after(AN_HOUR)
        found = await resting.host.plugin()
        assert (found.state, found.enabled, found.instances) == (State.IDLE, True, [])
        assert "a call starts it" in found.cause
        assert await resting.host.containers() == []
        assert "echo" in {each.name for each in found.functions}
        assert list(tools.visible(resting.host.operator)) == before
        assert await resting.echo() == "hello"
        assert list(tools.visible(resting.host.operator)) == before
    assert changes == []
    assert (await resting.host.plugin()).state is State.RUNNING
    moves = [each.detail["after"] for each in await resting.host.audited("plugin.state")][-3:]
    assert moves == [State.IDLE, State.STARTING, State.RUNNING]


@pytest.mark.requirement("RES-14")
async def test_many_callers_at_once_start_it_once(stopped):
    answers = await asyncio.gather(*(stopped.echo(str(each)) for each in range(8)))
    assert answers == [*"01234567"]
    moves = [each.detail["after"] for each in await stopped.host.audited("plugin.state")]
    assert moves.count(State.STARTING) == 2  # the install's, and this
    assert len(await stopped.host.containers()) == 1


@pytest.mark.requirement("RES-14")
async def test_a_call_that_comes_while_it_is_being_stopped_waits_for_the_next_start(resting, monkeypatch):
    ending = gated(monkeypatch, resting.host.engine, "remove")
    look = asyncio.create_task(resting.after(AN_HOUR))
    await soon(ending.begun)
    call = asyncio.create_task(resting.echo())
    ending.go.set()
    await look
    assert await call == "hello"


async def test_a_stream_and_a_call_of_another_plugin_start_it(stopped):
    calls = stopped.host.wiring.calls
    found = await calls.call_for(
        "demo/other", None, target=PLUGIN, function="echo", arguments={"text": "x"}, timeout_s=None
    )
    assert found["structured"] == {"result": "x"}
    await stopped.after(AN_HOUR)
    await test_a_stream_wakes_it_too(stopped)


@pytest.mark.requirement("RES-14")
async def test_when_the_start_fails_each_caller_is_told_why(stopped):
    stopped.host.engine.faults.errors["start"] = UnavailableError("the engine has no room")
    calls = (stopped.echo() for _ in range(3))
    for failure in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(failure, PluginUnavailableError)
        assert "the engine has no room" in failure.message
    stopped.host.engine.faults.errors.clear()
    stopped.host.wiring.reconciler.engine_returned()
    await stopped.host.until(State.RUNNING)
    assert await stopped.echo() == "hello"


async def test_who_waits_for_a_start_waits_no_longer_than_they_said(stopped, monkeypatch):
    starting = gated(monkeypatch, stopped.host.engine, "start")
    with pytest.raises(CallTimedOutError, match="did not start within"):
        await stopped.echo(timeout_s=0.05)
    starting.go.set()
    await stopped.host.until(State.RUNNING)
    assert await stopped.echo() == "hello"


async def _disable(host):
    await host.disable()


async def _uninstall(host):
    await host.uninstall()


async def _quarantine(host):
    await host.wiring.containment.quarantine(PLUGIN, **ME)


@pytest.mark.requirement("RES-14")
@pytest.mark.parametrize(
    ("act", "error", "told"),
    [
        (_disable, PluginUnavailableError, "is stopped: disabled"),
        (_uninstall, NotFoundError, "not installed"),
        (_quarantine, PluginQuarantinedError, "a test says so"),
    ],
)
async def test_an_operator_who_ends_it_ends_the_waiting_for_its_start(stopped, monkeypatch, act, error, told):
    starting = gated(monkeypatch, stopped.host.engine, "start")
    call = asyncio.create_task(stopped.echo())
    await soon(starting.begun)
    acting = asyncio.create_task(act(stopped.host))
    with pytest.raises(error, match=told):
        await asyncio.wait_for(call, PATIENCE_S)
    starting.go.set()
    await acting
    assert await stopped.host.containers() == []


async def test_a_function_that_it_does_not_have_starts_nothing(stopped):
    with pytest.raises(FunctionMissingError, match="it has: "):
        await stopped.host.call("nothing")
    assert (await stopped.host.plugin()).state is State.IDLE


async def test_what_rests_is_ended_with_everything_and_by_name(stopped):
    assert await stopped.host.wiring.containment.end_all(**ME) == {PLUGIN: ""}
    with pytest.raises(PluginQuarantinedError):
        await stopped.echo()
    assert not stopped.host.wiring.mcp._tools.visible(stopped.host.operator)


async def test_what_rests_is_disabled_enabled_and_neither_paused_nor_killed(stopped):
    for act in (stopped.host.wiring.containment.pause, stopped.host.wiring.containment.kill):
        with pytest.raises(ConflictError, match="is idle"):
            await act(PLUGIN, **ME)
    assert (await stopped.host.enable()).state is State.RUNNING
    await stopped.after(AN_HOUR)
    assert (await stopped.host.disable()).state is State.STOPPED
    with pytest.raises(PluginUnavailableError, match="is stopped"):
        await stopped.echo()


async def test_a_right_that_was_taken_from_it_while_it_rested_keeps_it_from_starting(tmp_path):
    async with world(tmp_path / "h", worker(permissions=["storage.write"])) as host:
        await host.install()
        await host.approve("storage.write")
        await Resting(host).after(AN_HOUR)
        await host.approve(deny=["storage.write"])
        with pytest.raises(PluginUnavailableError, match=r"storage\.write"):
            await host.call("echo", text="x")
        assert (await host.plugin()).state is State.AWAITING_APPROVAL


@pytest.mark.requirement("RES-14")
async def test_what_rested_rests_on_in_the_next_host_and_a_call_starts_it(tmp_path):
    async with world(tmp_path / "h", worker()) as host:
        await host.install()
        await Resting(host).after(AN_HOUR)
    async with world(tmp_path / "h", worker()) as host:
        await host.wiring.plugins.settle([PLUGIN])
        assert (await host.plugin()).state is State.IDLE
        assert host.wiring.mcp._tools.visible(host.operator)
        assert (await host.call("echo", text="x")).structured == {"result": "x"}


@pytest.mark.requirement("RES-14")
async def test_a_release_on_probation_does_not_rest_and_one_that_sleeps_is_replaced(tmp_path):
    async with world(tmp_path / "h", worker(), worker(version="1.1.0")) as host:
        await host.install(f"{PLUGIN}@1.0.0")
        resting, upgrades = Resting(host), host.wiring.plugins.upgrades
        await resting.after(A_MINUTE)
        assert await resting.stands_still() == (True, True)
        await host.wiring.installer.upgrade(PLUGIN, "*", host.operator)
        assert (await upgrades.of_plugin(PLUGIN))[0].state is UpgradeState.PROBATION
        await resting.after(AN_HOUR)
        assert await resting.stands_still() == (False, False)
        assert await resting.echo() == "hello"


async def test_what_an_operator_keeps_awake_stays_so(tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[idle]\nawake = ["{PLUGIN}"]\n')
    async with world(tmp_path / "h", worker(), policy=policy) as host:
        await host.install()
        resting = Resting(host)
        await resting.after(AN_HOUR)
        assert await resting.stands_still() == (False, False)


async def test_an_upgrade_of_what_rests_is_on_probation_when_a_call_starts_it(tmp_path):
    broken = worker(version="1.1.0", source="raise SystemExit(1)")
    async with world(tmp_path / "h", worker(), broken) as host:
        await host.install(f"{PLUGIN}@1.0.0")
        await Resting(host).after(AN_HOUR)
        await host.wiring.installer.upgrade(PLUGIN, "*", host.operator)
        found = await host.plugin()
        assert (found.state, found.version) == (State.IDLE, "1.1.0")
        with suppress(PluginUnavailableError):  # unless the release before is there in time
            await host.call("echo", text="x")
        found = await host.until(State.RUNNING)
        assert found.version == "1.0.0"
        assert (await host.wiring.plugins.upgrades.of_plugin(PLUGIN))[0].state is UpgradeState.ROLLED_BACK
        assert (await host.call("echo", text="x")).structured == {"result": "x"}


async def test_what_asks_for_more_than_was_granted_waits_while_the_release_that_rests_is_started(tmp_path):
    more = worker(version="1.1.0", permissions=["storage.write"])
    async with world(tmp_path / "h", worker(), more) as host:
        await host.install(f"{PLUGIN}@1.0.0")
        await Resting(host).after(AN_HOUR)
        await host.wiring.installer.upgrade(PLUGIN, "*", host.operator)
        assert (await host.call("echo", text="x")).structured == {"result": "x"}
        assert (await host.plugin()).version == "1.0.0"


async def test_the_database_that_takes_no_stop_leaves_it_at_work(resting, monkeypatch):
    async def away(*_arguments, **_more):
        raise UnavailableError("no database")

    with monkeypatch.context() as broken:
        broken.setattr(type(resting.idle.states), "move", away)
        await resting.after(AN_HOUR)
    assert await resting.echo() == "hello"
    assert (await resting.host.plugin()).state is State.RUNNING


async def test_what_was_stopped_and_started_rests_again(stopped):
    for _ in range(2):
        assert await stopped.echo() == "hello"
        await stopped.host.disable()
        await stopped.host.enable()
        assert await stopped.echo() == "hello"
        async with asyncio.timeout(PATIENCE_S):
            while (await stopped.host.plugin()).state is not State.IDLE:
                await stopped.after(AN_HOUR)
