"""Calls: of other plugins by way of the host, made again, returned from memory, bounded by a function's own rate."""

import asyncio

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PATIENCE_S, offered, world
from wirthforge_host.bridge import ToolResult
from wirthforge_host.errors import CallTimedOutError, PluginFailedError, PluginUnavailableError
from wirthforge_host.plugins.cache import MAX_RESULT_BYTES, Cache, key_of
from wirthforge_host.plugins.call import MAX_DEPTH
from wirthforge_sdk.contracts.host_api import State
from wirthforge_sdk.errors import InvalidInputError, LimitExceededError, PermissionDeniedError

SOURCE = """
import os
import time
from pathlib import Path
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function
def ask(other: str, what: str, arguments: dict) -> dict:
    return plugin.plugins.call(other, what, **arguments)

@plugin.function
def descend(names: list[str]) -> int:
    if not names:
        return 0
    first, *rest = names
    return 1 + plugin.plugins.call(first, "descend", names=rest)["result"]

@plugin.function
def fail() -> None:
    raise ValueError("out of milk")

@plugin.function
def keep() -> None:
    plugin.storage.set("k", 1)

@plugin.function(timeout_s=20)
def wait(seconds: float) -> str:
    until = time.monotonic() + seconds
    plugin.log.info("waiting")
    while time.monotonic() < until and not plugin.cancelled():
        time.sleep(0.002)
    plugin.log.info("told to stop" if plugin.cancelled() else "waited")
    return "done"

@plugin.function
def sleep(seconds: float) -> str:
    time.sleep(seconds)
    plugin.log.info("told to stop" if plugin.cancelled() else "waited")
    return "done"

@plugin.function(read_only=True, cache_s=60)
def pid(of: dict) -> int:
    count = Path("{directory}") / "count"
    count.open("a").write("x")
    return os.getpid()

@plugin.function(read_only=True, cache_s=60)
def broken() -> int:
    (Path("{directory}") / "count").open("a").write("x")
    raise ValueError("no")

@plugin.function(calls_per_s=0.01)
def seldom() -> bool:
    return True

@plugin.function(idempotent=True, timeout_s=20)
def die_once(file: str) -> int:
    if not Path(file).exists():
        Path(file).touch()
        os._exit(3)
    return os.getpid()

@plugin.function(timeout_s=20)
def die(file: str) -> int:
    Path(file).open("a").write("x")
    os._exit(3)
"""
FUNCTIONS = ("ask", "descend", "fail", "keep", "wait", "pid", "broken", "seldom", "die_once", "die", "sleep")
A, B = "demo/a", "demo/b"


def calls_of(name):
    return [f"plugins.call:{name}.{function}" for function in FUNCTIONS if function != "seldom"]


@pytest.fixture
async def host(tmp_path):
    """Two plugins that may call each other, and not all of it."""
    source = SOURCE.replace("{directory}", str(tmp_path))
    made = [
        make_package(name, source=source, functions=offered(source), permissions=calls_of(other))
        for name, other in ((A, B), (B, A))
    ]
    async with world(tmp_path / "h", *made) as opened:
        for name, other in ((A, B), (B, A)):
            await opened.install(name)
            await opened.approve(*calls_of(other), plugin=name)
        yield opened


def count(tmp_path):
    file = tmp_path / "count"
    return len(file.read_text()) if file.exists() else 0


async def ask(host, what, *, by=A, of=B, **arguments):
    return await host.call("ask", plugin=by, other=of, what=what, arguments=arguments)


@pytest.mark.requirement("CORE-6")
async def test_a_plugin_calls_another_and_both_are_on_record(host):
    assert (await ask(host, "wait", seconds=0)).structured == {"result": "done"}
    inner, outer = await host.audited("call")
    assert (inner.actor, inner.plugin, outer.actor) == (f"plugin:{A}", B, "operator:me")
    assert inner.detail["for"] == outer.detail["call"]


