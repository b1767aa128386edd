"""The harness authors test with: the real runtime, a host in memory, and nothing lost between them."""

import asyncio
import threading

import pytest

from tests.unit.sdk.runtime_peer import PATIENCE_S, project
from wirthforge_sdk.errors import InvalidInputError, UnavailableError
from wirthforge_sdk.runtime import Plugin
from wirthforge_sdk.testing import CallRefusedError, Event, FunctionFailedError, PluginHarness

plugin = Plugin()
began, go = threading.Event(), threading.Event()


@plugin.function
def count() -> int:
    number = plugin.storage.get("count", 0) + 1
    plugin.storage.set("count", number)
    plugin.log.info("counted", number=number)
    return number


@plugin.function
def publish(topic: str) -> None:
    plugin.events.publish(topic, {"n": 1})


@plugin.function
def fail() -> None:
    raise KeyError("gone")


@plugin.function
def block() -> bool:
    began.set()
    go.wait(PATIENCE_S)
    return plugin.cancelled()


async def test_calls_storage_and_log_work_in_async_tests():
    async with PluginHarness(plugin, grants=["storage"], storage={"count": 4}) as harness:
        assert await harness.call("count") == {"result": 5}
        assert harness.storage == {"count": 5}
        assert [(line.level, line.message, line.fields) for line in harness.logs] == [
            ("info", "counted", {"number": 5})
        ]


def test_calls_work_in_plain_tests():
    with PluginHarness(plugin, grants=["storage"]) as harness:
        assert harness.call_now("count") == {"result": 1}


@pytest.mark.requirement("DEV-4")
def test_what_is_not_granted_is_refused_and_recorded_and_a_grant_helps_at_once():
    with PluginHarness(plugin, grants=["events.publish:a.*"], denied=["events.publish:a.b"]) as harness:
        with pytest.raises(CallRefusedError) as refused:
            harness.call_now("count")
        assert (refused.value.reason, refused.value.permission) == ("PERMISSION_DENIED", "storage.read")
        with pytest.raises(CallRefusedError, match=r"events\.publish:a\.b"):
            harness.call_now("publish", topic="a.b")
        harness.call_now("publish", topic="a.c")
        harness.host.grant("storage")
        assert harness.call_now("count") == {"result": 1}
        assert harness.denials == ["storage.read", "events.publish:a.b"]
        assert harness.events == [Event("a.c", {"n": 1})]


def test_an_exception_shows_what_a_caller_sees_and_its_traceback_is_in_the_log():
    with PluginHarness(plugin) as harness:
        with pytest.raises(FunctionFailedError, match="KeyError: 'gone'"):
            harness.call_now("fail")
        assert "Traceback" in harness.logs[0].message


async def test_giving_a_call_up_tells_the_plugin():
    began.clear()
    go.clear()
    async with PluginHarness(plugin) as harness:
        call = asyncio.create_task(harness.call("block"))
        assert await asyncio.to_thread(began.wait, PATIENCE_S)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        go.set()


def test_a_call_that_takes_too_long_is_a_timeout():
    go.clear()
    with PluginHarness(plugin, timeout_s=0.05) as harness:
        with pytest.raises(TimeoutError):
            harness.call_now("block")
        go.set()


@pytest.mark.requirement("DEV-4")
def test_a_project_runs_in_a_process_of_its_own(tmp_path):
    code = "import os\nfrom wirthforge_sdk.runtime import Plugin\nplugin = Plugin()\n"
    code += "@plugin.function\ndef whoami() -> int:\n    return os.getppid()\n"
    with PluginHarness(project(tmp_path, code)) as harness:
        assert [tool["name"] for tool in harness.functions()] == ["whoami"]
        assert harness.call_now("whoami")["result"] > 0


def test_a_project_that_does_not_load_says_why(tmp_path):
    with pytest.raises(UnavailableError, match="No module named 'nothing_like_it'"):
        PluginHarness(project(tmp_path, "import nothing_like_it")).start()


def test_a_plugin_that_dies_in_a_call_refuses_it(tmp_path):
    code = "import os\nfrom wirthforge_sdk.runtime import Plugin\nplugin = Plugin()\n"
    code += "@plugin.function\ndef die() -> None:\n    os._exit(1)\n"
    with PluginHarness(project(tmp_path, code)) as harness, pytest.raises(CallRefusedError) as refused:
        harness.call_now("die")
    assert refused.value.reason == "PLUGIN_UNAVAILABLE"


def test_a_rule_that_covers_nothing_is_refused():
    with pytest.raises(InvalidInputError, match="did you mean"):
        PluginHarness(plugin, grants=["storage.raed"])


def test_it_says_how_to_start_it():
    with pytest.raises(RuntimeError, match="with statement"):
        PluginHarness(plugin).call_now("count")
