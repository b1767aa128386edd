"""How a plugin calls another, on every host that a plugin can have."""

from contextlib import asynccontextmanager

import pytest

from tests.contract.test_host_calls import MANIFEST, reason_of
from tests.fakes.runtime_host import runtime_host
from wirthforge_sdk.testing import PluginHarness

PROBE = """
from typing import Any
from wirthforge_sdk.runtime import Plugin
from wirthforge_sdk.runtime.errors import FunctionFailedError

plugin = Plugin()

@plugin.function
def ask(other: str, what: str, arguments: dict) -> dict:
    try:
        return plugin.plugins.call(other, what, **arguments)
    except FunctionFailedError as error:
        return {"failed": error.message}

@plugin.function
def raw(params: dict) -> Any:
    return plugin._line.call("host/plugins.call", **params)
"""
OTHER = "demo/other"


def fail():
    raise ValueError("out of milk")


PLUGINS = {
    f"{OTHER}.double": lambda number: 2 * number,
    f"{OTHER}.box": lambda: {"a": [1]},
    f"{OTHER}.fail": fail,
}
NAMES = sorted(f"plugins.call:{name}" for name in PLUGINS)


@asynccontextmanager
async def in_memory(project, granted):
    async with PluginHarness(project, grants=granted, plugins=PLUGINS) as harness:
        yield harness


@asynccontextmanager
async def real(project, granted):
    async with runtime_host(project, granted, plugins=PLUGINS) as host:
        yield host


OPENERS = {"memory": in_memory, "real": real}


@pytest.fixture(params=OPENERS)
def opened(request, tmp_path):
    """Opens a host with other plugins, and some rules granted."""
    (tmp_path / "src").mkdir()
    (tmp_path / "plugin.toml").write_text(MANIFEST)
    (tmp_path / "src" / "probe.py").write_text(PROBE)
    return lambda *granted: OPENERS[request.param](tmp_path, granted)


async def test_a_plugin_gets_what_another_returned(opened):
    async with opened(*NAMES) as host:
        doubled = await host.call("ask", other=OTHER, what="double", arguments={"number": 21})
        assert doubled == {"result": 42}
        assert await host.call("ask", other=OTHER, what="box", arguments={}) == {"a": [1]}


async def test_a_failure_of_another_is_its_caller_s_to_handle(opened):
    async with opened(*NAMES) as host:
        failed = await host.call("ask", other=OTHER, what="fail", arguments={})
        assert failed == {"failed": "demo/other.fail: ValueError: out of milk"}


async def test_each_function_needs_its_own_permission(opened):
    async with opened(f"plugins.call:{OTHER}.box") as host:
        await host.call("ask", other=OTHER, what="box", arguments={})
        refused = host.call("ask", other=OTHER, what="double", arguments={"number": 1})
        assert await reason_of(refused) == ("PERMISSION_DENIED", f"plugins.call:{OTHER}.double")


async def test_a_function_there_is_not_is_not_found(opened):
    async with opened("plugins") as host:
        refused = host.call("ask", other=OTHER, what="nothing", arguments={})
        assert await reason_of(refused) == ("FUNCTION_NOT_FOUND", "")


@pytest.mark.parametrize(
    "params",
    [
        {"plugin": "no name", "function": "f"},
        {"plugin": OTHER, "function": "Not A Name"},
        {"plugin": OTHER},
        {"plugin": OTHER, "function": "box", "arguments": [1]},
    ],
)
async def test_what_can_name_no_function_is_refused(opened, params):
    async with opened("plugins") as host:
        assert await reason_of(host.call("raw", params=params)) == ("INVALID_PARAMETERS", "")