async def test_what_a_called_function_says_of_its_failure_reaches_the_caller(host):
    failed = await ask(host, "fail")
    assert failed.is_error
    assert failed.content[0]["text"] == "FunctionFailedError: demo/b.fail: ValueError: out of milk"


async def test_a_call_that_is_not_granted_is_refused_and_nothing_is_called(host):
    with pytest.raises(PermissionDeniedError):
        await ask(host, "seldom")
    assert [record.plugin for record in await host.audited("call")] == [A]
    [refused] = await host.audited("host_call")
    assert (refused.outcome, refused.detail["permission"]) == ("denied", f"plugins.call:{B}.seldom")


async def test_what_the_called_plugin_lacks_is_not_the_callers_denial(host):
    with pytest.raises(PluginFailedError, match="lacks a permission"):
        await ask(host, "keep")
    by_caller = [record for record in await host.audited("host_call") if record.plugin == A]
    assert [record.outcome for record in by_caller] == ["failed"]


@pytest.mark.parametrize("held", [True, False])
async def test_a_plugin_that_does_not_run_cannot_be_called(host, held):
    if held:
        await host.wiring.containment.quarantine(B, cause="a test", actor="test")
    else:
        await host.disable(B)
    with pytest.raises(PluginUnavailableError if not held else PluginFailedError, match="demo/b is"):
        await ask(host, "wait", seconds=0)


async def test_a_function_that_calls_itself_by_way_of_another_is_refused(host):
    with pytest.raises(InvalidInputError, match="would call itself"):
        await host.call("descend", plugin=A, names=[B, A])
    assert (await host.call("descend", plugin=A, names=[B])).structured == {"result": 1}


async def test_calls_stand_in_one_another_only_so_deep(tmp_path):
    source = SOURCE.replace("{directory}", str(tmp_path))
    names = [f"demo/p{number}" for number in range(MAX_DEPTH + 1)]
    made = [
        make_package(
            name,
            source=source,
            functions=offered(source),
            permissions=[f"plugins.call:demo/p{number + 1}.descend"],
        )
        for number, name in enumerate(names)
    ]
    async with world(tmp_path / "h", *made) as host:
        for number, name in enumerate(names):
            await host.install(name)
            await host.approve(f"plugins.call:demo/p{number + 1}.descend", plugin=name)
        deepest = await host.call("descend", plugin=names[0], names=names[1:-1])
        assert deepest.structured == {"result": MAX_DEPTH - 1}
        with pytest.raises(LimitExceededError):
            await host.call("descend", plugin=names[0], names=names[1:])


async def test_a_call_waits_no_longer_than_the_one_it_is_made_for(host):
    with pytest.raises(CallTimedOutError):
        await host.call("ask", plugin=A, timeout_s=0.3, other=B, what="sleep", arguments={"seconds": 1})
    await host.logged("told to stop", plugin=B)


async def test_who_gives_up_ends_the_calls_that_were_made_for_it(host):
    waiting = asyncio.create_task(ask(host, "wait", seconds=PATIENCE_S))
    await host.logged("waiting", plugin=B)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await host.logged("told to stop", plugin=B)


@pytest.mark.requirement("RES-13")
async def test_a_cacheable_function_runs_once_for_the_same_arguments(host, tmp_path):
    first = await host.call("pid", plugin=A, of={"x": 1, "y": [2]})
    again = await host.call("pid", plugin=A, of={"y": [2], "x": 1})
    assert (first.cached, again.cached, again.structured) == (False, True, first.structured)
    assert (await host.call("pid", plugin=A, of={"x": 2})).cached is False
    assert (await host.call("pid", plugin=B, of={"x": 1, "y": [2]})).cached is False
    assert count(tmp_path) == 3
    assert [record.detail.get("cached") for record in await host.audited("call")][:3] == [None, True, None]
    with pytest.raises(InvalidInputError):
        await host.call("pid", plugin=A, of=1)


