"""The host's bridge with the runtime that ships, in a process of its own."""

import asyncio
import os
import signal

import pytest

from tests.fakes.runtime_host import PLUGIN, WAIT_S, runtime_host
from wirthforge_host.errors import (
    CallTimedOutError,
    FunctionMissingError,
    PluginLacksPermissionError,
    PluginUnavailableError,
)
from wirthforge_sdk.contracts.bridge import MODERN
from wirthforge_sdk.errors import InvalidInputError

MANIFEST = f"""
manifest_version = 1
name = "{PLUGIN}"
version = "1.0.0"
summary = "Makes trouble."
authors = ["The WirthForge authors"]
license = "MIT"
[runtime]
type = "python"
entry = "probe:plugin"
"""

PROBE = """
import os, time
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function(read_only=True)
def add(a: int, b: int) -> int:
    "Adds."
    return a + b

@plugin.function
def keep(value: str) -> None:
    plugin.log.info("keeping", length=len(value))
    plugin.storage.set("k", value)

@plugin.function
def wait() -> str:
    plugin.log.info("waiting")
    while not plugin.cancelled():
        time.sleep(0.005)
    plugin.log.info("told to stop")
    return "stopped"

@plugin.function
def doze() -> None:
    time.sleep(0.5)

@plugin.function
def fail() -> None:
    raise LookupError("no such thing")

@plugin.function
def big(size: int) -> str:
    return "x" * size

@plugin.function
def whoami() -> int:
    return os.getpid()
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "plugin.toml").write_text(MANIFEST)
    (tmp_path / "src" / "probe.py").write_text(PROBE)
    return tmp_path


async def call(host, function, /, timeout_s=WAIT_S, **arguments):
    return await host.session.call(function, arguments, timeout_s=timeout_s, call_id="c-1")


async def logged(host, message, after=0):
    """Waits until the plugin has logged ``message``."""
    async with asyncio.timeout(WAIT_S), host.services.logs.subscribe(PLUGIN, after=after) as lines:
        async for line in lines:
            if line.message == message:
                return line
    raise AssertionError


async def test_the_runtime_speaks_the_modern_revision_and_tells_its_functions(project):
    async with runtime_host(project) as host:
        assert host.session.protocol == MODERN
        functions = await host.session.list_tools(timeout_s=WAIT_S)
        assert [each.name for each in functions] == ["add", "big", "doze", "fail", "keep", "wait", "whoami"]
        assert (functions[0].description, functions[0].annotations.read_only) == ("Adds.", True)


@pytest.mark.requirement("CORE-6")
async def test_calls_are_answered_and_what_is_wrong_with_them_is_told(project):
    async with runtime_host(project) as host:
        answers = await asyncio.gather(*(call(host, "add", a=n, b=1) for n in range(200)))
        assert [answer.structured["result"] for answer in answers] == list(range(1, 201))
        with pytest.raises(InvalidInputError):
            await call(host, "add", a="one", b=1)
        with pytest.raises(FunctionMissingError):
            await call(host, "nothing")
        failed = await call(host, "fail")
        assert failed.is_error
        assert "no such thing" in failed.content[0]["text"]
        assert len((await call(host, "big", size=1_000_000)).structured["result"]) == 1_000_000


@pytest.mark.requirement("CORE-2")
async def test_a_host_call_is_denied_then_done_and_recorded_under_the_operators_call(project):
    async with runtime_host(project) as host:
        with pytest.raises(PluginLacksPermissionError) as denied:
            await call(host, "keep", value="s3cret")
        assert "storage" not in denied.value.message
    async with runtime_host(project, granted=["storage.write"]) as host:
        assert not (await call(host, "keep", value="s3cret")).is_error
        kept = await host.services.storage.get(PLUGIN, "k")
        assert kept.value.data == b'"s3cret"'
        await host.services.audit.flush()
        [record] = await host.services.audit.page(action="host_call")
        assert (record.outcome, record.detail["call"]) == ("allowed", "c-1")
        assert "s3cret" not in repr(record)
        [line] = host.services.logs.tail(PLUGIN)
        assert (line.message, line.fields) == ("keeping", {"length": 6})


@pytest.mark.requirement("CORE-6")
async def test_a_function_learns_that_nobody_waits_any_more(project):
    async with runtime_host(project) as host:
        waiting = asyncio.create_task(call(host, "wait"))
        begun = await logged(host, "waiting")
        waiting.cancel()
        await logged(host, "told to stop", after=begun.id)
        assert waiting.cancelled()
        assert (await call(host, "add", a=1, b=1)).structured == {"result": 2}


@pytest.mark.requirement("CORE-6")
async def test_a_function_that_takes_too_long_is_not_waited_for(project):
    async with runtime_host(project) as host:
        with pytest.raises(CallTimedOutError):
            await call(host, "doze", timeout_s=0.1)
        assert (await call(host, "add", a=1, b=1)).structured == {"result": 2}


async def test_calls_in_flight_fail_at_once_when_the_process_is_killed(project):
    async with runtime_host(project) as host:
        worker = (await call(host, "whoami")).structured["result"]
        calls = [asyncio.create_task(call(host, "wait")) for _ in range(4)]
        await logged(host, "waiting")
        os.kill(worker, signal.SIGKILL)
        async with asyncio.timeout(WAIT_S / 2):
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {PluginUnavailableError}


async def test_the_runtime_ends_well_when_the_host_hangs_up(project):
    async with runtime_host(project) as host:
        process = host.process
    assert process.returncode == 0
