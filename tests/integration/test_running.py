"""A plugin at work: what it must be to run, how it may end, and what its callers see of that."""

import asyncio

import pytest

from tests.fakes.packages import GREET, SOURCE, make_package
from tests.fakes.world import PLUGIN, run_plugin, worker, world
from wirthforge_host.errors import CallTimedOutError, FunctionMissingError, PluginUnavailableError
from wirthforge_host.plugins import lifecycle
from wirthforge_host.sandbox.memory_engine import MemoryEngine
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import ConflictError, InvalidInputError, LimitExceededError

SOON_S = 2.0
HEALTH = '[health]\nfunction = "greet"\narguments = {name = "you"}\n'


@pytest.fixture
def at_once(monkeypatch):
    """What crashed is tried again without a pause worth waiting for."""
    monkeypatch.setattr(lifecycle, "FIRST_DELAY_S", 0.01)


@pytest.fixture
async def host(tmp_path):
    """A host with a plugin at work."""
    async with world(tmp_path / "h", worker()) as opened:
        assert (await opened.install()).state is State.RUNNING
        yield opened


async def assert_nothing_is_left(host):
    assert (await host.containers(), await host.instances(), host.directories("bridges")) == ([], [], set())


async def test_a_call_is_answered_recorded_and_counted(host):
    answer = await host.call("echo", text="hello")
    assert (answer.is_error, answer.structured) == (False, {"result": "hello"})
    (record,) = await host.audited("call")
    assert (record.actor, record.outcome, record.plugin) == ("operator:me", "allowed", PLUGIN)
    assert record.detail == {
        "call": answer.id,
        "function": "echo",
        "arguments": {"text": "string(5)"},
        "code": "ok",
        "ms": answer.duration_ms,
    }
    told = host.wiring.metrics.exposition([], {}).decode()
    assert 'wirthforge_calls_total{code="ok",function="echo",plugin="demo/hello"} 1.0' in told


async def test_a_function_that_raises_has_answered_with_an_error(tmp_path):
    async with world(
        tmp_path / "h",
        make_package(source=SOURCE.replace('return f"Hello, {name}!"', 'raise OSError(f"no {name}")')),
    ) as host:
        await host.install()
        answer = await host.call(name="Ada")
        assert answer.is_error
        assert answer.content == [{"type": "text", "text": "OSError: no Ada"}]
        assert (await host.audited("call"))[0].detail["code"] == "function_failed"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"name": "welcome"}, "'greet' is new; 'welcome' is gone"),
        ({"description": "Harmless."}, "'greet' has another description"),
        ({"output_schema": None}, "'greet' has another output schema"),
    ],
)
async def test_a_plugin_that_offers_what_was_not_signed_is_quarantined(tmp_path, change, difference):
    package = make_package(functions=[GREET.model_copy(update=change)])
    async with world(tmp_path / "h", package) as host:
        found = await host.install()
        assert found.state is State.QUARANTINED
        assert difference in found.cause
        await assert_nothing_is_left(host)
        with pytest.raises(PluginUnavailableError, match="is quarantined"):
            await host.call(name="Ada")


async def test_a_quarantined_plugin_is_started_only_after_an_operator_has_stopped_it(tmp_path):
    package = make_package(functions=[GREET.model_copy(update={"description": "Harmless."})])
    async with world(tmp_path / "h", package) as host:
        await host.install()
        with pytest.raises(ConflictError, match="wirthforge disable demo/hello"):
            await host.enable()
        assert (await host.plugin()).state is State.QUARANTINED
        await host.disable()
        assert (await host.enable()).state is State.QUARANTINED


@pytest.mark.parametrize("when", ["settings", "settings_after_start"])
async def test_a_plugin_whose_sandbox_is_not_as_asked_is_quarantined_and_its_container_is_gone(
    tmp_path, when
):
    async with world(tmp_path / "h", make_package()) as host:
        setattr(host.engine.faults, when, {"privileged": True})
        found = await host.install()
        assert found.state is State.QUARANTINED
        assert "privileged" in found.cause
        await assert_nothing_is_left(host)


async def test_nothing_starts_in_a_container_that_was_made_too_open(tmp_path):
    started = []

    async def note(spec):
        started.append(spec.name)
        return 0

    async with world(tmp_path / "h", make_package(), engine=MemoryEngine(process=note)) as host:
        host.engine.faults.settings = {"read_only_root": False}
        await host.install()
    assert started == []


CRASHES = {
    "it raises when it is imported": ("raise ValueError('no such city')", "ValueError: no such city"),
    "it exits when it is imported": ("raise SystemExit(7)", "exit code"),
    "it ends without a word": ("import os\nos._exit(41)", "exit code 41"),
    "it is no plugin": ("plugin = 1", "let it be a Plugin"),
    "it lacks a module": ("import no_such_module", "No module named 'no_such_module'"),
    "it is no Python": ("def", "SyntaxError"),
}