async def test_a_failure_is_not_kept(host, tmp_path):
    for _ in range(2):
        assert (await host.call("broken", plugin=A)).is_error
    assert count(tmp_path) == 2


async def test_what_was_kept_is_not_told_of_a_plugin_that_is_held_back(host):
    await host.call("pid", plugin=A, of={})
    await host.wiring.containment.pause(A, cause="a test", actor="test")
    with pytest.raises(PluginUnavailableError):
        await host.call("pid", plugin=A, of={})


async def test_a_purged_plugin_is_forgotten(host):
    await host.call("pid", plugin=A, of={})
    assert host.wiring.calls._cache.bytes
    await host.uninstall(A, purge=True)
    assert not host.wiring.calls._cache.bytes


async def test_a_function_is_called_no_more_often_than_it_says(host):
    assert (await host.call("seldom", plugin=A)).structured == {"result": True}
    with pytest.raises(LimitExceededError, match=r"demo/a\.seldom is called over 0\.01 times a second"):
        await host.call("seldom", plugin=A)
    assert (await host.call("wait", plugin=A, seconds=0)).structured == {"result": "done"}


async def test_a_call_is_made_again_when_its_function_says_that_it_may(host, tmp_path):
    before = (await host.plugin(A)).instance.id
    result = await host.call("die_once", plugin=A, file=str(tmp_path / "died"))
    assert not result.is_error
    assert (await host.plugin(A)).instance.id != before
    record = (await host.audited("call"))[-1]
    assert (record.outcome, record.detail["attempts"]) == ("allowed", 2)


async def test_another_call_is_made_once(host, tmp_path):
    file = tmp_path / "died"
    with pytest.raises(PluginUnavailableError):
        await host.call("die", plugin=A, file=str(file))
    await host.until(State.RUNNING, plugin=A)
    assert file.read_text() == "x"


# The cache alone.


def result(value="x", *, is_error=False):
    return ToolResult(is_error, value, [])


def test_what_is_used_least_recently_goes_first_and_the_bound_holds():
    cache = Cache(lambda: 0.0, max_bytes=100)
    for key in (b"a", b"b", b"c"):
        cache.keep(key, A, result("x" * 25), epoch=0, for_s=1)
    assert cache.find(b"a") is not None
    cache.keep(b"d", A, result("x" * 25), epoch=0, for_s=1)
    assert cache.bytes <= 100
    assert [cache.find(key) is not None for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


def test_what_is_too_old_too_long_or_failed_is_not_told():
    now = 0.0
    cache = Cache(lambda: now)
    cache.keep(b"old", A, result(), epoch=0, for_s=5)
    cache.keep(b"long", A, result("x" * MAX_RESULT_BYTES), epoch=0, for_s=5)
    cache.keep(b"failed", A, result(is_error=True), epoch=0, for_s=5)
    assert cache.find(b"old") == result()
    assert cache.find(b"long") is cache.find(b"failed") is None
    now = 5.0
    assert cache.find(b"old") is None
    assert cache.bytes == 0


def test_what_was_asked_before_a_change_is_not_kept_after_it():
    cache = Cache(lambda: 0.0)
    epoch = cache.epoch(A)
    cache.forget(A)
    cache.keep(b"k", A, result(), epoch=epoch, for_s=5)
    assert cache.find(b"k") is None
    cache.keep(b"k", A, result(), epoch=cache.epoch(A), for_s=5)
    assert cache.find(b"k") == result()


def test_keys_differ_by_release_function_and_arguments_alone():
    keys = {
        key_of("d", "f", {"a": 1, "b": 2}),
        key_of("e", "f", {"a": 1, "b": 2}),
        key_of("d", "g", {"a": 1, "b": 2}),
        key_of("d", "f", {"a": 1, "b": "2"}),
    }
    assert len(keys) == 4
    assert key_of("d", "f", {"b": 2, "a": 1}) in keys
