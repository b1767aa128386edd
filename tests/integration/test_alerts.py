"""Threat rules on a running host: what a plugin does becomes an alert, and what the policy says is done."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.fakes.packages import make_package
from tests.fakes.world import PLUGIN, World, offered, world
from wirthforge_sdk.contracts.host_api import State

NOSY = """
from wirthforge_sdk.runtime import HostRefusedError, Plugin

plugin = Plugin()


@plugin.function
def pry(times: int) -> int:
    "Asks again and again for what it was not granted."
    refused = 0
    for number in range(times):
        try:
            plugin.storage.get(f"key-{number}")
        except HostRefusedError:
            refused += 1
    return refused
"""
BOUND_S = 9.0


async def alerted(host: World) -> dict[str, object]:
    """The first alert, once it is told."""
    async with asyncio.timeout(BOUND_S), host.wiring.events.subscribe(after=0) as events:
        async for event in events:
            if event.type == "threat.alert":
                return event.data
    raise AssertionError("the events ended")


@pytest.mark.requirement("VAL-6")
async def test_a_burst_of_denials_becomes_an_alert_and_the_policys_action_is_taken(tmp_path: Path):
    policy = tmp_path / "policy.toml"
    policy.write_text('[threats.permission_denials]\nthreshold = 20\naction = "quarantine"\n')
    nosy = make_package(source=NOSY, functions=offered(NOSY))
    async with world(tmp_path / "h", nosy, policy=policy) as host:
        await host.install()
        waiting = asyncio.create_task(alerted(host))
        calling = asyncio.create_task(host.call("pry", times=40))
        plugin = await host.until(State.QUARANTINED)
        assert plugin.cause.startswith("permission_denials: ")
        told = await waiting
        await asyncio.gather(calling, return_exceptions=True)
        assert (told["rule"], told["taken"], told["state"]) == ("permission_denials", "done", "open")
        (alert,) = await host.wiring.alerts.page({"plugin": PLUGIN, "rule": "permission_denials"})
        assert alert.count >= 1
        (record, *_) = await host.audited("threat.alert")
        assert (record.actor, record.plugin) == ("host:threats", PLUGIN)