@pytest.mark.parametrize("crash", CRASHES)
async def test_a_plugin_that_cannot_start_says_why(tmp_path, crash):
    source, why = CRASHES[crash]
    async with world(tmp_path / "h", make_package(source=source)) as host:
        found = await host.install()
        assert found.state is State.UNHEALTHY
        assert why in found.cause
        await assert_nothing_is_left(host)


@pytest.mark.requirement("RES-6")
async def test_a_plugin_that_runs_out_of_memory_at_its_start_says_so(tmp_path):
    async def hungry(spec):
        raise MemoryError(spec.name)

    async with world(tmp_path / "h", make_package(), engine=MemoryEngine(process=hungry)) as host:
        found = await host.install()
        assert (found.state, found.cause) == (
            State.UNHEALTHY,
            "it ended before it connected; it ran out of memory",
        )


async def test_a_plugin_that_never_connects_is_given_up_in_time(tmp_path):
    async with world(tmp_path / "h", make_package(), engine=MemoryEngine(), start_timeout_s=0.1) as host:
        found = await asyncio.wait_for(host.install(), SOON_S + 2)
        assert found.state is State.UNHEALTHY
        assert "did not connect within 0.1 s" in found.cause
        await assert_nothing_is_left(host)


async def test_a_plugin_that_connects_and_says_nothing_is_given_up_in_time(tmp_path):
    mute = "import time\ntime.sleep(60)"
    async with world(tmp_path / "h", make_package(source=mute), start_timeout_s=0.5) as host:
        found = await asyncio.wait_for(host.install(), SOON_S + 4)
        assert found.state is State.UNHEALTHY
        await assert_nothing_is_left(host)


@pytest.mark.parametrize("body", ["raise OSError('no model')", "import time; time.sleep(9)"])
async def test_a_plugin_that_fails_its_self_test_does_not_run(tmp_path, body):
    source = SOURCE.replace('return f"Hello, {name}!"', body)
    package = make_package(source=source, extra=f"{HEALTH}timeout_s = 0.2\n")
    async with world(tmp_path / "h", package) as host:
        found = await host.install()
        assert found.state is State.UNHEALTHY
        assert "self-test" in found.cause
        await assert_nothing_is_left(host)


async def test_all_of_a_start_shares_one_deadline(tmp_path):
    source = SOURCE.replace('return f"Hello, {name}!"', "import time; time.sleep(60)")
    package = make_package(source=source, extra=f"{HEALTH}timeout_s = 50\n")
    async with world(tmp_path / "h", package, start_timeout_s=2.5) as host:
        found = await asyncio.wait_for(host.install(), 2.5 + SOON_S)
        assert found.state is State.UNHEALTHY
        assert "not ready within 2.5 s" in found.cause
        await assert_nothing_is_left(host)


async def test_a_plugin_that_passes_its_self_test_runs(tmp_path):
    async with world(tmp_path / "h", make_package(extra=HEALTH)) as host:
        assert (await host.install()).state is State.RUNNING


async def test_a_plugin_that_ends_is_started_again_and_says_why_it_ended(host, at_once):
    first = (await host.plugin()).instance
    with pytest.raises(PluginUnavailableError, match="went away during the call"):
        await asyncio.wait_for(host.call("end", code=9), SOON_S)
    unhealthy = await host.until(State.UNHEALTHY)
    assert unhealthy.cause == "its connection ended; its process ended with exit code 9"
    running = await host.until(State.RUNNING)
    assert running.instance.id != first.id
    assert await host.containers() == [running.instance.id]
    assert len(await host.instances()) == len(host.directories("bridges")) == 1
    assert (await host.call("echo", text="still here")).structured == {"result": "still here"}


@pytest.mark.parametrize("message", ["disk on fire", " ", "\n", "", "\x00\x1b[2J"])
async def test_the_last_error_of_a_plugin_tells_why_it_ended_whatever_it_is(host, at_once, message):
    with pytest.raises(PluginUnavailableError):
        await host.call("complain", message=message)
    unhealthy = await host.until(State.UNHEALTHY)
    assert "exit code 1" in unhealthy.cause
    assert ("its last error: disk on fire" in unhealthy.cause) == (message == "disk on fire")
    assert "\x1b" not in unhealthy.cause
    assert (await host.until(State.RUNNING)).state is State.RUNNING


@pytest.fixture
async def looping(tmp_path, at_once):
    """A host whose plugin ended at each start; it stays up once the file ``mended`` is there."""

    async def process(spec):
        return await run_plugin(spec) if (tmp_path / "mended").exists() else 5

    async with world(tmp_path / "h", make_package(), engine=MemoryEngine(process=process)) as opened:
        await opened.install()
        await opened.until(State.CRASH_LOOP)
        yield opened


