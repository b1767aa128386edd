"""Profiles of plugins: what the process tells is taken as the word of a stranger, beside the host's own account."""

import asyncio

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PLUGIN, offered, world
from wirthforge_host.errors import PluginFailedError
from wirthforge_host.plugins.profiles import calls_of
from wirthforge_sdk.contracts.manifest import Function
from wirthforge_sdk.contracts.profile_api import ProfileIn
from wirthforge_sdk.errors import ConflictError

SOURCE = """
import time
from wirthforge_sdk.runtime import Plugin

plugin = Plugin()

@plugin.function
def burn(seconds: float) -> int:
    "Computes."
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        count += 1
    return count
"""
HOSTILE = f"""{SOURCE}
from wirthforge_sdk.runtime import profiling

profiling.profiled = lambda seconds, hz: {{answer}}
"""
SERVER = """
import json
import sys

def say(number, result):
    print(json.dumps({"jsonrpc": "2.0", "id": number, "result": result}), flush=True)

for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "initialize":
        say(message["id"], {"protocolVersion": "2025-11-25", "capabilities": {}})
    elif message.get("method") == "tools/list":
        say(message["id"], {"tools": [{"name": "say", "description": "Says it.", "inputSchema": {}}]})
"""
BRIEF = ProfileIn(seconds=0.5, hz=50)
STACK = '["main (a.py:1);\\x1b]0;owned\\x07work (a.py:2)\\u202e", 3, 4]'


def installed(tmp_path, source=SOURCE):
    return world(tmp_path / "h", make_package(source=source, functions=offered(SOURCE)))


@pytest.mark.requirement("CORE-10", "DEV-5", "RES-4")
async def test_a_profile_has_the_functions_the_calls_and_what_was_used_and_is_on_record(tmp_path):
    async with installed(tmp_path) as host:
        await host.install()
        long = asyncio.create_task(host.call("burn", seconds=1.5))
        looking = asyncio.create_task(
            host.wiring.profiles.profile(PLUGIN, ProfileIn(seconds=1), host.operator)
        )
        for _ in range(3):
            await host.call("burn", seconds=0.05)
        with pytest.raises(ConflictError, match="is being made"):
            await host.wiring.profiles.profile(PLUGIN, BRIEF, host.operator)
        found = await looking
        await long
        (instance,) = (await host.plugin()).instances
        assert (found.plugin, found.instance) == (PLUGIN, instance.id)
        assert found.samples >= 3
        burning = [each for each in found.stacks if "burn (" in each.stack]
        assert sum(each.cpu_us for each in burning) > 50_000
        (calls,) = found.calls
        assert (calls.function, calls.calls, calls.failed) == ("burn", 3, 0)
        assert 50 <= calls.p50_ms <= calls.p95_ms <= calls.p99_ms
        assert found.recommendations == []
        (record,) = await host.audited("plugin.profile")
        assert (record.actor, record.outcome) == ("operator:me", "allowed")
        assert record.detail == {"instance": instance.id, "seconds": 1.0, "hz": 100, "code": "ok"}


@pytest.mark.requirement("CORE-10")
@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("None", "answered with what is no result"),
        ("{'seconds': 1, 'samples': -1, 'cpu_known': True, 'stacks': []}", "samples"),
        ("{'seconds': 1e9, 'samples': 1, 'cpu_known': True, 'stacks': []}", "seconds"),
        ("{'seconds': 1, 'samples': 1, 'cpu_known': True, 'stacks': [['s', 1, 2]] * 2002}", "stacks"),
        ("{'seconds': 1, 'samples': 1, 'cpu_known': True, 'stacks': [['s' * 40000, 1, 2]]}", "stacks"),
        (
            "{'seconds': 1, 'samples': 1, 'cpu_known': True, 'stacks': [['s' * 30000, 1, 2]] * 40}",
            "over 1048576",
        ),
        ("{'seconds': 1, 'samples': 1, 'cpu_known': True, 'stacks': [['s', 1, 2**60]]}", "stacks"),
        ("{'seconds': 1, 'samples': 1, 'cpu_known': True, 'stacks': [['s', 1]]}", "stacks"),
    ],
)
async def test_what_is_no_profile_is_refused(tmp_path, answer, wrong):
    async with installed(tmp_path, HOSTILE.replace("{answer}", answer)) as host:
        await host.install()
        with pytest.raises(PluginFailedError, match=wrong):
            await host.wiring.profiles.profile(PLUGIN, BRIEF, host.operator)
        assert not (await host.call("burn", seconds=0)).is_error


async def test_what_a_terminal_would_obey_is_taken_out(tmp_path):
    answer = f"{{'seconds': 1, 'samples': 1, 'cpu_known': True, 'stacks': [{STACK}]}}"
    async with installed(tmp_path, HOSTILE.replace("{answer}", answer)) as host:
        await host.install()
        found = await host.wiring.profiles.profile(PLUGIN, BRIEF, host.operator)
        assert found.stacks[0].stack == "main (a.py:1); ]0;owned work (a.py:2) "


@pytest.mark.requirement("CORE-10")
async def test_a_program_that_is_no_plugin_of_ours_says_that_it_cannot_be_profiled(tmp_path):
    package = make_package(
        source=SERVER,
        functions=[Function(name="say", description="Says it.", input_schema={})],
        runtime='type = "mcp"\nentry = "plugin"\nprotocol = "2025-11-25"',
    )
    async with world(tmp_path / "h", package) as host:
        await host.install()
        with pytest.raises(ConflictError, match="only a plugin on our Python runtime"):
            await host.wiring.profiles.profile(PLUGIN, BRIEF, host.operator)


def test_percentiles_are_of_nearest_rank():
    ended = [("f", "ok", number / 1000) for number in range(1, 101)] + [("g", "timeout", 2.0)]
    first, second = calls_of(ended)
    assert (first.function, first.calls, first.failed) == ("f", 100, 0)
    assert (first.p50_ms, first.p95_ms, first.p99_ms) == (50.0, 95.0, 99.0)
    assert (second.calls, second.failed, second.p50_ms) == (1, 1, 2000.0)
