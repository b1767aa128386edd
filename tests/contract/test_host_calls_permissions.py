"""How a plugin asks for a permission as it runs, on every host that a plugin can have."""

from contextlib import asynccontextmanager

import pytest

from tests.contract.test_host_calls import MANIFEST, reason_of
from tests.fakes.runtime_host import runtime_host
from wirthforge_sdk.testing import PluginHarness

PROBE = """
from typing import Any
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function
def look(key: str) -> str:
    plugin.request("storage.read", "to look something up")
    return str(plugin.storage.get(key))

@plugin.function
def raw(params: dict) -> Any:
    return plugin._line.call("host/permissions.request", **params)
"""


@asynccontextmanager
async def in_memory(project, granted, denied, approves):
    async with PluginHarness(project, grants=granted, denied=denied, approves=approves) as harness:
        yield harness


@asynccontextmanager
async def real(project, granted, denied, approves):
    async with runtime_host(project, granted, denied, approves=approves) as host:
        yield host


OPENERS = {"memory": in_memory, "real": real}


@pytest.fixture(params=OPENERS)
def opened(request, tmp_path):
    """Opens a host with some rules, and an operator who approves some requests."""
    (tmp_path / "src").mkdir()
    (tmp_path / "plugin.toml").write_text(MANIFEST)
    (tmp_path / "src" / "probe.py").write_text(PROBE)

    def open_with(*granted, denied=(), approves=()):
        return OPENERS[request.param](tmp_path, granted, denied, approves)

    return open_with


@pytest.mark.requirement("PERM-2")
async def test_what_an_operator_approves_is_granted_and_the_call_goes_on(opened):
    async with opened(approves=["storage.read"]) as host:
        assert await host.call("look", key="k") == {"result": "None"}
        assert await host.call("look", key="k") == {"result": "None"}


async def test_what_is_granted_already_needs_nobody(opened):
    async with opened("storage") as host:
        assert await host.call("look", key="k") == {"result": "None"}


async def test_what_an_operator_denies_is_denied(opened):
    async with opened() as host:
        assert await reason_of(host.call("look", key="k")) == ("PERMISSION_DENIED", "storage.read")


async def test_what_a_rule_denies_is_asked_of_nobody(opened):
    async with opened(denied=["storage"], approves=["storage.read"]) as host:
        assert await reason_of(host.call("look", key="k")) == ("PERMISSION_DENIED", "storage.read")


@pytest.mark.parametrize(
    "params",
    [
        {"permission": "storage.read"},
        {"permission": "storage.read", "reason": ""},
        {"permission": "storage.read", "reason": "x" * 301},
        {"permission": "storage", "reason": "all of it"},
        {"permission": "nothing.there", "reason": "why not"},
    ],
)
async def test_what_is_no_request_is_refused(opened, params):
    async with opened(approves=["storage.read"]) as host:
        assert await reason_of(host.call("raw", params=params)) == ("INVALID_PARAMETERS", "")