async def test_a_plugin_that_ends_five_times_is_left_alone_until_an_operator_says_so(looping, tmp_path):
    assert "exit code 5" in (await looping.plugin()).cause
    moves = [record.detail["after"] for record in await looping.audited("plugin.state")]
    assert moves.count("starting") == lifecycle.MAX_CRASHES
    assert moves.count("unhealthy") == lifecycle.MAX_CRASHES - 1
    await assert_nothing_is_left(looping)
    await looping.enable()
    await looping.until(State.CRASH_LOOP)
    (tmp_path / "mended").touch()
    assert (await looping.enable()).state is State.RUNNING
    assert (await looping.call(name="Ada")).structured == {"result": "Hello, Ada!"}


async def test_a_plugin_that_ends_five_times_after_its_handshake_is_left_alone_too(host, at_once):
    async with asyncio.timeout(9):
        while (await host.until(State.RUNNING, State.CRASH_LOOP)).state is State.RUNNING:
            with pytest.raises(PluginUnavailableError):
                await host.call("end", code=7)
    assert "exit code 7" in (await host.plugin()).cause
    moves = [record.detail["after"] for record in await host.audited("plugin.state")]
    assert moves.count("running") == lifecycle.MAX_CRASHES
    await host.disable()
    await assert_nothing_is_left(host)


async def test_a_move_that_the_table_lacks_is_survived_and_seen(host, at_once, monkeypatch):
    monkeypatch.setitem(lifecycle.FOLLOWING, State.RUNNING, frozenset({State.DRAINING}))
    with pytest.raises(PluginUnavailableError):
        await host.call("end")
    reconciler = host.wiring.reconciler
    async with reconciler.alone_with(PLUGIN):
        await reconciler.faults.survive(reconciler.settle(PLUGIN))
    monkeypatch.undo()
    assert "cannot become unhealthy" in reconciler.faults.seen[0]
    await host.disable()
    reconciler.faults.seen.clear()


async def test_a_plugin_in_a_crash_loop_can_be_disabled(looping):
    assert (await looping.disable()).state is State.STOPPED


async def test_a_call_that_is_not_answered_in_time_fails_and_the_plugin_is_told(host):
    with pytest.raises(CallTimedOutError, match=r"within 0\.\d+ s"):
        await host.call("linger", timeout_s=0.1, seconds=0.4)
    (record,) = await host.audited("call")
    assert (record.outcome, record.detail["code"]) == ("failed", "call_timed_out")
    await host.logged("told to stop")
    assert (await host.call("echo", text="still here")).structured == {"result": "still here"}


async def test_nobody_waits_longer_than_the_function_says(tmp_path):
    source = SOURCE.replace("@plugin.function", "@plugin.function(timeout_s=0.2)").replace(
        'return f"Hello', 'import time; time.sleep(5)\n    return f"Hello'
    )
    package = make_package(source=source, functions=[GREET.model_copy(update={"timeout_s": 0.2})])
    async with world(tmp_path / "h", package) as host:
        await host.install()
        with pytest.raises(CallTimedOutError):
            await host.call(name="Ada", timeout_s=600)


async def test_a_caller_that_goes_away_ends_its_call(host, tmp_path):
    call = asyncio.create_task(host.call("hold", file=str(tmp_path / "never")))
    await host.logged("holding")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await host.logged("told to stop")
    (record,) = await host.audited("call")
    assert (record.outcome, record.detail["function"]) == ("failed", "hold")


async def test_the_end_of_a_plugin_fails_every_open_call_at_once(host, tmp_path):
    calls = [asyncio.create_task(host.call("hold", file=str(tmp_path / "never"))) for _ in range(5)]
    await host.logged("holding")
    with pytest.raises(PluginUnavailableError):
        await host.call("end")
    ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), SOON_S)
    assert [type(each) for each in ended] == [PluginUnavailableError] * 5


async def test_disabling_lets_the_calls_inside_end_and_no_other_in(host, tmp_path):
    file = tmp_path / "released"
    call = asyncio.create_task(host.call("hold", file=str(file)))
    await host.logged("holding")
    disabling = asyncio.create_task(host.disable())
    await host.until(State.DRAINING)
    with pytest.raises(PluginUnavailableError, match="takes no calls just now"):
        await host.call("recall", key="k")
    assert not disabling.done()
    file.touch()
    assert (await call).structured == {"result": "released"}
    assert (await asyncio.wait_for(disabling, SOON_S)).state is State.STOPPED
    await assert_nothing_is_left(host)


