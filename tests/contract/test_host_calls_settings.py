"""Configuration and secrets, as every host gives them to a plugin; asked by a real plugin over the real protocol.

``OPENERS`` names the hosts, as in ``test_host_calls``. Each runs ``PROBE`` with rules granted, values set and secrets
set, and gives an object with ``await call(function, **arguments)``.
"""

from contextlib import asynccontextmanager

import pytest

from tests.fakes.runtime_host import PLUGIN, runtime_host
from wirthforge_host.configuration.versions import Revision
from wirthforge_sdk.contracts.manifest import parse_manifest
from wirthforge_sdk.testing import CallRefusedError, PluginHarness

MANIFEST = """
manifest_version = 1
name = "tests/probe"
version = "1.0.0"
summary = "Reads what is set."
authors = ["The WirthForge authors"]
license = "MIT"
[runtime]
type = "python"
entry = "probe:plugin"
[[permissions]]
need = "config.read"
reason = "To read it."
[[permissions]]
need = "secrets.read:api_key"
reason = "To log in."
[configuration.properties]
greeting = { type = "string", default = "Hello" }
per_day = { type = "integer", minimum = 1 }
"""

PROBE = """
from typing import Any
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function
def ask(method: str, params: dict) -> Any:
    return plugin._line.call(method, **params)

@plugin.function
def config() -> dict:
    return plugin.config.all()

@plugin.function
def one(name: str) -> Any:
    return [plugin.config.get(name, "absent"), plugin.config.get("nothing", "absent")]

@plugin.function
def secret(name: str) -> dict:
    return {"value": plugin.secrets.get(name)}
"""
GRANTED = ["config.read", "secrets.read:api_key"]


@asynccontextmanager
async def in_memory(project, granted, config, secrets):
    async with PluginHarness(project, grants=granted, config=config, secrets=secrets) as harness:
        yield harness


@asynccontextmanager
async def real(project, granted, config, secrets):
    schema = parse_manifest(MANIFEST.encode()).configuration
    async with runtime_host(project, granted) as host:
        services = host.services
        async with services.storage._database.transaction() as tx:
            if config:
                revision = Revision("operator:me", "a test")
                await services.configurations.change(tx, PLUGIN, schema, lambda _: config, revision)
            for name, value in secrets.items():
                await services.secrets.set(tx, PLUGIN, name, value, author="operator:me")
        yield host


OPENERS = {"memory": in_memory, "real": real}


@pytest.fixture(params=OPENERS)
def opened(request, tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "plugin.toml").write_text(MANIFEST)
    (tmp_path / "src" / "probe.py").write_text(PROBE)

    def open_with(*granted, config=None, secrets=None):
        return OPENERS[request.param](tmp_path, granted, config or {}, secrets or {})

    return open_with


async def reason_of(call):
    with pytest.raises(CallRefusedError) as refused:
        await call
    return refused.value.reason, refused.value.permission


async def test_a_configuration_is_what_was_set_and_defaults_for_the_rest(opened):
    async with opened(*GRANTED, config={"per_day": 3}) as host:
        assert await host.call("config") == {"greeting": "Hello", "per_day": 3}
        asked = await host.call("ask", method="host/config.get", params={})
        assert asked == {"version": 1, "values": {"greeting": "Hello", "per_day": 3}}
        assert await host.call("one", name="per_day") == {"result": [3, "absent"]}


async def test_before_anything_is_set_a_configuration_is_its_defaults_at_version_0(opened):
    async with opened(*GRANTED) as host:
        asked = await host.call("ask", method="host/config.get", params={})
        assert asked == {"version": 0, "values": {"greeting": "Hello"}}


async def test_a_secret_is_given_to_who_asks_and_one_that_is_not_set_is_told_from_an_empty_one(opened):
    async with opened("secrets", secrets={"api_key": "s3cret-é"}) as host:
        assert await host.call("secret", name="api_key") == {"value": "s3cret-é"}
        absent = await host.call("ask", method="host/secrets.get", params={"name": "other"})
        assert absent == {"found": False, "value": None}


@pytest.mark.parametrize(
    ("method", "params", "need"),
    [
        ("host/config.get", {}, "config.read"),
        ("host/secrets.get", {"name": "api_key"}, "secrets.read:api_key"),
    ],
)
async def test_each_needs_its_permission(opened, method, params, need):
    async with opened("secrets.read:other", secrets={"api_key": "s3cret"}) as host:
        assert await reason_of(host.call("ask", method=method, params=params)) == ("PERMISSION_DENIED", need)


@pytest.mark.parametrize("params", [{}, {"name": 3}, {"name": "No Name"}, {"name": "a", "more": 1}])
async def test_what_is_no_name_of_a_secret_is_refused(opened, params):
    async with opened("secrets") as host:
        refused = host.call("ask", method="host/secrets.get", params=params)
        assert await reason_of(refused) == ("INVALID_PARAMETERS", "")