async def test_a_call_that_does_not_end_is_cut_off_when_the_time_to_drain_is_over(tmp_path):
    async with world(tmp_path / "h", worker(), drain_timeout_s=0.1) as host:
        await host.install()
        call = asyncio.create_task(host.call("hold", file=str(tmp_path / "never")))
        await host.logged("holding")
        assert (await asyncio.wait_for(host.disable(), SOON_S)).state is State.STOPPED
        with pytest.raises(PluginUnavailableError):
            await call


async def test_a_function_that_is_not_there_is_named_beside_those_that_are(host):
    with pytest.raises(
        FunctionMissingError, match="has no function 'nothing'; it has: complain, echo, end, hold, keep"
    ):
        await host.call("nothing")


@pytest.mark.parametrize("arguments", [{}, {"key": 1}, {"key": "k", "more": 1}])
async def test_arguments_that_do_not_fit_are_refused(host, arguments):
    with pytest.raises(InvalidInputError):
        await host.call("recall", **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"\ud800": 1},
        {"key": "\ud800"},
        {"key": 2**64},
        {"key": float("nan")},
        {"key": "x" * 9_000_000},
        {f"{number:0200}": "x" for number in range(1000)},
    ],
    ids=["surrogate key", "surrogate", "huge integer", "not a number", "huge text", "many keys"],
)
async def test_arguments_that_are_no_json_are_refused_and_recorded(host, arguments):
    with pytest.raises((InvalidInputError, LimitExceededError)):
        await host.call("recall", **arguments)
    (record,) = await host.audited("call")
    assert record.outcome == "failed"
    assert (await host.call("echo", text="still here")).structured == {"result": "still here"}


async def test_arguments_that_nest_too_deep_are_refused(host):
    deep: dict[str, object] = {}
    for _ in range(500):
        deep = {"a": deep}
    with pytest.raises(InvalidInputError):
        await host.call("recall", key=deep)
    assert (await host.call("echo", text="still here")).structured == {"result": "still here"}


async def test_a_host_that_is_full_says_what_to_do_and_starts_the_plugin_when_there_is_room(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("wirthforge_host.plugins.retries.LONGEST_DELAY_S", 0.1)
    packages = [make_package("demo/a"), make_package("demo/b")]
    async with world(tmp_path / "h", *packages, max_instances=1) as host:
        await host.install("demo/a")
        full = await host.install("demo/b")
        assert full.state is State.UNHEALTHY
        assert "runs 1 instances and may run no more" in full.cause
        assert "WIRTHFORGE_HOST_MAX_INSTANCES" in full.cause
        await host.disable("demo/a")
        await host.until(State.RUNNING, plugin="demo/b")


async def test_a_plugin_for_which_there_was_no_room_is_not_blamed_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr("wirthforge_host.plugins.retries.LONGEST_DELAY_S", 0.01)
    packages = [make_package("demo/a"), make_package("demo/b")]
    async with world(tmp_path / "h", *packages, max_instances=1) as host:
        await host.install("demo/a")
        await host.install("demo/b")
        async with asyncio.timeout(SOON_S + 4), host.wiring.events.subscribe() as events:
            for _ in range(3 * lifecycle.MAX_CRASHES):
                assert (await anext(events)).data["state"] != State.CRASH_LOOP


async def test_what_is_in_force_is_read_from_the_engine(host):
    found = await host.wiring.plugins.effective(PLUGIN)
    assert found.instance == (await host.plugin()).instance.id
    assert found.settings["network_mode"] == "none"
    assert found.mismatches == []
    assert {"network": 10, "capabilities": 12}.items() <= {
        line.name: line.points for line in found.grade.lines
    }.items()
    host.engine.faults.settings = {"network_mode": "host"}
    loosened = await host.wiring.plugins.effective(PLUGIN)
    assert loosened.settings["network_mode"] == "host"
    assert loosened.grade.points == found.grade.points - 10
    assert loosened.mismatches == ["network_mode: wanted 'none', found 'host'"]


async def test_what_is_in_force_for_what_does_not_run_is_not_known(host):
    await host.disable()
    with pytest.raises(PluginUnavailableError):
        await host.wiring.plugins.effective(PLUGIN)


async def test_a_process_of_another_user_is_not_taken_for_the_plugin(tmp_path):
    async def impostor(spec):
        user = str(int(spec.settings.user.partition(":")[0]) + 1)
        object.__setattr__(spec.settings, "user", f"{user}:{user}")
        return await run_plugin(spec)

    engine = MemoryEngine(process=impostor)
    async with world(tmp_path / "h", make_package(), engine=engine, start_timeout_s=1.0) as host:
        assert (await host.install()).state is State.UNHEALTHY
        (breach, *_) = await host.audited("bridge.breach")
        assert breach.outcome == "denied"
        assert breach.detail["reason"] == "another user id connected"
